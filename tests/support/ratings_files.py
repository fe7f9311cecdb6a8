"""What the tests of ratings files share: one small file, and how to look at what became of it."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from recsys.arrays import Ids
from recsys.data import ratings
from recsys.data.cleaning import Block
from recsys.errors import InputError

HEADER = "user_id,item_id,rating,timestamp"
ROWS = [("u1", "i1", 5.0, 10.0), ("u2", "i1", 3.5, 20.0), ("u1", "i2", 1.0, 30.0)]
TEXT = f"{HEADER}\nu1,i1,5,10\nu2,i1,3.5,20\nu1,i2,1,30\n"


@dataclass(frozen=True, eq=False)
class Loaded(Block):
    """The ratings of an input, all at once, and what else is known of them."""

    user_ids: Ids
    item_ids: Ids
    rows_read: int
    dropped: dict[str, int]
    notes: tuple[str, ...]


def read_ratings(path: Path, *arguments: object, **options: object) -> Loaded:
    with ratings.read_ratings(path, *arguments, **options) as read:
        rows = read.load()
        assert len(rows) == len(read)
        known = {name: getattr(read, name) for name in ("rows_read", "dropped", "notes")}
        return Loaded(**vars(rows), user_ids=read.users.ids, item_ids=read.items.ids, **known)


def rows(ratings: Loaded) -> list[tuple]:
    columns = [ratings.user_ids[ratings.users], ratings.item_ids[ratings.items], ratings.values]
    if ratings.timestamps is not None:
        columns.append(ratings.timestamps)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def message(path: Path, *arguments: object, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        read_ratings(path, *arguments, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text
