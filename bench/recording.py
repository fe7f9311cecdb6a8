"""What the record of what was served costs: the same lists with it and without, in turns.

python -m bench.recording [seconds a turn] [lists that a worker keeps] [pairs of turns]

Lists are made each time, unless a number of lists that are kept is given. Of two pairs, one begins with the record and
the other without, so that what grows or falls with time costs both the same. Both servers are started anew now and
then: two starts of the same server may differ by as much as the record costs.
"""

import sys
import tempfile
from pathlib import Path
from statistics import median

from bench.measure import heading, interval_of_median, table
from bench.serving import CATALOGUES, GET_LIST, load, synthetic
from tests.support.serving_site import Server

PAIRS, OF_A_START = 64, 8
CONNECTIONS = 8
Figures = dict[bool, list[tuple[float, float]]]
"""Of each turn with the record, and without: milliseconds of the processor a list, and those of the p99."""


def run(seconds: int, kept_lists: int, pairs: int) -> None:
    """Print the medians of pairs of turns on two servers that both run."""
    n_users, n_items, n_weights = CATALOGUES["small"]
    found: Figures = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder:
        form = synthetic(Path(folder) / "form", n_users, n_items, n_weights)
        for first in range(0, pairs, OF_A_START):
            servers = {
                record: Server(Path(folder) / f"serving{record:d}-{first}", record=record, kept_lists=kept_lists)
                for record in found
            }
            try:
                for server in servers.values():
                    server.point_at(form)
                    server.start()
                _ask(servers, -1 - first, seconds)  # the first lists of a server are dearer
                for seed in range(first, min(pairs, first + OF_A_START)):
                    for record, figures in _ask(servers, seed, seconds).items():
                        found[record].append(figures)
            finally:
                for server in servers.values():
                    server.stop()
    _print(found, n_items, pairs)


def _ask(servers: dict[bool, Server], seed: int, seconds: int) -> dict[bool, tuple[float, float]]:
    """A turn of each server, in one order or the other."""
    script = GET_LIST.replace("{seed}", str(seed)).replace("{users}", str(CATALOGUES["small"][0]))
    found = {}
    for record in (True, False) if seed % 2 else (False, True):
        done = load(servers[record].address, servers[record].pids(), script, CONNECTIONS, seconds)
        found[record] = done.processor, _milliseconds(done.p99)
    return found


def _print(found: Figures, n_items: int, pairs: int) -> None:
    print(heading(f"The record of {n_items:,} items, {CONNECTIONS} connections", ["uvicorn", "uvloop", "numpy"]))
    rows = []
    for record, figures in found.items():
        processor, p99 = map(median, zip(*figures, strict=True))
        rows.append(("with" if record else "without", f"{processor:.3f}", f"{p99:.2f}"))
    shares = [
        [100 * (one / other - 1) for one, other in zip(*columns, strict=True)]
        for columns in zip(zip(*found[True], strict=True), zip(*found[False], strict=True), strict=True)
    ]
    intervals = [interval_of_median(column) for column in shares]
    rows += [
        (f"more with it, %, median of {pairs} pairs", *(f"{median(column):+.1f}" for column in shares)),
        ("95% interval of that median", *(f"{low:+.1f} to {high:+.1f}" for low, high in intervals)),
        ("least and most of the pairs, %", *(f"{min(column):+.1f} to {max(column):+.1f}" for column in shares)),
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
    run(*(given + [1, 0, PAIRS][len(given) :]))
