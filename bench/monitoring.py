"""What monitor finds, and what it does not: false alarms, injected changes, expected against realised, a million lists.

python -m bench.monitoring [movielens-1m] [replays]
"""

import io
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bench.measure import heading, measure, table
from recsys.arrays import Array
from recsys.data.builder import prepare
from recsys.data.dataset import Dataset
from recsys.data.movielens import obtain
from recsys.data.preparation import Preparation
from recsys.models.base.family import family_module
from recsys.models.base.recommender import Recommender
from recsys.monitoring.archive import Archive
from recsys.monitoring.checks import Window, assess, headline
from recsys.monitoring.estimates import auc_over_users, rmse_over_users
from recsys.monitoring.expected import expected_auc, expected_rmse, fit_adjustment
from recsys.monitoring.plots import report_plots
from recsys.monitoring.rated import Rated, Reference, rate, reference_of
from recsys.monitoring.report import Report, watch
from recsys.monitoring.traffic import Names, read_feedback, read_traffic
from recsys.training.trainer import train
from steps.support.entrypoint import data_folder
from tests.support import served_traffic
from tests.support.served_traffic import DAY, Given

WINDOWS = 30
REPLAYS = 200
ROWS = 1_000
_MILLION = 1_000_000
_FEEDBACK = 100_000


@dataclass(frozen=True, eq=False)
class Material:
    """A version, and test rows of its dataset in raw ids, which it has not learnt."""

    dataset: Dataset
    recommender: Recommender
    rated: Rated  # of all test rows, as the version says them
    timestamps: Array


def make_material(name: str, folder: Path, family: str = "bayesian_mf") -> Material:
    """Train a version with defaults."""
    dataset = prepare(obtain(name, data_folder() / "downloads"), Preparation(), folder)
    recommender = train(family, dataset, family_module(family).Config(), seed=42, lists=False).final
    rows = dataset.test
    assert rows.timestamps is not None
    ids = dataset.user_ids[rows.users], dataset.item_ids[rows.items]
    return Material(dataset, recommender, rate(recommender, *ids, rows.ratings, rows.users), rows.timestamps)


def halves(material: Material, random: np.random.Generator) -> tuple[Rated, Rated]:
    """A reference and what windows are drawn from: halves of the test rows, read by what the first tells."""
    order = random.permutation(len(material.rated))
    first, second = np.array_split(order, 2)
    known = material.rated[first].known
    adjustment = fit_adjustment(known.expected, known.spread, known.like, known.ratings, known.liked)

    def read(rated: Rated) -> Rated:
        spread = adjustment.spread(rated.expected, rated.spread)
        assert spread is not None
        return replace(rated, like=adjustment.probability(rated.like), spread=spread)

    return read(material.rated[first]), read(material.rated[second])


def window_of(rated: Rated, material: Material) -> Window:
    """A window of ratings in which no event is wrong."""
    knowledge, none = material.recommender.knowledge, np.zeros(len(rated), np.bool_)
    return Window(rated, knowledge.like_threshold, knowledge.scale, none, none, rated.users)


def false_alarms(
    material: Material, replays: int, windows: int = WINDOWS, rows: int = ROWS
) -> tuple[int, Counter[str]]:
    """In how many replays there was any alarm at all, by windows drawn at random, and by which checks."""
    alarmed, names = 0, Counter[str]()
    for seed in range(replays):
        random = np.random.default_rng(seed)
        reference, rest = halves(material, random)
        found: list[str] = []
        for look in range(1, windows + 1):
            window = window_of(rest[random.choice(len(rest), rows, replace=False)], material)
            found += [one.name for one in assess(window, reference, look) if one.alarms]
        alarmed += bool(found)
        names.update(set(found))
    return alarmed, names


def in_time_order(material: Material, windows: int = 10) -> list[tuple[object, ...]]:
    """Windows of the test rows as time went by: what is alarmed, and how far it is from what all rows say."""
    reference, adjusted = _read_all(material)
    found: list[tuple[object, ...]] = []
    for look, rows in enumerate(np.array_split(np.argsort(material.timestamps, kind="stable"), windows), 1):
        for one in headline(assess(window_of(adjusted[rows], material), reference.rated, look)):
            far = f"{one.difference / one.error:+.1f}" if one.error else "-"
            found.append((look, len(rows), one.name, one.severity, f"{one.value:.3f}", f"{one.reference:.3f}", far))
    return found


def _read_all(material: Material) -> tuple[Reference, Rated]:
    rows = material.rated
    reference = reference_of(material.recommender, rows.user_ids, rows.item_ids, rows.ratings, rows.users)
    return reference, reference.rated


def gaps(material: Material, rows: int, draws: int = 20) -> tuple[float, float, float, float]:
    """Realised less expected, of windows drawn at random: mean and largest distance of RMSE, and of AUC."""
    distances = []
    for seed in range(draws):
        random = np.random.default_rng(seed)
        _, rest = halves(material, random)
        some = rest[random.choice(len(rest), min(rows, len(rest)), replace=False)]
        rmse = rmse_over_users(some.errors, some.users).value - expected_rmse(some.spread)
        auc = auc_over_users(some.like, some.liked, some.users).value - expected_auc(some.like)
        distances.append((abs(rmse), abs(auc)))
    found = np.array(distances)
    return found[:, 0].mean(), found[:, 0].max(), found[:, 1].mean(), found[:, 1].max()


def report_of(path: Path, material: Material, reference: Reference, *, threshold: float | None = None) -> Report:
    """The report of a database that `served_traffic.write` wrote, of the time from 0 to a day."""
    archive, names = Archive(f"sqlite:///{path}"), Names.empty()
    return watch(
        read_traffic(archive.lists(0, DAY), names),
        read_feedback(archive.feedback(0, 2 * DAY), names),
        names,
        "1",
        lambda version: material.recommender,
        reference,
        since=0,
        until=DAY,
        within=7 * DAY,
        like_threshold=threshold,
    )


def injected(material: Material, rows: int = 3 * ROWS) -> list[tuple[object, ...]]:
    """What one window says of each injected change, and of none."""
    reference, _ = _read_all(material)
    found: list[tuple[object, ...]] = []
    injections = {"nothing": (lambda given, random: given, ""), **served_traffic.INJECTIONS}
    for name, (inject, wanted) in [*injections.items(), ("like threshold 4 → 3", (lambda g, r: g, "like_threshold"))]:
        random = np.random.default_rng(7)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "feedback.db"
            given = inject(draw(material, rows, random), random)
            served_traffic.write(path, given, material.recommender, random, since=0, until=DAY)
            alarms = report_of(path, material, reference, threshold=3.0 if "threshold" in name else None).alarms
        found.append((name, wanted or "none", ", ".join(f"{one.name} ({one.severity})" for one in alarms) or "none"))
    return found


def draw(material: Material, rows: int, random: np.random.Generator) -> Given:
    """Ratings of a window, drawn at random from the test rows."""
    some = material.rated[random.choice(len(material.rated), rows, replace=False)]
    return served_traffic.given_of(some.user_ids, some.item_ids, some.ratings)


def million(name: str) -> None:
    """Write a million lists with a hundred thousand feedbacks, and report on them in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(_million, name, folder)
    print(f"{_MILLION:,} lists, {_FEEDBACK:,} feedbacks: {measured.result:.1f} s of processor time, "
          f"{measured.seconds:.1f} s by the clock, {measured.peak_gb:.2f} GB at the peak")  # fmt: skip


def _million(name: str, folder: str):
    material = make_material(name, Path(folder) / "prepared")
    random = np.random.default_rng(0)
    path = Path(folder) / "feedback.db"
    steps = _MILLION // _FEEDBACK
    for step in range(steps):  # one list in ten gets feedback
        given = draw(material, _FEEDBACK, random)
        if step:
            given = replace(given, repeats=np.zeros(_FEEDBACK, np.int64))
        served_traffic.write(path, given, material.recommender, random, since=step * 8000.0, until=step * 8000.0 + 9000)
    reference, _ = _read_all(material)

    def report() -> float:
        before = time.process_time()
        for figure in report_plots(report_of(path, material, reference)).values():
            figure.savefig(io.BytesIO(), format="png")
        return time.process_time() - before

    return report


def run(name: str, replays: int) -> None:
    """Print all."""
    print(heading(f"Monitoring, {name}", ["numpy", "scipy", "pandas"]))
    with tempfile.TemporaryDirectory() as folder:
        material = make_material(name, Path(folder))
        alarmed, names = false_alarms(material, replays)
        print(f"{WINDOWS} windows of {ROWS:,} ratings drawn at random: any alarm in {alarmed} of {replays} replays "
              f"({dict(names) or 'by no check'})\n")  # fmt: skip
        sizes = [(n, *(f"{value:.4f}" for value in gaps(material, n))) for n in (1_000, 5_000, 20_000, 100_000)]
        columns = ("ratings", "|RMSE - expected|, mean", "largest", "|AUC - expected|, mean", "largest")
        print(table(columns, [row for row in sizes if row[0] <= len(material.rated) // 2]))
        print(table(("injected", "to be found", "found"), injected(material)))
        columns = ("window", "ratings", "alarm", "severity", "value", "before", "standard errors")
        print(table(columns, in_time_order(material)))
    million(name)


if __name__ == "__main__":
    run(sys.argv[1] if len(sys.argv) > 1 else "movielens-1m", int(sys.argv[2]) if len(sys.argv) > 2 else REPLAYS)
