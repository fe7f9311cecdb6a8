"""Lists of the record, many in one row of the table `served_blocks`, column by column.

What was served together is written together, and read by the time in which it was: a row a list costs the worker and
the one who writes several times as much. Texts of a block stand one a line; numbers are little-endian.
"""

import json
from collections.abc import Sequence
from itertools import pairwise
from json.encoder import encode_basestring
from typing import Any, NamedTuple

import numpy as np

from recsys.arrays import Array, Floats

MOST_LISTS = 500  # of a block; kinds are counted by 16 bits
_encode = json.JSONEncoder(ensure_ascii=False).encode  # dumps makes one a call


class Impression(NamedTuple):
    """A list as it was answered. No data of persons beyond the ids that a client gave."""

    request: str  # of one line
    moment: float  # seconds since 1970
    user: str  # empty where the request named none
    version: str
    arm: str
    policy: str
    first: int  # how many items of the ranking stand before the first one
    items: str  # a JSON list of ids on one line, best first
    likes: Floats  # (n,) the probability of a like of each
    trial: str | None = None  # the id of the trial that was under way
    seconds: float | None = None  # to make the list
    failed: bool | None = None  # the arm's version raised; the champion's list was answered, or none
    beside: str | None = None  # in shadow mode, what the challenger would have answered, as JSON
    propensities: Floats | None = None  # (n,) the probability of being in that list, where the server explores


class Block(NamedTuple):
    """A row of `served_blocks`, without its number: l lists of s items together."""

    request: str  # of the first list, when the block was made: a block that is handed over twice counts once
    earliest: float
    latest: float
    requests: str
    moments: bytes  # (l,) float64
    users: str  # as JSON
    kinds: str  # the version, arm, policy and first place of lists, as one JSON list of those that differ
    kind_of: bytes  # (l,) uint16, the kind of each list
    items: str  # as JSON, the items of a list on a line
    sizes: bytes  # (l,) uint32, how many items each has
    likes: bytes  # (s,) float32
    propensities: bytes | None  # (s,) float32, NaN in lists that have none


def pack(lists: Sequence[Impression]) -> Block:
    """A block of at least one list, at most `MOST_LISTS`, none of a trial: what a block keeps of these is not all."""
    request, moment, user, version, arm, policy, first, items, likes, *_, chances = zip(*lists, strict=True)
    each = list(zip(version, arm, policy, first, strict=True))
    kinds = {kind: number for number, kind in enumerate(dict.fromkeys(each))}
    sizes = list(map(len, likes))
    propensities = None
    if any(one is not None for one in chances):
        known = [np.full(size, np.nan) if one is None else one for one, size in zip(chances, sizes, strict=True)]
        propensities = _joined(known)
    return Block(
        request[0],
        min(moment),
        max(moment),
        "\n".join(request),
        np.array(moment, "<f8").tobytes(),
        "\n".join(map(encode_basestring, user)),
        _encode(list(kinds)),
        np.array(list(map(kinds.__getitem__, each)), "<u2").tobytes(),
        "\n".join(items),
        np.array(sizes, "<u4").tobytes(),
        _joined(likes),
        propensities,
    )


def unpack(block: Block) -> list[Sequence[Any]]:
    """The lists of a block in their order: the first nine fields of an `Impression`, and the propensities."""
    kinds = json.loads(block.kinds)
    ends = np.cumsum(np.frombuffer(block.sizes, "<u4"), dtype=np.int64)
    columns = (
        block.requests.split("\n"),
        np.frombuffer(block.moments, "<f8").tolist(),
        json.loads("[" + block.users.replace("\n", ",") + "]"),
        *zip(*(kinds[kind] for kind in np.frombuffer(block.kind_of, "<u2").tolist()), strict=True),
        block.items.split("\n"),
        _parts(block.likes, ends),
        [None] * len(ends) if block.propensities is None else map(_known, _parts(block.propensities, ends)),
    )
    return list(zip(*columns, strict=True))


def without(block: Block, user: str) -> Block | None:
    """A block without the lists of a user; None where no other is left."""
    left = [row for row in unpack(block) if row[2] != user]
    if not left:
        return None
    made = pack([_impression(*row) for row in left])
    return made._replace(request=block.request)  # it may be handed over again, and is not to come back


def line_of(user: str) -> str:
    """A user as `users` of a block has it."""
    return encode_basestring(user)


def _joined(numbers: Sequence[Floats]) -> bytes:
    return np.concatenate(numbers, dtype="<f4", casting="same_kind").tobytes()


def _parts(numbers: bytes, ends: Array) -> list[bytes]:
    at = [0, *(4 * ends).tolist()]
    return [numbers[start:end] for start, end in pairwise(at)]


def _known(numbers: bytes) -> bytes | None:
    return None if not numbers or np.isnan(np.frombuffer(numbers, "<f4", 1)[0]) else numbers


def _impression(*row: Any) -> Impression:
    *fields, likes, propensities = row
    return Impression._make((*fields, _numbers(likes), None, None, None, None, _numbers(propensities)))


def _numbers(found: bytes | None) -> Any:
    return None if found is None else np.frombuffer(found, "<f4")
