from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from recsys.errors import InputError
from recsys.models.base.family import family_module
from recsys.models.base.storage import load_arrays, save_arrays
from recsys.models.bayesian_mf import checkpoint, family
from recsys.models.bayesian_mf.config import Config
from recsys.models.bayesian_mf.evidence import auc_standard_errors, is_clearly_better, rank_auc, standard_errors
from recsys.models.bayesian_mf.threshold import adjacent_levels
from recsys.settings import parse_settings
from recsys.testing.datasets import prepared, rated
from recsys.training.trainer import train


def factor_rows(users, items, share, noise=0.6, seed=0, sessions=False):
    """Continuous ratings by two factors a side, biases and noise; in time, sessions of ten with a mood of their own."""
    random = np.random.default_rng(seed)
    p, q = random.normal(size=(users, 2)) * 0.7, random.normal(size=(items, 2)) * 0.7
    b, c = random.normal(size=users) * 0.4, random.normal(size=items) * 0.4
    rows = []
    for user in range(users):
        for position, item in enumerate(random.permutation(np.flatnonzero(random.random(items) < share))):
            if position % 10 == 0:
                mood = random.normal() * 0.7
            rating = p[user] @ q[item] + b[user] + c[item] + random.normal() * noise + (mood if sessions else 0)
            rows.append((f"u{user}", f"i{item}", round(float(rating), 4), 1000 * (position // 10) + position))
    return rows


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("bayesian"), factor_rows(120, 60, 0.5), like_threshold=0.5)


@pytest.fixture(scope="module")
def fitted(dataset):
    return train("bayesian_mf", dataset, Config(embedding_size=4), seed=0)


def test_predictive_intervals_cover_what_they_say(fitted, dataset):
    ids = dataset.user_ids[dataset.test.users], dataset.item_ids[dataset.test.items]
    error = np.abs(dataset.test.ratings - fitted.final.predict(*ids).rating)
    spread = fitted.final.predictive_std(*ids)
    for share, width in ((0.5, 0.6745), (0.8, 1.2816), (0.95, 1.96)):
        assert np.mean(error < width * spread) == pytest.approx(share, abs=0.05)


@pytest.mark.simulation
def test_the_intervals_of_users_folded_in_cover_what_they_say(tmp_path):
    rows = [row[:3] for row in factor_rows(260, 80, 0.4)]
    others = prepared(tmp_path, [row for row in rows if int(row[0][1:]) < 130], like_threshold=0.5)
    recommender = train("bayesian_mf", others, Config(embedding_size=4, samples=20), seed=0).final
    low, high = recommender.knowledge.scale
    brought, asked = [], []
    for user in range(130, 260):
        own = [row for row in rows if row[0] == f"u{user}" and low <= row[2] <= high]
        brought, asked = brought + own[:8], asked + own[8:]
    columns = [(np.array(part, object) for part in zip(*some, strict=True)) for some in (brought, asked)]
    folded = recommender.fold_in(*columns[0]).recommender
    users, items, ratings = columns[1]
    error = np.abs(ratings.astype(float) - folded.predict(users, items).rating)
    assert np.mean(error < 1.645 * folded.predictive_std(users, items)) == pytest.approx(0.9, abs=0.02)


def test_the_spread_of_an_unknown_pair_is_that_of_all_ratings(fitted):
    unknown = np.array(["nobody"], object), np.array(["i1"], object)
    assert fitted.final.predictive_std(*unknown).tolist() == [fitted.final.unit]


@pytest.mark.simulation
def test_progress_tells_the_error_of_the_running_mean(dataset):
    heard = []
    config = Config(embedding_size=4, user_noise="false", samples=20)  # as in the data; too few to end sooner
    train("bayesian_mf", dataset, config, seed=0, report=lambda *sweep: heard.append(sweep))
    assert [number for number, _ in heard] == list(range(1, len(heard) + 1))
    assert heard[-1][1]["validation_rmse"] < heard[-1][1]["sample_rmse"]
    assert 0.5 < heard[-1][1]["validation_auc"] <= 1
    kept = [metrics["draws_kept"] for _, metrics in heard]
    assert kept[:10] == [0] * 10
    assert kept[-1] == 20
    assert heard[-1][1]["train_rmse"] == pytest.approx(0.6, abs=0.05)  # the noise of the data


@pytest.mark.simulation
@pytest.mark.parametrize(("signal", "most"), [(0.0, 1.01), (0.6, 1.0)])
def test_weak_factors_are_found_and_absent_ones_cost_little(signal, most, tmp_path):
    """Against biases alone, on ratings by biases, six factors of this spread together, and noise of 0.8."""
    random = np.random.default_rng(3)
    n_users, n_items, rank = 700, 500, 6
    p, q = (random.normal(size=(n, rank)) * np.sqrt(signal) / rank**0.25 for n in (n_users, n_items))
    b, c = random.normal(size=n_users) * 0.4, random.normal(size=n_items) * 0.45
    users, items = np.nonzero(random.random((n_users, n_items)) < 0.08)
    ratings = b[users] + c[items] + (p[users] * q[items]).sum(1) + random.normal(size=len(users)) * 0.8
    rows = [(f"u{u}", f"i{i}", round(float(r), 3)) for u, i, r in zip(users, items, ratings, strict=True)]
    data = prepared(tmp_path, rows, like_threshold=0.5)
    ids = data.user_ids[data.test.users], data.item_ids[data.test.items]

    def rmse(recommender):
        return np.sqrt(np.mean((recommender.predict(*ids).rating - data.test.ratings) ** 2))

    bias = train("bias", data, parse_settings(family_module("bias").Config, {}), seed=0).final
    sampled = train("bayesian_mf", data, Config(), seed=0).final
    assert rmse(sampled) < most * rmse(bias)


@pytest.mark.simulation
@pytest.mark.parametrize("seed", range(3))
def test_where_there_is_nothing_but_biases_it_is_no_worse_than_they_are(seed, tmp_path):
    """A small set, where factors and terms that are not there can be seen in the noise."""
    random = np.random.default_rng(seed)
    n_users, n_items = 300, 250
    b, c = random.normal(size=n_users) * 0.4, random.normal(size=n_items) * 0.45
    users, items = np.nonzero(random.random((n_users, n_items)) < 0.08)
    ratings = b[users] + c[items] + random.normal(size=len(users)) * 0.8
    rows = [(f"u{u}", f"i{i}", round(float(r), 3)) for u, i, r in zip(users, items, ratings, strict=True)]
    data = prepared(tmp_path, rows, like_threshold=0.5)
    ids = data.user_ids[data.test.users], data.item_ids[data.test.items]

    def rmse(recommender):
        return np.sqrt(np.mean((recommender.predict(*ids).rating - data.test.ratings) ** 2))

    bias = train("bias", data, parse_settings(family_module("bias").Config, {}), seed=0).final
    sampled = train("bayesian_mf", data, Config(), seed=seed).final
    assert rmse(sampled) < 1.01 * rmse(bias)


@pytest.mark.simulation
def test_what_validation_chooses_does_not_depend_on_the_moments_of_its_rows(tmp_path):
    """A server does not know them. In these rows they say more than all the rest: asked with them, time would help."""
    moody = prepared(tmp_path, factor_rows(120, 60, 0.5, sessions=True), like_threshold=0.5)
    elsewhere = replace(moody.validation, timestamps=moody.validation.timestamps + 1e6)
    config = Config(embedding_size=4, samples=12)
    fitted = [
        train("bayesian_mf", dataset, config, seed=0, refit=False).chosen
        for dataset in (moody, moody.holding(validation=elsewhere))
    ]
    assert not fitted[0].uses_time
    assert fitted[0].choices() == fitted[1].choices()
    assert fitted[0].threshold == fitted[1].threshold
    np.testing.assert_array_equal(fitted[0].draws.users, fitted[1].draws.users)


@pytest.mark.simulation
def test_moods_tell_of_their_own_moment_and_are_kept_only_if_they_help_without(fitted, tmp_path):
    """A server is asked about moments after all sessions, so that is how the validation rows are predicted."""
    moody = prepared(tmp_path, factor_rows(400, 60, 0.5, sessions=True), like_threshold=0.5)
    with_time = train("bayesian_mf", moody, Config(embedding_size=4, samples=12, time="true"), seed=0).final
    chosen = train("bayesian_mf", moody, Config(embedding_size=4, samples=12), seed=0).final
    without = train("bayesian_mf", moody, Config(embedding_size=4, samples=12, time="false"), seed=0).final
    assert with_time.choices()["time"]
    assert not without.choices()["time"]
    assert not fitted.final.choices()["time"]
    ids = moody.user_ids[moody.test.users], moody.item_ids[moody.test.items]

    def rmse(recommender, moments):
        return np.sqrt(np.mean((recommender.predict(*ids, moments).rating - moody.test.ratings) ** 2))

    moments = moody.test.timestamps
    assert rmse(with_time, moments) < 0.95 * rmse(without, moments)
    assert rmse(with_time, None) == pytest.approx(rmse(without, None), rel=0.05)
    assert rmse(chosen, None) < 1.01 * min(rmse(with_time, None), rmse(without, None))
    assert rmse(without, moments) == rmse(without, None)


@pytest.mark.simulation
def test_who_rated_what_is_learnt_from_where_it_tells_something(tmp_path):
    """Two groups of users meet the items of their group more often, and like them better."""
    random = np.random.default_rng(0)
    rows = []
    for user, item in np.ndindex(900, 60):  # with 300 users the choice is right for two seeds of three
        own = user % 2 == item % 2
        if random.random() < (0.15 if own else 0.05):
            rows.append((f"u{user}", f"i{item}", round(2 * own + random.normal(), 3)))
    groups = prepared(tmp_path, rows, like_threshold=1.0)
    assert train("bayesian_mf", groups, Config(embedding_size=4, samples=2), seed=0).final.implicit


@pytest.mark.parametrize("setting", ["implicit", "time", "user_noise"])
@pytest.mark.parametrize("value", ["true", "false"])
def test_terms_can_be_set(dataset, setting, value):
    config = Config(embedding_size=2, samples=1).model_copy(update={setting: value})
    assert train("bayesian_mf", dataset, config, seed=0, refit=False).final.choices()[setting] == (value == "true")


def test_time_without_timestamps_is_refused(tmp_path):
    timeless = prepared(tmp_path, rated(20, 20, 1, 5))
    with pytest.raises(InputError, match="parameter 'time': true needs ratings with timestamps"):
        train("bayesian_mf", timeless, Config(time="true"), seed=0)


class StoppedError(Exception):
    pass


def stop_after(last):
    def report(sweep, metrics):
        if sweep == last:
            raise StoppedError

    return report


@pytest.mark.simulation
def test_a_stopped_training_goes_on_to_the_same_end(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    monkeypatch.setattr(family, "has_settled", lambda *_: True)  # what a chain goes on for beyond is not saved
    sweeps, heard = [], []
    config = Config(embedding_size=4, samples=12)
    whole = train("bayesian_mf", dataset, config, seed=3, report=lambda sweep, metrics: sweeps.append(sweep))
    kept = Config(embedding_size=4, samples=12, chain=str(tmp_path))
    last = sweeps[-1] - 4
    for stop in (5, last):
        with pytest.raises(StoppedError):
            train("bayesian_mf", dataset, kept, seed=3, report=stop_after(stop))
    resumed = train("bayesian_mf", dataset, kept, seed=3, report=lambda sweep, metrics: heard.append(sweep))
    assert heard[-5:] == sweeps[-5:]
    assert last - 1 not in heard
    ids = dataset.user_ids[dataset.test.users], dataset.item_ids[dataset.test.items]
    for one, other in ((whole.chosen, resumed.chosen), (whole.final, resumed.final)):
        first, second = one.predict(*ids, dataset.test.timestamps), other.predict(*ids, dataset.test.timestamps)
        assert first.rating.tolist() == second.rating.tolist()
        assert first.like_probability.tolist() == second.like_probability.tolist()


NO_TRIALS = {"embedding_size": 2, "implicit": "false", "time": "false", "user_noise": "true"}


def test_a_finished_chain_can_be_made_longer_and_another_one_is_not_touched(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(family, "has_settled", lambda precisions: True)

    def fit(samples, seed=3):
        config = Config(samples=samples, chain=str(tmp_path), **NO_TRIALS)
        heard = []
        train("bayesian_mf", dataset, config, seed=seed, refit=False, report=lambda *sweep: heard.append(sweep[0]))
        return heard

    first = fit(3)
    assert first[0] == 1
    assert fit(3) == []
    assert fit(5)[0] == first[-1] + 1
    assert fit(3, seed=4)[0] == 1
    assert len(list(tmp_path.iterdir())) == 2


def test_a_chain_that_has_not_settled_goes_on_as_long_again_and_keeps_the_draws_that_follow(dataset, monkeypatch):
    def fit(samples, is_settled):
        monkeypatch.setattr(family, "has_settled", lambda precisions: is_settled)
        monkeypatch.setattr(family, "REFIT_GROWTH", 100.0)
        monkeypatch.setattr(family, "simplest_that_does", lambda sampled, *_: sampled)
        config, heard = Config(samples=samples, **NO_TRIALS), []
        fitted = train("bayesian_mf", dataset, config, seed=3, refit=False, report=lambda *sweep: heard.append(sweep))
        return fitted.final, [sweep for sweep, _ in heard]

    once, sweeps = fit(4, True)
    again, more = fit(4, False)
    longer, all_sweeps = fit(8, True)
    assert more[: len(sweeps)] == sweeps
    assert more == all_sweeps
    assert len(again.draws) == len(once.draws) == 4
    assert again.draws.precision.tolist() == longer.draws.precision[4:].tolist()


def test_a_damaged_state_is_refused(dataset, tmp_path):
    config = Config(embedding_size=2, samples=1, chain=str(tmp_path), implicit="false", time="false")
    train("bayesian_mf", dataset, config, seed=3, refit=False)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="delete the file to start anew"):
        train("bayesian_mf", dataset, config, seed=3, refit=False)


def test_a_state_that_lacks_a_field_is_refused(dataset, tmp_path):
    config = Config(embedding_size=2, samples=1, chain=str(tmp_path), implicit="false", time="false")
    train("bayesian_mf", dataset, config, seed=3, refit=False)
    (path,) = tmp_path.iterdir()
    arrays = load_arrays(path)
    for field in ("chain_users_width", "kept_second"):
        save_arrays(path, **{name: values for name, values in arrays.items() if name != field})
        with pytest.raises(InputError, match=f"{field.removeprefix('chain_')}.*delete the file to start anew"):
            train("bayesian_mf", dataset, config, seed=3, refit=False)


def test_the_folder_of_a_chain_is_given_by_its_absolute_path():
    with pytest.raises(InputError, match="parameter 'chain': expected the absolute path of a folder, or none"):
        parse_settings(Config, {"chain": "here"})


def test_a_gpu_that_is_not_there_is_refused(dataset, monkeypatch):
    monkeypatch.setattr("recsys.runtime.device.has_gpu", lambda: False)
    with pytest.raises(InputError, match="parameter 'device': cuda needs a GPU"):
        train("bayesian_mf", dataset, Config(device="cuda"), seed=0)


def test_the_threshold_is_found_where_likes_begin(tmp_path):
    """Ratings of 1 to 5 from a continuous opinion whose fourth level begins at 3.2, not half-way at 3.5."""
    random = np.random.default_rng(0)
    b, c = random.normal(size=150) * 0.9, random.normal(size=60) * 0.9
    rows = []
    for user in range(150):
        for item in np.flatnonzero(random.random(60) < 0.5):
            opinion = 3 + b[user] + c[item] + random.normal() * 0.6
            rows.append((f"u{user}", f"i{item}", 1 + int(np.searchsorted([1.5, 2.5, 3.2, 4.5], opinion))))
    dataset = prepared(tmp_path, rows)
    recommender = train("bayesian_mf", dataset, Config(embedding_size=2, samples=10), seed=0).final
    assert 3 < recommender.threshold < 3.5
    liked = dataset.likes(dataset.test)
    like = recommender.predict(dataset.user_ids[dataset.test.users], dataset.item_ids[dataset.test.items])[1]
    for group in np.array_split(np.argsort(like), 5):
        assert like[group].mean() == pytest.approx(liked[group].mean(), abs=0.07)


def test_the_levels_beside_the_threshold():
    assert adjacent_levels(np.array([1.0, 3, 4, 5]), 4) == (3, 4)
    assert adjacent_levels(np.array([4.0, 5]), 4) == (4, 4)


def test_standard_errors_count_users_and_not_rows():
    gain, alone = np.array([1.0, 3.0, 1.0, 3.0]), np.arange(4, dtype=np.int32)
    assert standard_errors(gain, alone) == pytest.approx(4.0)  # a mean of 2, and a root of four squares of 1 over 4
    assert standard_errors(gain, np.array([0, 1, 0, 1], np.int32)) == pytest.approx(4 / 2**0.5)
    assert standard_errors(gain[:0], alone[:0]) == 0


def test_standard_errors_of_an_auc_are_those_of_users_drawn_again():
    random = np.random.default_rng(0)
    users = np.repeat(np.arange(300), 4)
    liked = random.random(1200) < 0.4
    taste = np.repeat(random.normal(size=300), 4)
    better, worse = liked + random.normal(size=1200) + 0.3 * taste, np.round(liked + 2 * random.normal(size=1200))
    drawn = []
    for _ in range(200):
        rows = (random.integers(0, 300, 300)[:, None] * 4 + np.arange(4)).ravel()
        drawn.append(rank_auc(liked[rows], better[rows]) - rank_auc(liked[rows], worse[rows]))
    gain = roc_auc_score(liked, better) - roc_auc_score(liked, worse)
    assert auc_standard_errors(liked, better, worse, users) == pytest.approx(gain / np.std(drawn), rel=0.2)
    assert auc_standard_errors(np.ones(1200, bool), better, worse, users) == 0


def test_a_gain_is_clear_if_nothing_else_is_lost():
    assert is_clearly_better(1.2, -0.5, 0.0)
    assert not is_clearly_better(3.0, -1.2, 0.0)
    assert not is_clearly_better(0.9, 0.9, 0.9)


def test_rank_auc_is_the_area_under_the_curve():
    random = np.random.default_rng(0)
    liked, score = random.random(200) < 0.3, random.random(200)
    assert rank_auc(liked, score) == pytest.approx(roc_auc_score(liked, score))
    assert rank_auc(np.ones(3, bool), score[:3]) is None
