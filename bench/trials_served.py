"""Trials on real servers: does every user stay in one arm, and how soon is a broken version found?

python -m bench.trials_served [requests] [broken trials]

Stickiness: two servers of four workers that restart between parts, wrk asking both at once for random users over
connections that it keeps, at a bounded rate; every list of both records is compared with every other of its user.
Broken versions: a server of two workers, whose challenger fails or is slow as tests/support/broken_versions has it, one
client, and the judge's own functions on the server's file.
"""

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from http.client import HTTPConnection
from pathlib import Path

import numpy as np

from bench.measure import PROJECT, heading, table
from recsys.experiments.assignment import arm_of
from recsys.experiments.judging import judge
from recsys.experiments.plan import Plan
from recsys.monitoring.trial_evidence import Tally
from recsys.monitoring.trial_rows import TrialRows
from tests.support.serving_site import Server, form

REQUESTS, BROKEN = 1_000_000, 20
PARTS, SHARE, USERS = 4, 0.3, 20_000
_MOST = 2_000  # of the challenger's requests
_LOOK = 100  # requests between two looks
_CONNECTIONS, _RATE = 4, 1_000  # of each server; requests a second at most
_SCRIPT = """
delay = function() return {pause} end
request = function() return wrk.format("GET", "/api/recommend/s" .. math.random({users}) .. "?n=5") end
init = function(arguments) math.randomseed({seed}) end
"""


def serve(folder: Path, trial: str, share: float, workers: int) -> Server:
    """A server with version 2 on trial."""
    server = Server(folder / "serving", workers, [PROJECT / "tests" / "support" / "broken_versions"], max_lag=60)
    one, two = form(folder / "one"), form(folder / "two", "2", liked=0.7)
    server.point_at(one, trial={"id": trial, "share": share, "version": "2", "form": f"../{two.name}"})
    return server


def stickiness(requests: int, folder: Path) -> list[object]:
    """Requests in the records, users, users with two arms, and users in another arm than the hash says."""
    os.environ.pop("RECSYS_TEST_BROKEN", None)
    servers = [serve(folder / name, "sticky", SHARE, 4) for name in ("a", "b")]
    for part in range(PARTS):
        for server in servers:
            server.start()
        _ask_by_wrk(servers, requests * (part + 1) // PARTS, folder, part)
        for server in servers:
            server.stop()
    arms: dict[str, set[str]] = defaultdict(set)
    lists = 0
    for server in servers:
        with sqlite3.connect(server.folder / "feedback.db") as database:
            for user, arm, count in database.execute("select user, arm, count(*) from served group by user, arm"):
                arms[user].add(arm)
                lists += count
    two = sum(len(found) > 1 for found in arms.values())
    other = sum(found != {arm_of(user, "sticky", SHARE)} for user, found in arms.items())
    return [f"{lists:,}", f"{len(arms):,}", two, other]


def _ask_by_wrk(servers: list[Server], wanted: int, folder: Path, part: int) -> None:
    """Ask all servers at once until their records together have so many lists."""
    while (there := sum(map(_lists, servers))) < wanted:
        seconds = min(30, 2 + (wanted - there) // (_RATE * len(servers)))
        asking = []
        for number, server in enumerate(servers):
            script = folder / f"ask-{number}.lua"
            seed = there + 1_000_000_000 * number + part  # other users each time
            script.write_text(_SCRIPT.format(users=USERS, seed=seed, pause=round(1000 * _CONNECTIONS / _RATE)))
            command = ["wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{seconds}s", "-s", str(script), server.address]
            asking.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        if any(process.wait() for process in asking):
            raise RuntimeError("wrk failed")
        print(f"{sum(map(_lists, servers)):,} lists in the records", file=sys.stderr, flush=True)
        if sum(map(_lists, servers)) == there:
            raise RuntimeError(f"no list was recorded: {servers[0].get('api/health/ready').text}")


def _lists(server: Server) -> int:
    path = server.folder / "feedback.db"
    if not path.exists():
        return 0
    with sqlite3.connect(path) as database:
        return int(database.execute("select coalesce(max(id), 0) from served").fetchone()[0])


def broken(how: dict[str, float], folder: Path, seed: int) -> tuple[str, int, int]:
    """The guard that rolls a broken version back, and after how many of its own and of all requests."""
    trial, random = f"broken {seed}", np.random.default_rng(seed)
    os.environ["RECSYS_TEST_BROKEN"] = json.dumps({"2": how})
    server = serve(folder, trial, 0.5, 2)
    server.start()
    plan = Plan()
    rows = TrialRows(server.folder / "feedback.db", trial)
    tally = Tally(rows, reward="like", like_threshold=4, latency=plan.trial_latency / 1000, shadow=False, within=86_400)
    try:
        client = HTTPConnection("127.0.0.1", server.port, timeout=60)
        asked = 0
        while True:
            for _ in range(_LOOK):
                client.request("GET", f"/api/recommend/s{random.integers(2_000)}?n=5")
                client.getresponse().read()
            asked += _LOOK
            while sum((found := tally.look()).lists) < asked:
                time.sleep(0.05)  # the record is written beside answering
            verdict = judge(plan, 0.5, found, days=0.0)
            if verdict.outcome == "rolled_back" or found.lists[1] >= _MOST:
                failed = [guard.name for guard in verdict.guards if guard.failed]
                return ", ".join(failed) or "none", found.lists[1], sum(found.lists)
    finally:
        rows.close()
        server.stop()


def main() -> None:
    """Print the tables."""
    requests, trials = (int(one) for one in (*sys.argv[1:], *(str(REQUESTS), str(BROKEN))[len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as folder:
        print(heading(f"Broken challengers on real servers: {trials} trials, half of the users", ("uvicorn",)))
        found = []
        for seed in range(trials):
            how = {"errors": 0.01} if seed % 2 == 0 else {"slow": 0.02, "seconds": 0.02}
            found.append((json.dumps(how), *broken(how, Path(folder) / str(seed), seed)))
        print(table(["fault", "guard", "the challenger's requests", "all requests"], found), flush=True)
        if requests:
            print(heading(f"Stickiness: 2 servers of 4 workers, {PARTS - 1} restarts of each", ("uvicorn",)))
            columns = ["lists", "users", "users with two arms", "users in another arm than the hash says"]
            print(table(columns, [stickiness(requests, Path(folder))]))


if __name__ == "__main__":
    main()
