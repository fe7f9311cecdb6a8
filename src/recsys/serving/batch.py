"""Lists of many users into one file, part by part: what was made before a stop is not made again."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from pyarrow import csv

from recsys.arrays import Ids
from recsys.errors import InputError
from recsys.models.base.lists import Unknown
from recsys.models.base.recommender import Recommender
from recsys.runtime.files import write_atomically

_LISTED_A_PART = 200_000  # rows that are held in memory
_MOST_USERS_A_PART = 20_000
_COUNTS = b"counts"  # in the metadata of a part
COLUMNS = pa.schema(
    {
        "user_id": pa.string(),
        "rank": pa.int32(),  # from 1
        "item_id": pa.string(),
        "score": pa.float64(),  # comparable within one list only
        "like_probability": pa.float64(),  # if the user takes the item
        "policy": pa.string(),
    }
)


@dataclass(frozen=True, eq=False)
class Order:
    """What lists are asked for; see `Recommender.recommend`."""

    n: int
    exclude_seen: bool = True
    candidates: Ids | None = None
    exclude: Ids | None = None
    diversity: float = 0.0
    unknown: Unknown = "ignore"


@dataclass(frozen=True)
class Counts:
    """What was written."""

    users: int = 0
    rows: int = 0
    short: int = 0
    """Users with fewer than n items."""
    example: str = ""
    """One of these, and the reason."""
    policies: dict[str, int] = field(default_factory=dict)
    """Users by policy."""
    parts_found: int = 0
    """Parts that an earlier run, which was stopped, had made."""

    def plus(self, other: "Counts") -> "Counts":
        """The counts of both."""
        names = {**self.policies, **other.policies}
        return Counts(
            self.users + other.users,
            self.rows + other.rows,
            self.short + other.short,
            self.example or other.example,
            {name: self.policies.get(name, 0) + other.policies.get(name, 0) for name in sorted(names)},
            self.parts_found + other.parts_found,
        )


def check_output(path: Path) -> None:
    """Refuse an output that cannot be written; raises InputError."""
    if path.suffix not in (".parquet", ".csv"):
        raise InputError(f"parameter 'output': a file that ends in .parquet or .csv is needed, got {str(path)!r}")
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"parameter 'output': a file in a folder that exists is needed, got {str(path)!r}")


def write_lists(recommender: Recommender, user_ids: Ids, order: Order, output: Path, source: str) -> Counts:
    """Write a row for every user and item listed, with the columns of `COLUMNS`, the users in the order given.

    Parts are kept beside the output until it is whole, and then renamed to it. A run with the same order, users and
    source goes on with the parts that are there and gives the same file.

    Args:
        user_ids: each once, shape (u,).
        output: .parquet or .csv; a file that is there is replaced at the end.
        source: names the version. Parts of another one are not used.

    Raises:
        InputError: as `recommend`, and if another process writes this output.
    """
    check_output(output)
    lock = FileLock(output.with_name(f".{output.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"parameter 'output': another process is writing {str(output)!r}; wait for it, or choose another file"
        ) from None
    try:
        return _write(recommender, user_ids, order, output, source)
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _write(recommender: Recommender, user_ids: Ids, order: Order, output: Path, source: str) -> Counts:
    folder = output.with_name(f".{output.name}.parts")
    parts = folder / _digest(user_ids, order, source)
    for other in folder.iterdir() if folder.is_dir() else ():
        if other != parts:
            shutil.rmtree(other)
    parts.mkdir(parents=True, exist_ok=True)
    step = min(_MOST_USERS_A_PART, max(1, _LISTED_A_PART // order.n))
    counts, paths = Counts(), []
    for start in range(0, len(user_ids), step):
        path = parts / f"{start:012}.parquet"
        paths.append(path)
        if path.exists():
            counts = counts.plus(replace(_counts_of(path), parts_found=1))
            continue
        table = make_part(recommender, user_ids[start : start + step], order)
        with write_atomically(path) as aside:
            pq.write_table(table, aside)
        counts = counts.plus(_counts_of(path))
    with write_atomically(output) as aside:
        _join(paths, aside, output.suffix)
    shutil.rmtree(folder)
    return counts


def make_part(recommender: Recommender, user_ids: Ids, order: Order) -> pa.Table:
    """The rows of some users, and in the table's metadata what they count."""
    made = recommender.recommend(
        user_ids,
        order.n,
        exclude_seen=order.exclude_seen,
        candidates=order.candidates,
        exclude=order.exclude,
        diversity=order.diversity,
        unknown=order.unknown,
    )
    sizes = np.array([len(items) for items in made.items])
    short = np.flatnonzero(sizes < order.n)
    names, users = np.unique(made.policy, return_counts=True)
    counts = Counts(
        users=len(user_ids),
        rows=int(sizes.sum()),
        short=len(short),
        example=f"user {user_ids[short[0]]!r}: {made.notes[short[0]]}" if len(short) else "",
        policies=dict(zip(names.tolist(), users.tolist(), strict=True)),
    )
    columns = [
        np.repeat(user_ids, sizes),
        np.concatenate([np.arange(1, size + 1) for size in sizes]),
        *(np.concatenate(part) for part in (made.items, made.scores, made.probabilities)),
        np.repeat(np.array(made.policy, object), sizes),
    ]
    arrays = [pa.array(column, kind) for column, kind in zip(columns, COLUMNS.types, strict=True)]
    return pa.table(arrays, schema=COLUMNS.with_metadata({_COUNTS: json.dumps(asdict(counts))}))


def _counts_of(path: Path) -> Counts:
    return Counts(**json.loads(pq.read_schema(path).metadata[_COUNTS]))


def _join(parts: list[Path], output: Path, suffix: str) -> None:
    """One file of all parts, of which one is held at a time."""
    make: Any = pq.ParquetWriter if suffix == ".parquet" else csv.CSVWriter
    with make(str(output), COLUMNS) as writer:
        for part in parts:
            writer.write_table(pq.read_table(part).replace_schema_metadata(None))


def _digest(user_ids: Ids, order: Order, source: str) -> str:
    found = hashlib.blake2b(digest_size=16)
    about = [source, order.n, order.exclude_seen, order.diversity]
    for text in (json.dumps(about), *_texts(user_ids), *_texts(order.candidates), *_texts(order.exclude)):
        found.update(text.encode())
        found.update(b"\0")
    return found.hexdigest()


def _texts(ids: Ids | None) -> Iterator[str]:
    yield "none" if ids is None else str(len(ids))
    yield from () if ids is None else ids.tolist()
