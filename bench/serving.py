"""The server under load by wrk: lists of catalogues of three sizes, scores, feedback, changes, and a worker's memory.

python -m bench.serving [small|middle|large]… [seconds=10] [forms=folder that keeps them] [model=a version's folder]

Forms are synthetic: what a list costs depends on sizes, not on what the numbers say. Processor time is the workers';
wall times mean something on a quiet machine only, so the load average is said. `mlflow models serve` of a version, as
`mlflow artifacts download` writes it, is asked for one row beside ours.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import requests

from bench.measure import heading, table
from recsys.arrays import Array
from recsys.serving.engine import Engine
from recsys.serving.form import write_form
from recsys.serving.ids import pack_ids
from tests.support.services import free_port
from tests.support.serving_site import PROJECT, Server
from tests.support.waiting import wait

HISTORY, RANK = 100, 32
# Users, items, and weights an item: as many as are kept where the inverse fits, else about what a popular item has.
CATALOGUES = {"small": (6_040, 3_706, 1_000), "middle": (160_000, 62_000, 200), "large": (1_000_000, 100_000, 200)}
_BLOCK = 1 << 22
_SWAP_SECONDS = 0.3  # workers look for another version every 0.1

GET_LIST = """
math.randomseed({seed})
request = function() return wrk.format("GET", "/api/recommend/" .. math.random(1, {users})) end
"""
GET_LIST_BY_ZIPF = """
math.randomseed({seed})
local ends, total = {}, 0
for rank = 1, {users} do total = total + 1 / rank; ends[rank] = total end
request = function()
  local at, low, high = math.random() * total, 1, {users}
  while low < high do
    local middle = math.floor((low + high) / 2)
    if ends[middle] < at then low = middle + 1 else high = middle end
  end
  return wrk.format("GET", "/api/recommend/" .. low)
end
"""  # the user of rank r asks 1 / r as often as the first
POST = """
wrk.method, count = "POST", 0
wrk.headers["Content-Type"] = "application/json"
math.randomseed({seed})
request = function()
  count = count + 1
  return wrk.format(nil, "{path}", nil, {body})
end
"""
ONE_ROW = (
    """'{"dataframe_split":{"columns":["user_id","item_id"],"data":[["' .. math.random(1, 6000) .. '","242"]]}}'"""
)
ONE_EVENT = """'{"UserId":"giver' .. math.random(1, 1e9) .. '","ItemId":"' .. count .. '","Value":4}'"""
MANY_EVENTS = """(function() local all = {}
  for i = 1, 100 do all[i] = '{"UserId":"giver' .. math.random(1, 1e9) .. '","ItemId":"' .. i .. '","Value":4}' end
  return "[" .. table.concat(all, ",") .. "]" end)()"""


@dataclass(frozen=True)
class Load:
    """What wrk saw, and what it cost the workers."""

    rate: float  # requests a second
    p50: str
    p90: str
    p99: str
    failed: int
    processor: float  # ms of the workers a request


def synthetic(folder: Path, n_users: int, n_items: int, n_weights: int, version: str = "1") -> Path:
    """A form of this size, with popular items in more histories."""
    random = np.random.default_rng(0)
    share = np.cumsum(np.arange(1, n_items + 1, dtype=np.float64) ** -0.7)
    share /= share[-1]
    places = random.permutation(n_items).astype(np.int32)

    def draw(size: int) -> Array:
        blocks = [random.random(min(_BLOCK, size - start)) for start in range(0, size, _BLOCK)]
        return np.concatenate([places[np.minimum(np.searchsorted(share, block), n_items - 1)] for block in blocks])

    user_ids, user_ends = pack_ids(sorted(str(number) for number in range(1, n_users + 1)))
    item_ids, item_ends = pack_ids(sorted(str(number) for number in range(1, n_items + 1)))
    items = draw(n_users * HISTORY)
    counts = np.bincount(items, minlength=n_items)
    user_bias = (3.5 + 0.3 * random.standard_normal(n_users)).astype(np.float32)
    item_bias = (0.3 * random.standard_normal(n_items)).astype(np.float32)
    arrays = {
        "user_ids": user_ids,
        "user_id_ends": user_ends,
        "item_ids": item_ids,
        "item_id_ends": item_ends,
        "titles": np.zeros(0, np.uint8),
        "title_ends": np.zeros(n_items + 1, np.int64),
        "user_factors": (0.3 * random.standard_normal((n_users, RANK), np.float32)).astype(np.float16),
        "item_factors": 0.3 * random.standard_normal((n_items, RANK), np.float32),
        "user_bias": user_bias,
        "item_bias": item_bias,
        "user_variance": np.full(n_users, 0.8, np.float32),
        "item_variance": np.zeros(n_items, np.float32),
        "user_fallback": user_bias,
        "item_fallback": item_bias,
        "history_ends": np.arange(n_users + 1, dtype=np.int64) * HISTORY,
        "history_items": items,
        "history_values": np.tile(np.array([3, 4, 5, 2], np.float16), len(items) // 4),
        "history_newer": np.zeros(0, np.int32),
        "weight_starts": np.arange(n_items + 1, dtype=np.int64) * n_weights,
        "neighbours": draw(n_items * n_weights),
        "weights": random.random(n_items * n_weights, np.float32) ** 3,
        "popularity": counts.astype(np.float32),
        "most_popular": np.argsort(-counts, kind="stable").astype(np.int32),
    }
    about = {
        **{
            "version": version,
            "model": "recsys",
            "family": "synthetic",
            "scale": [1, 5],
            "mean": 3.5,
            "like_threshold": 4.0,
        },
        "lists": {"signal": "ratings", "ridge": 0.0, "relative_ridge": 0.0, "exponent": 0.5},
        "calibration": [1.5, -5.5],
        "link": {"kind": "probit", "slope": 1.0, "threshold": 3.6},
        "prior": {"bias": [3.5, 0.09], "factors": [0.09] * RANK, "noise": 0.8},
        "sizes": {"users": n_users, "items": n_items, "ratings": len(items)},
        "loss": {},
    }
    about["probe"] = Engine.of_arrays(arrays, about).probe(4)
    return write_form(folder, arrays, about)


def load(address: str, pids: list[int], script: str, connections: int, seconds: int) -> Load:
    """Ask by one thread of wrk for a while; the processes are those whose processor time counts."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        before = _processor(pids)
        done = subprocess.run(
            ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--latency", "-s", file.name, address],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    spent = _processor(pids) - before
    total = int(re.findall(r"(\d+) requests in", done)[0])
    failed = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", done)))
    failed += sum(
        sum(map(int, found)) for found in re.findall(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", done)
    )
    p50, p90, p99 = (re.findall(rf"(?m)^ +{share}% +(\S+)", done)[0] for share in (50, 90, 99))
    return Load(float(re.findall(r"Requests/sec:\s+(\S+)", done)[0]), p50, p90, p99, failed, 1000 * spent / total)


def _processor(pids: list[int]) -> float:
    """Seconds that processes have computed."""
    # The clock of another process, as clock_getcpuclockid(3) makes it: /proc has hundredths of a second only.
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def memory(server: Server) -> list[tuple[float, float]]:
    """Of each worker: GB of its own, and GB of files that are shared, in proportion."""
    found = []
    for pid in server.worker_pids():
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        own, whole = (sum(map(int, re.findall(rf"{name}:\s+(\d+)", text))) for name in ("Private_Dirty", "\nPss"))
        found.append((own / 1e6, (whole - own) / 1e6))
    return found


@dataclass(frozen=True)
class Options:
    """What the command line said."""

    seconds: int = 10  # of each row of the table
    forms: str = ""  # folder that keeps forms from one call to the next; empty: none
    model: str = ""  # folder of a version, for `mlflow models serve`; empty: it is not asked


def run(names: list[str], options: Options) -> None:
    """Print the table of the catalogues named."""
    rows: list[tuple[object, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        forms = Path(options.forms or folder)
        for name in names:
            if not (forms / name).exists():
                synthetic(forms / name, *CATALOGUES[name])
        print(heading("Serving", ["uvicorn", "uvloop", "httptools", "numpy"]))
        print(f"wrk with one thread on the same machine; load average at the start: {os.getloadavg()[0]:.1f}\n")
        for name in names:
            rows += _catalogue(name, forms / name, Path(folder) / f"serving-{name}", options)
        if options.model:
            rows.append(_models_serve(options))
    columns = ("what", "connections", "requests/s", "p50", "p90", "p99", "failed", "processor ms a request")
    print("\n" + table(columns, rows))


def _catalogue(name: str, form: Path, folder: Path, options: Options) -> list[tuple[object, ...]]:
    """The rows of one catalogue; says what a worker holds."""
    n_users, n_items, _ = CATALOGUES[name]
    server = Server(folder, kept_lists=1)  # a list is looked for and kept, and next to none is found
    server.point_at(form)
    try:
        begun = time.monotonic()
        server.start()
        started = time.monotonic() - begun

        def row(what: str, script: str, connections: int, **values: object) -> tuple[object, ...]:
            filled = _filled(script, values)
            return _row(what, connections, load(server.address, server.pids(), filled, connections, options.seconds))

        rows = [row(f"lists, {n_items:,} items, each made", GET_LIST, n, users=n_users) for n in (8, 1)]
        if name == "small":
            rows += [row("one-row /invocations", POST, n, path="/invocations", body=ONE_ROW) for n in (8, 1)]
            for size, body, connections in ((1, ONE_EVENT, 1), (1, ONE_EVENT, 64), (100, MANY_EVENTS, 4)):
                rows.append(row(f"feedback, {size} a request", POST, connections, path="/api/feedback", body=body))
            print("after feedback is acknowledged: " + _freshness(server))
            other = form.with_name(f"{name}-2")
            if not other.exists():
                synthetic(other, *CATALOGUES[name], version="2")
            print(swaps(server, (form, other)))
        own = ", ".join(f"{mine:.2f} + {shared:.2f}" for mine, shared in memory(server))
        print(f"{n_users:,} users x {n_items:,} items: started in {started:.1f} s")
        print(f"GB a worker, its own + its part of shared files: {own}")
    finally:
        server.stop()
    return [*rows[:2], *_with_kept_lists(name, form, folder, options), *rows[2:]]


def _with_kept_lists(name: str, form: Path, folder: Path, options: Options) -> list[tuple[object, ...]]:
    """Rows of a server that keeps lists, as it is by default, each from its start on: and how many were kept ones."""
    n_users, n_items, _ = CATALOGUES[name]
    rows = []
    for law, script in (("alike", GET_LIST), ("by 1 / rank", GET_LIST_BY_ZIPF)):
        for connections in (8, 1):
            server = Server(folder.with_name(f"{folder.name}-{law[:2]}-{connections}"))
            server.point_at(form)
            try:
                server.start()
                filled = _filled(script, {"users": n_users})
                done = load(server.address, server.pids(), filled, connections, options.seconds)
                share = f"{100 * hits(server):.0f}% of them kept ones"
            finally:
                server.stop()
            rows.append(_row(f"lists, {n_items:,} items, {n_users:,} users {law}, {share}", connections, done))
    return rows


def hits(server: Server) -> float:
    """Of the lists that could have been kept ones, the share that were."""
    found = dict(re.findall(r'(?m)^recsys_kept_lists_total{outcome="(\w+)"} (\S+)', server.get("metrics").text))
    return float(found.get("hit", 0)) / sum(map(float, found.values()))


_RATED, _LISTS = 50, 3  # lists after each rating, of each worker


def _freshness(server: Server) -> str:
    """Whether each worker's lists have a rating as soon as it is acknowledged, and after how long they are there."""
    stale, waited = 0, []
    sessions = [requests.Session() for _ in server.worker_pids()]
    asked = {one.get(f"{server.address}/ping").headers["x-request-id"][:12] for one in sessions}
    for number in range(_RATED):
        first = server.get(f"api/recommend/fresh{number}?n=1").json()[0]
        server.post("api/feedback", {"UserId": f"fresh{number}", "ItemId": first, "Value": 5})
        acknowledged = time.perf_counter()
        for _ in range(_LISTS):
            for session in sessions:
                stale += first in session.get(f"{server.address}/api/recommend/fresh{number}?n=100").json()
                waited.append(1000 * (time.perf_counter() - acknowledged))
    lists = len(waited) // _RATED
    return (
        f"{stale} of {len(waited)} lists by {len(asked)} workers were without it; the first was there after "
        f"{np.median(waited[::lists]):.1f} ms (median) to {max(waited[::lists]):.1f} ms, the {lists}th after "
        f"{np.median(waited[lists - 1 :: lists]):.1f} to {max(waited[lists - 1 :: lists]):.1f} ms"
    )


def swaps(server: Server, forms: tuple[Path, Path], times: int = 100) -> str:
    """Change the version again and again under load: what workers took, and what failed."""
    script = _filled(GET_LIST, {"users": CATALOGUES["small"][0]})
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(load, server.address, server.worker_pids(), script, 8, round(times * _SWAP_SECONDS) + 2)
        for number in range(times):
            server.point_at(forms[number % 2 - 1])
            time.sleep(_SWAP_SECONDS)
        done = asking.result()
    taken = re.findall(r"(?m)^recsys_version_swaps_total (\S+)", server.get("metrics").text)
    return f"{times} changes of version, {float(taken[0]):.0f} taken by workers: {done.failed} requests failed; {done}"


def _models_serve(options: Options) -> tuple[object, ...]:
    """One row by MLflow's own server, of one worker."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = ["mlflow", "models", "serve", "-m", options.model, "--env-manager", "local", "-p", str(port)]
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(PROJECT / "src")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait(lambda: _answers(address), "an answer of mlflow models serve")
        family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
        script = _filled(POST, {"path": "/invocations", "body": ONE_ROW})
        return _row(
            "one-row /invocations of `mlflow models serve`", 1, load(address, family, script, 1, options.seconds)
        )
    finally:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.terminate()
        process.terminate()
        process.wait()


def _answers(address: str) -> bool:
    with suppress(requests.RequestException):
        return requests.get(f"{address}/ping", timeout=60).ok
    return False


def _filled(script: str, values: dict[str, object]) -> str:
    for name, value in {"seed": 1, **values}.items():
        script = script.replace(f"{{{name}}}", str(value))
    return script


def _row(what: str, connections: int, done: Load) -> tuple[object, ...]:
    row = (what, connections, f"{done.rate:,.0f}", done.p50, done.p90, done.p99, done.failed, f"{done.processor:.2f}")
    print(*row, sep="; ", file=sys.stderr, flush=True)
    return row


if __name__ == "__main__":
    given = dict(one.split("=", 1) for one in sys.argv[1:] if "=" in one)
    chosen = [one for one in sys.argv[1:] if "=" not in one]
    run(chosen or list(CATALOGUES), Options(**{**given, "seconds": int(given.get("seconds", 10))}))
