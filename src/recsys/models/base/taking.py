"""How probable it is that an item is taken, or liked, given what a history says for it. NumPy only."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from recsys.arrays import Floats


@dataclass(frozen=True)
class TakingCurve:
    """The probability of taking an item, by linear interpolation of log odds over scores; it grows with the score.

    It is that of taking the item among as many further ones as the test part holds.
    """

    scores: list[float]  # (k,) ascending
    log_odds: list[float]  # (k,) ascending, k at least 2
    share: float
    """What an unknown user's probability is, times the share of users who took the item."""

    def probability(self, scores: Floats) -> Floats:
        """Probabilities, shape (n,), for scores of shape (n,)."""
        at, odds = np.array(self.scores), np.array(self.log_odds)
        found = np.interp(scores, at, odds)
        for end, slope in ((0, (odds[1] - odds[0]) / (at[1] - at[0])), (-1, (odds[-1] - odds[-2]) / (at[-1] - at[-2]))):
            beyond = scores < at[0] if end == 0 else scores > at[-1]
            found = np.where(beyond, odds[end] + slope * (scores - at[end]), found)
        return np.asarray(1 / (1 + np.exp(-found)), np.float64)

    def of_popularity(self, popularity: Floats, users: int) -> Floats:
        """An unknown user's probabilities, (n,), by the share of the `users` who took each item.

        An item that nobody took counts as taken by half a user.
        """
        return np.asarray(np.minimum(np.maximum(popularity, 0.5 / users) * self.share, 1.0), np.float64)


@dataclass(frozen=True)
class LikeWeights:
    """Log odds of a like = of_bias * those by the biases + of_score * score + intercept."""

    of_bias: float = 1.0
    of_score: float = 0.0
    intercept: float = 0.0

    def probability(self, bias_odds: Floats, scores: Floats) -> Floats:
        """Probabilities, shape (n,), for log odds by the biases and scores, both of that shape."""
        odds = self.of_bias * bias_odds + self.of_score * scores + self.intercept
        return np.asarray(1 / (1 + np.exp(-odds)), np.float64)


Judge = TakingCurve | LikeWeights
"""What turns scores into probabilities: without ratings, and with."""


def described(judge: Judge) -> dict[str, Any]:
    """A form for JSON."""
    return {"kind": "taking" if isinstance(judge, TakingCurve) else "history", **asdict(judge)}


def find_judge(described: Mapping[str, Any]) -> Judge | None:
    """What `described` gave; None where it describes something else."""
    rest = {name: value for name, value in described.items() if name != "kind"}
    if described["kind"] == "taking":
        return TakingCurve(**rest)
    return LikeWeights(**rest) if described["kind"] == "history" else None
