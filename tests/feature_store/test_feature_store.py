"""The features of prepare in Feast: every value of them, none lost in the join, and the same numbers when served."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

pytest.importorskip("feast", reason="pip install -r src/recsys/feature_store/requirements.txt")

from recsys.data.parquet_store import SIDES, feature_names
from recsys.errors import InputError
from recsys.feature_store import offline, online
from recsys.feature_store.offline import PointInTime
from recsys.feature_store.store import MOMENT, Origin, Store
from recsys.models import random_forest
from recsys.models.base.loading import load_recommender
from recsys.serving import stored_scores
from recsys.serving.compact import make_form
from recsys.serving.http import ProblemError
from recsys.serving.scores import _score
from recsys.serving.service import POINTER, Service
from recsys.serving.settings import ServingSettings
from recsys.testing.datasets import rated
from recsys.training.trainer import train
from tests.feature_store.conftest import timed

CONFIG = random_forest.Config(n_estimators=5)


@pytest.fixture
def made(dataset, store):
    online.materialize(dataset, store)
    return store


@pytest.fixture
def join(dataset, made):
    rows = dataset.train
    stored = PointInTime(made, dataset)
    return lambda: stored.table(dataset.user_ids[rows.users], dataset.item_ids[rows.items], rows.timestamps)


def known_before(dataset):
    """What is known of each training row's user and item from the rows of earlier moments, counted one by one."""
    rows, table = dataset.train, []
    everyone = rows.ratings.mean(), rows.ratings.std()
    for k in range(len(rows)):
        found = []
        for codes in (rows.users, rows.items):
            own = rows.ratings[(codes == codes[k]) & (rows.timestamps < rows.timestamps[k])]
            n = len(own)
            found += [own.mean() if n else everyone[0], own.std() if n > 1 else everyone[1], n, n]
        table.append(found)
    return np.array(table)


def test_the_views_have_prepare_s_columns_and_the_online_store_each_of_its_values(dataset, made):
    for side, ids in (("user", dataset.user_ids), ("item", dataset.item_ids)):
        table = pq.read_table(dataset.folder / f"{side}s.parquet")
        view = made.feast.get_feature_view(f"{side}_features")
        assert [field.name for field in view.features] == list(feature_names(side)) == table.column_names[1:]
        found = online.read(made, side, ids)
        for column, name in enumerate(feature_names(side)):
            assert found[:, column].tolist() == table[name].to_pylist()
    assert np.isnan(online.read(made, "user", np.array(["nobody"], object))).all()


def test_the_last_of_each_history_is_what_prepare_wrote(dataset, made):
    for side in SIDES:
        history = pq.read_table(made.offline_file(side, dataset.digest)).to_pandas()
        last = history.groupby(f"{side}_id").tail(1).set_index(f"{side}_id").drop(columns=MOMENT)
        table = pq.read_table(dataset.folder / f"{side}s.parquet").to_pandas().set_index(f"{side}_id")
        pd.testing.assert_frame_equal(last.sort_index(), table.sort_index(), check_exact=True)


def test_each_rating_is_joined_with_what_was_known_before_it(dataset, join):
    assert join() == pytest.approx(known_before(dataset), abs=1e-9)


def test_few_ids_at_a_time_give_the_same(join, monkeypatch):
    whole = join()
    monkeypatch.setattr(offline, "_MOST_PAIRS", 1000)
    assert (join() == whole).all()


def test_feast_s_own_join_loses_rows_that_ours_keeps(dataset, made, join):
    """Should it keep them one day, the detour can go."""
    rows = dataset.train
    asked = pd.DataFrame(
        {
            "user_id": dataset.user_ids[rows.users],
            "row": np.arange(len(rows)),
            MOMENT: pd.to_datetime(rows.timestamps.astype(np.int64), unit="s", utc=True),
        }
    )
    assert asked.duplicated(["user_id", MOMENT]).any()
    answered = made.feast.get_historical_features(asked, made.references("user")).to_df()
    assert len(answered) < len(asked) == len(join())


def test_rows_that_the_store_does_not_answer_fail_loudly(dataset, made, join):
    path = made.offline_file("user", dataset.digest)
    table = pq.read_table(path)
    someone = table["user_id"][0].as_py()
    pq.write_table(table.filter(np.array([name != someone for name in table["user_id"].to_pylist()])), path)
    with pytest.raises(InputError, match=r"moments of users were asked for|features of users are missing"):
        join()


def test_a_value_that_did_not_arrive_ends_materialize_and_the_store_is_not_ready(dataset, store, monkeypatch):
    whole = store.materialize

    def lose_one():
        path = store.offline_file("item", dataset.digest)
        table = pq.read_table(path)
        pq.write_table(table.filter(np.array([name != "i7" for name in table["item_id"].to_pylist()])), path)
        whole()

    monkeypatch.setattr(store, "materialize", lose_one)
    with pytest.raises(InputError, match="the online store has features of 19 of 20 items, and 19 are the dataset's"):
        online.materialize(dataset, store)
    with pytest.raises(InputError, match="materialize did not end; run it again"):
        store.origin()


def test_a_forest_learns_from_the_store_and_answers_from_it_with_the_same_bits(dataset, made, tmp_path):
    stored = PointInTime(made, dataset)
    train("random_forest", dataset, CONFIG, seed=1, stored=stored).final.save(tmp_path / "forest")
    forest, served = (load_recommender(tmp_path / "forest") for _ in range(2))
    assert forest.stored == {"dataset": dataset.digest, "prepared": dataset.manifest["created"]}
    own = served.features
    served.features = online.OnlineFeatures(own.user, own.item, served.knowledge, made)
    pairs = [np.repeat(dataset.user_ids, 20), np.tile(dataset.item_ids, 30)]
    for one, other in zip(forest.predict(*pairs), served.predict(*pairs), strict=True):
        assert one.tolist() == other.tolist()


def test_what_was_learnt_at_moments_is_not_what_is_learnt_from_folds(dataset, made):
    pairs = [dataset.user_ids[:20], dataset.item_ids]
    forests = [
        train("random_forest", dataset, CONFIG, seed=1, stored=stored, lists=False, refit=False).final
        for stored in (PointInTime(made, dataset), None)
    ]
    assert forests[1].stored is None
    assert (forests[0].predict(*pairs).rating != forests[1].predict(*pairs).rating).any()


def test_other_families_and_other_datasets_are_refused(dataset, made, prepare_rows):
    from recsys.models import bias

    stored = PointInTime(made, dataset)
    with pytest.raises(InputError, match="'feature_store': random_forest learns from one, got family 'bias'"):
        train("bias", dataset, bias.Config(), seed=1, stored=stored)
    other = prepare_rows(timed(seed=4))
    with pytest.raises(InputError, match=rf"of dataset {dataset.digest[:12]}, the training is of {other.digest[:12]}"):
        PointInTime(made, other)


def test_a_store_that_is_not_there_is_told(store):
    with pytest.raises(InputError, match="there is no feature store; run the entry point materialize"):
        store.origin()


def test_features_older_than_the_version_are_refused_with_both_dates(made):
    mine = made.origin()
    made.check_not_older("version 3", mine)
    made.check_not_older("version 3", Origin("d" * 32, "2020-01-01T00:00:00+00:00"))
    with pytest.raises(InputError) as caught:
        made.check_not_older("version 3", Origin("d" * 32, "2199-01-01T00:00:00+00:00"))
    assert f"features are of {mine.prepared}, version 3 learnt from those of 2199-01-01T00:00:00+00:00" in str(
        caught.value
    )


def test_moments_are_needed_and_in_seconds(prepare_rows, store):
    with pytest.raises(InputError, match="features at a moment need timestamps, and it has none"):
        online.materialize(prepare_rows(rated(20, 20, 1, 5, step=1)), store)
    rows = [(*row, 1_600_000_000_000 + number) for number, row in enumerate(rated(20, 20, 1, 5, step=1))]
    with pytest.raises(InputError, match=r"timestamps in seconds since 1970, before the year 2200, are needed"):
        online.materialize(prepare_rows(rows), store)
    assert list(store.folder.glob("*.parquet")) == []


def test_an_account_without_a_password_is_told(tmp_path):
    with pytest.raises(InputError, match="an account with a password is needed"):
        Store(tmp_path, "mysql+pymysql://anna@host/features")


@pytest.mark.parametrize("url", ["mysql://a@b/c", "mysql+pymysql://host", "sqlite:///x"])
def test_a_database_that_is_none_is_told(tmp_path, url):
    with pytest.raises(InputError, match=r"RECSYS_FEATURE_DATABASE: a URL such as mysql\+pymysql://"):
        Store(tmp_path, url)


def test_the_newest_features_take_the_place_of_those_before(dataset, made, prepare_rows, tmp_path):
    newer = prepare_rows([*timed(), ("u new", "i0", 5.0, 1_600_000_900), ("u new", "i1", 1.0, 1_600_000_901)])
    assert newer.digest != dataset.digest
    online.materialize(newer, made)
    assert made.origin().dataset == newer.digest
    assert {path.name for path in made.folder.glob("*.parquet")} == {
        f"{side}_features-{newer.digest[:12]}.parquet" for side in SIDES
    }


def test_a_server_scores_from_the_store(dataset, made, tmp_path, monkeypatch):
    stored = PointInTime(made, dataset)
    forest = train("random_forest", dataset, CONFIG, seed=1, stored=stored).final
    folder = tmp_path / "serving"
    form = folder / "forms" / "one"
    make_form(forest, form, {"version": "1", "model": "recsys"}, max_loss=1)
    assert stored_scores.keep_scorer(forest, form, str(made.folder), "")
    (folder / POINTER).write_text(json.dumps({"form": "forms/one"}))
    service = Service(ServingSettings(folder=str(folder), feature_store=str(made.folder), record=False))
    try:
        service.follow()
        assert service.problem == ""
        pairs = [(user, item) for user in dataset.user_ids[:5] for item in dataset.item_ids[:5]]
        expected = forest.predict(*(np.array(side, object) for side in zip(*pairs, strict=True)))
        found = _score(service, service.current(), [*pairs, ("nobody", "i0")])
        for one, other in zip(expected, found, strict=True):
            assert other[:-1].tolist() == one.tolist()
            assert np.isfinite(other[-1])
        monkeypatch.setattr(online, "read", lambda _store, _side, ids: np.full((len(ids), 4), np.nan))
        with pytest.raises(ProblemError, match="the online store has no features of user 'u0'; run materialize"):
            _score(service, service.current(), pairs)
    finally:
        service.close()


def test_a_version_that_learnt_from_no_store_is_served_without(dataset, made, tmp_path):
    forest = train("random_forest", dataset, CONFIG, seed=1, lists=False).final
    assert not stored_scores.keep_scorer(forest, tmp_path, str(made.folder), "")
    assert stored_scores.load_scorer(tmp_path, str(made.folder), "") is None


def test_a_store_older_than_the_version_is_refused_where_it_is_to_be_served(dataset, made, tmp_path):
    stored = PointInTime(made, dataset)
    forest = train("random_forest", dataset, CONFIG, seed=1, stored=stored, lists=False).final
    forest.stored = {"dataset": "d" * 32, "prepared": "2199-01-01T00:00:00+00:00"}
    with pytest.raises(InputError, match=r"its features are of .*, the version learnt from those of 2199"):
        stored_scores.keep_scorer(forest, tmp_path, str(made.folder), "")


def test_the_team_s_mysql_has_the_same_values(dataset, mariadb, tmp_path):
    place = mariadb.new_database("features").rpartition("@")[2]
    user = "'feast'@'%'"
    mariadb.execute(f"drop user if exists {user}", f"create user {user} identified by 'geh%im'")
    mariadb.execute(f"grant all on features.* to {user}")
    store = Store(tmp_path / "features", f"mysql+pymysql://feast:geh%25im@{place}")
    assert online.materialize(dataset, store) == {"users": 30.0, "items": 20.0}
    assert online.read(store, "item", dataset.item_ids)[:, 0].tolist() == dataset.features.item.average.tolist()
    assert not (store.folder / "online.db").exists()
    wrong = Store(tmp_path / "features", f"mysql+pymysql://feast:falsch@{place}")
    with pytest.raises(InputError, match=r"RECSYS_FEATURE_DATABASE: .*Access denied for user 'feast'") as caught:
        online.read(wrong, "item", dataset.item_ids)
    assert "falsch" not in str(caught.value)
