"""Lists and scores from a served form and a history. NumPy only; nothing here waits, reads files or keeps state."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from recsys.arrays import Array, Floats
from recsys.models.base.factors import UNCERTAIN
from recsys.models.base.item_to_item import POPULARITY_WEIGHT, ItemToItem, Regression, expect_next
from recsys.models.base.ranking import POOL, best_items, diversify, highest, note_of, weigh
from recsys.models.base.taking import TakingCurve, find_judge
from recsys.serving.exploration import POLICY as EXPLORED
from recsys.serving.exploration import Exploration, Pool
from recsys.serving.form import Arrays, Form
from recsys.serving.ids import IdTable

_NONE = np.zeros(0, np.int32)
_PROBED = 5  # items of a user
_NO_LISTS: Mapping[str, Any] = {"signal": "ratings", "ridge": 0.0, "relative_ridge": 0.0, "exponent": 0.0}


class History(NamedTuple):
    """What a user rated: codes of items, each once, and the ratings, NaN where it was another event: both (h,)."""

    items: Array
    ratings: Array
    newer: Array | None = None
    """(h,), how many of the history are newer; None where age does not count."""


NO_HISTORY = History(_NONE, np.zeros(0, np.float32))


class Listed(NamedTuple):
    """A list: codes, scores and probabilities of a like, (n,) each, best first, and by which policy it was made.

    "personal": from what a user known to the version rated; "history": from ratings alone; "popular": from neither.
    """

    items: Array
    scores: Array
    probabilities: Array
    policy: str
    note: str = ""
    """Why it is shorter than asked."""
    propensities: Floats | None = None
    """Of being in the list, (n,), where some lists are drawn."""


class _Taste(NamedTuple):
    """A user's side of an expected rating."""

    factors: Array  # (r,) float32
    bias: float
    variance: float


class Engine:
    """Answers from one form. The same form and the same history give the same answer in every process."""

    def __init__(
        self, arrays: Arrays, about: Mapping[str, Any], users: IdTable, items: IdTable, titles: IdTable
    ) -> None:
        self.titles = titles
        self.arrays = arrays
        self.about = about
        self.users = users
        self.items = items
        self.low, self.high = about["scale"]
        self._link = about["link"]
        self._uncertain = float(self._link.get("uncertain", UNCERTAIN))  # forms made before do not say
        self._judge = find_judge(self._link)  # of a family whose history says all; None: its factors do
        lists = about["lists"] or _NO_LISTS
        self._regression = Regression(
            lists["signal"], lists["ridge"], lists["relative_ridge"], half_life=lists.get("half_life")
        )
        self._exponent = float(lists["exponent"])
        self._history_ends = memoryview(arrays.history_ends)  # type: ignore[arg-type]  # an array is a buffer
        self._item_to_item = ItemToItem(arrays.weight_starts, arrays.neighbours, arrays.weights)
        self._popularity = arrays.popularity.astype(np.float64) / max(len(users), 1)
        self._added = POPULARITY_WEIGHT * self._popularity  # to what a history says
        prior = about["prior"]
        self._noise = max(float(prior["noise"]), 1e-9)
        factors = np.maximum(np.array(prior["factors"], np.float64), 1e-12)
        self._precision = np.diag(np.append(self._noise / factors, self._noise / max(prior["bias"][1], 1e-12)))
        self._bias = float(prior["bias"][0])

    @property
    def makes_lists(self) -> bool:
        """Whether the version carries what lists are made from."""
        return self.about["lists"] is not None

    @classmethod
    def of_form(cls, form: Form) -> "Engine":
        """The engine of a form that is open."""
        return cls(form.arrays, form.about, form.users, form.items, form.titles)

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Array], about: Mapping[str, Any]) -> "Engine":
        """The engine of arrays by the names of `Arrays`."""
        held = Arrays(**arrays)
        users, items = IdTable(held.user_ids, held.user_id_ends), IdTable(held.item_ids, held.item_id_ends)
        return cls(held, about, users, items, IdTable(held.titles, held.title_ends))

    def history(self, user: int, added: Mapping[int, float] | None = None) -> History:
        """What a user (-1: unknown) rated in the rows learnt from, and since, which counts where an item is in both."""
        items, ratings, newer = self._learnt(user)
        if not added:
            return History(items, ratings, newer)
        given = np.fromiter(added, np.int32, len(added))
        known = np.isin(items, given, invert=True)
        values = np.fromiter(added.values(), np.float32, len(added))
        items = np.concatenate((items[known], given))
        order = np.argsort(items)  # sums do not depend on when a rating came
        if newer is not None:  # what was learnt is older than what was added, the newest of which is the last
            ages = np.argsort(np.argsort(newer[known])) + len(added)
            newer = np.concatenate((ages, np.arange(len(added))[::-1]))[order]
        return History(items[order], np.concatenate((ratings[known], values))[order], newer)

    def _learnt(self, user: int) -> History:
        aged = self._regression.half_life is not None
        if user < 0:
            return History(*NO_HISTORY[:2], NO_HISTORY.items if aged else None)
        arrays, part = self.arrays, slice(self._history_ends[user], self._history_ends[user + 1])
        newer = arrays.history_newer[part] if aged else None
        return History(arrays.history_items[part], arrays.history_values[part], newer)

    def recommend(
        self,
        user: int,
        history: History,
        n: int,
        *,
        exclude: Array = _NONE,
        candidates: Array | None = None,
        exclude_seen: bool = True,
        diversity: float = 0.0,
        exploration: Exploration | None = None,
    ) -> Listed:
        """The list that the version's `Recommender.recommend` gives for this history; fewer only where fewer are left.

        Args:
            user: its code, -1 for one that the version does not know.
            history: as of `history`.
            exclude, candidates: codes of items that may not, or alone may, be named.
            diversity: from 0, by score alone, to 1, by how different the items of a list are.
            exploration: of this request, where a share of the lists is drawn.
        """
        values = self._values(history)
        told = np.count_nonzero(values) > 0
        takes = self._carry(history, values) if told else self._popularity.copy()
        if candidates is not None:
            others = np.ones(len(takes), np.bool_)
            others[candidates] = False
            takes[others] = -np.inf
        if len(exclude):
            takes.put(exclude, -np.inf)
        if exclude_seen:
            takes.put(history.items, -np.inf)
        pool = highest(takes, max(n, POOL))
        taken = takes.take(pool)
        allowed = taken > -np.inf
        if np.count_nonzero(allowed) < len(pool):
            pool, taken = pool[allowed], taken[allowed]
        likes = self._likes(user, history, pool)
        scores = weigh(taken, likes, self._exponent)
        order = best_items(scores, len(scores) if diversity else n)
        if diversity:
            close = self._item_to_item.similarities(pool[order])
            order = order[diversify(scores[order], close, n, diversity)]
        policy, propensities = ("personal" if user >= 0 else "history") if told else "popular", None
        if exploration is not None and exploration.draws and len(order):
            drawn_from = self._to_draw_from(user, history, pool, taken, likes)
            order, propensities = exploration.draw(drawn_from, order)
            policy = EXPLORED
        elif exploration is not None:
            propensities = exploration.of_usual(len(order))
        note = note_of(len(pool), n, exclude_seen)
        return Listed(pool.take(order), scores.take(order), likes.take(order), policy, note, propensities)

    def _to_draw_from(self, user: int, history: History, items: Array, takes: Floats, likes: Floats) -> Pool:
        """What a list is drawn from: of the variance, what an item adds is uncertainty, and a share of the user's.

        Of a family whose history says all, nothing is known of that: a share of the variance is taken for it.
        """
        if self._judge is not None:
            inside = np.clip(likes, 1e-6, 1 - 1e-6)
            margins, uncertain = np.log(inside / (1 - inside)), np.full(len(items), self._uncertain)
            return Pool(takes, margins, uncertain, False, self._exponent)
        taste = self._taste(user, history)
        margins, variance = self._margin(taste, items)[1:]
        uncertain = (self._uncertain * taste.variance + self.arrays.item_variance[items]) / variance
        return Pool(takes, margins, uncertain, self._link["kind"] == "probit", self._exponent)

    def carry(self, history: History) -> Floats:
        """P(takes), up to a factor, of every item for a history: shape (n_items,)."""
        return self._carry(history, self._values(history))

    def _carry(self, history: History, values: Array) -> Floats:
        return expect_next(self._item_to_item, self._popularity, history.items, values, self._added)

    def _values(self, history: History) -> Array:
        """What each item of a history counts, (h,); another event than a rating counts as the highest one."""
        ratings = history.ratings.astype(np.float32)  # 16 bits are few
        ratings[np.isnan(ratings)] = self.high
        scale, threshold = (self.low, self.high), float(self.about["like_threshold"])
        return self._regression.in_history(ratings, history.newer, scale, threshold)

    def _taste(self, user: int, history: History) -> _Taste:
        arrays = self.arrays
        if user >= 0:
            factors = arrays.user_factors[user].astype(np.float32)
            return _Taste(factors, float(arrays.user_bias[user]), float(arrays.user_variance[user]))
        return self._fold_in(history)

    def _fold_in(self, history: History) -> _Taste:
        """The posterior mean of a new user's factors and bias, given the ratings (ridge regression)."""
        rated = ~np.isnan(history.ratings)
        items = history.items[rated]
        size = len(self._precision) - 1
        if not len(items):
            return _Taste(np.zeros(size, np.float32), self._bias, self._noise)
        table = np.ones((len(items), size + 1))
        table[:, :-1] = self.arrays.item_factors.take(items, 0)
        target = history.ratings[rated] - self._bias - self.arrays.item_bias[items]
        solved = np.linalg.solve(table.T @ table + self._precision, table.T @ target)
        return _Taste(solved[:-1].astype(np.float32), self._bias + float(solved[-1]), self._noise)

    def _score(self, user: int, history: History, items: Array) -> tuple[Floats, Floats]:
        """Expected ratings, within the scale, and probabilities of a like, (n,) each, of known items.

        A user who was learnt from is answered as learnt; of another, the history tells.
        """
        if self._judge is None:
            rating, x, _ = self._margin(self._taste(user, history), items)
            return np.clip(rating, self.low, self.high), self._linked(x)
        told = self.history(user) if user >= 0 else history
        values = self._values(told)
        takes = np.zeros(len(items))
        if values.any():
            takes = self._carry(told, values)[items]
        if isinstance(self._judge, TakingCurve):
            if user < 0 and not len(told.items):
                return self._fallback(user, items)
            taking = self._judge.probability(takes)
            return taking, taking.copy()
        taste = self._taste(user, told)
        rating = self.arrays.item_bias[items] + taste.bias
        slope, intercept = self.about["calibration"]
        like = self._judge.probability(slope * rating + intercept, takes)
        return np.clip(rating, self.low, self.high), like

    def _likes(self, user: int, history: History, items: Array) -> Floats:
        """The second of `_score` alone."""
        if self._judge is None:
            return self._linked(self._margin(self._taste(user, history), items)[1])
        return self._score(user, history, items)[1]

    def _linked(self, x: Floats) -> Floats:
        return _normal_cdf(x) if self._link["kind"] == "probit" else 1 / (1 + np.exp(-x))

    def _margin(self, taste: _Taste, items: Array) -> tuple[Floats, Floats, Floats]:
        """Expected ratings, what the link makes probabilities of, and variances, (n,) each."""
        arrays = self.arrays
        rating = arrays.item_factors.take(items, 0) @ taste.factors + arrays.item_bias.take(items) + taste.bias
        variance = np.maximum(taste.variance + arrays.item_variance.take(items), 0.1 * taste.variance)
        return rating, self._link["slope"] * (rating - self._link["threshold"]) / np.sqrt(variance), variance

    def predict_known(self, user: int, items: Array) -> tuple[Floats, Floats]:
        """Expected ratings and probabilities of a like of items, (n,) each, for a user known to the version."""
        return self._score(user, NO_HISTORY, items)

    def predict(self, user: int, history: History, items: Array) -> tuple[Floats, Floats]:
        """The same for any user; -1 among the items is an unknown one, for which biases and calibration answer."""
        if user < 0 and not len(history.items):
            return self._fallback(user, items)
        known = items >= 0
        rating, like = self._fallback(user, items)
        rating[known], like[known] = self._score(user, history, items[known])
        return rating, like

    def _fallback(self, user: int, items: Array) -> tuple[Floats, Floats]:
        if isinstance(self._judge, TakingCurve):
            taking = self._judge.of_popularity(np.where(items >= 0, self._popularity[items], 0.0), len(self.users))
            return taking, taking.copy()
        base = float(self.arrays.user_fallback[user]) if user >= 0 else float(self.about["mean"])
        rating = base + np.where(items >= 0, self.arrays.item_fallback[items], 0.0)
        slope, intercept = self.about["calibration"]
        return np.clip(rating, self.low, self.high), 1 / (1 + np.exp(-(slope * rating + intercept)))

    def similar(self, item: int, n: int) -> tuple[Array, Array]:
        """The n items to whose scores a rating of this one adds most, and how much; as `Recommender.similar_items`."""
        scores = expect_next(self._item_to_item, self._popularity, np.array([item], np.int32), np.ones(1, np.float32))
        allowed = np.ones(len(scores), np.bool_)
        allowed[item] = False
        best = best_items(scores, n, allowed)
        return best, scores[best]

    def popular(self, n: int, offset: int = 0) -> tuple[Array, Array]:
        """The n most popular items from `offset` on, and how many rated each."""
        found = self.arrays.most_popular[offset : offset + n]
        return found, self.arrays.popularity[found]

    def reasons(self, history: History, item: int, most: int = 3) -> list[tuple[int, float]]:
        """The items of a history that carried an item most, and the share of each in the whole."""
        parts = np.maximum(self._item_to_item.contributions(history.items, self._values(history), item), 0)
        total = float(parts.sum())
        best = np.argsort(-parts, kind="stable")[:most]
        return [(int(history.items[at]), float(parts[at]) / total) for at in best if parts[at] > 0 and total > 0]

    def probe(self, users: int) -> list[dict[str, Any]]:
        """The lists of some users, as every process that serves the form must find them."""
        chosen = np.unique(np.linspace(0, len(self.users) - 1, users).astype(int)).tolist()
        answers = []
        for user in [*chosen, -1]:
            items, likes = self._probed(user)
            answers.append({"user": user, "items": items.tolist(), "likes": likes.tolist()})
        return answers

    def _probed(self, user: int) -> tuple[Array, Floats]:
        """The first items of a user's list, or of the catalogue where there are no lists; and their probabilities."""
        if self.makes_lists:
            listed = self.recommend(user, self.history(user), _PROBED)
            return listed.items, listed.probabilities
        items = np.arange(min(_PROBED, len(self.items)), dtype=np.int32)
        return items, self.predict(user, NO_HISTORY, items)[1]

    def differs_from(self, probe: Sequence[Mapping[str, Any]], tolerance: float = 1e-4) -> str:
        """Where this engine's answers are not those of a probe, in words; empty where they are."""
        for said in probe:
            items, likes = self._probed(said["user"])
            if items.tolist() != said["items"] or not np.allclose(likes, said["likes"], atol=tolerance):
                return f"user {said['user']} is listed {items.tolist()}, expected {said['items']}"
        return ""


_END, _STEPS = 6, 512  # the points go from -_END to _END, by so many steps in one
_NORMAL = np.array([math.erfc(-at / _STEPS / math.sqrt(2)) / 2 for at in range(-_END * _STEPS, _END * _STEPS + 1)])
_RISE = np.append(np.diff(_NORMAL), 0.0)  # from a point to the next


def _normal_cdf(x: Array) -> Floats:
    """The standard normal distribution function, between points so close that it is off by 2e-7 at most.

    As `np.interp`, to the last bit, but the points are known to be equally far from each other, and are not looked for.
    """
    at = np.minimum(np.maximum(x, -_END), _END).astype(np.float64) * _STEPS
    point = np.floor(at)
    place = point.astype(np.intp) + _END * _STEPS
    return np.asarray(_RISE.take(place, mode="clip") * (at - point) + _NORMAL.take(place, mode="clip"))
