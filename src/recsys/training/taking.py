"""How probable a like is for the scores of a recommender that is its list model: learnt on the validation rows."""

from collections.abc import Iterator

import numpy as np

from recsys.arrays import Array, Codes, Flags, Floats
from recsys.data.dataset import Dataset
from recsys.models.base.list_recommender import ListRecommender
from recsys.models.base.recommendation import list_model
from recsys.models.base.taking import LikeWeights, TakingCurve

_KNOTS = 16
_MOST_USERS = 2_000
_MOST_WEIGHED_USERS = 20_000  # whose every validation row is asked for: a millisecond a user of a large catalogue
_MOST_PAIRS = 1 << 27
_PAIRS_AT_A_TIME = 1 << 21
_LEAST_RISE = 1e-3  # of log odds over all scores, so that a higher score always has a higher probability


def answer_by_lists(chosen: ListRecommender, final: ListRecommender, dataset: Dataset) -> None:
    """Give both recommenders of a training their probabilities; both have their lists."""
    if not dataset.implicit:
        chosen.weights = _learn_weights(chosen, dataset)
        final.answering_as(chosen)
        return
    made = dataset.preparation
    curve = _learn_curve(chosen, dataset)
    chosen.curve = final.curve = curve
    learnt = 1 - made.test_size
    if final is not chosen:
        final.with_share(made.test_size / learnt)
    chosen.with_share(made.test_size / (learnt - made.validation_size if final is not chosen else learnt))


def _learn_weights(recommender: ListRecommender, dataset: Dataset) -> LikeWeights:
    """A logistic regression of likes on the log odds by the biases and on the scores; by biases alone if that fails.

    It learns from the validation rows of evenly spaced users.
    """
    from sklearn.linear_model import LogisticRegression

    knowledge, rows = recommender.knowledge, dataset.validation
    users = knowledge.user_codes(dataset.user_ids)[rows.users]
    items = knowledge.item_codes(dataset.item_ids)[rows.items]
    asked = np.unique(users[users >= 0])
    asked = asked[:: -(-len(asked) // _MOST_WEIGHED_USERS) or 1]
    known, liked = np.isin(users, asked) & (items >= 0), dataset.likes(rows)
    users, items, liked = users[known], items[known], liked[known]
    if not liked.any() or liked.all():
        return LikeWeights()
    by_bias, rating = knowledge.calibration, knowledge.biases.rating(users, items)
    columns = np.stack([by_bias.slope * rating + by_bias.intercept, recommender.takes(users, items)], axis=1)
    model = LogisticRegression(C=1e3).fit(columns, liked)
    of_bias, of_score = (float(value) for value in model.coef_[0])
    return LikeWeights(of_bias, of_score, float(model.intercept_[0])) if min(of_bias, of_score) > 0 else LikeWeights()


def _learn_curve(recommender: ListRecommender, dataset: Dataset) -> TakingCurve:
    """The share of takes among the pairs of equal scores, of all items that a user has not taken before.

    Between quantiles of the takes, made to grow with the score, and stretched from as many takes as the validation part
    has to as many as the test part has.
    """
    from sklearn.isotonic import IsotonicRegression

    users, wanted = _users_asked(recommender, dataset)
    taken = np.concatenate([scores[mine] for scores, mine in _scored(recommender, users, wanted)] or [np.zeros(0)])
    made = dataset.preparation
    stretch = float(np.log(made.test_size / made.validation_size))
    if len(taken) < 2 or np.ptp(taken) == 0:
        odds = float(np.log((len(taken) + 1) / (max(len(users), 1) * len(recommender.knowledge.item_ids) + 1)))
        return TakingCurve([0.0, 1.0], [odds + stretch, odds + stretch + 1], 1.0)
    edges = np.unique(np.quantile(taken, np.linspace(0, 1, _KNOTS + 1)[1:-1]))
    sums, counts, takes = np.zeros((3, len(edges) + 1))
    for scores, mine in _scored(recommender, users, wanted):
        allowed = np.isfinite(scores)
        bins = np.searchsorted(edges, scores[allowed], "right")
        counts += np.bincount(bins, minlength=len(counts))
        sums += np.bincount(bins, scores[allowed], minlength=len(counts))
        takes += np.bincount(np.searchsorted(edges, scores[mine], "right"), minlength=len(counts))
    held = counts > 0
    at, rates = sums[held] / counts[held], (takes[held] + 0.5) / (counts[held] + 1)
    rates = IsotonicRegression().fit_transform(at, rates, sample_weight=counts[held])
    log_odds = np.log(rates / (1 - np.minimum(rates, 1 - 1e-6))) + stretch
    if len(at) == 1:
        at, log_odds = np.array([at[0], at[0] + 1]), np.array([log_odds[0], log_odds[0]])
    log_odds = log_odds + _LEAST_RISE * (at - at[0]) / (at[-1] - at[0])
    return TakingCurve(at.tolist(), log_odds.tolist(), 1.0)


def _users_asked(recommender: ListRecommender, dataset: Dataset) -> tuple[Codes, tuple[Codes, Codes]]:
    """Evenly spaced users of the validation rows, (u,); and the rows' positions among these and items, both (n,)."""
    knowledge, rows = recommender.knowledge, dataset.validation
    users = knowledge.user_codes(dataset.user_ids)[rows.users]
    items = knowledge.item_codes(dataset.item_ids)[rows.items]
    asked = np.unique(users[users >= 0])
    most = min(_MOST_USERS, max(1, _MOST_PAIRS // len(knowledge.item_ids)))
    asked = asked[:: -(-len(asked) // most) or 1]
    kept = np.isin(users, asked) & (items >= 0)
    return asked, (np.searchsorted(asked, users[kept]).astype(np.int32), items[kept])


def _scored(recommender: ListRecommender, users: Codes, wanted: tuple[Codes, Codes]) -> Iterator[tuple[Array, Flags]]:
    """Some users at a time: scores of all items, -inf where taken before, and which are wanted: (users, n_items)."""
    from scipy.sparse import csr_matrix

    model, knowledge = list_model(recommender), recommender.knowledge
    rated, n_items = model.rated, len(knowledge.item_ids)
    values = model.regression.in_history(rated.ratings, rated.newer, knowledge.scale, knowledge.like_threshold)
    histories = csr_matrix((values, rated.items, rated.starts), (len(knowledge.user_ids), n_items))[users]
    step = max(1, _PAIRS_AT_A_TIME // n_items)
    for start in range(0, len(users), step):
        some = histories[start : start + step]
        scores: Floats = model.takes_many(some)
        scores[np.repeat(np.arange(some.shape[0]), np.diff(some.indptr)), some.indices] = -np.inf
        mine = np.zeros(scores.shape, bool)
        inside = (wanted[0] >= start) & (wanted[0] < start + len(scores))
        mine[wanted[0][inside] - start, wanted[1][inside]] = True
        yield scores, mine & np.isfinite(scores)
