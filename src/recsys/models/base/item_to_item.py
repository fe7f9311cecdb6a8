"""Item-to-item weights, learnt from who rated what: from a history to how much each item is to be expected next.

The model is EASE (Steck 2019, "Embarrassingly shallow autoencoders for sparse data") with the diagonal of EDLAE (Steck
2020, "Autoencoders that don't overfit towards the identity"): ridge regressions of every item's column on all others,
whose solution is B = I - P / diag P, with P the inverse of G + diag(ridge + relative_ridge * diag G) and G = X'X.

The inverse needs memory for items² numbers. Of more than DENSE_ITEMS items, each is regressed on the items that are
rated together with it most, relative to their counts: memory is bounded whatever the catalogue.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from recsys.arrays import Array, Codes, Floats

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

DENSE_ITEMS = 8_000  # two matrices of items² numbers while learning: 1 GB at most
KEPT_WEIGHTS = 1_000  # of each item; docs/lists.md has what others cost
_NEIGHBOURS = 100  # regressors of an item where the inverse is not held
_CO_COUNTS = 400  # of each item, kept to look up the Gram matrix among its neighbours
POPULARITY_WEIGHT = 1e-6  # orders by popularity those items that no item of the history says anything of
_TABLE_CELLS = 1 << 24  # 67 MB at most
_TABLE_SHARE = 10
_ROWS = 25  # that are gathered at a time: they stay in the processor's cache, and leave room there for all else
_BLOCK_CELLS = 1 << 24  # numbers of a block of the Gram matrix
_SINGLE_PRECISION = 1e4  # the largest condition number of a system that float32 solves: errors stay below 1e-3
_SMALL = 512  # items, whose system float64 solves in next to no time
_MIRRORED = 256  # rows and columns of a block
MOST_HALVINGS = 20  # of what an old item counts: that still tells who has taken something from who has not

Signal = Literal["ratings", "likes"]


@dataclass(frozen=True)
class Regression:
    """What is chosen on validation: what a rating counts as, the ridge, and how much sessions and age count."""

    signal: Signal
    """ratings: the rating over the highest one, or without ratings the pair's weight; likes: 1 for a like, else 0."""
    ridge: float
    relative_ridge: float
    session_weight: float = 0.0
    """Of S'S, added to X'X: S has a row for each session, in which a user rated without a break."""
    half_life: float | None = None
    """After how many newer ratings an item of a history counts half; None: age does not count."""

    def in_history(self, ratings: Array, newer: Array | None, scale: tuple[float, float], threshold: float) -> Array:
        """What ratings count as in a history, (n,) float32; `newer`, (n,): how many of the user's are newer."""
        values = self.values(ratings, scale, threshold)
        if self.half_life is None or newer is None:
            return values
        halvings = np.minimum(newer / np.float32(self.half_life), np.float32(MOST_HALVINGS))
        return np.asarray(values * np.float32(0.5) ** halvings, np.float32)

    def values(self, ratings: Array, scale: tuple[float, float], like_threshold: float) -> Array:
        """What ratings count as in X, shape (n,), float32: more than 0 for whatever counts, and at most 1 if rated.

        On a scale that does not begin above 0, ratings are moved so that the lowest one counts a tenth.
        """
        if self.signal == "likes":
            return (ratings >= like_threshold).astype(np.float32)
        low, high = scale
        if low > 0:
            return (ratings / high).astype(np.float32, copy=False)
        width = (high - low) or 1.0
        return (0.1 + 0.9 * (ratings - low) / width).astype(np.float32)


@dataclass(frozen=True, eq=False)
class ItemToItem:
    """The weights of largest magnitude of every item: what its presence in a history adds to the other items' scores.

    Those of item i are the ones from starts[i] to starts[i + 1].
    """

    starts: Array  # (n_items + 1,) int64
    neighbours: Codes  # (m,) whose score is added to, ascending within an item
    weights: Array  # (m,) float32

    def score(self, items: Codes, values: Array) -> Floats:
        """The score of every item, shape (n_items,), for a history: codes and what each counts, both of shape (h,)."""
        n = len(self.starts) - 1
        if self._table is not None:
            values, total = values.astype(np.float32, copy=False), np.zeros(self._table.shape[1], np.float32)
            rows = np.empty((min(_ROWS, len(items)), len(total)), np.float32)
            items = items.astype(np.intp)  # as NumPy takes them, once
            for start in range(0, len(items), _ROWS):
                some = items[start : start + _ROWS]
                found = self._table.take(some, 0, rows[: len(some)], "clip")  # "raise" would copy once more
                total += values[start : start + _ROWS].dot(found)
            return total[:n].astype(np.float64)
        first, last = self.starts[items], self.starts[items + 1]
        parts = [slice(*ends) for ends in zip(first.tolist(), last.tolist(), strict=True)]
        if not parts:
            return np.zeros(n)
        added = np.concatenate([self.weights[part] for part in parts]) * np.repeat(values, last - first)
        scores = np.bincount(np.concatenate([self.neighbours[part] for part in parts]), added, n)
        return scores.astype(np.float64, copy=False)  # whole numbers where nothing is added

    @cached_property
    def _table(self) -> Array | None:
        """The weights as a matrix, where that is quicker to add up: few items, of whose pairs many have one.

        It is as wide as whole vectors of the processor, so that equal columns have equal sums wherever they stand.
        """
        n = len(self.starts) - 1
        if n * n > _TABLE_CELLS or len(self.weights) * _TABLE_SHARE < n * n:
            return None
        table = np.zeros((n, -(-n // 64) * 64), np.float32)
        table[np.repeat(np.arange(n), np.diff(self.starts)), self.neighbours] = self.weights
        return table

    def score_many(self, histories: "csr_matrix") -> Array:
        """The scores of every item for many histories, float32, both of shape (users, n_items)."""
        from scipy.sparse import csr_matrix

        n = len(self.starts) - 1
        weights = csr_matrix((self.weights, self.neighbours, self.starts), (n, n))
        if n <= DENSE_ITEMS:
            return np.asarray(histories @ weights.toarray())
        return np.asarray((histories @ weights).toarray())

    def contributions(self, items: Codes, values: Array, item: int) -> Floats:
        """What each item of a history adds to the score of one item: shape (h,)."""
        return np.array([self._among(one, np.array([item]))[0] for one in items], np.float64) * values

    def similarities(self, items: Codes) -> Floats:
        """Of each pair of some items how close they are, from 0 to 1: the larger weight over the largest: (m, m)."""
        order = np.argsort(items)
        close = np.zeros((len(items), len(items)))
        for row, item in enumerate(items):
            close[row, order] = np.maximum(self._among(item, items[order]), 0)
        close = np.maximum(close, close.T)
        return close / (close.max() or 1.0) if close.size else close

    def _among(self, item: int, others: Codes) -> Array:
        """The weights from an item to others, which are in ascending order; 0 where none is kept."""
        part = slice(*self.starts[item : item + 2])
        neighbours = self.neighbours[part]
        at = np.minimum(np.searchsorted(neighbours, others), max(len(neighbours) - 1, 0))
        return (
            np.where(neighbours[at] == others, self.weights[part][at], 0) if len(neighbours) else np.zeros(len(others))
        )


def expect_next(
    item_to_item: ItemToItem, popularity: Floats, items: Codes, values: Array, added: Floats | None = None
) -> Floats:
    """P(takes), up to a factor, of every item, shape (n_items,), for a history: codes and values, both of shape (h,).

    Args:
        popularity: the share of users who rated an item, shape (n_items,); what an empty history is answered by.
        added: POPULARITY_WEIGHT * popularity, where many histories are asked about.
    """
    if len(items) == 0:
        return popularity.copy()
    scores = item_to_item.score(items, values)
    scores += POPULARITY_WEIGHT * popularity if added is None else added
    return scores


@dataclass(frozen=True, eq=False)
class CoCounts:
    """G = X'X: whole, or of each item the entries that are largest relative to both items' own."""

    gram: "Floats | csr_matrix"  # (n_items, n_items); if sparse, without the diagonal
    squares: Floats  # (n_items,) the diagonal


def count_together(matrix: "csr_matrix", dense_items: int = DENSE_ITEMS) -> CoCounts:
    """G from X, shape (n_users, n_items): what each user's rating of each item counts.

    Args:
        dense_items: up to how many items the whole of G is computed.
    """
    if matrix.shape[1] <= dense_items:
        gram = np.asarray((matrix.T @ matrix).toarray(), np.float64)
        return CoCounts(gram, np.diag(gram).copy())
    return CoCounts(*_largest_co_counts(matrix))


def learn_item_to_item(counts: CoCounts, regression: Regression, kept: int = KEPT_WEIGHTS) -> ItemToItem:
    """Solve the regressions. Where the inverse is computed, `kept` weights of each item are kept."""
    if isinstance(counts.gram, np.ndarray):
        return keep_largest(ease_weights(counts.gram, regression), kept)
    return _learn_neighbourhoods(counts.gram, counts.squares, regression)


def ease_weights(gram: Floats, regression: Regression) -> Array:
    """B, shape (n_items, n_items), with a diagonal of 0: column j holds the weights by which item j is predicted.

    It is float32, and so is the computation where the matrix is large, and far enough from singular: that takes a
    quarter of the time.
    """
    from scipy.linalg import lapack

    from recsys.runtime.blas import threads_for

    added = regression.ridge + regression.relative_ridge * np.diag(gram)
    largest = np.abs(gram).sum(axis=1).max(initial=0.0) + added.max(initial=0.0)
    # Of a symmetric matrix no eigenvalue exceeds the largest sum of a row; here none is below the ridge.
    single = len(gram) > _SMALL and largest <= _SINGLE_PRECISION * regression.ridge
    system: Array = gram.astype(np.float32 if single else np.float64)
    system.flat[:: len(system) + 1] += added
    factorize, invert = (lapack.spotrf, lapack.spotri) if single else (lapack.dpotrf, lapack.dpotri)
    with threads_for(len(gram)):
        factor, failed = factorize(system.T, lower=1, overwrite_a=1)  # of a symmetric matrix, in place
        assert not failed, "a Gram matrix with a ridge is positive definite"
        inverse, _ = invert(factor, lower=1, overwrite_c=1)
    _mirror(inverse)
    inverse = inverse.T  # the same, row by row in memory
    inverse /= -np.diag(inverse).copy()
    np.fill_diagonal(inverse, 0.0)
    return np.asarray(inverse, np.float32)


def _mirror(lower: Array) -> None:
    """Copy the lower triangle of a square matrix into its upper one, block by block: they fit into the cache."""
    n = len(lower)
    for start in range(0, n, _MIRRORED):
        end = min(start + _MIRRORED, n)
        lower[start:end, start:end] = np.tril(lower[start:end, start:end]) + np.tril(lower[start:end, start:end], -1).T
        for below in range(end, n, _MIRRORED):
            lower[start:end, below : below + _MIRRORED] = lower[below : below + _MIRRORED, start:end].T


def keep_largest(weights: Array, kept: int) -> ItemToItem:
    """The `kept` weights of largest magnitude in each row of B."""
    n = len(weights)
    kept = min(kept, n)
    neighbours, values = np.empty((n, kept), np.int32), np.empty((n, kept), np.float32)
    step = max(1, _BLOCK_CELLS // max(n, 1))
    for start in range(0, n, step):
        block = weights[start : start + step]
        if kept < n:
            chosen = np.sort(np.argpartition(-np.abs(block), kept - 1, axis=1)[:, :kept], axis=1)
        else:
            chosen = np.broadcast_to(np.arange(n), block.shape)
        neighbours[start : start + step] = chosen
        values[start : start + step] = np.take_along_axis(block, chosen, 1)
    return ItemToItem(np.arange(n + 1, dtype=np.int64) * kept, neighbours.ravel(), values.ravel())


def _learn_neighbourhoods(gram: "csr_matrix", squares: Floats, regression: Regression) -> ItemToItem:
    """Regress each item on its neighbours only; entries of G among them that were not kept count as 0."""
    from scipy.sparse import csr_matrix

    from recsys.runtime.blas import threads_for

    n = gram.shape[0]
    per_item = min(_NEIGHBOURS, n - 1)
    sources, targets, values = [], [], []
    place = np.full(n, -1, np.int32)
    step = max(1, _BLOCK_CELLS // per_item**2)
    for start in range(0, n, step):
        group = [_regressors(gram, squares, item, per_item) for item in range(start, min(start + step, n))]
        systems = np.zeros((len(group), per_item, per_item))
        right = np.zeros((len(group), per_item))
        for number, (chosen, co_counts) in enumerate(group):
            size = len(chosen)
            systems[number, :size, :size] = _submatrix(gram, chosen, place)
            right[number, :size] = co_counts
            ridge = np.full(per_item, 1.0)  # what is padded is solved to 0
            ridge[:size] = squares[chosen] * (1 + regression.relative_ridge) + regression.ridge
            systems[number][np.diag_indices(per_item)] = ridge
        with threads_for(per_item):
            solved = np.linalg.solve(systems, right[:, :, None])[:, :, 0]
        for number, (chosen, _) in enumerate(group):
            sources.append(chosen)
            targets.append(np.full(len(chosen), start + number, np.int32))
            values.append(solved[number, : len(chosen)])
    pairs = np.concatenate(sources), np.concatenate(targets)
    weights = csr_matrix((np.concatenate(values).astype(np.float32), pairs), (n, n))
    weights.sort_indices()
    return ItemToItem(weights.indptr.astype(np.int64), weights.indices.astype(np.int32), weights.data)


def _largest_co_counts(matrix: "csr_matrix") -> tuple["csr_matrix", Floats]:
    """The entries of G, off its diagonal, that are largest relative to both items' own; and the diagonal.

    They are kept for both items of a pair, so that the result is symmetric.
    """
    from scipy.sparse import csr_matrix

    n = matrix.shape[1]
    columns = matrix.tocsc()
    squares = np.asarray(matrix.multiply(matrix).sum(axis=0), np.float64).ravel()
    norms = np.sqrt(np.maximum(squares, 1e-12))
    rows, cells, counts = [], [], []
    step = max(1, _BLOCK_CELLS // n)
    for start in range(0, n, step):
        block = (columns[:, start : start + step].T @ matrix).tocsr()
        for number in range(block.shape[0]):
            item, part = start + number, slice(block.indptr[number], block.indptr[number + 1])
            others, co_counts = block.indices[part], block.data[part]
            order = _largest(co_counts / norms[others] * (others != item), _CO_COUNTS)
            order = order[others[order] != item]
            rows.append(np.full(len(order), item, np.int32))
            cells.append(others[order])
            counts.append(co_counts[order])
    found = csr_matrix((np.concatenate(counts), (np.concatenate(rows), np.concatenate(cells))), (n, n))
    return found.maximum(found.T).tocsr(), squares


def _regressors(gram: "csr_matrix", squares: Floats, item: int, most: int) -> tuple[Codes, Floats]:
    """The codes, ascending, of the items rated together with one most, relative to their counts; and the co-counts."""
    part = slice(gram.indptr[item], gram.indptr[item + 1])
    others, co_counts = gram.indices[part], gram.data[part]
    chosen = _largest(co_counts / np.sqrt(np.maximum(squares[others], 1e-12)), most)
    chosen = chosen[np.argsort(others[chosen])]
    return others[chosen], co_counts[chosen]


def _submatrix(gram: "csr_matrix", chosen: Codes, place: Codes) -> Floats:
    """The rows and columns of some items; `place`, (n_items,), is -1 everywhere, and is so again afterwards."""
    place[chosen] = np.arange(len(chosen))
    some = gram[chosen]
    columns = place[some.indices]
    kept = np.flatnonzero(columns >= 0)  # few
    found = np.zeros((len(chosen), len(chosen)))
    found[np.searchsorted(some.indptr, kept, "right") - 1, columns[kept]] = some.data[kept]
    place[chosen] = -1
    return found


def _largest(values: Array, most: int) -> Array:
    """The positions of the largest values, at most so many."""
    if len(values) <= most:
        return np.arange(len(values))
    return np.sort(np.argpartition(-values, most - 1)[:most])


def saved_arrays(model: ItemToItem) -> dict[str, Any]:
    """The arrays by which a model is saved, by their names in the file."""
    return {"weight_starts": model.starts, "neighbours": model.neighbours, "weights": model.weights}
