import optuna
import pytest
from matplotlib import pyplot

from recsys.tuning.plots import study_figures


def study_of(trials, steps=3):
    """A study of one setting, whose values rise from trial to trial; trial 0 has the default."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1))
    study.enqueue_trial({"damping": 5.0}, user_attrs={"default": True})

    def objective(trial):
        trial.suggest_float("damping", 0.5, 50, log=True)
        for step in range(1, steps + 1):
            trial.report(0.7 + trial.number / 100 + step / 1000, step)
        return 0.7 + trial.number / 100

    study.optimize(objective, n_trials=trials)
    return study


def test_figures_of_a_study_say_what_they_show():
    figures = study_figures(study_of(7), "auc")
    assert figures.keys() == {
        "optimisation_history.png",
        "parameter_importances.png",
        "slice.png",
        "parallel_coordinates.png",
        "intermediate_values.png",
        "timeline.png",
    }
    for name, figure in figures.items():
        axes = figure.axes[0]
        assert axes.get_title() or figure.get_suptitle(), name
        assert axes.get_xlabel() or name == "parallel_coordinates.png", name
        assert axes.get_ylabel() or name == "parallel_coordinates.png", name
        figure.canvas.draw()


def test_a_study_with_one_trial_has_its_figures():
    assert study_figures(study_of(1, steps=0), "auc").keys() == {"optimisation_history.png", "timeline.png"}


@pytest.mark.filterwarnings("error:.*layout not applied")
def test_figures_of_many_trials_and_settings_of_every_kind_are_drawn():
    study = optuna.create_study(direction="minimize", sampler=optuna.samplers.RandomSampler(seed=1))
    study.enqueue_trial({}, user_attrs={"default": True})

    def objective(trial):
        if trial.number == 0:  # defaults that lie outside the space
            return 3.0
        size = trial.suggest_int("size", 8, 64, log=True)
        rate = trial.suggest_float("learning_rate", 1e-3, 0.1, log=True)
        depth = trial.suggest_categorical("max_depth", [8, 16, None])
        for step in range(3):
            trial.report(rate + step, step)
        return rate + size / 100 + (depth or 0)

    study.optimize(objective, n_trials=20)
    figures = study_figures(study, "rmse")
    assert len(figures) == 6
    for figure in figures.values():
        figure.canvas.draw()


def test_what_optuna_changes_for_all_of_matplotlib_is_put_back():
    before = dict(pyplot.rcParams)
    study_figures(study_of(7), "auc")
    assert {key: value for key, value in pyplot.rcParams.items() if key != "backend" and before[key] != value} == {}
    assert pyplot.get_fignums() == []
