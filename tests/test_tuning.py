import pytest
from builders import rated
from optuna.trial import TrialState

from recsys import tuning
from recsys.errors import DivergedError, InputError
from recsys.families.bias import Config


@pytest.fixture
def dataset(prepare_rows):
    return prepare_rows(rated(20, 20, 1, 5, step=1))


@pytest.fixture
def storage(tmp_path):
    return f"sqlite:///{tmp_path}/studies.db"


def search(dataset, storage, *, family="bias", trials=3, timeout=None, on_trial=lambda trial, config: None):
    return tuning.search(
        family,
        dataset,
        trials=trials,
        timeout=timeout,
        seed=42,
        storage=storage,
        study_name="study",
        on_trial=on_trial,
    )


def test_the_best_trial_s_settings_are_found_and_trial_0_is_the_default(dataset, storage):
    told = []
    found = search(dataset, storage, on_trial=lambda trial, config: told.append((trial.value, config)))
    assert len(told) == 3
    assert told[0][1] == Config().model_dump()
    best = max(range(3), key=lambda number: told[number][0])
    assert (found.trial, found.value) == (best, told[best][0])
    assert found.config.model_dump() == told[best][1]
    assert found.counts() == {"trials_complete": 3, "trials_pruned": 0, "trials_fail": 0}


def test_the_same_seed_tries_the_same_settings(dataset, tmp_path):
    tried = [search(dataset, f"sqlite:///{tmp_path}/{name}.db").study.trials for name in ("one", "other")]
    assert [trial.user_attrs["config"] for trial in tried[0]] == [trial.user_attrs["config"] for trial in tried[1]]


def test_a_study_is_continued_and_its_default_is_not_tried_again(dataset, storage):
    search(dataset, storage)
    trials = search(dataset, storage, trials=2).study.trials
    assert len(trials) == 5
    assert [bool(trial.user_attrs.get("default")) for trial in trials] == [True, False, False, False, False]
    assert all(trial.state is TrialState.COMPLETE for trial in trials)


def test_a_study_of_another_dataset_or_family_is_refused(dataset, storage, prepare_rows):
    search(dataset, storage, trials=1)
    with pytest.raises(InputError, match=r"study 'study' belongs to family bias, got random_forest; pass another"):
        search(dataset, storage, family="random_forest")
    other = prepare_rows(rated(20, 20, 1, 5, step=1, seed=1))
    with pytest.raises(InputError, match=f"belongs to data_version {dataset.digest}, got {other.digest}"):
        search(other, storage)


@pytest.mark.parametrize("storage", ["no url", "sqlite:////no/such/folder/studies.db", "nosuchdb://me:s3cret@host/db"])
def test_a_storage_that_cannot_be_used_is_refused_without_its_password(dataset, storage):
    with pytest.raises(InputError, match="parameter 'storage': a database that Optuna can use is needed") as caught:
        search(dataset, storage)
    assert "s3cret" not in str(caught.value)


def test_without_a_completed_trial_there_is_no_outcome(dataset, storage):
    with pytest.raises(InputError, match="no trial completed; pass more trials or a longer timeout"):
        search(dataset, storage, timeout=0)


def test_undefined_auc_is_told(prepare_rows, storage):
    rows = [(u, i, 1 + (u + i) % 5 if u * 10 + i < 70 else 5, u * 10 + i) for u in range(10) for i in range(10)]
    dataset = prepare_rows(rows, split="time")  # the last thirty ratings are all likes
    with pytest.raises(InputError, match="metric 'auc' is undefined on the validation rows: all 10 rows are likes"):
        search(dataset, storage)


def test_figures_of_a_study_say_what_they_show(dataset, storage):
    figures = search(dataset, storage, trials=6).figures()
    assert figures.keys() == {"optimisation_history.png", "parameter_importances.png"}
    for figure in figures.values():
        axes = figure.axes[0]
        assert axes.get_title()
        assert axes.get_xlabel()
        assert axes.get_ylabel()


def test_a_training_that_diverges_costs_its_trial_only(dataset, storage, monkeypatch, capfd):
    real, calls = tuning.train, []

    def train(*arguments, **named):
        calls.append(1)
        if len(calls) == 2:
            raise DivergedError("loss is not finite")
        return real(*arguments, **named)

    monkeypatch.setattr(tuning, "train", train)
    found = search(dataset, storage)
    assert found.counts() == {"trials_complete": 2, "trials_pruned": 0, "trials_fail": 1}
    assert "optimisation_history.png" in found.figures()
    assert "Traceback" not in capfd.readouterr().err


def test_hopeless_trials_are_pruned_but_none_of_the_first_five(dataset, storage, monkeypatch):
    real, calls = tuning.train, []

    def train(*arguments, report, **named):
        calls.append(1)
        for epoch in range(4):
            report(epoch, {"validation_rmse": float(len(calls)), "other": 1.0})
        return real(*arguments, report=report, **named)

    monkeypatch.setattr(tuning, "train", train)
    states = [trial.state for trial in search(dataset, storage, trials=7).study.trials]
    assert states == [TrialState.COMPLETE] * 5 + [TrialState.PRUNED] * 2


def test_a_study_stopped_before_its_first_trial_still_begins_with_the_default(dataset, storage):
    with pytest.raises(InputError, match="study 'study': no trial completed"):
        search(dataset, storage, timeout=0)
    assert search(dataset, storage, trials=1).study.trials[0].user_attrs["config"] == Config().model_dump()
