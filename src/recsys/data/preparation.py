"""The parameters that make a dataset of a ratings file."""

from typing import Any, Literal

from pydantic import Field

from recsys.settings import Settings


class Preparation(Settings):
    """What makes a dataset of a ratings file."""

    ratings: str = Field(
        "movielens-100k", min_length=1, description="ratings: file, folder or pattern; or movielens-100k, movielens-1m"
    )
    user_column: str = Field("user_id", min_length=1, description="column of the user's id")
    item_column: str = Field("item_id", min_length=1, description="column of the item's id")
    rating_column: str = Field("rating", min_length=1, description="column of the rating, a number")
    timestamp_column: str = Field(
        "timestamp", min_length=1, description="column of the time, a number or a date; used where present"
    )
    feedback: Literal["auto", "explicit", "implicit"] = Field(
        "auto",
        description="explicit: ratings are needed; implicit: who took what, ratings are not read; auto: explicit where "
        "there is a column of ratings that differ",
    )
    weight: str = Field(
        "none",
        min_length=1,
        description="without ratings, what a pair counts: none (once), repeats (as often as it is there), or the "
        "column of a number such as a quantity, which is summed",
    )
    separator: str = Field("auto", min_length=1, description="between columns: auto, tab, or the character(s)")
    encoding: str = Field(
        "auto", min_length=1, description="of text: utf-8, latin-1, …; auto: UTF-8, or UTF-16 by the file's mark"
    )
    decimal: Literal["auto", "point", "comma"] = Field(
        "auto", description="of ratings in text; auto: comma where ratings have one and none has a point"
    )
    min_rating: float | Literal["positive", "none"] = Field(
        "positive", description="lowest rating kept: a number, positive (above 0) or none (all are kept)"
    )
    split: Literal["hash", "random", "time"] = Field(
        "hash", description="how test rows are chosen: hash of the pair, random, or the newest by time"
    )
    test_size: float = Field(0.2, gt=0, lt=1, description="share of the ratings held out for the test")
    validation_size: float = Field(0.1, gt=0, lt=1, description="share held out for choosing epochs and settings")
    like_threshold: float = Field(4.0, description="a rating of at least this is a like")
    seed: int = Field(42, ge=0, lt=2**32, description="seed of split=random and of everything random in training")

    @property
    def weighted(self) -> bool:
        """Whether pairs count more or less, and are not rated."""
        return self.weight != "none"

    def recorded(self) -> dict[str, Any]:
        """The parameters by name; those that came later only where they are given: datasets from before stay valid."""
        return {name: value for name, value in self.model_dump().items() if value != _LATER.get(name)}


_LATER = {"feedback": "auto", "encoding": "auto", "decimal": "auto", "weight": "none"}
"""Parameters that came later, and what they are where they are not given."""
