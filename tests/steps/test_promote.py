"""Promote, rollback and history as a user meets them, on a registry of small models."""

import json
import re
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from recsys.data.dataset import newest_dataset
from registry import documents, integrity
from tests.support.pipeline import VERSION_TAGS, Store, grid, write_csv

FACTORS = {"family": "matrix_factorization", "embedding_size": 4, "batch_size": 64, "patience": 50}
ANY = {"max_rmse": 4, "beat_bias": False}


def write_taste(path, users=40, items=30, seed=0):
    """Ratings from 1 to 5 by taste: factors find what biases cannot."""
    random = np.random.default_rng(seed)
    of_user, of_item = random.choice([-1, 1], users), random.choice([-1, 1], items)
    rows = []
    for user in range(users):
        for item in random.choice(items, items * 3 // 4, replace=False):
            rating = np.clip(np.round(3 + 1.5 * of_user[user] * of_item[item] + random.normal(0, 0.5)), 1, 5)
            rows.append((f"u{user}", f"i{item}", rating))
    return write_csv(path, rows)


@pytest.fixture
def trained(store, step):
    """A store with version 1, biases, and version 2, factors that are clearly better."""
    write_taste(store.home / "my.csv")
    step("train", ratings="my.csv", family="bias")
    step("train", ratings="my.csv", **FACTORS)
    return store


@pytest.fixture
def said(capsys):
    """What was printed since it was last asked."""
    return lambda: capsys.readouterr().out


def in_production(store: Store) -> dict[str, object]:
    found = store.client.search_model_versions("name = 'recsys'")
    alias = store.client.get_registered_model("recsys").aliases.get("champion")
    stage = [int(version.version) for version in found if version.current_stage == "Production"]
    return {"alias": None if alias is None else int(alias), "stage": stage}


def decision_of(store: Store, name: str = "promote") -> dict:
    run = store.run_named(name)
    assert run.info.status == "FINISHED"
    with open(store.client.download_artifacts(run.info.run_id, "decision.json")) as file:  # noqa: PTH123
        return json.load(file)


def at(number):
    return {"alias": number, "stage": [number]}


def test_a_life_in_production(trained, step, said):
    """Promoted, improved upon with evidence, rolled back, kept out, asked back: and the history tells it all."""
    step("promote", version=1, **ANY)
    assert in_production(trained) == at(1)
    said()
    step("promote", dry_run=True, confidence=0.95, **ANY)
    dry = said()
    assert "dry run, nothing is moved: version 2 (matrix_factorization) replaces" in dry
    assert in_production(trained) == at(1)

    step("promote", confidence=0.95, **ANY)
    shown = said()
    assert in_production(trained) == at(2)
    sentence = next(line for line in shown.splitlines() if line.startswith("version 2 (matrix_factorization) replaces"))
    assert re.search(
        r"replaces version 1 \(bias\): AUC \d\.\d{4} against 0\.\d{4} on \d+ test ratings, \+0\.\d{4} "
        r"\(95% interval \+0\.\d{4} to \+0\.\d{4}\)$",
        sentence,
    )
    record = decision_of(trained)
    assert (record["outcome"], record["from"], record["to"], record["why"]) == ("promoted", 1, 2, sentence)
    assert record["policy"]["confidence"] == 0.95
    assert len(record["commit"]) == 40
    assert record["who"]
    winner = next(candidate for candidate in record["candidates"] if candidate["version"] == 2)
    assert winner["test_digest"] == record["dataset"]["test_digest"]
    assert winner["difference_to_champion"]["low"] > 0
    assert all(guard["passed"] for guard in winner["guards"].values())
    artifacts = trained.artifacts(trained.run_named("promote"))
    assert artifacts == {"decision.json", "comparison.csv", "plots/comparison.png"}

    step("report")
    page = (trained.home / "report.html").read_text(encoding="utf-8")
    assert f"{sentence[:1].upper()}{sentence[1:]}." in page.replace("&#43;", "+")
    assert "recsys: version 2 (matrix_factorization)" in page
    assert "Lists for three users" in page
    assert trained.run_named("report: version 2").data.tags["mlflow.note.content"].endswith(sentence)
    step("report", version=1, output="first.html")
    assert "recsys: version 1 (bias)" in (trained.home / "first.html").read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        step("report", run="0" * 32)

    step("rollback")
    assert "version 1 (bias) is back in place of version 2 (matrix_factorization)" in said()
    assert in_production(trained) == at(1)
    assert decision_of(trained, "rollback")["outcome"] == "rolled_back"
    step("promote", **ANY)
    assert in_production(trained) == at(1)
    assert "version 2 is no candidate: it was rolled back by" in said()
    step("promote", version=2, **ANY)
    assert in_production(trained) == at(2)

    said()
    step("history")
    told = said()
    assert re.findall(r"version (\d), by", told) == ["1", "2", "1", "2"]
    assert " to now " in told
    assert "decisions that changed nothing: 2" in told
    step("history", every=True)
    assert "dry_run, by" in said()


def test_what_was_measured_is_remembered_and_a_pipeline_may_ask_for_a_promotion(trained, step, capsys):
    step("promote", require_promotion=True)
    runs = len(trained.runs())
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        step("promote", require_promotion=True)
    assert ended.value.code == 3
    assert capsys.readouterr().err.startswith("promote: nobody was promoted: version 2 (matrix_factorization) stays")
    assert len(trained.runs()) == runs + 1
    assert decision_of(trained)["outcome"] == "kept"


def test_a_version_that_learnt_from_test_rows_is_refused_with_their_number(store, step, said):
    """Another seed of a random split makes other test rows, most of which the first version has seen."""
    write_taste(store.home / "my.csv")
    step("train", ratings="my.csv", **FACTORS, split="random", seed=1)
    step("train", ratings="my.csv", **FACTORS, split="random", seed=2)
    step("promote", **ANY)
    test = newest_dataset(store.data / "prepared").test
    found = re.search(r"version 1 is no candidate: it learnt from (\d+) of the (\d+) test ratings", said())
    assert int(found[2]) == len(test)
    assert 0.6 < int(found[1]) / len(test) < 1
    assert in_production(store) == at(2)


def test_with_the_hash_split_a_grown_file_never_refuses_an_older_version(store, step, said):
    rows = [line.split(",") for line in write_taste(store.home / "my.csv").read_text().splitlines()[1:]]
    write_csv(store.home / "my.csv", rows[: len(rows) // 2])
    step("train", ratings="my.csv", **FACTORS)
    write_csv(store.home / "my.csv", rows)
    step("train", ratings="my.csv", **FACTORS)
    step("promote", **ANY)
    assert "learnt from" not in said()


def test_damaged_and_foreign_versions_are_named_and_never_get_to_production(trained, step, capsys):
    client = MlflowClient(trained.uri, trained.uri)
    client.create_model_version("recsys", "s3://bucket/model", tags={"by": "another tool"})
    client.create_model_version("recsys", str(trained.home / "nothing"), tags=VERSION_TAGS)
    step("promote")
    shown = capsys.readouterr().out
    assert "version 3 is no candidate: it was not registered by recsys" in shown
    assert "version 4 is no candidate: version 4 of 'recsys' cannot be loaded" in shown
    assert in_production(trained) == at(2)
    assert dict(client.get_model_version("recsys", "3").tags) == {"by": "another tool"}
    assert "cannot be loaded" in refused(capsys, step, "rollback", version=4)
    assert in_production(trained) == at(2)


def test_where_a_folder_of_artifacts_is_away_it_is_named_and_the_champion_stays(trained, step, capsys, said):
    step("promote", version=2, **ANY)
    (found,) = MlflowClient(trained.uri).search_model_versions("name = 'recsys' and version_number = 2")
    model = MlflowClient(trained.uri).get_logged_model(found.source.removeprefix("models:/"))
    place = Path(unquote(urlsplit(model.artifact_location).path))
    place.rename(place.with_name("elsewhere"))
    for name, parameters in (("recommend", {}), ("retrain", {"force": True, "model_name": "recsys"})):
        told = refused(capsys, step, name, **parameters)
        assert "version 2 of 'recsys' cannot be loaded: its " in told
        assert f"cannot be had from {model.artifact_location}; bring back to that place what was logged there" in told
    step("prepare", ratings="my.csv", like_threshold=3)  # on which no version was measured
    step("promote", version=2, dataset=newest_dataset(trained.data / "prepared").digest, **ANY)
    assert "nothing is changed" in said()
    assert in_production(trained) == at(2)
    assert "version 2 of 'recsys' cannot be loaded" in refused(capsys, step, "report")  # of the decision that measured
    place.with_name("elsewhere").rename(place)
    step("promote", **ANY)
    assert in_production(trained) == at(2)


def test_a_champion_that_is_deleted_is_not_said_to_be_in_production(trained, step, said, capsys):
    step("promote", version=2, **ANY)
    trained.client.delete_model_version("recsys", "2")
    said()
    step("history")
    told = said()
    assert " to unknown           version 2, by" in told
    assert "to now" not in told
    assert told.splitlines()[-1] == "no version is in Production"
    assert "version 2 of 'recsys', which the decision is about, is gone from the registry; run promote again" in (
        refused(capsys, step, "report")
    )


def test_repair_finishes_a_half_done_promotion(trained, step, said):
    step("promote", version=1, **ANY)
    trained.client.set_registered_model_alias("recsys", "champion", "2")  # and there the process died
    said()
    step("history")
    assert "version 2 is in Production, which no record explains: somebody moved it by hand" in said()
    step("promote", repair=True)
    assert said().startswith("repaired: version 2 is the champion as things stand")
    assert in_production(trained) == at(2)
    step("promote", repair=True)
    assert said().startswith("nothing to repair")


def test_a_version_measured_by_an_earlier_release_is_measured_again(trained, step, said):
    """It is in Production by what it did with the rows' timestamps; as served it has lost to version 2."""
    step("promote", version=1, **ANY)
    run = trained.client.get_run(trained.client.get_model_version("recsys", "1").run_id)
    (kept,) = Path(run.info.artifact_uri, "version").glob("evaluation.as-served.*.json")
    timed = json.loads(kept.read_text())["metrics"] | {"auc": 0.9999, "auc_per_user": 0.9999}
    kept.unlink()
    documents._read.cache_clear()
    key = kept.stem.replace("as-served.", "")
    trained.client.set_model_version_tag("recsys", "1", key, json.dumps(timed))
    said()
    step("promote", **ANY)
    assert "version 1 (bias) on" in said()
    assert in_production(trained) == at(2)


def test_the_record_says_how_sure_and_how_often_this_test_set_decided(trained, step, said, monkeypatch):
    monkeypatch.setattr("steps.support.decision_record._MANY_PROMOTIONS", 2)
    step("promote", version=1, **ANY)
    first = decision_of(trained)
    assert (first["dataset"]["earlier_promotions"], first["dataset"]["measured"]) == (0, "as-served")
    assert "decided on this test set" not in said()
    step("promote", **ANY)
    shown = said()
    assert re.search(r"how sure: version 2 is ahead of version 1, the champion before, in 100% of the draws", shown)
    record = decision_of(trained)
    assert record["dataset"]["earlier_promotions"] == 1
    assert record["certainty"]["other"] == 1
    assert record["certainty"]["comparison"]["ahead"] == 1
    winner = next(candidate for candidate in record["candidates"] if candidate["version"] == 2)
    assert winner["corrected_for_many"]["compared"] == 1
    low, high = winner["guards"]["max_auc_per_user_drop"]["interval"]
    assert low <= winner["metrics"]["auc_per_user"] <= high
    step("promote", **ANY)
    assert "note: 2 promotions were decided on this test set before" in said()


def refused(capsys, step, name, **parameters):
    with pytest.raises(SystemExit) as ended:
        step(name, **parameters)
    assert ended.value.code == 1
    return capsys.readouterr().err


REFUSED = [
    ("promote", {"confidence": 2}, "parameter 'confidence': expected less than 1, got '2'"),
    ("promote", {"min_gain": "abc"}, "parameter 'min_gain': expected a valid number, got 'abc'"),
    ("promote", {"version": "seven"}, "parameter 'version': "),
    ("promote", {"version": 7}, "parameter 'version': one of model 'recsys''s versions (1, 2), got 7"),
    ("promote", {"model_name": "RecSys"}, "'RecSys' differs from the registered model 'recsys' by case only"),
    ("rollback", {}, "model 'recsys' has no champion to roll back from; run the entry point promote first"),
    ("rollback", {"version": "two"}, "parameter 'version': "),
    ("history", {"model_name": "nobody"}, "model 'nobody' has no version"),
    ("train", {"model_name": "RECSYS", "family": "bias", "ratings": "my.csv"}, "by case only"),
]


def test_what_cannot_be_is_refused_and_nothing_moved(trained, step, capsys):
    before = trained.contents()[1]
    for name, parameters, message in REFUSED:
        assert message in refused(capsys, step, name, **parameters)
        assert trained.contents()[1] == before


def test_a_test_set_of_one_class_is_refused_with_the_remedy(store, step, capsys):
    """The only like is of a pair that the hash puts in training."""
    write_csv(store.home / "my.csv", grid(high=3))
    step("prepare", ratings="my.csv", like_threshold=2)
    dataset = newest_dataset(store.data / "prepared")
    pair = dataset.user_ids[dataset.train.users[0]], dataset.item_ids[dataset.train.items[0]]
    write_csv(store.home / "my.csv", [(u, i, 5 if (u, i) == pair else rating) for u, i, rating in grid(high=3)])
    step("train", ratings="my.csv", family="bias")
    message = refused(capsys, step, "promote")
    assert re.search(r"needs test ratings of both kinds, but 0 of \d+ are at least like_threshold=4; prepare", message)


def test_a_hundred_measured_versions_are_decided_without_loading_one(trained, step, said, monkeypatch):
    step("promote")
    measured = trained.client.get_model_version("recsys", "2")
    tags = {key: value for key, value in measured.tags.items() if key != "standing"}
    for _ in range(98):
        trained.client.create_model_version("recsys", "s3://bucket/nothing", measured.run_id, tags=tags)
    monkeypatch.setattr(integrity, "load_version", None)
    began = time.monotonic()
    step("promote")
    assert time.monotonic() - began < 60
    shown = said()
    assert "version 2 (matrix_factorization) stays in Production" in shown
    assert decision_of(trained)["candidates"][99]["version"] == 100
