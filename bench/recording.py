"""What the record of what was served costs: the same lists with it and without, in turns.

python -m bench.recording [seconds a round] [lists that a worker keeps]

Lists are made each time, unless a number of lists that are kept is given.
"""

import sys
import tempfile
from pathlib import Path

from bench.measure import heading, table
from bench.serving import CATALOGUES, GET_LIST, load, synthetic
from tests.support.serving_site import Server

ROUNDS = 9
CONNECTIONS = 8


def run(seconds: int, kept_lists: int) -> None:
    """Print the medians of some rounds, in turns on two servers that both run."""
    n_users, n_items, n_weights = CATALOGUES["small"]
    found: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder:
        form = synthetic(Path(folder) / "form", n_users, n_items, n_weights)
        servers = {
            record: Server(Path(folder) / f"serving{record:d}", record=record, kept_lists=kept_lists)
            for record in found
        }
        try:
            for server in servers.values():
                server.point_at(form)
                server.start()
            for seed in range(ROUNDS):
                for record, server in servers.items():
                    script = GET_LIST.replace("{seed}", str(seed)).replace("{users}", str(n_users))
                    done = load(server.address, server.pids(), script, CONNECTIONS, seconds)
                    found[record].append((done.processor, _milliseconds(done.p99)))
        finally:
            for server in servers.values():
                server.stop()
    print(heading(f"The record of {n_items:,} items, {CONNECTIONS} connections", ["uvicorn", "uvloop", "numpy"]))
    rows = []
    for record, figures in found.items():
        processor, p99 = (sorted(column)[ROUNDS // 2] for column in zip(*figures, strict=True))
        rows.append(("with" if record else "without", f"{processor:.3f}", f"{p99:.2f}"))
    shares = [
        sorted(100 * (one / other - 1) for one, other in zip(*columns, strict=True))
        for columns in zip(zip(*found[True], strict=True), zip(*found[False], strict=True), strict=True)
    ]
    rows += [
        ("more with it, %, median of the pairs", *(f"{column[ROUNDS // 2]:+.1f}" for column in shares)),
        ("least and most of the pairs, %", *(f"{column[0]:+.1f} to {column[-1]:+.1f}" for column in shares)),
    ]
    print(table(("record", "processor ms a list", "p99 ms"), rows))


def _milliseconds(text: str) -> float:
    """A time as wrk writes it."""
    for unit, factor in (("us", 1e-3), ("ms", 1.0), ("s", 1e3)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    raise ValueError(text)


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    run(given[0] if given else 10, given[1] if len(given) > 1 else 0)
