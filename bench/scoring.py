"""Score a test set at once, against calling the model on one row after the other."""

import argparse
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from bench.measure import heading, table
from recsys.data.builder import prepare
from recsys.data.movielens import obtain
from recsys.data.preparation import Preparation
from recsys.models.base.capabilities import family_names
from recsys.models.base.family import family_module
from recsys.training.trainer import train
from steps.support.entrypoint import data_folder

ONE_BY_ONE_SECONDS = 3.0


def main(name: str) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        source = obtain(name, data_folder() / "downloads")
        dataset = prepare(source, Preparation(), Path(folder))
        rows = []
        for family in family_names():
            model = train(family, dataset, family_module(family).Config(), seed=0, refit=False).final
            test = pd.DataFrame(
                {"user_id": dataset.user_ids[dataset.test.users], "item_id": dataset.item_ids[dataset.test.items]}
            )
            codes = model.knowledge.user_codes(dataset.user_ids), model.knowledge.item_codes(dataset.item_ids)

            start = time.perf_counter()
            done = 0
            for _, row in islice(test.iterrows(), len(test)):
                model.predict(np.array([row.user_id], object), np.array([row.item_id], object))
                done += 1
                if time.perf_counter() - start > ONE_BY_ONE_SECONDS:
                    break
            one_by_one = done / (time.perf_counter() - start)

            seconds = []
            for _ in range(5):
                start = time.perf_counter()
                model.score(codes[0][dataset.test.users], codes[1][dataset.test.items])
                seconds.append(time.perf_counter() - start)
            at_once = len(test) / min(seconds)
            rows.append([family, f"{one_by_one:,.0f}", f"{at_once:,.0f}", f"{at_once / one_by_one:,.0f}"])
        print(heading(f"Scoring {len(test):,} test ratings of {name}, rows/s", ["numpy", "scikit-learn"]))
    print(table(["family", "one row at a time", "at once, as evaluate does", "ratio"], rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ratings", default="movielens-1m", help="movielens-100k or movielens-1m")
    main(parser.parse_args().ratings)
