"""Trials that are begun twice at once, ended by judges that disagree, and killed anywhere: what is left?

python -m bench.trial_races [rounds]

In each round two processes begin trials of different versions, then two end the one that is left, one by promotion, one
by rollback; each is killed somewhere with probability one half. What was killed is tidied up as the next look of any
server does, and looked at in the database.
"""

import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy

from bench import races
from recsys.tracking import connection

ROUNDS = 60
_LONGEST = 0.5  # seconds after which a process is killed at the latest
_STATE = (
    "select version, current_stage from model_versions "
    "where name = :name and current_stage in ('Production', 'Staging')"
)
_ALIASES = "select alias, version from registered_model_aliases where name = :name"


@dataclass
class Outcome:
    """What went wrong, by round; all empty where trials can be trusted."""

    rounds: int = 0
    killed: int = 0
    promoted: int = 0
    rolled_back: int = 0
    without_champion: int = 0
    observations: int = 0
    wrong: list[str] = field(default_factory=list)


def begin(name: str, number: int) -> str:
    """Put a version on trial, as promote does; tells of one that was there first."""
    from recsys.errors import InputError
    from recsys.experiments.plan import Plan
    from registry import transitions, trials
    from registry.policy import Decision
    from registry.trial_state import Trial

    def make(decision: Decision, state: transitions.State) -> Trial:
        assert state.champion is not None
        return Trial(f"{name}-{number}", number, state.champion, 0.1, transitions.now(), "a test", 4.0, Plan())

    try:
        trials.start(name, lambda state: Decision(number, state.champion, "ahead"), make, "a test")
    except InputError as error:
        return "" if "is on trial" in str(error) else str(error)
    return ""


def end(name: str, outcome: str) -> str:
    """End the trial that runs, as a judge does."""
    from registry import transitions, trials

    running = transitions.read_state(name).trial
    if running is not None:
        trials.end(name, running, outcome, "as the test says", "a test")
    return ""


def tidy(name: str) -> tuple[int | None, int | None, str]:
    """What every look of a server does; champion, challenger and the outcome of the last trial."""
    from registry import trials

    state = trials.tidy(name, "a test")
    past = [trial.outcome for trial in trials.past_trials(state) if trial.outcome not in ("", "void")]
    return state.champion, state.trial.version if state.trial else None, past[-1] if past else ""


def first_champion(name: str) -> str:
    """Version 1 to Production."""
    from registry import transitions
    from registry.policy import Decision

    transitions.settle(name, lambda state: Decision(1, state.champion, "first"), "a test")
    return ""


def race(uri: str, database: str, *, rounds: int, seed: int) -> Outcome:
    """Run rounds against a store, and look at what is left in its database."""
    draw = random.Random(seed)
    outcome = Outcome()
    with races.workers(uri) as pool:
        for number in range(rounds):
            _round(pool, f"trial-{seed}-{number}", database, draw, outcome)
            outcome.rounds += 1
    return outcome


def _round(pool: list[races.Worker], name: str, database: str, draw: random.Random, outcome: Outcome) -> None:
    last = pool[-1]
    _ask(last, name, outcome, races.register, name, [0.7, 0.8, 0.9])
    _ask(last, name, outcome, first_champion, name)
    watched = races.Outcome()
    with races.watching(name, database, watched):
        _at_once(pool, name, draw, outcome, [(begin, 2), (begin, 3)])
        champion, challenger, _ = _ask(last, name, outcome, tidy, name)
        _check(name, database, outcome, champion, challenger, {1})
        _at_once(pool, name, draw, outcome, [(end, "promoted"), (end, "rolled_back")])
        champion, still, ended = _ask(last, name, outcome, tidy, name)
        if still is not None:  # both died before the write that counts: judged again
            _ask(last, name, outcome, end, name, "rolled_back")
            champion, still, ended = _ask(last, name, outcome, tidy, name)
        allowed = {1} if challenger is None or ended == "rolled_back" else {challenger}
        _check(name, database, outcome, champion, still, allowed)
    outcome.promoted += champion != 1
    outcome.rolled_back += ended == "rolled_back"
    outcome.without_champion += watched.without_champion
    outcome.observations += watched.observations


def _ask(worker: races.Worker, name: str, outcome: Outcome, work: Any, *arguments: object) -> Any:
    worker.order(work, *arguments)
    answer = worker.answer()
    if isinstance(answer, str) and answer:
        outcome.wrong.append(f"{name}: {answer}")
    return answer


def _at_once(
    pool: list[races.Worker], name: str, draw: random.Random, outcome: Outcome, orders: list[tuple[Any, object]]
) -> None:
    began = time.monotonic()
    doomed = {at: draw.uniform(0, _LONGEST) for at in range(len(orders)) if draw.random() < 0.5}
    for worker, (work, argument) in zip(pool, orders, strict=False):
        worker.order(work, name, argument)
    for at, delay in sorted(doomed.items(), key=lambda pair: pair[1]):
        time.sleep(max(0.0, began + delay - time.monotonic()))
        pool[at] = pool[at].kill()
        outcome.killed += 1
    for at in set(range(len(orders))) - set(doomed):
        answer = pool[at].answer()
        if answer:
            outcome.wrong.append(f"{name}: {answer}")


def _check(
    name: str, database: str, outcome: Outcome, champion: int | None, challenger: int | None, allowed: set[int]
) -> None:
    """That the database says the same as who asked, with one champion and one challenger at most."""
    engine = sqlalchemy.create_engine(database)
    with engine.connect() as connected:
        stages = connected.execute(sqlalchemy.text(_STATE), {"name": name}).all()
        aliases = {row[0]: int(row[1]) for row in connected.execute(sqlalchemy.text(_ALIASES), {"name": name})}
    engine.dispose()
    production = [int(row[0]) for row in stages if row[1] == "Production"]
    staging = [int(row[0]) for row in stages if row[1] == "Staging"]
    found = production, staging, aliases.get("champion"), aliases.get("challenger")
    wanted = [champion], [challenger] if challenger else [], champion, challenger
    if found != wanted or champion not in allowed:
        outcome.wrong.append(f"{name}: {found}, expected {wanted}, champion one of {allowed}")


def main() -> None:
    """Race on sqlite, and print what went wrong."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{Path(folder) / 'mlflow.db'}"
        connection.connect(uri)
        print(race(uri, uri, rounds=rounds, seed=7))


if __name__ == "__main__":
    main()
