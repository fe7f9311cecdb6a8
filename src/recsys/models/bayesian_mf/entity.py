"""The users of a chain, or its items: their ratings, and what is sampled of them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.models.bayesian_mf.gram import DeviceChunk
from recsys.models.bayesian_mf.partition import Partition
from recsys.runtime.threads import Each

_CPU_BLOCK, _GPU_BLOCK = 1 << 11, 1 << 20  # rows of the features that one thread multiplies at a time


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

    def prior_pull(self, each: Each) -> Tensor:
        """Lambda times the mean of each row's prior, (n, d)."""
        same = self.mean @ self.inverse
        if self.features is None:
            return same.expand(self.factors.shape)
        features, by, pull = self.features, self.link @ self.inverse, torch.empty_like(self.factors)

        def multiply(rows: slice) -> None:
            torch.addmm(same, features[rows], by, out=pull[rows])

        each(multiply, self._blocks())
        return pull

    def features_times_factors(self, each: Each) -> Tensor | None:
        """f'X, (r, d): sums over blocks of rows, which do not depend on the threads. None without features."""
        if self.features is None:
            return None
        features, factors, blocks = self.features, self.factors, self._blocks()
        parts = features.new_empty(len(blocks), features.shape[1], factors.shape[1])

        def multiply(number: int) -> None:
            parts[number] = features[blocks[number]].T @ factors[blocks[number]]

        each(multiply, range(len(blocks)))
        return parts.sum(0)

    def left_by_features(self, together: Tensor | None) -> tuple[Tensor, Tensor]:
        """Of the factors less f W: the mean (d,) and the scatter around it (d, d), in float64 on the CPU.

        `together` is features_times_factors: what is left of each row is not computed.
        """
        n, factors = max(len(self.factors), 1), self.factors
        total, scatter = factors.sum(0).double().cpu(), (factors.T @ factors).double().cpu()
        if together is not None:
            link, (of_features, squares) = self.link.double().cpu(), self.feature_sums.double().cpu()
            crossed = link.T @ together.double().cpu()
            scatter = scatter - crossed - crossed.T + (link.T * squares) @ link
            total = total - of_features @ link
        return total / n, scatter - torch.outer(total, total) / n

    def _blocks(self) -> list[slice]:
        size = _CPU_BLOCK if self.factors.device.type == "cpu" else _GPU_BLOCK
        return [slice(start, start + size) for start in range(0, len(self.factors), size)]
