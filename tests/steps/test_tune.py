import json
import sqlite3
from functools import partialmethod
from pathlib import Path

import pytest

from recsys.errors import InputError
from recsys.tuning import plots as study_plots
from steps import tune as tuning
from steps.support.entrypoint import parse
from tests.support.pipeline import COLUMNS, PROJECT, Store, write_sample

TRIALS = 3
SECRET = "s3cret"


@pytest.fixture
def study(module_step, monkeypatch):
    """Runs a tiny study of the bias family; its plots, which take longer than all the rest, only on demand."""
    drawn = study_plots.study_figures

    def run(*, plots: bool = False, **parameters: object) -> None:
        monkeypatch.setattr(study_plots, "study_figures", drawn if plots else lambda study, metric: {})
        defaults = {"family": "bias", "trials": TRIALS, "ratings": "my.csv", **COLUMNS}
        module_step("tune", **defaults | parameters)

    return run


def children(store, run):
    return [other for other in store.runs() if other.data.tags.get("mlflow.parentRunId") == run.info.run_id]


def error_of(capsys):
    message = capsys.readouterr().err
    assert message.startswith("error: tune: "), message
    assert message.count("\n") == 1
    return message


@pytest.mark.usefixtures("module_step")
def test_a_study_its_trials_and_the_best_registered(study, module_store, capsys):
    study(study="first", plots=True)
    shown = capsys.readouterr().out
    run = module_store.run_named("study first")
    assert run.info.status == "FINISHED"
    found = {child.info.run_name: child for child in children(module_store, run)}
    assert set(found) == {"tune bias", "trial 0", "trial 1", "trial 2", "train bias"}
    assert {child.info.status for child in found.values()} == {"FINISHED"}

    trials = [found[f"trial {number}"] for number in range(TRIALS)]
    assert trials[0].data.params["damping"] == "5.0"
    assert len({trial.data.params["damping"] for trial in trials}) == TRIALS
    assert all(trial.data.tags["trial_state"] == "COMPLETE" and trial.data.tags["host"] for trial in trials)
    assert all(trial.data.metrics["seconds"] > 0 for trial in trials)
    aucs = [trial.data.metrics["validation_auc"] for trial in trials]
    best = aucs.index(max(aucs))
    assert run.data.metrics["best_validation_auc"] == max(aucs)
    assert run.data.metrics["trials_complete"] == TRIALS
    expected = {"optimisation_history", "timeline", "slice", "parallel_coordinates", "parameter_importances"}
    assert {f"plots/{name}.png" for name in expected} | {"best_params.json"} <= module_store.artifacts(run)
    assert f"best of {TRIALS} trials: trial {best}, validation AUC {max(aucs):.4f}" in shown

    version = module_store.client.get_model_version("recsys", run.data.tags["version"])
    assert version.tags["study"].startswith(f"first, search 1, trial {best} of run ")
    assert len(version.tags) <= 8
    assert found["train bias"].data.params["damping"] == trials[best].data.params["damping"]
    assert found["train bias"].data.metrics["validation_auc"] == max(aucs)
    assert found["tune bias"].data.tags["version"] == str(version.version)


def test_a_study_is_continued_under_its_run(study, module_store, capsys):
    study(study="kept", trials=2)
    study(study="kept", trials=1, register="false")
    assert "best of 3 trials" in capsys.readouterr().out
    names = [child.info.run_name for child in children(module_store, module_store.run_named("study kept"))]
    assert sorted(names) == ["train bias", "trial 0", "trial 1", "trial 2", "tune bias", "tune bias"]


def test_what_was_found_is_trained_again_by_name_or_from_a_file(study, module_store, module_step):
    study(study="found", register="false")
    assert "train bias" not in {
        run.info.run_name for run in children(module_store, module_store.run_named("study found"))
    }
    run = module_store.run_named("study found")
    data = {"family": "bias", "ratings": "my.csv", **COLUMNS}
    path = Path(module_store.client.download_artifacts(run.info.run_id, "best_params.json"))
    damping = str(json.loads(path.read_text(encoding="utf-8"))["damping"])
    for given in ({"from_run": run.info.run_id}, {"params": path}, {"params": f'{{"damping": {damping}}}'}):
        module_step("train", **data, **given)
        assert module_store.run_named("train bias").data.params["damping"] == damping
    module_step("train", **data, from_run=run.info.run_id, damping=7)
    assert module_store.run_named("train bias").data.params["damping"] == "7.0"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"params": "{"}, "parameter 'params': JSON such as"),
        ({"params": "no/such.json"}, "parameter 'params': JSON such as"),
        ({"params": '{"dampin": 1}'}, "unknown parameter 'dampin'"),
        ({"params": '{"damping": -1}'}, "parameter 'damping': expected greater"),
        ({"params": '{"damping": 1}', "from_run": "x"}, "'params' and 'from_run': one of them"),
        ({"from_run": "nosuchrun"}, "parameter 'from_run': a run with best_params.json is needed"),
    ],
)
def test_parameters_that_cannot_be_trained_with(given, message, module_step, capsys):
    with pytest.raises(SystemExit):
        module_step("train", family="bias", ratings="my.csv", **COLUMNS, **given)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ratings": "other.csv"}, "study 'taken' belongs to data_version "),
        ({"family": "random_forest"}, "study 'taken' belongs to family bias, got random_forest; pass "),
        ({"direction": "minimize"}, "study 'taken' belongs to direction maximize, got minimize; pass "),
    ],
)
def test_a_study_of_something_else_is_refused(changes, expected, study, module_store, capsys):
    write_sample(module_store.home / "other.csv", seed=5)
    study(study="taken", trials=1)
    before = len(module_store.client.search_model_versions("name = 'recsys'"))
    capsys.readouterr()
    with pytest.raises(SystemExit):
        study(study="taken", trials=1, **changes)
    assert expected in error_of(capsys)
    assert len(module_store.client.search_model_versions("name = 'recsys'")) == before
    assert module_store.run_named("study taken").info.status == "FINISHED"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"trials": 0}, "parameter 'trials': at least 1, or a timeout"),
        ({"metric": "ndcg"}, "parameter 'metric': expected 'auc',"),
        ({"sampler": "grid"}, "parameter 'sampler': expected 'tpe' or 'random', got 'grid'"),
        ({"direction": "up"}, "parameter 'direction': expected 'auto', 'maximize' or 'minimize'"),
        ({"family": "svd"}, "parameter 'family': one of "),
        ({"space": '{"damping": [5, 1]}'}, "parameter 'space': 'damping': the low is above the high"),
        ({"space": '{"depth": [1, 5]}'}, "parameter 'space': 'depth' is not searched for family bias; known are: damp"),
        ({"storage": f"anna:{SECRET}@db/optuna"}, "parameter 'storage': an SQLAlchemy URL is needed"),
        ({"workers": 0}, "parameter 'workers': expected greater than or equal to 1"),
    ],
)
def test_a_wrong_parameter_is_told_before_anything_is_written(given, expected, study, module_store, capsys):
    before = module_store.contents(), len(module_store.runs())
    with pytest.raises(SystemExit):
        study(**given)
    message = error_of(capsys)
    assert expected in message
    assert SECRET not in message
    assert (module_store.contents(), len(module_store.runs())) == before


@pytest.mark.parametrize("launched", [None, "run-of-mlflow-run"])
def test_a_password_on_the_command_line_is_refused_before_anything_is_written(
    launched, study, module_store, monkeypatch, capsys
):
    if launched:
        monkeypatch.setenv("MLFLOW_RUN_ID", launched)
    before = module_store.contents(), len(module_store.runs())
    with pytest.raises(SystemExit):
        study(storage=f"mysql+pymysql://anna:{SECRET}@127.0.0.1:9/studies", trials=1)
    message = error_of(capsys)
    assert "parameter 'storage': a password on a command line can be read by every user of the machine" in message
    assert "mysql+pymysql://anna:***@127.0.0.1:9/studies" in message
    assert "environment variable RECSYS_STUDY_STORAGE" in message
    assert ("logged the password on run run-of-mlflow-run: change it" in message) == bool(launched)
    assert SECRET not in message
    assert (module_store.contents(), len(module_store.runs())) == before


@pytest.mark.parametrize("arguments", [["--storage={0}", "--storage={0}"], ["--family=bias", "{0}"]])
def test_a_command_line_that_is_wrong_otherwise_keeps_the_password_too(arguments):
    url = f"mysql+pymysql://anna:{SECRET}@db/optuna"
    with pytest.raises(InputError) as caught:
        parse("tune", [argument.format(url) for argument in arguments])
    assert SECRET not in str(caught.value)


def test_the_storage_may_come_from_the_environment(study, module_store, monkeypatch, capsys):
    monkeypatch.setenv(tuning.STORAGE, f"mysql+pymysql://anna:{SECRET}@127.0.0.1:9/studies")
    with pytest.raises(SystemExit):
        study(trials=1)
    assert "no database answers at 127.0.0.1:9" in error_of(capsys)
    assert module_store.run_named("tune bias").data.params["storage"] == "auto"
    monkeypatch.setenv(tuning.STORAGE, f"anna:{SECRET}@127.0.0.1")
    with pytest.raises(SystemExit):
        study(trials=1)
    message = error_of(capsys)
    assert "RECSYS_STUDY_STORAGE: " in message
    assert SECRET not in message


def test_a_study_s_runs_stay_in_one_place(study, module_store, monkeypatch, tmp_path, capsys):
    study(study="here", trials=1, register="false")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/elsewhere.db")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        study(study="here", trials=1)
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("error: tune: study 'here' keeps its runs in sqlite:///")
    assert "elsewhere.db" in message


def test_no_time_for_a_trial_is_told(study, module_store, capsys):
    with pytest.raises(SystemExit):
        study(study="hasty", timeout=1e-9)
    assert "study 'hasty': no trial completed; pass more trials or a longer timeout" in error_of(capsys)
    assert module_store.run_named("study hasty").info.status == "FAILED"


def test_a_finisher_that_died_after_registering_is_not_followed_by_a_second_version(study, module_store, monkeypatch):
    from recsys.tuning.search import Search

    def died(self, outcome):
        raise RuntimeError("killed")

    real = Search.close
    monkeypatch.setattr(Search, "close", died)
    with pytest.raises(RuntimeError):
        study(study="once")
    monkeypatch.setattr(Search, "close", real)
    study(study="once")
    versions = module_store.client.search_model_versions("name = 'recsys'")
    assert [version.tags.get("study", "").partition(",")[0] for version in versions].count("once") == 1
    run = module_store.run_named("study once")
    assert run.info.status == "FINISHED"
    names = [child.info.run_name for child in children(module_store, run) if child.info.run_name.startswith("trial")]
    assert sorted(names) == ["trial 0", "trial 1", "trial 2"]


def test_a_finisher_that_was_paused_is_not_followed_by_a_second_version(study, module_store, monkeypatch, capsys):
    """Paused while it trains the best, so long that another worker counts it as dead, takes over and finishes."""
    from recsys.tracking.runs import Run
    from recsys.tuning.coordination import StudyCoordinator

    real = Run.log_recommender

    def paused(*arguments):
        monkeypatch.setattr(Run, "log_recommender", real)
        with monkeypatch.context() as patch:
            patch.setattr(StudyCoordinator, "alive", lambda self: [])
            study(study="paused")
        return real(*arguments)

    monkeypatch.setattr(Run, "log_recommender", paused)
    study(study="paused")
    shown = capsys.readouterr().out
    versions = module_store.client.search_model_versions("name = 'recsys'")
    (version,) = [version for version in versions if version.tags.get("study", "").startswith("paused,")]
    assert shown.count("registered version") == 1
    assert shown.count("best of 3 trials") == 2  # both say what came of it
    run = module_store.run_named("study paused")
    assert (run.info.status, run.data.tags["version"]) == ("FINISHED", str(version.version))
    trained = [child for child in children(module_store, run) if child.info.run_name == "train bias"]
    assert sorted(child.info.status for child in trained) == ["FAILED", "FINISHED"]
    tuned = [child for child in children(module_store, run) if child.info.run_name == "tune bias"]
    assert [child.data.tags["version"] for child in tuned] == [str(version.version)] * 2


@pytest.mark.e2e
def test_workers_share_a_study_and_the_password_is_nowhere(store, mariadb, monkeypatch):
    """As typed: `mlflow run` with two workers, against a server whose account has a password."""
    write_sample(store.home / "my.csv")
    mariadb.execute("drop user if exists 'anna'@'%'", f"create user 'anna'@'%' identified by '{SECRET}'")
    mariadb.execute("grant all on *.* to 'anna'@'%'", "drop database if exists typed")
    place = mariadb.address.rpartition("@")[2]
    url = f"mysql+pymysql://anna:{SECRET}@{place}/typed"
    parameters = {"family": "bias", "trials": 4, "workers": 2, "ratings": "my.csv", **COLUMNS}
    monkeypatch.setattr(Store, "environment", partialmethod(Store.environment, RECSYS_STUDY_STORAGE=url))
    done = store.mlflow_run(str(PROJECT), "tune", study="spring", **parameters)
    assert "best of 4 trials" in done.stdout
    assert SECRET not in done.stdout
    run = store.run_named("study spring")
    found = children(store, run)
    assert sorted(child.info.run_name for child in found) == [
        *("train bias", "trial 0", "trial 1", "trial 2", "trial 3", "tune bias")
    ]
    assert {run.info.status for run in store.runs()} == {"FINISHED"}
    with sqlite3.connect(store.folder / "mlflow.db") as database:
        kept = "\n".join(database.iterdump())
    assert SECRET not in kept
