"""Server, judge and retrainer killed by SIGKILL at any moment, in turns, while users ask and rate: what is left?

python -m bench.trial_kills [kills]

All three are the steps that people start, on one store and one folder, each in a process with its modules loaded. The
retrainer retrains all the time and puts what is better on trial; of some challengers users think less, so that trials
end in both ways. What is killed is started again at once. The registry's database is looked at all the time, and at the
end, when the last trial has been judged, record, feedback, decisions and files are counted.
"""

import http.client
import json
import os
import random
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq

from bench.measure import heading, table
from recsys.tracking import connection
from tests.support.record_rows import record_rows
from tests.support.services import free_port

KILLS = 100
MODEL = "killed"
_VICTIMS = ("server", "judge", "retrainer")
_SHORTEST, _LONGEST = 0.2, 6.0  # seconds between two kills
_END_SECONDS = 900.0  # for the last trial to be judged
_USERS, _ITEMS, _GIVERS = 60, 40, 3
_PAUSE = 0.02  # seconds between two requests of a giver
_ANY = {"max_rmse": 4.0, "beat_bias": False, "beat_popularity": False, "max_auc_per_user_drop": 1.0}
_TRIAL = {"trial": 0.5, "trial_gain": 0.5, "trial_least": 8, "trial_users": 50, "trial_margin": 0.3}
_DISLIKED = 3  # every so many versions, users like less than the champion
_STAGES = "select current_stage, count(*) from model_versions where name = ? group by current_stage"
_ALIASES = "select alias, count(*) from registered_model_aliases where name = ? group by alias"


@dataclass
class Found:
    """What happened, and what was wrong at any moment."""

    kills: Counter[str] = field(default_factory=Counter)
    looks: int = 0
    without_champion: int = 0
    several_in_production: int = 0
    several_challengers: int = 0
    acknowledged: list[tuple[str, str]] = field(default_factory=list)
    lists: set[str] = field(default_factory=set)
    sent_again: int = 0


def sample() -> list[tuple[object, ...]]:
    """Ratings of two kinds of users, who like the items of their kind."""
    random = np.random.default_rng(0)
    return [
        (f"u{user}", f"i{item}", int(np.clip(round((4 if user % 2 == item % 2 else 2) + random.normal()), 1, 5)), user)
        for user in range(_USERS)
        for item in range(_ITEMS)
        if (user * 7 + item * 3) % 4 < 2
    ]


def act(name: str, folder: Path, port: int) -> None:
    """What each process does, for ever."""
    log = os.open(folder / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    _enter(folder)
    given: dict[str, Any] = {"folder": str(folder), "model_name": MODEL}
    if name == "server":
        from steps.serve import serve
        from steps.support.parameters import ServeParameters

        serve(ServeParameters(**given, port=port, workers=1, poll=0.2, judge="none", items="none", max_loss=1))
    if name == "judge":
        from steps.judge import judge
        from steps.support.trial_parameters import JudgeParameters

        judge(JudgeParameters(**given, every="0.2s"))
    from registry import lease
    from steps.retrain import retrain
    from steps.support.retraining_parameters import RetrainParameters

    pace = lease.Pace(beat=0.1, dead=2.0, settle=0.05)
    lease.Pace = lambda: pace  # type: ignore[assignment,misc]  # a holder that died is waited for less long
    retrain(RetrainParameters(**given, **_ANY, **_TRIAL, every="0.2s", force=True))


def _enter(folder: Path) -> None:
    from recsys.tracking import experiments

    os.environ["RECSYS_DATA"] = str(folder / "data")
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    connection.connect(f"sqlite:///{folder / 'mlflow.db'}")
    experiments.enter(MODEL, given=False)


class Actors:
    """The three processes, and who is next to die."""

    def __init__(self, folder: Path) -> None:
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(["mlflow", "steps.retrain", "steps.serve", "steps.judge", "steps.promote"])
        self._folder, self.port = folder, free_port()
        self._processes: dict[str, BaseProcess] = {}

    def start(self, name: str) -> None:
        """Start one, whose standard output goes to a file."""
        process = self._context.Process(target=act, args=(name, self._folder, self.port))
        process.start()
        self._processes[name] = process

    def kill(self, name: str) -> None:
        """By SIGKILL; a server's workers notice and end, before the port is free."""
        process = self._processes[name]
        assert process.pid
        below = psutil.Process(process.pid).children(recursive=True) if process.is_alive() else []
        process.kill()
        process.join()
        psutil.wait_procs(below, timeout=60)

    def died(self) -> list[str]:
        """Those that ended by themselves."""
        return [name for name, process in self._processes.items() if not process.is_alive()]


def watch(folder: Path, found: Found, done: threading.Event) -> None:
    """Look at the registry's database all the time."""
    database = sqlite3.connect(f"file:{folder / 'mlflow.db'}?mode=ro", uri=True, timeout=60)
    while not done.wait(0.01):
        with suppress(sqlite3.OperationalError):
            stages = dict(database.execute(_STAGES, (MODEL,)).fetchall())
            aliases = dict(database.execute(_ALIASES, (MODEL,)).fetchall())
            found.looks += 1
            found.without_champion += not aliases.get("champion") or not stages.get("Production")
            found.several_in_production += stages.get("Production", 0) > 1
            found.several_challengers += stages.get("Staging", 0) > 1
    database.close()


def give(port: int, number: int, found: Found, done: threading.Event) -> None:
    """Ask for lists and rate their items; what got no answer is sent again with the same key."""
    draw, count = random.Random(number), 0
    while not done.is_set():
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with suppress(OSError, http.client.HTTPException):
            while not done.wait(_PAUSE):
                user = f"g{number}x{count}"
                count += 1
                client.request("GET", f"/api/recommend/{user}?n=3")
                answer = client.getresponse()
                content = answer.read()
                if answer.status != http.client.OK:
                    continue
                found.lists.add(str(answer.headers["x-request-id"]))
                bad = answer.headers["x-recsys-arm"] == "challenger" and not (
                    int(str(answer.headers["x-recsys-version"])) % _DISLIKED
                )
                events = [
                    {"FeedbackType": "rating", "UserId": user, "ItemId": item, "Value": _rating(draw, bad)}
                    for item in json.loads(content)
                ]
                _until_acknowledged(port, events, found, done)
        client.close()


def _rating(draw: random.Random, bad: bool) -> int:
    return 1 if draw.random() < (0.9 if bad else 0.3) else 5


def _until_acknowledged(port: int, events: list[dict[str, Any]], found: Found, done: threading.Event) -> None:
    key = {"Idempotency-Key": events[0]["UserId"], "Content-Type": "application/json"} if events else {}
    while events and not done.is_set():
        with suppress(OSError, http.client.HTTPException):
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            client.request("POST", "/api/feedback", json.dumps(events), key)
            answer = client.getresponse()
            answer.read()
            if answer.status == http.client.OK:
                found.acknowledged += [(event["UserId"], event["ItemId"]) for event in events]
                return
        found.sent_again += 1
        time.sleep(_PAUSE)


def begin(folder: Path) -> None:
    """A champion, version 1, of few factors."""
    from recsys.models.base.family import family_module
    from steps.promote import promote
    from steps.support.parameters import PromoteParameters, TrainParameters
    from steps.train import train

    _enter(folder)
    path = folder / "ratings.csv"
    path.write_text("user_id,item_id,rating,timestamp\n" + "".join(",".join(map(str, row)) + "\n" for row in sample()))
    given: dict[str, Any] = {"folder": str(folder), "model_name": MODEL}
    settings = family_module("matrix_factorization").Config(embedding_size=2, epochs=20)
    train(TrainParameters(**given, ratings=str(path), family="matrix_factorization", forward=False), settings)
    promote(PromoteParameters(**given, **_ANY))
    (folder / "serving" / MODEL).mkdir(parents=True)  # where the judge may look before the server has started


def kill_in_turns(folder: Path, kills: int, found: Found) -> list[str]:
    """Kill and start again, then let the last trial be judged; what was wrong while doing so."""
    actors, draw, wrong = Actors(folder), random.Random(16), list[str]()
    done = threading.Event()
    for name in _VICTIMS:
        actors.start(name)
    threads = [threading.Thread(target=watch, args=(folder, found, done))]
    threads += [threading.Thread(target=give, args=(actors.port, at, found, done)) for at in range(_GIVERS)]
    for thread in threads:
        thread.start()
    for number in range(kills):
        time.sleep(draw.uniform(_SHORTEST, _LONGEST))
        wrong += [f"{name} ended by itself before kill {number}" for name in actors.died()]
        for name in {_VICTIMS[number % len(_VICTIMS)], *actors.died()}:
            actors.kill(name)
            actors.start(name)
        found.kills[_VICTIMS[number % len(_VICTIMS)]] += 1
        print(f"{number + 1} kills, {len(found.lists):,} lists", file=sys.stderr, flush=True)
    actors.kill("retrainer")
    if on_trial := _wait_for_the_end():
        wrong.append(f"version {on_trial} is on trial, and nobody judges")
    done.set()
    for thread in threads:
        thread.join()
    time.sleep(2)  # the record is written beside answering
    for name in ("server", "judge"):
        actors.kill(name)
    return wrong


def _wait_for_the_end() -> int | None:
    """Who is still on trial."""
    from registry import transitions

    limit = time.monotonic() + _END_SECONDS
    while (running := transitions.read_state(MODEL).trial) is not None and time.monotonic() < limit:
        time.sleep(0.5)
    return running.version if running else None


def count(folder: Path, found: Found) -> list[tuple[str, object]]:
    """What the registry, the record and the files say at the end."""
    from registry import transitions, trials

    state = transitions.read_state(MODEL)
    outcomes = Counter(trial.outcome for trial in trials.past_trials(state))
    with sqlite3.connect(folder / "serving" / MODEL / "feedback.db") as database:
        kept = list(database.execute("select user, item from feedback"))
    recorded = [request for (request,) in record_rows(folder / "serving" / MODEL / "feedback.db")]
    learnt = [
        pq.read_table(path, columns=["user_id", "item_id"], filters=[("origin", "=", "feedback")]).to_pandas()
        for path in sorted((folder / "data" / "retraining" / MODEL).glob("*.parquet"))
    ]
    given = len(found.acknowledged), len(set(found.acknowledged) - set(kept)), len(kept) - len(set(kept))
    return [
        *((f"kills of the {name}", number) for name, number in found.kills.items()),
        ("versions; trials by their outcome", f"{len(state.versions)}; {dict(outcomes)}"),
        ("looks at the registry", f"{found.looks:,}"),
        ("of these without a champion in Production", found.without_champion),
        ("of these with two in Production, while one replaces the other", found.several_in_production),
        ("of these with two challengers", found.several_challengers),
        ("at the end in Production; on trial", f"{state.production}; {state.trial}"),
        *_ends(folder, trials.past_trials(state)),
        ("events acknowledged; lost; there twice", "{:,}; {}; {}".format(*given)),
        ("lists that are on record twice", len(recorded) - len(set(recorded))),
        ("requests sent again", f"{found.sent_again:,}"),
        ("files that a retraining learnt from; events in them", f"{len(learnt)}; {sum(map(len, learnt)):,}"),
        ("events that count twice in such a file", sum(int(frame.duplicated().sum()) for frame in learnt)),
    ]


def _ends(folder: Path, past: list[Any]) -> list[tuple[str, object]]:
    """Of the ends of trials: how often each is on the record, and whether a judge counted more than there was."""
    from steps.support import decision_record

    decisions = decision_record.find_decisions(MODEL)
    times = Counter(one["trial"] for one in decisions if one.get("trial") and one["outcome"] != "trial")
    ended = [trial for trial in past if trial.outcome]
    query = "select count(distinct request), count(distinct user) from served where trial = ?"
    more = 0
    with sqlite3.connect(folder / "serving" / MODEL / "feedback.db") as database:
        for page in _pages(folder):
            lists, users = database.execute(query, (page["trial"],)).fetchone()
            more += sum(page["lists"]) > lists or sum(page["users"]) > users
    counts = Counter(min(times[trial.id], 2) for trial in ended)
    return [
        ("trials without an end", len(past) - len(ended)),
        ("ends that are on record once; not at all; twice", f"{counts[1]}; {counts[0]}; {counts[2]}"),
        ("ends for which a judge counted more lists or users than there were", more),
    ]


def _pages(folder: Path) -> list[dict[str, Any]]:
    """What judges wrote of the ends."""
    return [json.loads(path.read_text()) for path in folder.rglob("artifacts/trial.json")]


def main() -> None:
    """Print the table."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else KILLS
    folder = Path(tempfile.mkdtemp(prefix="recsys-kills-"))
    os.chdir(folder)
    found = Found()
    begin(folder)
    wrong = kill_in_turns(folder, kills, found)
    print(heading(f"{kills} times SIGKILL of server, judge or retrainer", ("uvicorn",)))
    print(table(["what", "seen"], count(folder, found)))
    print("\n".join(wrong) or "no process ended by itself, and every trial was judged")
    print(f"(everything is in {folder})", file=sys.stderr)


if __name__ == "__main__":
    main()
