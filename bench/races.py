"""Promotions that race, meet new versions and are killed: is there one champion, the right one, at every moment?

Each round has a model of its own. Some workers at once each register a version and promote, one in four is killed
somewhere in its work, a watcher polls the alias, and one more promotion ends the round.
"""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import sqlalchemy

from recsys.evaluation import PROTOCOL

_ALIAS = "select version from registered_model_aliases where name = :name and alias = 'champion'"
_STAGES = "select version from model_versions where name = :name and current_stage = 'Production'"
Work = Callable[[str, int | None], str]
_PROCESSES = 4
DIGEST = "0123456789abcdef"
_EVALUATION = f"evaluation.{PROTOCOL}.{DIGEST}"
_MODEL = {"git_dirty": "false", "git_commit": "0" * 40, "author": "a test", "ratings": "x", "split": "hash"}


@dataclass
class Outcome:
    """What went wrong, by round; all empty where promotion can be trusted.

    `unrest`: nobody was killed and all promotions had ended, and yet the best was not alone in Production, or not the
    champion. The others are looked at after one more promotion.
    """

    rounds: int = 0
    killed: int = 0
    unrest: list[str] = field(default_factory=list)
    wrong_production: list[str] = field(default_factory=list)
    wrong_champion: list[str] = field(default_factory=list)
    without_champion: int = 0
    without_stage: int = 0
    observations: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def bad_rounds(self) -> int:
        """How many rounds ended with other than one version in Production, or the wrong one."""
        return len({text.partition(":")[0] for text in self.wrong_production + self.wrong_champion})


class Worker:
    """A process with MLflow loaded that carries out one order after another, until it is killed."""

    def __init__(self, uri: str) -> None:
        context = get_context("forkserver")
        context.set_forkserver_preload(["mlflow", "registry.transitions", "recsys.tracking.runs"])
        self._uri = uri
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(uri, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def order(self, work: Callable[..., Any], *arguments: object) -> None:
        """Have `work` called there."""
        self._pipe.send((work, arguments))

    def answer(self) -> Any:
        """What the last order gave; an exception that it raised is given as its text, None if it was killed."""
        try:
            return self._pipe.recv()
        except EOFError:
            return None

    def kill(self) -> "Worker":
        """Kill it; gives a fresh one."""
        assert self.process.pid
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()
        return Worker(self._uri)

    def end(self) -> None:
        """Let it end."""
        self._pipe.close()
        self.process.join(10)


def promote(name: str, own: int | None) -> str:
    """What the step does to the registry, from metrics that are there already; `own` is just registered."""
    from registry import transitions

    transitions.settle(name, choose, "a test")
    return ""


def choose(state: Any) -> Any:
    """The policy, as the step applies it."""
    from registry.policy import Candidate, Policy, decide

    candidates = [
        Candidate(
            v.number, "bias", v.stage, v.metrics_on(DIGEST) or {}, v.rolled_back, replicates=v.replicates_on(DIGEST)
        )
        for v in state.versions
    ]
    policy = Policy(beat_bias=False)
    return decide(candidates, champion=state.champion, policy=policy, scale=(1, 5), test_rows=100)


def promote_by_bare_transition(name: str, own: int | None) -> str:
    """What everybody writes: if mine is better than the champion, set the alias, let MLflow archive the others."""
    import warnings

    from mlflow.tracking import MlflowClient

    from registry.versions import find_model, list_versions

    auc = {version.number: (version.metrics_on(DIGEST) or {})["auc"] for version in list_versions(name)}
    mine = own or max(auc, key=auc.__getitem__)
    model = find_model(name)
    champion = int(model.aliases.get("champion", 0)) if model else 0
    if auc[mine] > auc.get(champion, 0):
        warnings.simplefilter("ignore", FutureWarning)
        client = MlflowClient()
        client.set_registered_model_alias(name, "champion", str(mine))
        client.transition_model_version_stage(name, str(mine), "Production", archive_existing_versions=True)
    return ""


def register(name: str, aucs: list[float], run_id: str | None = None) -> int:
    """Register versions that carry their metrics as those of the release before did; the number of the last.

    Args:
        run_id: that trained them; None: they cannot be measured again.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    from recsys.tracking.retry import retry_mlflow

    client = MlflowClient()
    try:
        retry_mlflow(client.create_registered_model)(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    for auc in aucs:
        metrics = json.dumps({"auc": auc, "rmse": 0.9, "seen_rows": 0})
        tags = {"family": "bias", "data_version": "x", "validation": "{}", _EVALUATION: metrics}
        made = retry_mlflow(client.create_model_version)(name, "s3://nowhere/model", run_id, tags=_MODEL | tags)
    return int(made.version)


def take_part(work: Work, name: str, auc: float) -> str:
    """Come with a version of one's own, as a training does, and promote."""
    return work(name, register(name, [auc]))


@contextmanager
def watching(name: str, database: str, outcome: Outcome) -> Iterator[None]:
    """Polls who the alias points at and who is in the stage Production, from when there first is anybody."""
    engine = sqlalchemy.create_engine(database)
    stopped = threading.Event()

    def poll() -> None:
        seen = placed = False
        while not stopped.is_set():
            with engine.connect() as connection:
                found = connection.execute(sqlalchemy.text(_ALIAS), {"name": name}).first()
                staged = connection.execute(sqlalchemy.text(_STAGES), {"name": name}).first()
            placed = placed or staged is not None
            outcome.without_stage += placed and staged is None
            seen = seen or found is not None
            outcome.observations += seen
            outcome.without_champion += seen and found is None
            time.sleep(0.005)

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        engine.dispose()


@contextmanager
def workers(uri: str) -> Iterator[list[Worker]]:
    """Some workers, and at the end none."""
    made = [Worker(uri) for _ in range(_PROCESSES + 1)]
    try:
        yield made
    finally:
        for worker in made:
            worker.end()


def race(uri: str, database: str, *, rounds: int, seed: int, work: Work = promote) -> Outcome:
    """Run rounds against a store, and look at what is left in its database.

    Args:
        uri: where MLflow's clients write.
        database: SQLAlchemy's URL of the database behind it, which is looked at directly.
    """
    draw = random.Random(seed)
    outcome = Outcome()
    prefix = f"race-{work.__name__}-{seed}"
    with workers(uri) as pool:
        for number in range(rounds):
            _round(pool, f"{prefix}-{number}", database, draw, outcome, work)
            outcome.rounds += 1
    return outcome


def _round(pool: list[Worker], name: str, database: str, draw: random.Random, outcome: Outcome, work: Work) -> None:
    last = pool[-1]
    last.order(register, name, [0.7 + draw.random() / 10 for _ in range(3)])
    _expect(3, last.answer(), outcome, name)
    if draw.random() < 0.5:  # else they race for the first champion
        last.order(work, name, None)
        _expect("", last.answer(), outcome, name)
    with watching(name, database, outcome):
        racing = list(range(draw.randint(2, _PROCESSES)))
        doomed = {index: draw.uniform(0, 0.4) for index in racing if draw.random() < 0.25}
        began = time.monotonic()
        for index in racing:
            pool[index].order(take_part, work, name, 0.75 + draw.random() / 10)
        for index, delay in sorted(doomed.items(), key=lambda pair: pair[1]):
            time.sleep(max(0.0, began + delay - time.monotonic()))
            pool[index] = pool[index].kill()
            outcome.killed += 1
        for index in set(racing) - set(doomed):
            _expect("", pool[index].answer(), outcome, name)
        production, champion, best = look(name, database)
        if not doomed and not production == champion == best:
            outcome.unrest.append(f"{name}: champion {champion}, in Production {production}, best {best}")
        last.order(work, name, None)
        _expect("", last.answer(), outcome, name)
    production, champion, best = look(name, database)
    if len(production) != 1:
        outcome.wrong_production.append(f"{name}: {production} in Production")
    if not production == champion == best:
        outcome.wrong_champion.append(f"{name}: champion {champion}, in Production {production}, best {best}")


def _expect(wanted: object, answer: object, outcome: Outcome, name: str) -> None:
    if answer != wanted:
        outcome.failures.append(f"{name}: {answer}")


def look(name: str, database: str) -> tuple[list[int], list[int], list[int]]:
    """The versions in Production, the champion, and the version with the highest AUC, as the database has them."""
    engine = sqlalchemy.create_engine(database)
    queries = (
        _STAGES,
        _ALIAS,
        f"select version, value from model_version_tags where name = :name and `key` = '{_EVALUATION}'",
    )
    with engine.connect() as connection:
        stages, alias, scores = (list(connection.execute(sqlalchemy.text(q), {"name": name})) for q in queries)
    engine.dispose()
    best = max(scores, key=lambda row: json.loads(row[1])["auc"])
    return [int(row[0]) for row in stages], [int(row[0]) for row in alias], [int(best[0])]


def _serve(uri: str, pipe: Connection) -> None:
    from recsys.tracking import connection

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection.connect(uri)
    while True:
        try:
            work, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(work(*arguments))
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}")
