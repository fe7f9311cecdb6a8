"""Training from disk: what the block shuffle costs in AUC on MovieLens 1M, and how memory grows with the rows."""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.measure import heading, measure, table
from bench.prepare import make_ratings

ROW_GROUP = 4096  # rows, of the 700,000 to learn from
SEEDS = (0, 1, 2)


def shuffled(folder: Path, streamed: bool, seed: int) -> Callable[[], dict[str, float]]:
    """Train on MovieLens 1M, which is sorted by user, from memory or from small row groups; give the test measures."""
    from recsys.data import parquet_store
    from recsys.data.builder import prepare
    from recsys.data.movielens import obtain
    from recsys.data.preparation import Preparation
    from recsys.evaluation import evaluator
    from recsys.models.base.family import family_module
    from recsys.training import trainer
    from steps.support.entrypoint import data_folder

    def work() -> dict[str, float]:
        parquet_store.ROW_GROUP, parquet_store.FILE_ROWS = ROW_GROUP, 64 * ROW_GROUP
        dataset = prepare(obtain("movielens-1m", data_folder() / "downloads"), Preparation(), folder)
        config = family_module("matrix_factorization").Config()
        gigabytes = 1e-6 if streamed else 1e3
        done = trainer.train("matrix_factorization", dataset, config, seed=seed, gigabytes=gigabytes)
        measured = evaluator.evaluate(done.final, dataset, ranking=False, baselines=False).metrics
        return {**{name: measured[name] for name in ("rmse", "auc")}, "epochs": float(done.final.epochs)}  # type: ignore[attr-defined]

    return work


def prepared(path: Path, folder: Path) -> Callable[[], str]:
    """Prepare a file, its rows kept on disk."""
    from recsys.data.builder import prepare
    from recsys.data.preparation import Preparation

    return lambda: prepare(path, Preparation(ratings=str(path)), folder, gigabytes=0).digest


def trained(digest: str, folder: Path, gigabytes: float) -> Callable[[], Any]:
    """One epoch of 16 factors, all that goes before it, and the model written."""
    import torch  # noqa: F401  # its import is not timed

    from recsys.data.dataset import load_dataset
    from recsys.models.base.family import family_module
    from recsys.training import trainer

    def work() -> None:
        config = family_module("matrix_factorization").Config(embedding_size=16, epochs=1)
        dataset = load_dataset(digest, folder)
        trainer.train("matrix_factorization", dataset, config, seed=0, refit=False, gigabytes=gigabytes)

    return work


def main(sizes: Sequence[int], most_held: int, folder: Path | None) -> None:
    """Measure and print."""
    print(heading("Training from disk", ["torch", "pyarrow"]))
    with tempfile.TemporaryDirectory(dir=folder) as name:
        lines = []
        for streamed in (False, True):
            for seed in SEEDS:
                found = measure(shuffled, Path(name), streamed, seed).result
                way = f"blocks of about {ROW_GROUP} rows" if streamed else "all rows"
                lines.append([way, seed, f"{found['rmse']:.4f}", f"{found['auc']:.4f}", f"{found['epochs']:.0f}"])
        print(table(["shuffled", "seed", "test RMSE", "test AUC", "epochs"], lines))
    lines = []
    for rows in sizes:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            make_ratings(Path(name) / "ratings.csv", rows)
            digest = measure(prepared, Path(name) / "ratings.csv", Path(name) / "to").result
            for way, gigabytes in (("from disk", 1e-6), ("in memory", 1e3)):
                if gigabytes < 1 or rows <= most_held:
                    done = measure(trained, digest, Path(name) / "to", gigabytes)
                    lines.append([f"{rows:,}", way, f"{done.seconds:.0f}", f"{done.peak_gb:.2f}"])
    print(table(["rows of the file", "", "seconds", "peak GB"], lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="1e7,1e8", help="how many, by commas; empty: none")
    parser.add_argument("--most_held", type=float, default=2e7, help="of more rows only the streamed way is measured")
    parser.add_argument("--folder", type=Path, help="where there is disk enough: 10 GB for 1e8 rows")
    given = parser.parse_args()
    rows_asked_for = [int(float(rows)) for rows in given.rows.split(",") if rows]
    main(rows_asked_for, int(given.most_held), given.folder)
