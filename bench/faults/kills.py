"""Steps that are killed at one of their writes, and typed again: what is wrong afterwards.

Each step runs in a fork of a process that has all its modules, on a copy of one store. An audit hook counts what it
writes (files opened to write, renamed or removed, connections to databases) and ends the fork by SIGKILL at one.
"""

import importlib
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

from steps.support.command import find_program
from steps.support.entrypoint import run_step
from tests.support.pipeline import grid, options, write_csv

LOADED = (
    *("steps.prepare", "steps.train", "steps.evaluate", "steps.promote", "steps.rollback"),
    *("mlflow.pyfunc", "recsys.tracking.runs", "recsys.tracking.left_running", "recsys.evaluation.plots"),
    *("recsys.evaluation.evaluator", "recsys.training.trainer", "registry.integrity", "registry.transitions"),
)
ANY = {"max_rmse": 4, "beat_bias": False}
STEPS: dict[str, dict[str, object]] = {
    "prepare": {"ratings": "new.csv"},
    "train": {"ratings": "grid.csv", "family": "bias", "seed": 3, "forward": False},
    "evaluate": {"version": 2},
    "promote": ANY,
    "rollback": {},
}
_EVENTS = {"os.rename", "os.remove", "os.mkdir", "sqlite3.connect"}


@dataclass
class Outcome:
    """Of one step: how many writes it has, how many kills came before its end, and what was wrong after them."""

    writes: int = 0
    killed: int = 0
    wrong: list[str] = field(default_factory=list)


def run(folder: Path, kills: int, seed: int) -> dict[str, Outcome]:
    """Kill every step so often, each time at another of its writes."""
    for name in LOADED:  # once, here: the forks have them then
        importlib.import_module(name)
    base, draw = _base(folder / "base"), random.Random(seed)
    found = {}
    for step in STEPS:
        outcome = found[step] = Outcome()
        work = folder / "work"
        _again(base, work)
        outcome.writes = _forked(work, step, None)
        for number in range(kills):
            _again(base, work)
            at = draw.randint(1, max(outcome.writes, 1))
            outcome.killed += _forked(work, step, at) < 0
            # A rollback that is done would go back further when it is typed again: it says that there is nothing.
            done = step == "rollback" and _told(_champion, work) == "1"
            if _forked(work, step, None) < 0 and not done:
                outcome.wrong.append(f"{step}, killed at write {at}: typed again it fails")
            outcome.wrong += [f"{step}, killed at write {at}: {what}" for what in _told(_look, work).splitlines()]
            print(f"{step} {number + 1}/{kills}: {len(outcome.wrong)} wrong", file=sys.stderr)
    return found


def _base(folder: Path) -> Path:
    """A store with three versions, each better than the one before; the second is in Production."""
    (folder / "home").mkdir(parents=True)
    write_csv(folder / "home" / "grid.csv", grid())
    write_csv(folder / "home" / "new.csv", grid(users=14))
    train = {"ratings": "grid.csv", "family": "bias", "forward": False}
    for step, parameters in (
        ("train", train | {"damping": 500}),
        ("promote", ANY),
        ("train", train | {"damping": 50}),
        ("promote", ANY),
        ("train", train),
    ):
        if _forked(folder, step, None, parameters) < 0:
            raise RuntimeError(f"{step} failed in {folder}")
    return folder


def _again(base: Path, work: Path) -> None:
    """Artifacts are known by their place: so the copy always has the same one, and the store names it."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(base, work)
    import sqlite3

    with sqlite3.connect(work / "mlflow.db") as database:
        for table, column in (
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("logged_models", "artifact_location"),
            ("model_versions", "storage_location"),
        ):
            database.execute(f"update {table} set {column} = replace({column}, ?, ?)", (str(base), str(work)))


def _forked(folder: Path, step: str, at: int | None, given: dict[str, object] | None = None) -> int:
    """Run a step in a fork; the number of its writes, -1 where it was killed or failed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _step(folder, step, at, STEPS[step] if given is None else given, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return int(told) if told else -1


def _step(folder: Path, step: str, at: int | None, given: dict[str, object], writing: int) -> None:
    count = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        flags = arguments[2] if event == "open" and isinstance(arguments[2], int) else 0
        if event in _EVENTS or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            count += 1
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)

    os.environ |= {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}", "RECSYS_DATA": str(folder / "data")}
    os.chdir(folder)
    status = 0
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        sys.addaudithook(hook)
        try:
            run_step(step, find_program(step), options(folder=folder / "home", **given))  # type: ignore[arg-type]
        except SystemExit as end:
            status = 1 if end.code else 0
        except BaseException:
            status = 1
    if status == 0:
        os.write(writing, str(count).encode())
    os._exit(0)


def _told(look: Callable[[Path], str], folder: Path) -> str:
    """What a look at a store at rest tells; in a fork, as everything else."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.write(writing, look(folder).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read().decode()
    os.waitpid(child, 0)
    return told


def _champion(folder: Path) -> str:
    from recsys.tracking import connection
    from registry import transitions

    connection.connect(f"sqlite:///{folder / 'mlflow.db'}")
    return str(transitions.read_state("recsys").champion)


def _look(folder: Path) -> str:
    """What is wrong, a line each."""
    from recsys.data.dataset import load_dataset
    from recsys.errors import InputError
    from recsys.tracking import connection, left_running
    from registry import integrity, transitions

    connection.connect(f"sqlite:///{folder / 'mlflow.db'}")
    wrong = []
    state = transitions.read_state("recsys")
    if len(state.production) != 1 or not state.is_settled(state.champion):
        wrong.append(f"in Production {state.production}, champion {state.champion}")
    for version in state.versions:
        try:
            integrity.check_version(version)
        except InputError as error:
            wrong.append(f"version {version.number}: {error}")
    for path in (folder / "data" / "prepared").iterdir():
        if not path.name.startswith("."):
            try:
                load_dataset(path.name, path.parent)
            except InputError as error:
                wrong.append(f"dataset {path.name}: {error}")
    left = left_running.end_left_running()
    return "\n".join(wrong + [f"run {run_id} was still RUNNING" for run_id in left])
