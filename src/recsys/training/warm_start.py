"""Going on from an earlier version: when that is allowed, and by which rows it is measured.

It is the second fit of a training, with the earlier version in place of the first: all choices are kept, and
`bayesian_mf` begins with the earlier factors. The earlier recommender has learnt from rows that are now validation
rows, so these can measure nothing that begins with it. Only rows that it has not learnt from can: they are the
validation part, and all others are learnt from.
"""

import numpy as np

from recsys.arrays import Flags
from recsys.data.dataset import Dataset
from recsys.data.interactions import Interactions
from recsys.errors import InputError
from recsys.models.base.list_recommender import ListRecommender
from recsys.models.base.recommender import Recommender

FEWEST_MEASURED = 20  # validation rows that the earlier recommender has not learnt from
MOST_GROWTH = 1.5  # times the rows that it learnt from: what was chosen for those may not be best for so many more


def divide_anew(dataset: Dataset, earlier: Recommender, family: str) -> Dataset:
    """The dataset, less the validation rows that the earlier recommender has learnt from: those are training rows.

    Raises:
        InputError: saying why a training may not, or should not, go on from it.
    """
    if earlier.family != family:
        raise InputError(f"family {family} does not go on from a version of family {earlier.family}")
    if isinstance(earlier, ListRecommender):
        raise InputError(f"family {family} is fitted in one pass, in which there is nothing to go on from")
    if earlier.knowledge.scale != dataset.scale:
        raise InputError(f"it learnt ratings from {_shown(earlier.knowledge.scale)}, now {_shown(dataset.scale)}")
    if earlier.knowledge.like_threshold != dataset.like_threshold:
        raise InputError(
            f"it learnt likes as ratings of at least {earlier.knowledge.like_threshold:g}, now of at least "
            f"{dataset.like_threshold:g}"
        )
    if tested := int(_seen(earlier, dataset, dataset.test).sum()):
        raise InputError(
            f"it has learnt from {tested:,} of the {dataset.size('test'):,} test ratings, which would then measure "
            "nothing (split=hash keeps a test rating a test rating)"
        )
    before, now = len(earlier.knowledge.seen), dataset.size("train") + dataset.size("validation")
    if now > MOST_GROWTH * before:
        raise InputError(
            f"it has learnt from {before:,} ratings, and {now:,} are more than {MOST_GROWTH:g} times as many: its "
            "terms and settings are chosen anew"
        )
    seen = _seen(earlier, dataset, dataset.validation)
    fresh = dataset.validation[np.flatnonzero(~seen)]
    likes = int(dataset.likes(fresh).sum())
    if len(fresh) < FEWEST_MEASURED or likes in (0, len(fresh)):
        raise InputError(
            f"{len(fresh):,} validation ratings, {likes:,} of them likes, are new to it, and at least "
            f"{FEWEST_MEASURED} of both kinds are needed to measure what goes on from it"
        )
    return dataset.holding(train=dataset.train.joined(dataset.validation[np.flatnonzero(seen)]), validation=fresh)


def _seen(earlier: Recommender, dataset: Dataset, rows: Interactions) -> Flags:
    knowledge = earlier.knowledge
    users, items = knowledge.user_codes(dataset.user_ids), knowledge.item_codes(dataset.item_ids)
    return knowledge.has_seen(users[rows.users], items[rows.items])


def _shown(scale: tuple[float, float]) -> str:
    return f"{scale[0]:g} to {scale[1]:g}"
