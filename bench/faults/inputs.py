"""Ratings files that are broken at random: each is prepared to a valid dataset, or refused in one sentence."""

import gzip
import io
import random
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from steps.support.command import find_program
from steps.support.entrypoint import run_step
from tests.support.pipeline import grid, options

_NASTY = [
    "1e308",
    "nan",
    "-inf",
    "\0",
    '"',
    "2026-13-01",
    "",
    " ",
    "é",
    "=1+1",
    "9" * 400,
    "\r",
    "\ufeff",
    ";",
    "0000-01-01",
]


def plain(draw: random.Random) -> bytes:
    """A sound file of ratings."""
    lines = ["user_id,item_id,rating,timestamp"]
    lines += [f"{u},{i},{r},{1_600_000_000 + draw.randint(0, 10**6)}" for u, i, r in grid()]
    return "\n".join(lines).encode() + b"\n"


def _flip(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.randint(1, 8)):
        changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed)


def _cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content))]


def _cells(content: bytes, draw: random.Random) -> bytes:
    rows = [line.split(",") for line in content.decode().splitlines()]
    for _ in range(draw.randint(1, 5)):
        row = rows[draw.randrange(len(rows))]
        row[draw.randrange(len(row))] = draw.choice(_NASTY)
    return "\n".join(",".join(row) for row in rows).encode()


def _lines(content: bytes, draw: random.Random) -> bytes:
    rows = content.splitlines(keepends=True)
    first, second = draw.randrange(len(rows)), draw.randrange(len(rows))
    rows[first] = rows[second] * draw.randint(0, 3) + b"," * draw.randint(0, 9) + rows[first]
    return b"".join(rows)


def _zipped(content: bytes, draw: random.Random) -> bytes:
    return _flip(gzip.compress(content, mtime=0), draw)


WAYS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "bytes changed": _flip,
    "cut": _cut,
    "cells replaced": _cells,
    "lines mixed": _lines,
    "gzip with bytes changed": _zipped,
}


def run(folder: Path, number: int, seed: int) -> dict[str, tuple[int, int, list[str]]]:
    """For each way: files, how many were refused, and those that ended otherwise than in a dataset or a sentence."""
    draw, found = random.Random(seed), {}
    for way, breaks in WAYS.items():
        refused, wrong = 0, []
        for attempt in range(number // len(WAYS)):
            path = folder / ("ratings.csv.gz" if breaks is _zipped else "ratings.csv")
            path.write_bytes(breaks(plain(draw), draw))
            said, status = _prepare(folder, path.name)
            refused += status != 0
            if status and (not said.startswith("error: prepare: ") or said.count("\n") > 1 or status != 1):
                wrong.append(f"{way} {attempt}: {said[-300:]}")
        found[way] = number // len(WAYS), refused, wrong
    return found


def _prepare(folder: Path, name: str) -> tuple[str, int]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            run_step("prepare", find_program("prepare"), options(folder=folder, ratings=name, on_change="ignore"))
        except SystemExit as end:
            return err.getvalue(), int(end.code or 0)
        except BaseException as error:
            return f"{type(error).__name__}: {error}", 2
    return err.getvalue(), 0
