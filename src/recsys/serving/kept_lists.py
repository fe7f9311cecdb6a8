"""Lists that were made, kept for requests that the same list answers.

A list follows from the version, each of which keeps its own, and from what a key holds: the user, all of the user's
feedback as it is on the disk at this moment, and what is asked for. So a rating, whichever process took it, makes
another key, and time has no part in what is answered.
"""

import sys
from collections import OrderedDict
from typing import NamedTuple

from recsys.serving.engine import History, Listed

LARGEST = 8_192  # bytes of a list that is kept, with its key: a list of ten has about 2,000
_OBJECTS = 1_000  # bytes of what is there for every list: tuples, heads of arrays, a place in the table
_PLACE = 32  # of a place in a list: its item, score, probability and propensity
_RATED = 16  # of an item of a history: itself, rating and age
_ID = sys.getsizeof("")  # of an id besides its characters, which stand in the text too
_PAIR = sys.getsizeof(("", 0.0)) + sys.getsizeof(0.0)  # of an event in a key, besides the id


class Key(NamedTuple):
    """All that a list of one version is made from."""

    user: str
    given: tuple[tuple[str, float | None], ...]  # the user's feedback in its order: item, and rating if it is one
    n: int
    offset: int
    exclude: tuple[str, ...]
    candidates: tuple[str, ...]


class MadeList(NamedTuple):
    """A list, from which history, and how long that took."""

    code: int  # of the user, -1 for one that the version does not know
    history: History
    listed: Listed
    items: list[str]  # what is answered of it
    text: str  # the same as JSON
    seconds: float


class KeptLists:
    """At most so many lists; the one that was not asked for longest makes room."""

    def __init__(self, most: int) -> None:
        """Take how many lists are kept, at least 1: they have at most `most` * LARGEST bytes."""
        self._most = most
        self._lists: OrderedDict[Key, MadeList] = OrderedDict()

    def __len__(self) -> int:
        return len(self._lists)

    def find(self, key: Key) -> MadeList | None:
        """The list of this key, None where it is not kept."""
        found = self._lists.get(key)
        if found is not None:
            self._lists.move_to_end(key)
        return found

    def keep(self, key: Key, made: MadeList) -> None:
        """Keep a list, if it is not too large."""
        if _size(key, made) > LARGEST:
            return
        self._lists[key] = made
        if len(self._lists) > self._most:
            self._lists.popitem(last=False)


def _size(key: Key, made: MadeList) -> int:
    """Bytes of a list and its key; a history of a user without feedback is a part of the form, and no copy."""
    size = _OBJECTS + _PLACE * len(made.listed.items) + _ID * len(made.items) + 2 * sys.getsizeof(made.text)
    if key.given or key.exclude or key.candidates:
        ids = (*key.exclude, *key.candidates, *(item for item, _ in key.given))
        size += sum(map(sys.getsizeof, ids)) + _PAIR * len(key.given) + _RATED * len(made.history.items)
    return size + sys.getsizeof(key.user)
