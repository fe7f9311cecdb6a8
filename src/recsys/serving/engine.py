"""Lists and scores from a served form and a history. NumPy only; nothing here waits, reads files or keeps state."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from recsys.arrays import Array, Floats
from recsys.serving.form import Arrays, Form
from recsys.serving.ids import IdTable

_SHORTLIST = 64
_NONE = np.zeros(0, np.int32)


class History(NamedTuple):
    """What a user rated: codes of items, each once, and the ratings, NaN where it was another event: both (h,)."""

    items: Array
    ratings: Array


NO_HISTORY = History(_NONE, np.zeros(0, np.float32))


@dataclass(frozen=True, eq=False)
class Listed:
    """A list: codes, scores and probabilities of a like, (n,) each, best first, and by which policy it was made.

    "personal": from what a user known to the version rated; "history": from ratings alone; "popular": from neither.
    """

    items: Array
    scores: Array
    probabilities: Array
    policy: str


@dataclass(frozen=True, eq=False)
class _Taste:
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
        self._slope = float(about["link"]["slope"])
        self._threshold = float(about["link"]["threshold"])
        self._probit = about["link"]["kind"] == "probit"
        self._exponent = float(about["exponent"])
        prior = about["prior"]
        self._noise = max(float(prior["noise"]), 1e-9)
        factors = np.maximum(np.array(prior["factors"], np.float64), 1e-12)
        self._precision = np.diag(np.append(self._noise / factors, self._noise / max(prior["bias"][1], 1e-12)))
        self._bias = float(prior["bias"][0])

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

    def history(self, user: int, added: Sequence[tuple[int, float]] = ()) -> History:
        """What a user (-1: unknown) rated in the rows learnt from, and since: the last rating of an item counts."""
        if user >= 0:
            first, last = self.arrays.history_ends[user], self.arrays.history_ends[user + 1]
            items, ratings = self.arrays.history_items[first:last], self.arrays.history_values[first:last]
        else:
            items, ratings = NO_HISTORY
        if not added:
            return History(items, ratings)
        newest = dict(added)
        known = np.isin(items, np.fromiter(newest, np.int32, len(newest)), invert=True)
        values = np.fromiter(newest.values(), np.float32, len(newest))
        return History(
            np.concatenate((items[known], np.fromiter(newest, np.int32, len(newest)))),
            np.concatenate((ratings[known], values)),
        )

    def recommend(
        self,
        user: int,
        history: History,
        n: int,
        *,
        exclude: Array = _NONE,
        candidates: Array | None = None,
        exclude_seen: bool = True,
    ) -> Listed:
        """The n items that a user most probably takes and likes; fewer only where fewer are left.

        Where the history leads to fewer than n, the most popular of the rest follow.

        Args:
            user: its code, -1 for one that the version does not know.
            history: as of `history`.
            exclude, candidates: codes of items that may not, or alone may, be named.
        """
        arrays = self.arrays
        taste = self._taste(user, history)
        blocked = np.zeros(len(self.items), np.bool_)
        blocked[exclude] = True
        if exclude_seen:
            blocked[history.items] = True
        if candidates is not None:
            others = np.ones(len(blocked), np.bool_)
            others[candidates] = False
            blocked |= others
        found, scores, likes = self._carried(taste, history, n, blocked)
        if len(found) < n:
            blocked[found] = True
            rest = arrays.most_popular[: n + len(history.items) + len(exclude)] if candidates is None else candidates
            if candidates is not None:
                rest = np.unique(rest)
                rest = rest[np.argsort(-arrays.popularity[rest], kind="stable")]
            rest = rest[~blocked[rest]][: n - len(found)]
            found, scores = np.concatenate((found, rest)), np.concatenate((scores, np.zeros(len(rest))))
            likes = np.concatenate((likes, self._like(taste, rest)[1]))
        policy = ("personal" if user >= 0 else "history") if len(history.items) else "popular"
        return Listed(found, scores, likes, policy)

    def _carried(self, taste: _Taste, history: History, n: int, blocked: Array) -> tuple[Array, Floats, Floats]:
        """The n best of the items that the history leads to, their scores and probabilities of a like.

        A score is at most the weight carried, so that what weighs less than the n-th best score need not be scored.
        """
        if not len(history.items):
            return _NONE, np.zeros(0), np.zeros(0)
        carried = self.carry(history)
        carried[blocked] = 0
        found = np.flatnonzero(carried > 0)
        weight = carried[found]
        few = max(_SHORTLIST, 4 * n)
        while True:
            best = np.argpartition(weight, len(weight) - few)[len(weight) - few :] if few < len(weight) else slice(None)
            items, bound = found[best], weight[best]
            likes = self._like(taste, items)[1]
            scores = bound * likes**self._exponent
            if few >= len(weight) or np.partition(scores, few - n)[few - n] > bound.min():
                break
            few *= 4
        order = np.lexsort((items, -scores))[:n]
        return items[order], scores[order], likes[order]

    def carry(self, history: History) -> Floats:
        """How much a history recommends each item, (n_items,): the sum over its items of weight by rating."""
        arrays = self.arrays
        columns, weights = arrays.neighbours.take(history.items, 0), arrays.weights.take(history.items, 0)
        weights = weights * self._inputs(history)[:, None]
        return np.bincount(columns.ravel(), weights.ravel(), len(self.items)).astype(np.float64, copy=False)

    def _inputs(self, history: History) -> Array:
        """What each item of a history counts: the share that its rating is of the highest; 1 for another event."""
        shares = history.ratings.astype(np.float32) / self.high
        return np.where(np.isnan(shares), np.float32(1), shares)

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

    def _like(self, taste: _Taste, items: Array) -> tuple[Floats, Floats]:
        """Expected ratings, within the scale, and probabilities of a like, (n,) each."""
        arrays = self.arrays
        rating = arrays.item_factors.take(items, 0) @ taste.factors + arrays.item_bias[items] + taste.bias
        spread = np.sqrt(np.maximum(taste.variance + arrays.item_variance[items], 0.1 * taste.variance))
        x = self._slope * (rating - self._threshold) / spread
        like = _normal_cdf(x) if self._probit else 1 / (1 + np.exp(-x))
        return np.clip(rating, self.low, self.high), like

    def predict_known(self, user: int, items: Array) -> tuple[Floats, Floats]:
        """Expected ratings and probabilities of a like of items, (n,) each, for a user known to the version."""
        return self._like(self._taste(user, NO_HISTORY), items)

    def predict(self, user: int, history: History, items: Array) -> tuple[Floats, Floats]:
        """The same for any user; -1 among the items is an unknown one, for which biases and calibration answer."""
        if user < 0 and not len(history.items):
            return self._fallback(user, items)
        known = items >= 0
        rating, like = self._fallback(user, items)
        rating[known], like[known] = self._like(self._taste(user, history), items[known])
        return rating, like

    def _fallback(self, user: int, items: Array) -> tuple[Floats, Floats]:
        base = float(self.arrays.user_fallback[user]) if user >= 0 else float(self.about["mean"])
        rating = base + np.where(items >= 0, self.arrays.item_fallback[items], 0.0)
        slope, intercept = self.about["calibration"]
        return np.clip(rating, self.low, self.high), 1 / (1 + np.exp(-(slope * rating + intercept)))

    def similar(self, item: int, n: int) -> tuple[Array, Array]:
        """The n items that a rating of this one recommends most, and how much."""
        columns, weights = self.arrays.neighbours[item], self.arrays.weights[item]
        order = np.lexsort((columns, -weights))[:n]
        order = order[weights[order] > 0]
        return columns[order], weights[order]

    def popular(self, n: int, offset: int = 0) -> tuple[Array, Array]:
        """The n most popular items from `offset` on, and how many rated each."""
        found = self.arrays.most_popular[offset : offset + n]
        return found, self.arrays.popularity[found]

    def reasons(self, history: History, item: int, most: int = 3) -> list[tuple[int, float]]:
        """The items of a history that carried an item most, and the share of each in the whole."""
        columns, weights = self.arrays.neighbours.take(history.items, 0), self.arrays.weights.take(history.items, 0)
        parts = np.where(columns == item, weights, 0).sum(1) * self._inputs(history)
        total = float(parts.sum())
        best = np.argsort(-parts, kind="stable")[:most]
        return [(int(history.items[at]), float(parts[at]) / total) for at in best if parts[at] > 0 and total > 0]

    def probe(self, users: int) -> list[dict[str, Any]]:
        """The lists of some users, as every process that serves the form must find them."""
        chosen = np.unique(np.linspace(0, len(self.users) - 1, users).astype(int)).tolist()
        answers = []
        for user in [*chosen, -1]:
            listed = self.recommend(user, self.history(user), 5)
            answers.append({"user": user, "items": listed.items.tolist(), "likes": listed.probabilities.tolist()})
        return answers

    def differs_from(self, probe: Sequence[Mapping[str, Any]], tolerance: float = 1e-4) -> str:
        """Where this engine's answers are not those of a probe, in words; empty where they are."""
        for said in probe:
            found = self.recommend(said["user"], self.history(said["user"]), 5)
            same = found.items.tolist() == said["items"] and np.allclose(
                found.probabilities, said["likes"], atol=tolerance
            )
            if not same:
                return f"user {said['user']} is listed {found.items.tolist()}, expected {said['items']}"
        return ""


def _normal_cdf(x: Floats) -> Floats:
    """The standard normal distribution function, within 1e-7 (Abramowitz and Stegun 1964, 7.1.26)."""
    z = np.abs(x) * math.sqrt(0.5)
    t = 1 / (1 + 0.3275911 * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    tail = series * np.exp(-z * z) / 2
    return np.asarray(np.where(x > 0, 1 - tail, tail), np.float64)
