"""Figures: what was measured in, a matplotlib figure out."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from recsys.arrays import Array, Floats
from recsys.data.dataset import Dataset
from recsys.data.interactions import Interactions
from recsys.data.parquet_store import PARTS
from recsys.evaluation.evaluator import Evaluation
from recsys.figures import BLUE, GREY, ORANGE, new_figure

_BINS = 40
_MOST_LEVELS = 12  # of a finer scale, the confusion matrix would be unreadable


def rating_histogram(dataset: Dataset) -> Figure:
    """How often each rating occurs in the prepared ratings."""
    figure, axes = new_figure("Ratings")
    values, counts = np.empty(0), np.empty(0, np.int64)
    edges = np.linspace(*_extremes(dataset), _BINS + 1)
    binned = np.zeros(_BINS, np.int64)
    for rows in _blocks(dataset):
        binned += np.histogram(rows.ratings, edges)[0]
        if len(values) <= _BINS:
            some, of_some = np.unique(rows.ratings, return_counts=True)
            values, place = np.unique(np.r_[values, some], return_inverse=True)
            counts = np.bincount(place, np.r_[counts, of_some])
    if len(values) <= _BINS:
        axes.bar(values, counts, width=0.8 * float(np.diff(values).min()), color=BLUE)
    else:
        axes.bar(edges[:-1], binned, width=np.diff(edges), align="edge", color=BLUE)
    axes.axvline(dataset.like_threshold, color=ORANGE, linestyle="--", label="like threshold")
    axes.set(xlabel="rating", ylabel="number of ratings")
    axes.legend()
    return figure


def ratings_per_user(dataset: Dataset) -> Figure:
    """How many ratings users have, all parts together."""
    figure, axes = new_figure("Ratings per user")
    counts = np.zeros(len(dataset.user_ids), np.int64)
    for rows in _blocks(dataset):
        counts += np.bincount(rows.users, minlength=len(counts))
    counts = counts[counts > 0]
    axes.hist(counts, bins=np.geomspace(counts.min(), counts.max() + 1, 40).tolist(), color=BLUE)
    axes.axvline(float(np.median(counts)), color=ORANGE, linestyle="--", label=f"median {np.median(counts):g}")
    axes.set(xscale="log", xlabel="ratings of a user", ylabel="number of users")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())  # minor ticks of less than a decade would have labels, too
    axes.legend()
    return figure


def _extremes(dataset: Dataset) -> tuple[float, float]:
    """The lowest and the highest rating of all parts; those of the test may lie outside the dataset's scale."""
    extremes = [(rows.ratings.min(), rows.ratings.max()) for rows in _blocks(dataset)]
    return min(low for low, _ in extremes), max(high for _, high in extremes)


def _blocks(dataset: Dataset) -> Iterator[Interactions]:
    return chain.from_iterable(dataset.blocks(part) for part in PARTS)


def loss_per_epoch(
    history: Mapping[str, Sequence[tuple[int, float]]], best: int | None, burn_in: int | None = None
) -> Figure:
    """Curves of (epoch, RMSE) by name, where the best epoch was, and up to which one nothing was kept."""
    figure, axes = new_figure("Learning")
    if burn_in:
        axes.axvspan(0, burn_in + 0.5, color=GREY, alpha=0.2, label=f"burn-in, not kept (to {burn_in})")
    for name, points in history.items():
        epochs, values = zip(*points, strict=True)
        axes.plot(epochs, values, marker=".", label=name.replace("_", " "))
    if best is not None:
        axes.axvline(best, color=GREY, linestyle="--", label=f"best epoch ({best})")
    axes.set(xlabel="epoch", ylabel="RMSE (rating points)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=2)  # among the curves it would hide one
    return figure


def importances(values: Mapping[str, float]) -> Figure:
    """Feature importances as bars, the largest on top."""
    names = sorted(values, key=lambda name: values[name])
    figure, axes = new_figure("Feature importances", height=1.2 + 0.4 * len(names))
    axes.barh([name.replace("_", " ") for name in names], [values[name] for name in names], color=BLUE)
    axes.set(xlabel="share of the impurity removed", ylabel="feature")
    return figure


def roc(evaluation: Evaluation) -> Figure:
    """The ROC curve of the probability of a like; empty where the rows hold one class only."""
    from sklearn.metrics import roc_curve  # a second of imports, of which other figures need nothing

    figure, axes = new_figure("ROC curve", width=5.5, height=5)
    if "auc" in evaluation.metrics:
        false, true, _ = roc_curve(evaluation.liked, evaluation.predictions.like_probability)
        axes.plot(false, true, color=BLUE, label=f"AUC {evaluation.metrics['auc']:.4f}")
    else:
        axes.plot([], [], label=f"AUC undefined: {evaluation.undefined['auc']}")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="chance")
    axes.set(xlabel="share of other ratings called likes", ylabel="share of likes found", aspect="equal")
    axes.legend(loc="lower right")
    return figure


def calibration(evaluation: Evaluation) -> Figure:
    """Predicted probability of a like against the share that were likes, in tenths of the rows."""
    figure, axes = new_figure("Calibration", width=5.5, height=5)
    order = np.argsort(evaluation.predictions.like_probability, kind="stable")
    groups = [group for group in np.array_split(order, 10) if len(group)]
    predicted = [float(evaluation.predictions.like_probability[group].mean()) for group in groups]
    observed = [float(evaluation.liked[group].mean()) for group in groups]
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="perfect")
    axes.plot(predicted, observed, marker="o", color=BLUE, label="tenths of the rows")
    axes.set(
        xlabel="predicted probability of a like",
        ylabel="share of likes",
        aspect="equal",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    axes.legend(loc="upper left")
    return figure


def confusion(evaluation: Evaluation) -> Figure:
    """Likes called at a probability of 0.5 and, where the scale has few levels, the nearest rating level."""
    levels = np.unique(evaluation.rows.ratings)
    panels = 2 if len(levels) <= _MOST_LEVELS else 1
    figure = Figure(figsize=(5.5 * panels, 4.8), layout="constrained")
    called = evaluation.predictions.like_probability >= 0.5
    _matrix(
        figure.add_subplot(1, panels, 1),
        _crossed(evaluation.liked, called, 2),
        ["other", "like"],
        "Likes at probability 0.5",
    )
    if panels == 2:
        nearest = np.abs(evaluation.predictions.rating[:, None] - levels).argmin(axis=1)
        actual = np.searchsorted(levels, evaluation.rows.ratings)
        counts = _crossed(actual, nearest, len(levels))
        _matrix(
            figure.add_subplot(1, 2, 2),
            counts,
            [f"{level:g}" for level in levels],
            "Rating, to the nearest level",
        )
    return figure


def error_by_rating_count(evaluation: Evaluation) -> Figure:
    """RMSE of rows grouped by how many training ratings their item has."""
    figure, axes = new_figure("Error by what is known of the item")
    edges = np.array([0, 1, 3, 10, 30, 100, 300, 1000, 3000, np.inf])
    group = np.searchsorted(edges, evaluation.item_counts, side="right") - 1
    errors = (evaluation.rows.ratings - evaluation.predictions.rating) ** 2
    found = np.unique(group)
    names = [f"{_range(edges[k], edges[k + 1])}\nn={int((group == k).sum()):,}" for k in found]
    axes.bar(names, [float(np.sqrt(errors[group == k].mean())) for k in found], color=BLUE)
    axes.axhline(evaluation.metrics["rmse"], color=ORANGE, linestyle="--", label="all rows")
    axes.set(xlabel="training ratings of the item; n: test rows", ylabel="RMSE (rating points)")
    axes.legend()
    return figure


_MOST_COMPARED = 40


def comparison(
    names: Sequence[str],
    values: Sequence[float],
    intervals: Sequence[tuple[float, float] | None],
    champion: int | None,
    reference: int | None,
    level: float = 0.95,
    measure: str = "AUC",
) -> Figure:
    """A measure of versions on the same test set, the highest on top.

    Args:
        intervals: of each version's difference to the reference, drawn from the reference's value on; without one, of
            its own value.
        champion: position of the version in Production after the decision.
        reference: position of the version that was there before, which all are compared with.
    """
    order = np.argsort(values, kind="stable")[-_MOST_COMPARED:]
    title = "Versions on the same test set (orange: in Production)"
    if len(order) < len(names):
        title += f": the best {len(order)} of {len(names)}"
    figure, axes = new_figure(title, height=max(2.4, 0.28 * len(order) + 1.4))
    for row, position in enumerate(order):
        colour = ORANGE if position == champion else BLUE
        if (interval := intervals[position]) is not None:
            start = 0.0 if reference is None else values[reference]
            axes.plot([start + bound for bound in interval], [row, row], color=colour, lw=2, alpha=0.6)
        axes.plot(values[position], row, "o", color=colour)
        axes.annotate(
            f"{values[position]:.4f}",
            (values[position], row),
            (0, 5),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    if reference is not None:
        axes.axvline(values[reference], color="black", lw=1, ls="--")
        bars = f"bars: {level:.0%} interval of the difference to version {names[reference].split()[0]} (dashed)"
        axes.set_xlabel(f"test {measure}; {bars}")
    else:
        drawn = f"; bars: its {level:.0%} interval over users" if any(intervals) else ""
        axes.set_xlabel(f"test {measure}{drawn}")
    axes.set_yticks(range(len(order)), [names[position] for position in order], fontsize=8)
    axes.set(ylabel="version", ylim=(-0.6, len(order) - 0.2))
    axes.margins(x=0.12)
    return figure


def evaluation_plots(evaluation: Evaluation) -> dict[str, Figure]:
    """All figures of an evaluation by file name; none where there are no ratings."""
    if evaluation.taking is not None:
        return {}
    return {
        "roc.png": roc(evaluation),
        "calibration.png": calibration(evaluation),
        "confusion_matrix.png": confusion(evaluation),
        "error_by_rating_count.png": error_by_rating_count(evaluation),
    }


def _crossed(actual: Array, predicted: Array, n: int) -> Array:
    """How often each of n classes was predicted as which: shape (n, n)."""
    return np.bincount(actual.astype(np.int64) * n + predicted, minlength=n * n).reshape(n, n)


def _matrix(axes: Axes, counts: Array, labels: Sequence[str], title: str) -> None:
    shares: Floats = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.5 else "black"
        text = f"{count}\n{shares[row, column]:.0%}"
        # Inside of the axes: what is placed around them need not look at it.
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8, in_layout=False)
    axes.set(title=title, xlabel="predicted", ylabel="actual")
    axes.set_xticks(range(len(labels)), labels)
    axes.set_yticks(range(len(labels)), labels)


def _range(low: float, high: float) -> str:
    if np.isinf(high):
        return f"{low:g}+"
    return f"{low:g}" if high - low == 1 else f"{low:g}-{high - 1:g}"
