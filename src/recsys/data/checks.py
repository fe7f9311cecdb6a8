"""Whether a dataset can be made of ratings, and what their owner should know of them."""

from pathlib import Path

import numpy as np

from recsys.data import splits
from recsys.data.preparation import Preparation
from recsys.data.ratings import Ratings
from recsys.errors import InputError

_FEW = 0.05  # of the ratings: fewer likes, or fewer others, are told


def check(ratings: Ratings, preparation: Preparation, source: Path) -> bool:
    """Refuse ratings of which no dataset can be made; returns whether they say only who took what.

    Raises:
        InputError: naming the rule, the value and what to pass.
    """
    _check_weight(ratings, preparation, source)
    if preparation.feedback == "explicit" and not ratings.rated:
        raise InputError(
            f"{source.name}: column {preparation.rating_column!r} is needed for feedback=explicit; name yours with "
            "-P rating_column=<column>, or pass feedback=auto to learn from who took what"
        )
    place = source.name
    low, high = ratings.scale()
    for ids, column, kind in (
        (ratings.users.ids, preparation.user_column, "users"),
        (ratings.items.ids, preparation.item_column, "items"),
    ):
        if len(ids) < 2:
            raise InputError(
                f"{place}: column {column!r}: at least 2 {kind} are needed to compare, got only {ids[0]!r} in "
                f"{len(ratings)} ratings; pass a file with more {kind}, or name another column"
            )
    implicit = preparation.feedback != "explicit" and (low == high or not ratings.rated or preparation.weighted)
    if low == high and not implicit:
        raise InputError(
            f"{place}: column {preparation.rating_column!r}: ratings that differ are needed, but all "
            f"{len(ratings)} are {low:g}, so there is nothing to learn and AUC is undefined; "
            f"{_keeping(ratings, low) or 'pass other ratings'}"
        )
    if not implicit and not low < preparation.like_threshold <= high:
        kind = "every rating is" if preparation.like_threshold <= low else "no rating is"
        proposed = _propose(ratings)
        raise InputError(
            f"parameter 'like_threshold': above the lowest rating of {place} ({low:g}) and at most the highest "
            f"({high:g}), got {preparation.like_threshold:g}, with which {kind} a like and AUC is undefined; pass "
            f"for instance -P like_threshold={proposed:g}"
            if proposed > low
            else f"parameter 'like_threshold': with {preparation.like_threshold:g} {kind} a like and AUC is "
            f"undefined; pass -P like_threshold={high:g}"
        )
    if preparation.split == "time" and not ratings.timed:
        raise InputError(
            f"parameter 'split': time needs timestamps, and {place} has no column "
            f"{preparation.timestamp_column!r}; name it by -P timestamp_column=…, or pass split=hash or split=random"
        )
    return implicit


def _check_weight(ratings: Ratings, preparation: Preparation, source: Path) -> None:
    """Refuse a weight that ratings exclude, or that is not there."""
    if not preparation.weighted:
        return
    if preparation.feedback == "explicit":
        raise InputError(
            f"parameter 'weight': it is for data without ratings, got {preparation.weight!r} with feedback=explicit; "
            "leave one of them out"
        )
    if preparation.weight != "repeats" and not ratings.rated:
        raise InputError(
            f"{source.name}: parameter 'weight': a column of numbers is needed, but {preparation.weight!r} is not "
            "there; name yours with -P weight=<column>, or pass weight=repeats"
        )


def check_parts(sizes: dict[str, int], preparation: Preparation, source: Path) -> None:
    """Refuse a part without ratings."""
    for name, size in sizes.items():
        if size == 0:
            raise InputError(
                f"{source.name}: at least one {name} rating is needed, but {_leaves(preparation)} none of "
                f"{sum(sizes.values())}; pass more ratings or other sizes"
            )


def alike(rating: float, preparation: Preparation, source: Path) -> InputError:
    """The refusal of rows to learn from that all have one rating."""
    return InputError(
        f"{source.name}: column {preparation.rating_column!r}: ratings that differ are needed to learn from, but "
        f"{_leaves(preparation)} only ratings of {rating:g} for train and validation; pass more ratings or other sizes"
    )


def _leaves(preparation: Preparation) -> str:
    return (
        f"split={preparation.split} with test_size={preparation.test_size:g} and "
        f"validation_size={preparation.validation_size:g} leaves"
    )


def notes(ratings: Ratings, feedback: str, preparation: Preparation) -> list[str]:
    """What a user has to know who did not ask for implicit feedback, or whose likes are on another scale."""
    if feedback == "explicit":
        return _notes_of_likes(ratings, preparation.like_threshold)
    if preparation.feedback == "implicit" or preparation.weighted:
        return []
    why = "is not there: if yours has another name, pass -P rating_column"
    if ratings.rated:
        (block, *_) = ratings.blocks()
        kept = _keeping(ratings, value := float(block.values[0]))
        why = f"has only one value, {value:g}" + (f", left ({kept})" if kept else "")
    return [
        f"implicit feedback: column {preparation.rating_column!r} {why}; a row counts as 'the user took the item', and "
        "AUC as the probability that an item held out is ranked above one never taken"
    ]


def _keeping(ratings: Ratings, only: float) -> str:
    """What to pass where all other ratings than one value were dropped, such as the zeros of a file of 0 and 1."""
    if not (low := ratings.dropped["below_min_rating"]):
        return ""
    return (
        f"{low:,} rows below min_rating were dropped: to learn from those too pass -P min_rating=none "
        f"-P like_threshold={only:g}"
    )


def _notes_of_likes(ratings: Ratings, threshold: float) -> list[str]:
    likes = sum(int(np.count_nonzero(block.values >= threshold)) for block in ratings.blocks())
    share = likes / len(ratings)
    if _FEW <= share <= 1 - _FEW:
        return []
    said = f"{likes:,} of {len(ratings):,} ratings are likes with like_threshold={threshold:g}, so that AUC says little"
    proposed = _propose(ratings)
    # Of as many likes as now, or of likes alone, AUC would say no more.
    if sum(int(np.count_nonzero(block.values >= proposed)) for block in ratings.blocks()) in (likes, len(ratings)):
        return [said]
    return [f"{said}; if a like is something else on your scale, pass for instance -P like_threshold={proposed:g}"]


def _propose(ratings: Ratings) -> float:
    """A threshold with which about two fifths of the ratings are likes."""
    rank = int(0.6 * len(ratings))
    (found,) = splits.find_ranked(lambda: (block.values for block in ratings.blocks()), [rank])
    return found
