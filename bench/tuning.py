"""What a search finds, what several workers gain, and what coordination and logging cost.

python -m bench.tuning accuracy|workers|coordination|logging, or all four without a word.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench.measure import PROJECT, heading, table
from recsys.data.builder import prepare
from recsys.data.dataset import Dataset
from recsys.data.movielens import obtain
from recsys.data.preparation import Preparation
from recsys.evaluation.evaluator import evaluate
from recsys.models.base.capabilities import family_names
from recsys.models.base.family import family_module
from recsys.training.trainer import train
from recsys.tuning.search import Search
from recsys.tuning.study import SearchConfig
from steps.support.entrypoint import data_folder
from tests.support.services import database_server

FAMILIES = [name for name in ("matrix_factorization", "bayesian_mf") if name in family_names()]
PACKAGES = ["optuna", "SQLAlchemy", "mlflow"]


def movielens(folder: Path) -> Dataset:
    """MovieLens 100K as `prepare` makes it by default."""
    return prepare(obtain("movielens-100k", data_folder() / "downloads"), Preparation(), folder)


def searched(dataset: Dataset, wanted: SearchConfig, url: str) -> Search:
    """A search of one worker, run to its end; nothing goes to MLflow."""
    search = Search(wanted, dataset, url, f"{wanted.family}-{wanted.sampler}-{wanted.seed}", "here")
    search.join()
    with search.at_work():
        search.run(lambda trial, curves: None)
    return search


def accuracy(trials: int, seeds: Sequence[int]) -> None:
    """Default settings, random search and TPE: the validation AUC that is searched for, and the test AUC it gives."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        dataset = movielens(Path(folder))

        def measured(family: str, config: Any, seed: int) -> tuple[float, float]:
            done = train(family, dataset, config, seed=seed)
            chosen = evaluate(done.chosen, dataset, part="validation", ranking=False, baselines=False)
            final = evaluate(done.final, dataset, ranking=False, baselines=False)
            return chosen.metrics["auc"], final.metrics["auc"]

        for family in FAMILIES:
            found: dict[str, list[tuple[float, float]]] = {}
            seconds: dict[str, list[float]] = {}
            for seed in seeds:
                config = family_module(family).Config()
                found.setdefault("default settings", []).append(measured(family, config, seed))
                for sampler in ("random", "tpe"):
                    began = time.perf_counter()
                    wanted = SearchConfig(family, trials=trials, seed=seed, sampler=sampler)
                    config = searched(dataset, wanted, f"sqlite:///{folder}/studies.db").best()[1]
                    seconds.setdefault(sampler, []).append(time.perf_counter() - began)
                    found.setdefault(sampler, []).append(measured(family, config, seed))
            for name, pairs in found.items():
                validation, test = ([pair[k] for pair in pairs] for k in range(2))
                took = f"{statistics.mean(seconds[name]):.0f}" if name in seconds else ""
                cells = [f"{statistics.mean(values):.4f}" for values in (validation, test)]
                rows.append([family, name, *cells, " ".join(f"{value:.4f}" for value in test), took])
    print(heading(f"{trials} trials on MovieLens 100K, means of {len(seeds)} seeds", PACKAGES))
    print(table(["family", "", "validation AUC", "test AUC", "test AUC by seed", "search s"], rows))


def workers(trials: int, family: str) -> None:
    """The wall time of `tune` with one worker and with two, start and end included and without."""
    seconds: dict[int, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "RECSYS_S"))}
        for count in (1, 2):
            home = Path(folder) / str(count)
            home.mkdir()
            environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{home / 'mlflow.db'}"
            # At random: what is tried does not depend on what came before, or on who came first.
            given = {"family": family, "trials": trials, "workers": count, "sampler": "random", "register": "false"}
            command = [sys.executable, "-m", "steps.tune", *(f"--{k}={v}" for k, v in given.items())]
            began = time.perf_counter()
            subprocess.run(
                [*command, f"--folder={home}"], cwd=PROJECT, env=environment, check=True, capture_output=True
            )
            seconds[count] = time.perf_counter() - began, _busy(f"sqlite:///{home / 'studies.db'}")
    rows = [
        [f"{count} worker{'s' * (count > 1)}", f"{whole:.1f}", f"{span:.1f}"]
        for count, (whole, span) in seconds.items()
    ]
    rows.append(["ratio", *(f"{seconds[2][k] / seconds[1][k]:.2f}" for k in range(2))])
    print(heading(f"{trials} trials of {family} on MovieLens 100K", PACKAGES))
    print(table(["workers", "whole command s", "first trial's start to last one's end s"], rows))


def _busy(url: str) -> float:
    import optuna

    (name,) = optuna.get_all_study_names(url)
    trials = optuna.load_study(study_name=name, storage=url).trials
    return float((max(t.datetime_complete for t in trials) - min(t.datetime_start for t in trials)).total_seconds())


def coordination(count: int, trials: int, seconds: float) -> None:
    """So many processes against MariaDB, whose trials only sleep."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        movielens(folder)
        with database_server(folder / "server") as server:
            url = server.new_database("coordination")
            context = get_context("spawn")
            ready, spent = context.Barrier(count), context.Queue()
            given = (url, temporary, trials, seconds, ready, spent)
            processes = [context.Process(target=_sleeper, args=given) for _ in range(count)]
            for process in processes:
                process.start()
            cpu = [spent.get(timeout=600) for _ in processes]
            starting, working = (sum(each) for each in zip(*cpu, strict=True))
            for process in processes:
                process.join()
            took = _busy(url)
    ideal = trials * seconds / count
    rows = [
        ["ideal s", f"{ideal:.1f}"],
        ["measured s", f"{took:.1f}"],
        ["share of the ideal throughput", f"{ideal / took:.0%}"],
        ["CPU seconds a trial", f"{working / trials:.3f}"],
        ["CPU seconds of a process before its first trial", f"{starting / count:.1f}"],
    ]
    print(heading(f"{count} processes, {trials} trials that sleep {seconds:g} s, MariaDB", [*PACKAGES, "PyMySQL"]))
    print(table(["", ""], rows))


def _sleeper(url: str, folder: str, trials: int, seconds: float, ready: Any, spent: Any) -> None:
    dataset = movielens(Path(folder))
    search = Search(SearchConfig("bias", trials=trials), dataset, url, "sleep", "here")

    def measure(config: Any, report: Callable[[int, float], None], into: Any) -> Any:
        for step in range(1, 11):
            time.sleep(seconds / 10)
            report(step, 0.5)  # alike, so that none is pruned
        into.value, into.metrics = config.damping, {"auc": config.damping}
        return into

    object.__setattr__(search.objective, "measure", measure)
    search.join()
    ready.wait()
    began = time.process_time()  # all of it so far: imports, data, the study opened
    with search.at_work():
        search.run(lambda trial, curves: None)
    spent.put((began, time.process_time() - began))


def logging(trials: int) -> None:
    """What a trial's run costs in MLflow on sqlite: 12 metrics, 5 settings, 4 curves of 30 epochs."""
    import mlflow

    from recsys.tracking import studies

    with tempfile.TemporaryDirectory() as folder:
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        taken, spent = [], []
        with mlflow.start_run() as parent:
            for number in range(trials):
                now = int(time.time() * 1000)
                record = studies.TrialRecord(
                    number,
                    "COMPLETE",
                    now,
                    now,
                    config={f"setting_{k}": k for k in range(5)},
                    metrics={f"metric_{k}": float(k) for k in range(12)},
                    curves={f"curve_{k}": [(epoch, 0.5) for epoch in range(30)] for k in range(4)},
                    tags={"study": "bench", "host": "here", "worker": "one"},
                )
                began, busy = time.perf_counter(), time.process_time()
                studies.record_trial(parent.info.run_id, record)
                taken.append(1000 * (time.perf_counter() - began))
                spent.append(1000 * (time.process_time() - busy))
    taken = sorted(taken[1:])
    print(heading(f"The MLflow run of a trial on sqlite, {trials} trials", PACKAGES))
    middle, late = statistics.median(taken), taken[int(0.95 * len(taken))]
    cells = [f"{middle:.0f}", f"{late:.0f}", f"{statistics.median(spent[1:]):.0f}"]
    print(table(["median ms", "95th percentile ms", "median ms of CPU"], [cells]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", choices=("accuracy", "workers", "coordination", "logging"))
    parser.add_argument("--trials", type=int, default=40, help="of accuracy and workers")
    parser.add_argument("--seeds", type=json.loads, default=[1, 2, 3], help="of accuracy, as JSON")
    parser.add_argument("--family", default="matrix_factorization", help="of workers")
    chosen = parser.parse_args()
    parts: dict[str, Callable[[], None]] = {
        "accuracy": lambda: accuracy(chosen.trials, chosen.seeds),
        "workers": lambda: workers(chosen.trials, chosen.family),
        "coordination": lambda: coordination(8, 80, 2.0),
        "logging": lambda: logging(100),
    }
    for name, part in parts.items():
        if chosen.part in (None, name):
            part()
