"""What every recommender knows beside its own weights: ids, seen items, scale and what to fall back on."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from recsys.arrays import Codes, Flags, Ids
from recsys.data.interactions import Interactions
from recsys.data.vocabulary import Vocabulary
from recsys.models.base.biases import Biases
from recsys.models.base.calibration import LikeCalibration
from recsys.models.base.padding import stable_argsort

_SEEN_ROWS = 1 << 20


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What every recommender carries beside its own weights: ids, seen items, scale, and what to fall back on.

    Users and items are known by their code, the position of their id. `seen` holds the (user, item) codes of
    every rating learnt from, sorted by user, shape (n, 2).
    """

    user_ids: Ids
    item_ids: Ids
    seen: Codes
    scale: tuple[float, float]
    like_threshold: float
    biases: Biases
    calibration: LikeCalibration
    implicit: bool = False
    """Whether the rows learnt from say only who took what: then a like is that a user takes an item."""

    @cached_property
    def _users(self) -> Vocabulary:
        return Vocabulary(self.user_ids)

    @cached_property
    def _items(self) -> Vocabulary:
        return Vocabulary(self.item_ids)

    def user_codes(self, user_ids: Ids) -> Codes:
        """The code of each id, -1 for an unknown one: shape (n,)."""
        return self._users.codes(user_ids)

    def item_codes(self, item_ids: Ids) -> Codes:
        """The code of each id, -1 for an unknown one: shape (n,)."""
        return self._items.codes(item_ids)

    def seen_items(self, user: int) -> Codes:
        """The items a user rated in the rows learnt from."""
        first, last = np.searchsorted(self.seen[:, 0], [user, user + 1])
        return self.seen[first:last, 1]

    def seen_blocks(self) -> Iterator[Codes]:
        """The rows of `seen`, some at a time: it may be mapped from a file and larger than memory."""
        for start in range(0, len(self.seen), _SEEN_ROWS):
            yield self.seen[start : start + _SEEN_ROWS]

    def has_seen(self, users: Codes, items: Codes) -> Flags:
        """Whether each of these pairs of codes, each of shape (n,), was learnt from; -1 stands for an unknown id."""
        width = len(self.item_ids)
        pairs = np.where((users >= 0) & (items >= 0), users.astype(np.int64) * width + items, -1)
        asked, at = np.unique(pairs, return_inverse=True)
        found = np.zeros(len(asked), np.bool_)
        for some in self.seen_blocks() if len(asked) else ():
            known = some[:, 0].astype(np.int64) * width + some[:, 1]
            place = np.minimum(np.searchsorted(asked, known), len(asked) - 1)
            found[place[asked[place] == known]] = True
        return found[at]

    def count_seen(self, users: Codes, items: Codes) -> int:
        """How many of these pairs of codes, each of shape (n,), were learnt from."""
        return int(self.has_seen(users, items).sum())


def sorted_pairs(rows: Interactions) -> Codes:
    """The (user, item) codes of rows, sorted by user, shape (n, 2): what `Knowledge.seen` holds."""
    order, pairs = stable_argsort(rows.users), np.empty((len(rows.users), 2), np.int32)
    pairs[:, 0], pairs[:, 1] = rows.users[order], rows.items[order]
    return pairs
