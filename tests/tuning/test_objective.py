import numpy as np
import pytest

from recsys.errors import InputError
from recsys.models.bias import Config
from recsys.models.matrix_factorization import compiled
from recsys.models.matrix_factorization.config import Config as MatrixFactorization
from recsys.testing.datasets import rated
from recsys.training import out_of_core, trainer
from recsys.tuning import objective as objectives
from recsys.tuning.objective import TrialObjective, TrialResult


@pytest.fixture
def dataset(prepare_rows):
    return prepare_rows(rated(30, 30, 1, 5, step=1))


def test_the_folds_cover_the_training_rows_once_and_nothing_else(dataset):
    objective = TrialObjective("random_forest", dataset, "auc", "maximize", seed=3)
    folds = list(objective._folds(5))
    pairs = [set(zip(fold.validation.users, fold.validation.items, strict=True)) for fold in folds]
    every = set(zip(dataset.train.users, dataset.train.items, strict=True))
    assert len(folds) == 5
    assert set().union(*pairs) == every
    assert sum(map(len, pairs)) == len(every)
    assert min(map(len, pairs)) > len(every) / 10
    for fold, held_out in zip(folds, pairs, strict=True):
        assert not held_out & set(zip(fold.train.users, fold.train.items, strict=True))
        assert len(fold.train) + len(fold.validation) == len(dataset.train)


def test_another_seed_makes_other_folds_and_the_order_of_rows_none(dataset):
    def held_out(rows, seed):
        first = next(TrialObjective("random_forest", dataset.holding(train=rows), "auc", "maximize", seed)._folds(5))
        return set(zip(first.validation.users, first.validation.items, strict=True))

    backwards = dataset.train[np.arange(len(dataset.train))[::-1]]
    assert held_out(dataset.train, 1) == held_out(backwards, 1)
    assert held_out(dataset.train, 1) != held_out(dataset.train, 2)


def test_the_value_is_the_mean_of_the_folds_and_each_is_reported(dataset, monkeypatch):
    aucs = iter([0.5, 0.7, 0.6, 0.8, 0.9])
    monkeypatch.setattr(TrialObjective, "_fit", lambda *_: {"auc": next(aucs), "rmse": 1.0})
    told = []
    objective = TrialObjective("random_forest", dataset, "auc", "maximize", seed=3)
    measured = objective.measure(Config(), lambda step, value: told.append((step, value)), TrialResult())
    assert [step for step, _ in told] == [1, 2, 3, 4, 5]
    assert [value for _, value in told] == pytest.approx([0.5, 0.6, 0.6, 0.65, 0.7])
    assert measured.value == pytest.approx(0.7)
    assert measured.metrics == pytest.approx({"auc": 0.7, "rmse": 1.0})
    assert measured.curves == {"fold_auc": [(1, 0.5), (2, 0.7), (3, 0.6), (4, 0.8), (5, 0.9)]}


@pytest.mark.parametrize(
    ("metric", "direction", "told"),
    [("auc", "maximize", 0.7), ("rmse", "minimize", 1.2), ("mae", "minimize", 1.2), ("accuracy", "maximize", -1.2)],
)
def test_the_pruner_gets_the_metric_or_else_the_error_that_stands_in(metric, direction, told, dataset, monkeypatch):
    real = objectives.train

    def train(*arguments, report, **named):
        report(1, {"validation_rmse": 1.2, "validation_auc": 0.7})
        return real(*arguments, report=report, **named)

    monkeypatch.setattr(objectives, "train", train)
    heard = []
    objective = TrialObjective("bias", dataset, metric, direction, seed=0)
    measured = objective.measure(Config(), lambda step, value: heard.append((step, value)), TrialResult())
    assert heard == [(1, told)]
    assert measured.value == measured.metrics[metric]
    assert measured.curves["epoch_validation_auc"] == [(1, 0.7)]


@pytest.mark.parametrize(
    ("reports", "told"),
    [
        ([{"rmse": 1.2, "auc": 0.7}, {"rmse": 1.1}, {"rmse": 1.0, "auc": 0.8}], [(1, 0.7), (3, 0.8)]),
        ([{}, {"rmse": 1.1}, {"rmse": 1.0, "auc": 0.8}], [(2, -1.1), (3, -1.0)]),
    ],
)
def test_the_pruner_hears_of_one_measure_only(reports, told, dataset, monkeypatch):
    real = objectives.train

    def train(*arguments, report, **named):
        for step, values in enumerate(reports, start=1):
            report(step, {f"validation_{name}": value for name, value in values.items()})
        return real(*arguments, report=report, **named)

    monkeypatch.setattr(objectives, "train", train)
    heard = []
    objective = TrialObjective("bias", dataset, "auc", "maximize", seed=0)
    objective.measure(Config(), lambda step, value: heard.append((step, value)), TrialResult())
    assert heard == told


def test_a_metric_that_is_undefined_is_told(prepare_rows):
    rows = [(u, i, 1 + (u + i) % 5 if u * 10 + i < 70 else 5, u * 10 + i) for u in range(10) for i in range(10)]
    dataset = prepare_rows(rows, split="time")  # the last thirty ratings are all likes
    with pytest.raises(InputError, match="metric 'auc' is undefined on the validation rows: all 10 rows are likes"):
        TrialObjective("bias", dataset, "auc", "maximize", 0).measure(Config(), lambda *_: None, TrialResult())


def test_a_long_curve_is_thinned_for_the_study():
    measured = TrialResult()
    for step in range(1000):
        measured.add(step, {"loss": 1.0})
    assert len(measured.curves["loss"]) == 1000
    assert 150 <= len(measured.thinned()["loss"]) <= 200


def test_trials_share_what_does_not_depend_on_their_settings(dataset, monkeypatch):
    made, real = [], trainer.make_fit_task
    monkeypatch.setattr(trainer, "make_fit_task", lambda *given, **named: made.append(given) or real(*given, **named))
    cells, real_cells = [], compiled.Cells
    monkeypatch.setattr(compiled, "Cells", lambda *given: cells.append(given) or real_cells(*given))
    configs = [MatrixFactorization(embedding_size=size, epochs=3) for size in (4, 9, 4)]

    def value(objective, config):
        return objective.measure(config, lambda *_: None, TrialResult()).metrics

    def new():
        return TrialObjective("matrix_factorization", dataset, "auc", "maximize", 0)

    shared = new()
    together = [value(shared, config) for config in configs]
    assert (len(made), len(cells)) == (1, 1)
    assert together == [value(new(), config) for config in configs]
    assert (len(made), len(cells)) == (4, 4)
    shared.close()
    assert value(shared, configs[0]) == together[0]
    assert (len(made), len(cells)) == (5, 5)


def test_trials_read_rows_from_disk_each_where_they_do_not_fit_in_memory(dataset, monkeypatch):
    objective = TrialObjective("matrix_factorization", dataset, "auc", "maximize", 0)
    streamed, real = [], out_of_core.fit_tasks
    monkeypatch.setattr(out_of_core, "is_needed", lambda *_: True)
    monkeypatch.setattr(out_of_core, "fit_tasks", lambda *given: streamed.append(given) or real(*given))
    for _ in range(2):
        objective.measure(MatrixFactorization(embedding_size=4, epochs=3), lambda *_: None, TrialResult())
    assert len(streamed) == 2
