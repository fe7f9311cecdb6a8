"""How fits grow with rows, users and factors, ours beside cornac and implicit, on made-up ratings.

python -m bench.growth [--rows 1e6,1e7,1e8] [--factors 16,64] [--only WORDS] [--folder FOLDER]

Each set is learnt from by default settings with 32 factors; the first one by other numbers of factors, too, and with
ten times its users. Of each set a million rows, or a fifth, are for the test. implicit learns who takes what, and says
nothing of ratings. Fits run one after the other, each in a process of its own, which has both cores.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr

from bench.measure import heading, measure, table
from bench.peers.contest import fit_files
from bench.peers.contestants import MODELS, NUMERIC, PEERS, Contestant, ours
from bench.peers.environments import UnavailableError
from recsys import metrics
from recsys.arrays import Floats

FACTORS = 32
TESTED = 1_000_000
SCALE, STEP, NOISE, RANK = (0.5, 5.0), 0.5, 0.8, 6
_BLOCK = 1 << 22
_LIKE = 4.0
IMPLICIT = Contestant("implicit ALS", MODELS / "implicit_als.py", ("implicit==0.7.2", *NUMERIC))


@dataclass(frozen=True)
class Size:
    """Of a made-up set; `rows` are drawn, and pairs that repeat are left out."""

    rows: int
    users: int
    items: int


SIZES = {
    1_000_000: Size(1_100_000, 6_000, 3_700),
    10_000_000: Size(10_500_000, 70_000, 11_000),
    100_000_000: Size(104_000_000, 480_000, 18_000),
}


def making(size: Size, folder: Path) -> Callable[[], tuple[int, Floats, float]]:
    """`make`, for a process of its own: what it needs is then free for fits."""
    return lambda: make(size, folder)


def make(size: Size, folder: Path, seed: int = 7) -> tuple[int, Floats, float]:
    """Write train.npz and test.npz; gives the rows to learn from, the test's ratings and the best possible RMSE.

    A rating is a normal value around biases and six factors, cut to the scale and rounded. Activity and popularity are
    uneven.
    """
    rng = np.random.default_rng(seed)
    pairs = (size.users * rng.random(size.rows) ** 2).astype(np.int64) * size.items
    pairs += (size.items * rng.random(size.rows) ** 2).astype(np.int64)
    pairs = np.unique(pairs)
    rng.shuffle(pairs)
    users, items = (pairs // size.items).astype(np.int32), (pairs % size.items).astype(np.int32)
    del pairs
    of_user = rng.normal(0, 0.4, size.users), rng.normal(0, 0.45 / RANK**0.25, (size.users, RANK))
    of_item = rng.normal(0, 0.45, size.items), rng.normal(0, 1 / RANK**0.25, (size.items, RANK))
    ratings = np.empty(len(users))
    expected = np.empty(len(users), np.float32)
    for start in range(0, len(users), _BLOCK):
        block = slice(start, start + _BLOCK)
        u, i = users[block], items[block]
        mean = 3.4 + of_user[0][u] + of_item[0][i] + np.einsum("nk,nk->n", of_user[1][u], of_item[1][i])
        ratings[block] = np.clip(np.round((mean + rng.normal(0, NOISE, len(u))) / STEP) * STEP, *SCALE)
        levels = np.arange(SCALE[0] + STEP, SCALE[1] + STEP / 2, STEP)
        expected[block] = SCALE[0] + STEP * sum(ndtr((mean - (level - STEP / 2)) / NOISE) for level in levels)
    tested = min(TESTED, len(users) // 5)
    for name, rows in (("train", slice(tested, None)), ("test", slice(tested))):
        columns: dict[str, Any] = {"users": users[rows], "items": items[rows]}
        if name == "train":
            columns["ratings"] = ratings[rows]
        np.savez(folder / f"{name}.npz", **columns)
    best = metrics.rmse(ratings[:tested], expected[:tested].astype(np.float64))
    return len(users) - tested, ratings[:tested].copy(), best


def line_up(factors: int, only: str) -> Iterator[tuple[Contestant, dict[str, Any]]]:
    """Who fits, and with which settings."""
    cornac = next(one for one in PEERS if one.name == "cornac MF")
    everyone = (
        (ours("matrix_factorization"), {"embedding_size": factors}),
        (ours("bayesian_mf"), {"embedding_size": factors}),
        (cornac, {**cornac.first, "k": factors}),
        (IMPLICIT, {"factors": factors, "iterations": 15}),
    )
    words = [word.strip().lower() for word in only.split(",")]
    return ((who, given) for who, given in everyone if any(word in who.name.lower() for word in words))


def fit(who: Contestant, settings: dict[str, Any], folder: Path, truth: Floats, limit: float) -> list[str]:
    """Cells of a line: seconds of the fit, peak memory and RMSE, or why there are none."""
    predictions = folder / "predictions.npz"
    try:
        job = {"scale": SCALE, "like_threshold": _LIKE, "seed": 0, "predictions": str(predictions)}
        took = fit_files(who, settings, folder, limit, **job)
    except UnavailableError as error:
        return [str(error), "", ""]
    with np.load(predictions, allow_pickle=False) as said:
        rating = np.clip(said["rating"], *SCALE)
    rmse = f"{metrics.rmse(truth, rating):.4f}" if np.isfinite(rating).all() else ""
    return [f"{took['fit_seconds']:.1f}", f"{took['peak_gb']:.2f}", rmse]


def main() -> None:
    """Measure and print Markdown, and each line as it comes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1e6,1e7", help=f"of {', '.join(f'{size:.0e}' for size in SIZES)}")
    parser.add_argument("--factors", default="16,64", help="tried with the first set, beside 32; none if empty")
    parser.add_argument("--only", default="recsys,cornac,implicit", help="words of names")
    parser.add_argument("--limit", type=float, default=3600, help="seconds after which a process is ended")
    parser.add_argument("--folder", type=Path, help="where there is disk enough: 4 GB for 1e8 rows")
    given = parser.parse_args()
    sizes = [SIZES[int(float(rows))] for rows in given.rows.split(",")]
    cases = [(size, FACTORS) for size in sizes]
    if given.factors:
        cases[1:1] = [(sizes[0], int(factors)) for factors in given.factors.split(",")]
        cases.insert(1, (replace(sizes[0], users=10 * sizes[0].users), FACTORS))
    print(heading("How fits grow", ["numba", "numpy"]))
    lines = []
    for size, factors in cases:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            rows, truth, best = measure(making, size, Path(folder)).result
            for who, settings in line_up(factors, given.only):
                cells = fit(who, settings, Path(folder), truth, given.limit)
                shape = f"{rows:,}", f"{size.users:,}", f"{size.items:,}", str(factors)
                lines.append([*shape, who.name, *cells, f"{best:.4f}"])
                print(*lines[-1], sep="; ", file=sys.stderr, flush=True)
    print(table(["rows", "users", "items", "factors", "", "fit s", "peak GB", "RMSE", "best possible"], lines))


if __name__ == "__main__":
    main()
