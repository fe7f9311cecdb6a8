import numpy as np
import pytest

from recsys.models.matrix_factorization.block_exchange import BlockExchange
from recsys.models.matrix_factorization.grid import BLOCKS, Cells, Grid
from tests.support.matrix_factorization_fits import hold_blocks
from tests.support.process_groups import together

SIZE = 3


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    return together(SIZE, hold_blocks, tmp_path_factory.mktemp("held"))


@pytest.mark.process
def test_each_process_holds_its_blocks_and_the_rows_of_its_users(held):
    # 16 blocks in parts of 6: the last process has what is left. 188 and 125 rows a block, and one for the unknown.
    for answer, blocks in zip(held, (6, 6, 4), strict=True):
        assert answer["tables"] == [[blocks, 189, 16], [blocks, 189, 2], [blocks, 126, 16], [blocks, 126, 2]]
        assert answer["rows"] == answer["of"]
    assert sum(answer["rows"] for answer in held) == 300


@pytest.mark.process
def test_an_epoch_sends_the_blocks_of_items_that_move_and_square_errors(held):
    block = 126 * (16 + 2) * 4
    for answer in held:
        assert 0 < answer["moved"] < (BLOCKS - 1) * 6
        assert answer["sent"] == answer["moved"] * block


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 20])
def test_every_block_belongs_to_one_process(size):
    from recsys.models.matrix_factorization.block_exchange import _share

    assert [block for rank in range(size) for block in _share(rank, size)] == list(range(BLOCKS))
    assert BlockExchange.steps == BLOCKS


@pytest.mark.parametrize("n", [1, 63, 1024, 5000, 70_000])
def test_an_epoch_has_every_row_once_in_an_order_of_its_own_whoever_has_the_rows(n):
    grid, random = Grid(), np.random.default_rng(0)
    users, items = (random.integers(0, size, n).astype(np.int32) for size in (100, 50))
    names = np.arange(n, dtype=np.float32)

    def rows(own, epoch):
        """For each block of users, the rows in the order in which an epoch has them."""
        here = (users % BLOCKS >= own.start) & (users % BLOCKS < own.stop)
        cells = Cells((users[here], items[here], names[here]), own, grid, n, seed=3)
        order, found = cells.order(epoch), {block: [] for block in own}
        for shift in grid.shifts(3, epoch):
            turn = cells.turn(order, shift)
            for place, block in enumerate(own):
                for run in order[turn.firsts[place] : turn.lasts[place]]:
                    part = slice(turn.begins[run], turn.ends[run])
                    assert not (items[turn.ratings[part].astype(int)] % BLOCKS - (block + shift) % BLOCKS).any()
                    found[block] += turn.ratings[part].astype(int).tolist()
        return found

    whole, later = rows(range(BLOCKS), 1), rows(range(BLOCKS), 2)
    assert sorted(row for block in whole.values() for row in block) == list(range(n))
    assert all((users[block] % BLOCKS == number).all() for number, block in whole.items())
    if n > 1000:
        assert whole != later
    assert rows(range(6), 1) | rows(range(6, 12), 1) | rows(range(12, 16), 1) == whole
