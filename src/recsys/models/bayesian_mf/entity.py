"""The users of a chain, or its items: their ratings, and what is sampled of them."""

from dataclasses import dataclass

from torch import Tensor

from recsys.models.bayesian_mf.gram import DeviceChunk
from recsys.models.bayesian_mf.partition import Partition


@dataclass
class Entity:
    """All users, or all items; n rows. d = embedding_size + 1: the factors and, last, the bias."""

    counts: Tensor  # (n,) ratings of each row
    chunks: list[DeviceChunk]  # those of this process
    partition: Partition
    unrated: Tensor  # codes of the rows without a rating
    features: Tensor | None  # (n, r) f, with orthogonal columns; None without the implicit term
    feature_sums: Tensor  # (2, r) sums of each column of the features, and of its squares
    factors: Tensor  # (n, d)
    expected: Tensor  # (n, d) mean of the distribution that the factors were last drawn from
    precision: Tensor  # (n,) lambda
    link: Tensor  # (r, d) W; r = 0 without the implicit term
    link_precision: float
    mean: Tensor  # (d,) mu
    inverse: Tensor  # (d, d) Lambda, the inverse of the prior's covariance
    width: float  # omega, of the prior of Lambda

    def prior_mean(self, rows: Tensor) -> Tensor:
        """Mean of the prior of some rows, (m, d)."""
        if self.features is None:
            return self.mean.expand(len(rows), -1)
        return self.mean + self.features[rows] @ self.link
