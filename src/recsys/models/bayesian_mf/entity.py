"""The users of a chain, or its items: their ratings, and what is sampled of them."""

from dataclasses import dataclass

import numpy as np

from recsys.arrays import Floats
from recsys.models.bayesian_mf.backend import Backend, Table
from recsys.models.bayesian_mf.conditional import DeviceChunk
from recsys.models.bayesian_mf.partition import Partition
from recsys.runtime.threads import Each


@dataclass
class Entity:
    """All users, or all items; n rows. d = embedding_size + 1: the factors and, last, the bias.

    Tables are in float32 on the device; mean, inverse and link are arrays in float64.
    """

    backend: Backend
    counts: Table  # (n,) ratings of each row
    chunks: list[DeviceChunk]  # those of this process
    partition: Partition
    unrated: Table  # codes of the rows without a rating
    features: Table | None  # (n, r) f, with orthogonal columns; None without the implicit term
    feature_sums: Floats  # (2, r) sums of each column of the features, and of its squares
    factors: Table  # (n, d)
    expected: Table  # (n, d) mean of the distribution that the factors were last drawn from
    precision: Table  # (n,) lambda
    link: Floats  # (r, d) W; r = 0 without the implicit term
    link_precision: float
    mean: Floats  # (d,) mu
    inverse: Floats  # (d, d) Lambda, the inverse of the prior's covariance
    width: float  # omega, of the prior of Lambda

    def to_device(self, small: Floats) -> Table:
        """A small array as a table in float32."""
        return self.backend.table(small.astype(np.float32, order="C"))

    def prior_mean(self, rows: Table) -> Table:
        """Mean of the prior of some rows, (m, d) or (d,)."""
        mean = self.to_device(self.mean)
        return mean if self.features is None else mean + self.features[rows] @ self.to_device(self.link)

    def prior_pull(self, each: Each) -> Table:
        """Lambda times the mean of each row's prior, (n, d)."""
        same, pull = self.to_device(self.mean @ self.inverse), self.backend.zeros(*self.factors.shape)
        if self.features is None:
            pull[:] = same
            return pull
        features, by = self.features, self.to_device(self.link @ self.inverse)

        def multiply(rows: slice) -> None:
            pull[rows] = features[rows] @ by + same

        each(multiply, self._blocks())
        return pull

    def features_times_factors(self, each: Each) -> Floats | None:
        """f'X, (r, d): sums over blocks of rows, which do not depend on the threads. None without features."""
        if self.features is None:
            return None
        features, factors, blocks = self.features, self.factors, self._blocks()
        parts: list[Table] = [None] * len(blocks)

        def multiply(number: int) -> None:
            parts[number] = features[blocks[number]].T @ factors[blocks[number]]

        each(multiply, range(len(blocks)))
        return self.backend.array(sum(parts)).astype(np.float64)

    def left_by_features(self, together: Floats | None) -> tuple[Floats, Floats]:
        """Of the factors less f W: the mean (d,) and the scatter around it (d, d).

        `together` is features_times_factors: what is left of each row is not computed.
        """
        n, factors = max(len(self.factors), 1), self.factors
        total = self.backend.column_sums(factors)
        scatter = self.backend.array(factors.T @ factors).astype(np.float64)
        if together is not None:
            of_features, squares = self.feature_sums
            crossed = self.link.T @ together
            scatter = scatter - crossed - crossed.T + (self.link.T * squares) @ self.link
            total = total - of_features @ self.link
        return total / n, scatter - np.outer(total, total) / n

    def _blocks(self) -> list[slice]:
        size = self.backend.block
        return [slice(start, start + size) for start in range(0, len(self.factors), size)]
