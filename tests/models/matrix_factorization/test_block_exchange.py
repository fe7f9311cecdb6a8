import numpy as np
import pytest

from recsys.models.matrix_factorization.block_exchange import BlockExchange
from recsys.models.matrix_factorization.cells import Cells
from recsys.models.matrix_factorization.grid import BLOCKS, Grid, share, strides
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
        assert answer["spoke"] == BLOCKS // 2
        assert 0 < answer["moved"] <= (BLOCKS // 2 - 1) * 6
        assert answer["sent"] == answer["moved"] * block


@pytest.mark.process
@pytest.mark.parametrize("size", [2, 4, 5])  # of 5 the last has no blocks
def test_two_processes_speak_twice_and_four_speak_four_times_and_add_up_once(size, tmp_path):
    able = min(size, 4)
    for rank, answer in enumerate(together(size, hold_blocks, tmp_path)):
        assert (answer["spoke"], answer["summed"]) == (able, 1)
        assert answer["moved"] == ((able - 1) * BLOCKS // able if rank < able else 0)
        assert answer["sent"] == answer["moved"] * 126 * (16 + 2) * 4


@pytest.mark.process
def test_tables_are_the_same_where_messages_are_small_and_many_and_processes_have_threads(held):
    for answer in held:
        assert answer["often"]["spoke"] == answer["often"]["summed"] == BLOCKS
        assert answer["often"]["moved"] == answer["moved"]
        for table, same in zip(answer["learnt"], answer["often"]["learnt"], strict=True):
            np.testing.assert_array_equal(table, same)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 16, 20])
def test_every_block_belongs_to_one_process_that_meets_the_same_items_for_some_turns(size):
    shares, stride = share(range(BLOCKS), size)
    assert [block for blocks in shares for block in blocks] == list(range(BLOCKS))
    assert (len(shares), stride) == (size, {1: 16, 2: 8, 3: 2, 5: 4, 6: 1, 16: 1, 20: 1}[size])
    shifts = Grid().shifts(0, 1)
    for turns in strides(0, BLOCKS, stride):
        for blocks in shares:
            assert len({block ^ shift for block in blocks for shift in shifts[turns.start : turns.stop]}) == len(blocks)
    assert BlockExchange.steps == BLOCKS


def test_a_part_of_the_blocks_is_shared_out_too():
    assert share(range(4, 12), 2) == ([range(4, 8), range(8, 12)], 4)
    assert share(range(6, 12), 2) == ([range(6, 9), range(9, 12)], 1)
    assert share(range(16, 16), 1)[0] == [range(16, 16)]


def test_the_turns_of_an_epoch_have_each_shift_once_and_an_order_of_their_own():
    orders = [Grid().shifts(seed, epoch).tolist() for seed in (0, 1) for epoch in (1, 2, 3)]
    assert all(sorted(order) == list(range(BLOCKS)) for order in orders)
    assert len(set(map(tuple, orders))) == len(orders)
    assert Grid(1).shifts(0, 1).tolist() == [0]


def test_strides_are_cut_at_multiples():
    assert list(strides(3, 10, 4)) == [range(3, 4), range(4, 8), range(8, 10)]
    assert list(strides(16, 16, 4)) == []


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
        shifts = grid.shifts(3, epoch)
        turns = cells.turns(order, shifts)
        for number, shift in enumerate(shifts):
            for place, block in enumerate(own):
                for run in order[turns.firsts[number, place] : turns.lasts[number, place]]:
                    part = slice(turns.begins[run], turns.ends[run])
                    assert (items[turns.ratings[part].astype(int)] % BLOCKS == block ^ shift).all()
                    found[block] += turns.ratings[part].astype(int).tolist()
        return found

    whole, later = rows(range(BLOCKS), 1), rows(range(BLOCKS), 2)
    assert sorted(row for block in whole.values() for row in block) == list(range(n))
    assert all((users[block] % BLOCKS == number).all() for number, block in whole.items())
    if n > 1000:
        assert whole != later
    assert rows(range(6), 1) | rows(range(6, 12), 1) | rows(range(12, 16), 1) == whole
