"""The whole way from a ratings file to a version in Production, by the commands a user types."""

import json
import math
import re
import shutil
import subprocess
import sys

import mlflow
import pandas as pd
import pytest

from recsys.models.base.capabilities import family_names
from tests.support.pipeline import COLUMNS, PROJECT, Store, mlflow_command, new_store, write_sample

pytestmark = pytest.mark.e2e

MEASURES = {"rmse", "mae", "auc", "accuracy", "f1_score", "log_loss", "auc_per_user"}
RANKING = {"ndcg_at_10", "recall_at_10", "coverage_at_10"}
TREES = 20


@pytest.fixture(scope="module")
def trained(module_store: Store) -> Store:
    """The sample, trained, evaluated and promoted, each by a command of its own in a folder that is not the project."""
    family = {"family": "random_forest", "n_estimators": TREES, "ratings": "my.csv"}
    module_store.mlflow_run(str(PROJECT), "train", **family, **COLUMNS)
    module_store.mlflow_run(str(PROJECT), "evaluate")
    module_store.mlflow_run(str(PROJECT), "promote", beat_bias=False)
    return module_store


def test_every_run_is_finished_and_says_which_step_it_was(trained):
    found = {run.info.run_name: run for run in trained.runs()}
    assert set(found) == {"train random_forest", "prepare my.csv", "evaluate version 1", "promote: version 1"}
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert all(run.data.tags["mlflow.note.content"] for run in found.values())
    parent = found["train random_forest"].info.run_id
    assert found["prepare my.csv"].data.tags["mlflow.parentRunId"] == parent


def test_parameters_are_logged_once_and_those_of_the_family_too(trained):
    params = trained.run_named("train random_forest").data.params
    assert params["family"] == "random_forest"
    assert params["n_estimators"] == str(TREES)
    assert params["max_depth"] == "10"
    assert params["test_size"] == "0.2"
    assert {"user_column", "like_threshold", "seed", "refit", "bootstrap"} <= set(params)


def test_metrics_are_finite_and_lower_case(trained):
    for run in trained.runs():
        assert all(math.isfinite(value) for value in run.data.metrics.values())
        assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in run.data.metrics)
    measured = set(trained.run_named("evaluate version 1").data.metrics)
    assert measured >= MEASURES | RANKING
    assert {
        f"baseline_{name}_{key}" for name in ("bias", "most_popular", "most_liked") for key in ("auc", "ndcg_at_10")
    } <= measured
    assert {f"validation_{key}" for key in MEASURES} <= set(trained.run_named("train random_forest").data.metrics)
    # All ratings of an item are of one moment in the sample, and so all of the newest are of new items.
    forward = {
        f"forward_{group}{key}" for group in ("", "cold_") for key in ("auc", "rmse", "calibration_error", "rows")
    }
    assert forward | {"forward_warm_rows"} <= set(trained.run_named("train random_forest").data.metrics)
    prepared = trained.run_named("prepare").data.metrics
    assert (prepared["dataset_size"], prepared["users"], prepared["items"]) == (1200, 60, 40)
    assert prepared["density"] == pytest.approx(0.5)
    assert prepared["train_rows"] + prepared["validation_rows"] + prepared["test_rows"] == 1200


def test_plots_and_tables_are_among_the_artifacts(trained):
    expected = {
        "prepare": {"plots/ratings.png", "plots/ratings_per_user.png", "manifest.json"},
        "train random_forest": {
            "plots/feature_importances.png",
            "feature_importances.csv",
            "plots/validation_confusion_matrix.png",
        },
        "evaluate version 1": {
            "plots/roc.png",
            "plots/calibration.png",
            "plots/confusion_matrix.png",
            "evaluation.json",
        },
        "promote": {"plots/comparison.png", "comparison.csv", "decision.json"},
    }
    for name, paths in expected.items():
        assert paths <= trained.artifacts(trained.run_named(name)), name
    assert any("count" in path for path in trained.artifacts(trained.run_named("evaluate version 1")))


def test_tags_trace_a_model_to_its_data_and_code(trained):
    tags = trained.run_named("train random_forest").data.tags
    assert tags["model_type"] == "random_forest"
    assert re.fullmatch("[0-9a-f]{32}", tags["data_version"])
    assert tags["author"]
    assert re.fullmatch("[0-9a-f]{40}|unknown", tags["git_commit"])
    assert tags["git_dirty"] in ("true", "false", "unknown")
    assert tags["version"] == "1"


def test_the_dataset_is_an_input_with_its_digest(trained):
    digest = trained.run_named("prepare").data.tags["data_version"]
    contexts = {
        "prepare": "preparation",
        "train random_forest": "training",
        "evaluate version 1": "test",
        "promote": "test",
    }
    for name, context in contexts.items():
        used = {
            (used.dataset.name, used.dataset.digest[:32], tag.value)
            for used in trained.run_named(name).inputs.dataset_inputs
            for tag in used.tags
            if tag.key == "mlflow.data.context"
        }
        assert ("my.csv", digest, context) in used, name


def test_the_model_carries_its_metrics_with_the_datasets_digest(trained):
    run = trained.run_named("train random_forest")
    model = trained.client.get_logged_model(run.outputs.model_outputs[0].model_id)
    assert model.model_type == "random_forest"
    measured = {metric.key: metric for metric in model.metrics}
    assert {"auc", "validation_auc", *RANKING} <= set(measured)
    assert {metric.dataset_digest for metric in measured.values()} == {run.data.tags["data_version"]}
    evaluated = trained.run_named("evaluate version 1").data.metrics
    assert measured["auc"].value == pytest.approx(evaluated["auc"])


def test_the_version_says_what_it_is(trained):
    version = trained.client.get_model_version("recsys", "1")
    run = trained.run_named("train random_forest")
    assert version.run_id == run.info.run_id
    tags = version.tags
    assert tags["family"] == "random_forest"
    assert tags["data_version"] == run.data.tags["data_version"]
    assert len(tags) <= 8
    assert max(map(len, tags.values())) <= 64
    kept = trained.artifacts(run, "version")
    assert {"version/forward.json", "version/probe.1.json"} <= kept
    assert any(path.startswith("version/evaluation.as-served.") for path in kept)
    measured = trained.run_named("evaluate version 1").data.metrics
    assert float(tags["auc"]) == pytest.approx(measured["auc"], abs=1e-4)
    told = (
        f"random_forest: AUC {measured['auc']:.4f}",
        f"RMSE {measured['rmse']:.4f}",
        "my.csv",
        tags["data_version"],
        "split hash",
    )
    for part in told:
        assert part in version.description


def test_exactly_one_version_is_in_production(trained):
    versions = trained.client.search_model_versions("name = 'recsys'")
    assert [version.current_stage for version in versions] == ["Production"]
    assert str(trained.client.get_model_version_by_alias("recsys", "champion").version) == "1"
    run = trained.run_named("promote")
    path = trained.client.download_artifacts(run.info.run_id, "decision.json")
    with open(path) as file:  # noqa: PTH123  # a path as MLflow gives it
        assert json.load(file)["to"] == 1


@pytest.mark.parametrize("uri", ["models:/recsys/Production", "models:/recsys@champion"])
def test_the_version_answers_by_stage_and_alias_without_pickle(uri, trained, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", trained.uri)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    mlflow.set_tracking_uri(trained.uri)
    mlflow.set_registry_uri(trained.uri)
    model = mlflow.pyfunc.load_model(uri)
    asked = pd.DataFrame({"user_id": ["größe 001", "größe 002", "nobody"], "item_id": ["SKU-1", "no such", "SKU-1"]})
    answers = model.predict(asked)
    assert list(answers.columns) == ["rating", "like_probability"]
    assert answers["rating"].between(0.5, 5).all()
    assert answers["like_probability"].between(0, 1).all()
    assert answers["rating"].nunique() == 3
    own = asked.rename(columns={"user_id": COLUMNS["user_column"], "item_id": COLUMNS["item_column"]})
    pd.testing.assert_frame_equal(model.predict(own), answers)
    numbers = model.predict(pd.DataFrame({"user_id": [1, 2], "item_id": [3, 2**40]}))
    assert len(numbers) == 2


def test_the_code_travels_with_the_model(trained, tmp_path):
    code = """
import mlflow, pandas as pd, sys
assert not any("src" in path.split("/") for path in sys.path), sys.path
model = mlflow.pyfunc.load_model("models:/recsys@champion")
answer = model.predict(pd.DataFrame({"user_id": ["größe 001"], "item_id": ["SKU-1"]}))
import recsys
print(recsys.__file__, *answer.iloc[0])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=trained.environment(MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    where, rating, like = done.stdout.split()
    assert str(PROJECT) not in where
    assert 0.5 <= float(rating) <= 5
    assert 0 <= float(like) <= 1
    code += f"sys.path.insert(0, {str(PROJECT)!r})\nimport steps"
    refused = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=trained.environment(MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "import the steps before you load a model" in refused.stderr


def test_nothing_is_left_in_the_callers_folder(trained):
    assert [path.name for path in trained.home.iterdir()] == ["my.csv"]


def test_another_sample_is_compared_on_its_own_test_rows(trained, module_step, capsys):
    """A second version, of other ratings: it is measured on the first one's test set before it is compared."""
    digest = trained.run_named("prepare").data.tags["data_version"]
    write_sample(trained.home / "other.csv", seed=2)
    module_step("train", ratings="other.csv", family="bias", **COLUMNS)
    module_step("promote", dataset=digest, beat_bias=False)
    shown = capsys.readouterr().out
    assert "version 2 (bias) on " in shown
    stages = {int(v.version): v.current_stage for v in trained.client.search_model_versions("name = 'recsys'")}
    assert stages == {1: "Production", 2: "None"}
    assert "stays in Production" in shown or "and there was no version before" in shown


def test_from_a_git_uri_with_all_defaults_of_the_place(tmp_path, shared):
    """MLflow clones into a folder that is gone later: data, runs and the model must outlive it."""
    clone = tmp_path / "published"
    subprocess.run(["git", "clone", "--quiet", f"file://{PROJECT}", str(clone)], check=True)
    store = new_store(tmp_path / "store", shared)
    write_sample(store.home / "my.csv")
    environment = store.environment()
    del environment["MLFLOW_TRACKING_URI"]
    command = mlflow_command(f"file://{clone}", "train", ratings="my.csv", family="bias", **COLUMNS)
    done = subprocess.run(command, cwd=store.home, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(clone)
    shutil.rmtree(store.folder / "tmp")
    assert "mlflow.db" in {path.name for path in store.home.iterdir()}
    uri = f"sqlite:///{store.home / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    model = mlflow.pyfunc.load_model("models:/recsys/1")
    assert len(model.predict(pd.DataFrame({"user_id": ["größe 001"], "item_id": ["SKU-1"]}))) == 1
    run = mlflow.get_run(model.metadata.run_id)
    assert run.info.status == "FINISHED"
    assert re.fullmatch("[0-9a-f]{40}", run.data.tags["git_commit"])
    assert run.data.tags["git_dirty"] == "false"


def test_main_on_movielens_with_every_default(tmp_path, shared, movielens_100k):
    store = new_store(tmp_path / "store", shared)
    (store.data / "downloads").mkdir(parents=True)
    shutil.copy(movielens_100k, store.data / "downloads")
    done = subprocess.run(
        mlflow_command(".", "main"),
        cwd=PROJECT,
        env=store.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    families = ["matrix_factorization", "random_forest", "bayesian_mf"]
    parent = store.run_named("main")
    children = {
        run.info.run_name for run in store.runs() if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
    }
    evaluated = {f"evaluate version {number}" for number in (1, 2, 3)}
    decided = {"prepare movielens-100k", "promote: version 3"}
    assert children == {*decided, *evaluated, *(f"train {family}" for family in families)}
    assert {"comparison.csv", "report.html"} <= store.artifacts(parent)
    assert parent.data.metrics["auc"] == store.run_named("evaluate version 3").data.metrics["auc"]
    assert len(store.runs()) == 3 + 2 * len(families)
    assert {run.info.status for run in store.runs()} == {"FINISHED"}
    versions = store.client.search_model_versions("name = 'recsys'")
    assert sorted(version.current_stage for version in versions) == ["None", "None", "Production"]
    best = max(versions, key=lambda version: float(version.tags["auc"]))
    assert best.current_stage == "Production"
    assert store.client.get_model_version_by_alias("recsys", "champion").version == best.version
    # Of each less than its least by other seeds; a forest's differ by 0.0005, biases alone have 0.7725.
    least = {"matrix_factorization": 0.796, "random_forest": 0.769, "bayesian_mf": 0.814}
    assert all(float(version.tags["auc"]) > least[version.tags["family"]] for version in versions)
    (line,) = [line for line in done.stdout.splitlines() if line.endswith("Production")]
    assert line.split()[:2] == [str(best.version), best.tags["family"]]
    assert "per-user AUC" in done.stdout
    assert "next: " in done.stdout.splitlines()[-1]


@pytest.mark.parametrize("family", family_names())
def test_the_same_seed_gives_the_same_metrics(family, module_store, module_step):
    measured = []
    for _ in range(2):
        module_step("train", ratings="my.csv", family=family, model_name=f"twice-{family}", **COLUMNS)
        metrics = module_store.run_named(f"train {family}").data.metrics
        measured.append({name: value for name, value in metrics.items() if "seconds" not in name})
    assert measured[0] == measured[1]


def test_another_seed_gives_another_forest(module_store, module_step):
    measured = []
    for seed in (1, 2):
        module_step("train", ratings="my.csv", family="random_forest", seed=seed, model_name="seeds", **COLUMNS)
        measured.append(module_store.run_named("train random_forest").data.metrics["validation_rmse"])
    assert measured[0] != measured[1]
