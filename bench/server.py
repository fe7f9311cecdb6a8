"""The team's server over MariaDB: what clients log at once, and what becomes of it when server or database dies.

`python -m bench.server` runs all parts; `python -m bench.server load`, `server` or `database` runs one.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from bench.measure import PROJECT, heading, table
from recsys.tracking.retry import retry_mlflow
from tests.support.services import DatabaseServer, database_server
from tests.support.team_server import TeamServer, team_server

BATCH = 1000
BATCHES = 5
OUTAGE_SECONDS = 20


@dataclass(frozen=True)
class Logged:
    """What one client logged: its runs, the seconds that making each took, and how long it was at it."""

    runs: list[str]
    creations: list[float]
    seconds: float


def client(address: str, seconds: float) -> Logged:
    """Log runs one after the other, each with batches of metrics and an artifact, until the time is over.

    Calls are made again as steps make them: of a server that is killed in the middle of an answer MLflow does not.
    """
    tracking = MlflowClient(address, address)
    create_run, log_batch, log_text, set_terminated = map(
        retry_mlflow, (tracking.create_run, tracking.log_batch, tracking.log_text, tracking.set_terminated)
    )
    runs, creations, start = [], [], time.monotonic()
    while time.monotonic() < start + seconds:
        before = time.monotonic()
        run_id = create_run("0", tags={"load": "true"}).info.run_id
        creations.append(time.monotonic() - before)
        for number in range(BATCHES):
            steps = range(number * BATCH, (number + 1) * BATCH)
            log_batch(run_id, metrics=[Metric("loss", 1 / (step + 1), 1000, step) for step in steps])
        log_text(run_id, run_id, "name.txt")
        set_terminated(run_id)
        runs.append(run_id)
    return Logged(runs, creations, time.monotonic() - start)


def log_at_once(pool: Executor, address: str, clients: int, seconds: float) -> list[Logged]:
    """Several clients at once."""
    return [done.result() for done in [pool.submit(client, address, seconds) for _ in range(clients)]]


def lost(address: str, logged: Sequence[Logged]) -> list[str]:
    """What is not there of what was logged, and what is there but was not."""
    tracking = MlflowClient(address, address)
    known = {run_id for one in logged for run_id in one.runs}
    problems, token = [], None
    while True:
        page = tracking.search_runs(["0"], "tags.load = 'true'", max_results=1000, page_token=token)
        for run in page:
            if run.info.run_id not in known:
                problems.append(f"run {run.info.run_id} ({run.info.status}): nobody knows of it")
            elif run.info.status != "FINISHED":
                problems.append(f"run {run.info.run_id}: {run.info.status}")
        if not (token := page.token):
            break
    for run_id in known:
        history = tracking.get_metric_history(run_id, "loss")
        if sorted((metric.step, metric.value) for metric in history) != [
            (k, 1 / (k + 1)) for k in range(BATCH * BATCHES)
        ]:
            problems.append(f"run {run_id}: {len(history)} metrics")
        with tempfile.TemporaryDirectory() as folder:
            if Path(tracking.download_artifacts(run_id, "name.txt", folder)).read_text(encoding="utf-8") != run_id:
                problems.append(f"run {run_id}: another artifact")
    return problems


def load(server: TeamServer) -> None:
    """Eight clients for a minute."""
    with ProcessPoolExecutor(8, mp_context=get_context("spawn")) as pool:
        before = log_at_once(pool, server.address, 8, 0.1)  # imports and connections
        logged = log_at_once(pool, server.address, 8, 60)
    runs = sum(len(one.runs) for one in logged)
    seconds = max(one.seconds for one in logged)
    p50, p99 = (1000 * float(np.percentile([c for one in logged for c in one.creations], q)) for q in (50, 99))
    print(heading("Eight clients at once for a minute", ["mlflow", "PyMySQL"]))
    row = (
        runs,
        f"{runs * BATCH * BATCHES / seconds:,.0f}",
        f"{p50:.0f}",
        f"{p99:.0f}",
        _checked(server, [*before, *logged]),
    )
    print(table(("runs", "metrics/s", "making a run, p50 ms", "p99 ms", "lost or wrong"), [row]))


def server_fault(server: TeamServer) -> None:
    """Four clients; the server is killed and started again."""
    with ThreadPoolExecutor(5) as pool:
        running = pool.submit(log_at_once, ThreadPoolExecutor(4), server.address, 4, 30)
        time.sleep(8)
        server.stop(signal.SIGKILL)
        time.sleep(5)
        server.start()
        logged = running.result()
    print(heading("The server killed and started again while four runs log", ["mlflow"]))
    print(table(("runs", "lost or wrong"), [(sum(len(one.runs) for one in logged), _checked(server, logged))]))


def database_fault(server: TeamServer) -> None:
    """A training; the database is killed in its middle and is away for a while."""
    environment = dict(os.environ) | {"MLFLOW_TRACKING_URI": server.address}
    command = [sys.executable, "-m", "steps.train", "--family=random_forest", "--n_estimators=300"]
    tracking = MlflowClient(server.address, server.address)
    with subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True) as training:
        while not tracking.search_runs(["0"], "attributes.run_name = 'train random_forest'"):
            time.sleep(0.2)
        time.sleep(2)
        server.database.stop(signal.SIGKILL)
        time.sleep(OUTAGE_SECONDS)
        server.database.start()
        said, _ = training.communicate(timeout=600)
    runs = tracking.search_runs(["0"], "attributes.run_name = 'train random_forest'")
    versions = len(tracking.search_model_versions("name = 'recsys'"))
    print(heading(f"The database killed and away for {OUTAGE_SECONDS} s in a training", ["mlflow"]))
    print(said)
    row = (training.returncode, ", ".join(run.info.status for run in runs), versions)
    print(table(("exit status", "its run", "versions registered"), [row]))


def _checked(server: TeamServer, logged: Sequence[Logged]) -> str:
    problems = lost(server.address, logged)
    return "; ".join(problems) if problems else "nothing"


PARTS: dict[str, Callable[[TeamServer], None]] = {
    "load": load,
    "server": server_fault,
    "database": database_fault,
}


def main(names: Sequence[str]) -> None:
    """Run parts, each over new databases."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    with tempfile.TemporaryDirectory() as folder, database_server(Path(folder) / "mariadb") as database:
        for name in names or PARTS:
            _run(PARTS[name], database, Path(folder) / name)


def _run(part: Callable[[TeamServer], None], database: DatabaseServer, folder: Path) -> None:
    folder.mkdir()
    with team_server(database, folder, SERVER_WORKERS="4") as server:
        part(server)


if __name__ == "__main__":
    main(sys.argv[1:])
