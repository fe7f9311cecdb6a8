"""A share of the lists is drawn by Thompson sampling, so that what is learnt later is not only about what was shown.

A draw gives every item of the pool an expected rating out of those that the version holds possible, and the list is the
best for that draw: what is uncertain comes up now and then, what is surely bad does not.

The served form has no draws of the posterior but, of a prediction, the whole spread and which share of its variance is
uncertainty about the expected rating; the rest is noise of the rating itself. With z standard normal and rho that
share, Phi(x) is the mean over z of Phi((x + sqrt(rho) z) / sqrt(1 - rho)): so probabilities of a like are drawn whose
mean is the one that is served. Draws of two items are independent, which those of a posterior are not quite.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from recsys.arrays import Array, Floats
from recsys.models.base.ranking import best_items, weigh

POLICY = "explored"
DRAWS = 64  # by which the chance of an item to be drawn is found
_LOGIT_AS_PROBIT = 1.702  # the logistic curve is nearest to a normal one of this standard deviation
_MOST = 0.9  # of the variance


@dataclass(frozen=True, eq=False)
class Pool:
    """The items among which a list is chosen, (m,) each."""

    takes: Floats
    margins: Floats  # what the link makes the probability of a like of
    uncertain: Floats  # the share of the variance that is uncertainty about the expected rating
    probit: bool  # the link; else logit
    exponent: float


class Exploration:
    """What one request is to do: whether its list is drawn, and by which random numbers."""

    def __init__(self, share: float, request: str) -> None:
        """Take the share of lists that are drawn, above 0, and the id of the request, which seeds all randomness."""
        seed = hashlib.blake2b(request.encode(), digest_size=8).digest()
        self._random = np.random.default_rng(int.from_bytes(seed, "little"))
        self.share = share
        self.draws = bool(self._random.random() < share)

    def draw(self, pool: Pool, usual: Array) -> tuple[Array, Floats]:
        """The positions of a drawn list, best first, and the propensity of each: shape (n,).

        The propensity is the probability that the item is in the list that this user would have been given, of either
        kind: found by DRAWS draws and the one that was used.

        Args:
            usual: the positions of the list that is not drawn, (n,).
        """
        n, size = len(usual), len(pool.takes)
        share = np.clip(pool.uncertain, 0.0, _MOST)
        noise = self._random.standard_normal((DRAWS + 1, size)) * np.sqrt(share)
        if pool.probit:
            like = _cdf((pool.margins + noise) / np.sqrt(1 - share))
        else:
            like = 1 / (1 + np.exp(-(pool.margins + _LOGIT_AS_PROBIT * noise) / np.sqrt(1 - share)))
        scores = weigh(np.broadcast_to(pool.takes, like.shape), like, pool.exponent)
        counts = np.full(size, len(scores))
        if n < size:
            counts = np.bincount(np.argpartition(-scores, n, axis=1)[:, :n].ravel(), minlength=size)
        listed = best_items(scores[0], n)
        counts[listed] = np.maximum(counts[listed], 1)  # ties are ordered otherwise there
        in_usual = np.zeros(size)
        in_usual[usual] = 1.0
        chance = (1 - self.share) * in_usual + self.share * counts / len(scores)
        return listed, chance[listed]

    def of_usual(self, n: int) -> Floats:
        """The propensities of a list that was not drawn, (n,): at least the share of such lists, and no more is known.

        The whole is larger by at most the share of drawn lists, for which nothing is computed here.
        """
        return np.full(n, 1 - self.share)


def _cdf(x: Floats) -> Floats:
    """The standard normal distribution function, within 1e-4 (Bowling et al. 2009): a draw needs no more."""
    return np.asarray(1 / (1 + np.exp(-x * (1.5976 + 0.07056 * x * x))), np.float64)
