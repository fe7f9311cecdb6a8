"""Promotion: races with killed processes on every kind of store, how well intervals cover, and what it costs.

python -m bench.promotion [rounds]
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from bench import races
from bench.measure import heading, table
from tests.support.services import database_server
from tests.support.team_server import team_server

_ROUNDS = 200
_BARE_ROUNDS = 50
_PAIRS = 500
_TEST_ROWS = 200_000
_USERS = 6_000
_VERSIONS = 100


@contextmanager
def stores(folder: Path) -> Iterator[dict[str, tuple[str, str]]]:
    """Every kind of store: where clients write, and the database behind it."""
    from recsys.tracking import connection

    with ExitStack() as stack:
        database = stack.enter_context(database_server(folder / "database"))
        sqlite = f"sqlite:///{folder / 'mlflow.db'}"
        direct = database.new_database("direct")
        for uri in (sqlite, direct):
            connection.connect(uri)
        server = stack.enter_context(team_server(database, folder))
        served = f"{database.address}/mlflow"
        yield {"sqlite": (sqlite, sqlite), "MariaDB": (direct, direct), "server on MariaDB": (server.address, served)}


def measure_races(found: dict[str, tuple[str, str]], rounds: int) -> str:
    """The races, ours and those of a bare transition."""
    rows = []
    for work, count in ((races.promote, rounds), (races.promote_by_bare_transition, min(rounds, _BARE_ROUNDS))):
        for name, (uri, database) in found.items():
            began = time.perf_counter()
            outcome = races.race(uri, database, rounds=count, seed=7, work=work)
            print(f"{work.__name__} on {name}: {time.perf_counter() - began:.0f} s")
            print(*outcome.wrong_champion, *outcome.failures, sep="\n")
            shown = [outcome.killed, len(outcome.unrest), len(outcome.wrong_production), len(outcome.wrong_champion)]
            absent = f"{outcome.without_champion} of {outcome.observations:,}"
            label = "recsys" if work is races.promote else "bare transition"
            rows.append([label, name, outcome.rounds, *shown, absent, len(outcome.failures)])
    columns = [
        *("promotion", "store", "rounds", "killed", "not settled though nobody was killed"),
        *("after one more: not one in Production", "wrong champion", "observed without champion", "calls that failed"),
    ]
    return table(columns, rows)


def measure_coverage() -> str:
    """How often the 95% interval of two models of equal quality holds zero."""
    from recsys.evaluation import bootstrap

    held = 0
    for seed in range(_PAIRS):
        random = np.random.default_rng(seed)
        users = random.integers(0, 150, 2_000)
        taste = random.normal(0, 0.7, 150)[users] + random.normal(size=2_000)
        liked = taste + random.normal(size=2_000) > 0
        shared = random.normal(0, 0.5, 2_000)
        ids = np.array([f"user {number}" for number in range(150)], object)
        found = [
            bootstrap.replicate_auc(
                users, ids, liked, taste + shared + random.normal(0, 0.5, 2_000), test_digest=f"{seed:x}"
            )
            for _ in range(2)
        ]
        comparison = bootstrap.compare(0.0, found[0], 0.0, found[1], level=0.95)
        held += comparison is not None and comparison.low <= 0 <= comparison.high
    return f"The 95% interval of {_PAIRS} pairs of models of equal quality held zero in {held / _PAIRS:.1%}.\n"


def measure_bootstrap() -> str:
    """Seconds for the replicates of two candidates."""
    from recsys.evaluation import bootstrap

    random = np.random.default_rng(0)
    users = random.integers(0, _USERS, _TEST_ROWS)
    ids = np.array([f"user {number}" for number in range(_USERS)], object)
    liked = random.random(_TEST_ROWS) < 0.55
    rows = []
    for label, digits in (("no ties", 12), ("100 distinct scores", 1)):
        began = time.perf_counter()
        for _ in range(2):
            score = np.round(0.8 * liked + random.normal(size=_TEST_ROWS), digits)
            bootstrap.replicate_auc(users, ids, liked, score, test_digest="0f")
        rows.append(
            [label, f"{_TEST_ROWS:,}", f"{_USERS:,}", bootstrap.REPLICATES, f"{time.perf_counter() - began:.2f}"]
        )
    return table(["scores", "test rows", "users", "replicates", "seconds for two candidates"], rows)


def measure_many(address: str) -> str:
    """Seconds to decide among many measured versions over a server, without any of their models."""
    from mlflow.tracking import MlflowClient

    from recsys.tracking import connection
    from registry import transitions, versions

    connection.connect(address)
    random = np.random.default_rng(0)
    for auc in random.uniform(0.7, 0.8, _VERSIONS):
        races.register("many", [float(auc)], MlflowClient().create_run("0").info.run_id)
    for version in versions.list_versions("many"):
        metrics = version.metrics_on(races.DIGEST) or {}
        replicates = metrics["auc"] + random.normal(0, 0.002, 2_000)
        versions.record_metrics(version, races.DIGEST, metrics, replicates)
    began = time.perf_counter()
    transitions.settle("many", races.choose, "a benchmark")
    seconds = time.perf_counter() - began
    return f"Promotion among {_VERSIONS} measured versions over a server on MariaDB: {seconds:.1f} s.\n"


def main() -> None:
    """Measure all and print Markdown."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else _ROUNDS
    parts = [
        heading("Promotion", ["mlflow", "numpy", "scipy", "SQLAlchemy", "PyMySQL"]),
        measure_bootstrap(),
        measure_coverage(),
    ]
    with tempfile.TemporaryDirectory() as temporary, stores(Path(temporary)) as found:
        parts.append(measure_many(found["server on MariaDB"][0]))
        parts.append(measure_races(found, rounds))
    print("\n".join(parts))


if __name__ == "__main__":
    main()
