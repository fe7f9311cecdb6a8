"""The compiled draws against the batched ones: the same numbers but for rounding."""

import pytest
import torch

from recsys.models.bayesian_mf import compiled, gram
from recsys.models.bayesian_mf.gram import Conditional, DeviceChunk, make_table

N, N_OTHER, MOST = 40, 50, 37


def drawn(engine, d: int, has_rest: bool, overrelaxation: float = 0) -> list[torch.Tensor]:
    """The results and the rest, of rows with 1 to MOST ratings."""
    generator = torch.Generator().manual_seed(d)
    counts = torch.randint(1, MOST + 1, (N,), generator=generator)
    counts[:2] = torch.tensor([MOST, 1])
    others = torch.randint(0, N_OTHER, (N, MOST), generator=generator, dtype=torch.int32)
    positions = torch.arange(N * MOST, dtype=torch.int32).view(N, MOST)
    padding = torch.arange(MOST) >= counts[:, None]
    others[padding], positions[padding] = N_OTHER, N * MOST
    target = torch.cat((torch.randn(N * MOST, generator=generator), torch.zeros(1)))
    root = torch.randn(d, d, generator=generator)
    results, rest = torch.zeros(N, 2 * d + 6), torch.zeros(N * MOST + 1)
    conditional = Conditional(
        make_table(torch.randn(N_OTHER, d, generator=generator), torch.rand(N_OTHER, generator=generator) + 0.5),
        target,
        counts.float(),
        torch.linspace(0.5, 2, N),
        root @ root.T + 3 * torch.eye(d),
        torch.randn(d, generator=generator).expand(N, d),
        torch.randn(N, d, generator=generator),
        torch.randn(N, d, generator=generator),
        overrelaxation,
        results,
        rest if has_rest else None,
    )
    engine.solver(conditional)(DeviceChunk(torch.arange(N), (positions,), (others,)))
    return [results, rest[:-1]]


@pytest.mark.parametrize("overrelaxation", [0, 0.8])
@pytest.mark.parametrize("has_rest", [True, False])
@pytest.mark.parametrize("d", [1, 2, 9, 15, 16, 31, 32, 48])
def test_the_draws_are_the_batched_ones(d, has_rest, overrelaxation):
    expected = drawn(gram, d, has_rest, overrelaxation)
    assert (expected[1].count_nonzero() > 0) == has_rest
    torch.testing.assert_close(drawn(compiled, d, has_rest, overrelaxation), expected, rtol=1e-4, atol=1e-4)
