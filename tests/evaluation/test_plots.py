import io

import numpy as np
import pytest

from recsys.data.dataset import Dataset
from recsys.evaluation import plots
from recsys.evaluation.baselines import baseline_recommenders
from recsys.evaluation.evaluator import Evaluation, evaluate
from recsys.testing.datasets import prepared, rated

SCALES = {"1 to 5": (1, 5, 1, 4.0), "-10 to 10, continuous": (-10, 10, 0, 3.0), "0.5 to 5": (0.5, 5, 0.5, 3.5)}


@pytest.fixture(scope="module", params=SCALES.values(), ids=SCALES)
def measured(request, tmp_path_factory) -> tuple[Dataset, Evaluation]:
    low, high, step, like_threshold = request.param
    rows = rated(20, 20, low, high, step=step)
    dataset = prepared(tmp_path_factory.mktemp("plots"), rows, like_threshold=like_threshold)
    return dataset, evaluate(baseline_recommenders(dataset)["bias"], dataset, baselines=False)


def check(figure):
    """Every axes of a figure says what it shows, and the figure can be drawn."""
    assert figure.axes
    for axes in figure.axes:
        assert axes.get_title()
        assert axes.get_xlabel()
        assert axes.get_ylabel()
    figure.savefig(io.BytesIO(), format="png")


def test_figures_of_an_evaluation(measured):
    figures = plots.evaluation_plots(measured[1])
    assert {"roc.png", "calibration.png", "confusion_matrix.png"} <= figures.keys()
    for figure in figures.values():
        check(figure)


def test_figures_of_a_dataset(measured):
    check(plots.rating_histogram(measured[0]))
    check(plots.ratings_per_user(measured[0]))


def test_other_figures():
    check(plots.loss_per_epoch({"train_rmse": [(1, 1.0), (2, 0.9)], "validation_rmse": [(1, 1.1), (2, 1.0)]}, 2))
    check(plots.loss_per_epoch({"train_rmse": [(1, 1.0)]}, None))
    shaded = plots.loss_per_epoch({"train_rmse": [(epoch, 1.0) for epoch in range(1, 9)]}, None, 5)
    check(shaded)
    assert shaded.axes[0].patches[0].get_x() + shaded.axes[0].patches[0].get_width() == 5.5
    check(plots.importances({"item_average_rating": 0.7, "user_average_rating": 0.3}))
    check(plots.comparison(["1 bias", "2 random_forest"], [0.7, 0.75], [None, (0.04, 0.06)], 1, 0))
    check(plots.comparison(["1 bias"], [0.7], [None], None, None))
    own = plots.comparison(["1 bias"], [0.7], [(0.65, 0.74)], 0, None)
    check(own)
    assert list(own.axes[0].lines[0].get_xdata()) == [0.65, 0.74]


def test_of_many_versions_the_best_are_compared():
    aucs = [0.5 + number / 1000 for number in range(100)]
    figure = plots.comparison([f"{number} bias" for number in range(100)], aucs, [None] * 100, 99, None)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [f"{number} bias" for number in range(60, 100)]
    assert figure.axes[0].get_title() == "Versions on the same test set (orange: in Production): the best 40 of 100"


def test_the_histogram_counts_every_rating(measured):
    dataset, _ = measured
    bars = plots.rating_histogram(dataset).axes[0].patches
    assert sum(bar.get_height() for bar in bars) == dataset.manifest["ratings"]


def test_the_histogram_counts_test_ratings_outside_the_scale(tmp_path):
    rows = rated(20, 20, 1, 5)  # no two alike
    tested = prepared(tmp_path, rows).test.ratings
    moved = {tested.min(): -9, tested.max(): 19}
    dataset = prepared(tmp_path, [(user, item, moved.get(rating, rating)) for user, item, rating in rows])
    assert -9 < dataset.scale[0] < dataset.scale[1] < 19
    bars = plots.rating_histogram(dataset).axes[0].patches
    assert sum(bar.get_height() for bar in bars) == dataset.manifest["ratings"]


def test_the_roc_curve_without_two_classes_says_why(measured):
    dataset, evaluation = measured
    rows = np.flatnonzero(evaluation.liked)
    one_class = Evaluation(
        rows=evaluation.rows[rows],
        predictions=type(evaluation.predictions)(*(values[rows] for values in evaluation.predictions)),
        liked=evaluation.liked[rows],
        item_counts=evaluation.item_counts[rows],
        user_auc=np.array([]),
        metrics={"rmse": 1.0},
        undefined={"auc": "all rows are likes"},
        scale=dataset.scale,
    )
    figure = plots.roc(one_class)
    check(figure)
    assert "AUC undefined: all rows are likes" in [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    for other in plots.evaluation_plots(one_class).values():
        check(other)


def test_the_confusion_matrix_counts_every_row(measured):
    _, evaluation = measured
    likes = plots.confusion(evaluation).axes[0]
    assert sum(int(text.get_text().split("\n")[0]) for text in likes.texts) == len(evaluation.rows)


def test_the_largest_importance_is_on_top():
    axes = plots.importances({"a": 0.2, "b": 0.5, "c": 0.3}).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "c", "b"]
