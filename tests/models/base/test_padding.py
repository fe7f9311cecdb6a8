import numpy as np
import pytest

from recsys.models.base.padding import WASTE_SHARE, make_chunks, stable_argsort

RNG = np.random.default_rng(0)
UNEVEN = np.repeat(np.arange(60), RNG.permutation((RNG.random(60) ** 3 * 200).astype(int)))


@pytest.mark.parametrize("cells", [8, 100, 10_000])
def test_every_rating_is_in_exactly_one_place_of_its_row(cells):
    codes = RNG.permutation(UNEVEN)
    chunks, unrated = make_chunks(codes, 62, cells=cells, waste=20)
    found = np.concatenate([block[block >= 0] for chunk in chunks for block in chunk.blocks])
    assert sorted(found.tolist()) == list(range(len(codes)))
    for chunk in chunks:
        for block in chunk.blocks:
            assert len(block) == len(chunk.rows)
            for row, places in zip(chunk.rows, block, strict=True):
                assert set(codes[places[places >= 0]]) <= {row}
    rows = np.concatenate([*(chunk.rows for chunk in chunks), unrated])
    assert sorted(rows.tolist()) == list(range(62))
    assert {60, 61} <= set(unrated.tolist())


@pytest.mark.parametrize("cells", [8, 100, 10_000])
def test_blocks_are_bounded_and_waste_little(cells):
    chunks, _ = make_chunks(UNEVEN, 60, cells=cells, waste=20)
    for chunk in chunks:
        assert all(block.size <= cells for block in chunk.blocks)
        padding = sum(int((block < 0).sum()) for block in chunk.blocks)
        assert padding <= max(20, WASTE_SHARE * sum(block.size for block in chunk.blocks))


def test_a_row_longer_than_a_block_is_alone_in_segments():
    chunks, unrated = make_chunks(np.array([0] * 10 + [1]), 2, cells=4, waste=0)
    assert [chunk.rows.tolist() for chunk in chunks] == [[0], [1]]
    assert [block.tolist() for block in chunks[0].blocks] == [[[0, 1, 2, 3]], [[4, 5, 6, 7]], [[8, 9]]]
    assert len(unrated) == 0


def test_nothing_rated_makes_no_chunk():
    chunks, unrated = make_chunks(np.zeros(0, int), 3, cells=4, waste=0)
    assert chunks == []
    assert sorted(unrated.tolist()) == [0, 1, 2]


@pytest.mark.parametrize("most", [10, 70_000, 3_000_000])
def test_codes_of_any_size_are_sorted_and_equal_ones_stay_in_order(most):
    codes = RNG.integers(0, most, 50_000).astype(np.int32)
    assert (stable_argsort(codes) == np.argsort(codes, kind="stable")).all()
