import sqlite3

import pytest
from pipeline import COLUMNS, write_sample

TRIALS = 3


@pytest.fixture
def study(module_step):
    """Runs a tiny study of the bias family; again: continues it."""

    def run(**parameters: object) -> None:
        defaults = {"family": "bias", "trials": TRIALS, "ratings": "my.csv", **COLUMNS}
        module_step("tune", **defaults | parameters)

    return run


def children(store, run):
    return [other for other in store.runs() if other.data.tags.get("mlflow.parentRunId") == run.info.run_id]


@pytest.mark.usefixtures("module_step")
def test_a_study_its_trials_and_the_best_registered(study, module_store, capsys):
    study()
    shown = capsys.readouterr().out
    run = module_store.run_named("tune bias")
    assert run.info.status == "FINISHED"
    found = {child.info.run_name: child for child in children(module_store, run)}
    assert set(found) == {"prepare", "trial 0", "trial 1", "trial 2", "train bias"}
    assert {child.info.status for child in found.values()} == {"FINISHED"}

    trials = [found[f"trial {number}"] for number in range(TRIALS)]
    assert trials[0].data.params["damping"] == "5.0"
    assert len({trial.data.params["damping"] for trial in trials}) == TRIALS
    aucs = [trial.data.metrics["validation_auc"] for trial in trials]
    assert run.data.metrics["best_validation_auc"] == max(aucs)
    assert run.data.metrics["trials_complete"] == TRIALS
    assert "plots/optimisation_history.png" in module_store.artifacts(run)
    assert "best_params.json" in module_store.artifacts(run)
    best = aucs.index(max(aucs))
    assert f"best of {TRIALS} trials: trial {best}, validation AUC {max(aucs):.4f}" in shown

    digest = run.data.tags["data_version"]
    version = module_store.client.get_model_version("recsys", "1")
    assert version.tags["study"] == f"bias-{digest[:12]}"
    assert version.tags["trial"] == str(best)
    assert found["train bias"].data.params["damping"] == trials[best].data.params["damping"]
    assert found["train bias"].data.metrics["validation_auc"] == max(aucs)


def test_a_study_is_continued(study, module_store, capsys):
    study(study="kept", trials=2)
    study(study="kept", trials=1)
    assert "best of 3 trials" in capsys.readouterr().out
    run = module_store.run_named("tune bias")
    assert {child.info.run_name for child in children(module_store, run)} == {"trial 2", "train bias"}
    with sqlite3.connect(module_store.home / "studies.db") as database:
        names = [name for (name,) in database.execute("select study_name from studies")]
    assert names.count("kept") == 1


def test_the_same_seed_gives_the_same_trials(study, module_store):
    tried = []
    for name in ("first", "second"):
        study(study=name)
        found = children(module_store, module_store.run_named("tune bias"))
        tried.append(sorted(child.data.params["damping"] for child in found if child.info.run_name.startswith("trial")))
    assert tried[0] == tried[1]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ratings": "other.csv"}, "study 'taken' belongs to data_version "),
        (
            {"family": "random_forest"},
            "study 'taken' belongs to family bias, got random_forest; pass ",
        ),
    ],
)
def test_a_study_of_something_else_is_refused(changes, expected, study, module_store, capsys):
    write_sample(module_store.home / "other.csv", seed=5)
    study(study="taken", trials=1)
    before = len(module_store.client.search_model_versions("name = 'recsys'"))
    capsys.readouterr()
    with pytest.raises(SystemExit):
        study(study="taken", trials=1, **changes)
    message = capsys.readouterr().err
    assert message.startswith("error: tune: ")
    assert message.count("\n") == 1
    assert expected in message
    assert len(module_store.client.search_model_versions("name = 'recsys'")) == before
    # The refused study is as it was
    study(study="taken", trials=1)


def test_a_storage_that_cannot_be_opened_keeps_its_password(study, module_store, capsys):
    with pytest.raises(SystemExit):
        study(storage="mysql+pymysql://anna:secret@127.0.0.1:9/studies", trials=1)
    message = capsys.readouterr().err
    assert message.startswith("error: tune: parameter 'storage': ")
    assert message.count("\n") == 1
    assert "secret" not in message
    assert module_store.run_named("tune bias").info.status == "FAILED"


def test_no_time_for_a_trial_is_told(study, module_store, capsys):
    with pytest.raises(SystemExit):
        study(study="hasty", timeout=1e-9)
    message = capsys.readouterr().err
    assert "study 'hasty': no trial completed; pass more trials or a longer timeout" in message
