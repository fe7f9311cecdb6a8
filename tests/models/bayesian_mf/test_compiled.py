"""The compiled loops against the operations of PyTorch: the same numbers but for rounding."""

import numpy as np
import pytest

from recsys.models.bayesian_mf.conditional import Conditional, DeviceChunk
from recsys.models.bayesian_mf.numpy_backend import NumpyBackend
from recsys.models.bayesian_mf.torch_backend import TorchBackend

N, N_OTHER, MOST = 40, 50, 37


def chunk_of(backend, random: np.random.Generator) -> DeviceChunk:
    """Rows with 1 to MOST ratings."""
    counts = random.integers(1, MOST + 1, N)
    counts[:2] = MOST, 1
    others = random.integers(0, N_OTHER, (N, MOST)).astype(np.int32)
    positions = np.arange(N * MOST, dtype=np.int32).reshape(N, MOST)
    padding = np.arange(MOST) >= counts[:, None]
    others[padding], positions[padding] = N_OTHER, N * MOST
    tables = (backend.table(array) for array in (np.arange(N), counts, positions, others))
    rows, lengths, *blocks = tables
    return DeviceChunk(rows, lengths, (blocks[0],), (blocks[1],))


def drawn(backend, d: int, has_rest: bool, overrelaxation: float = 0) -> tuple[np.ndarray, np.ndarray]:
    """The results and the rest, of rows with 1 to MOST ratings."""
    random = np.random.default_rng(d)

    def normal(*shape: int):
        return backend.table(random.standard_normal(shape, np.float32))

    chunk = chunk_of(backend, random)
    target, root = random.standard_normal(N * MOST + 1, np.float32), random.standard_normal((d, d), np.float32)
    target[-1] = 0
    results, rest = backend.zeros(N, 2 * d + 6), backend.zeros(N * MOST + 1)
    conditional = Conditional(
        others=normal(N_OTHER, d),
        other_precision=backend.table(random.random(N_OTHER, np.float32) + np.float32(0.5)),
        target=backend.table(target),
        weight=backend.table(np.linspace(0.5, 2, N, dtype=np.float32)),
        inverse=backend.table(root @ root.T + 3 * np.eye(d, dtype=np.float32)),
        pull=normal(N, d),
        noise=normal(N, d),
        before=normal(N, d),
        overrelaxation=overrelaxation,
        results=results,
        rest=rest if has_rest else None,
    )
    backend.solver(conditional)(chunk)
    return backend.array(results), backend.array(rest)[:-1]


@pytest.mark.parametrize("overrelaxation", [0, 0.8])
@pytest.mark.parametrize("has_rest", [True, False])
@pytest.mark.parametrize("d", [1, 2, 3, 9, 15, 16, 18, 31, 32, 48, 65, 101])
def test_the_draws_are_the_batched_ones(d, has_rest, overrelaxation):
    expected = drawn(TorchBackend("cpu"), d, has_rest, overrelaxation)
    assert (np.count_nonzero(expected[1]) > 0) == has_rest
    found = drawn(NumpyBackend(), d, has_rest, overrelaxation)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_sums_of_lines_are_those_of_the_batches():
    random = np.random.default_rng(0)
    table, state, totals = random.standard_normal((N_OTHER, 5), np.float32), random.bit_generator.state, []
    for backend in (NumpyBackend(), TorchBackend("cpu")):
        random.bit_generator.state = state
        total = backend.table(np.full((N, 5), 7, np.float32))  # what was there before does not count
        backend.add_lines(total, chunk_of(backend, random), backend.table(table))
        totals.append(backend.array(total))
    np.testing.assert_allclose(*totals, rtol=1e-4, atol=1e-4)


def test_ratings_of_pairs_are_products_of_factors_and_both_biases():
    random = np.random.default_rng(0)
    users, items = random.standard_normal((6, 4), np.float32), random.standard_normal((9, 4), np.float32)
    codes = random.integers(0, 6, 20).astype(np.int32), random.integers(0, 9, 20).astype(np.int32)
    p, q = users[codes[0]].astype(float), items[codes[1]].astype(float)
    expected = (p[:, :-1] * q[:, :-1]).sum(1) + p[:, -1] + q[:, -1]
    for backend in (NumpyBackend(), TorchBackend("cpu")):
        rated = backend.rate_pairs(*(backend.table(array) for array in (users, items, *codes)))
        np.testing.assert_allclose(backend.array(rated), expected, rtol=1e-4, atol=1e-5)
