"""Chains shared by several processes, here threads that exchange tables as processes do."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from recsys.data.interactions import Interactions
from recsys.models.base.padding import make_chunks
from recsys.models.bayesian_mf import gibbs
from recsys.models.bayesian_mf.config import Config
from recsys.models.bayesian_mf.gibbs import Chain
from recsys.models.bayesian_mf.numpy_backend import NumpyBackend
from recsys.models.bayesian_mf.partition import Partition
from recsys.models.bayesian_mf.torch_backend import TorchBackend
from recsys.runtime.blas import one_thread
from recsys.runtime.threads import one_by_one


class Exchange:
    """Where the members of a group leave what the others are to have."""

    def __init__(self, size):
        self.size, self.left, self.barrier = size, [None] * size, threading.Barrier(size, timeout=60)

    def swap(self, rank, table):
        self.left[rank] = table
        self.barrier.wait()
        found = list(self.left)
        self.barrier.wait()
        return found


class Member:
    def __init__(self, exchange, rank):
        self.exchange, self.rank, self.size, self.device = exchange, rank, exchange.size, "cpu"

    def gather(self, table):
        parts = self.exchange.swap(self.rank, table)
        return np.concatenate(parts) if isinstance(table, np.ndarray) else torch.cat(parts)

    def sum(self, table):
        table[:] = sum(self.exchange.swap(self.rank, table * 1))
        return table


def together(size, work):
    """What `work(member)` returns in each member of a group."""
    exchange = Exchange(size)
    with ThreadPoolExecutor(size, initializer=lambda: torch.set_num_threads(1)) as pool:
        return list(pool.map(lambda rank: work(Member(exchange, rank)), range(size)))


def ratings(n_users=60, n_items=40):
    """Users with one rating to all, an item that nobody rated."""
    chance = np.random.default_rng(1)
    pairs = [(u, i) for u in range(n_users) for i in range(n_items - 1) if chance.random() < (u + 1) / n_users]
    users, items = np.array(pairs, np.int32).T
    values = chance.integers(1, 6, len(users)).astype(float)
    sessions = np.unique(users), np.unique(users, return_inverse=True)[1].astype(np.int32)
    return Interactions(users, items, values), (n_users, n_items), sessions


def swept(group=None, sweeps=12):
    rows, sizes, sessions = ratings()
    with one_thread():
        chain = Chain(rows, sizes, Config(embedding_size=4, device="cpu"), 3, group)
        chain.add_sessions(*sessions)
        chain.add_implicit()
        for _ in range(sweeps):
            chain.sweep(one_by_one)
        return chain.state()


@pytest.fixture
def one_thread_of_torch():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread_of_torch")
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("made", [NumpyBackend, lambda: TorchBackend("cpu")], ids=["NumPy", "PyTorch"])
def test_a_shared_chain_is_that_of_one_process_bit_for_bit(made, size, monkeypatch):
    backend = made()
    backend.most_cells, backend.waste = 64, 4  # several chunks for each, and with PyTorch rows in segments
    monkeypatch.setattr(gibbs, "find_backend", lambda device: backend)
    alone = swept()
    for state in together(size, swept):
        assert state.keys() == alone.keys()
        for name, value in state.items():
            np.testing.assert_array_equal(value, alone[name], err_msg=name)


def test_every_row_is_computed_by_one_process_and_the_work_is_even():
    codes = ratings()[0].users
    chunks, _ = make_chunks(codes, 60, cells=64, waste=4)
    partitions = [Partition(chunks, Member(Exchange(3), rank), NumpyBackend()) for rank in range(3)]
    rows = np.concatenate([chunk.rows for partition in partitions for chunk in partition.chunks])
    assert sorted(rows) == sorted(set(codes))
    cells = [sum(block.size for chunk in partition.chunks for block in chunk.blocks) for partition in partitions]
    assert max(cells) < 1.2 * min(cells)


def test_more_processes_than_rows_leave_some_without_work():
    chunks, _ = make_chunks(np.array([0, 0, 1]), 2, cells=64, waste=4)

    def completed(member):
        partition = Partition(chunks, member, NumpyBackend())
        table = np.zeros((3, 2), np.float32)
        for chunk in partition.chunks:
            table[chunk.rows] = member.rank + 1.0
        return partition.gather_rows(table)

    first, *others = together(3, completed)
    assert (first[:2] > 0).all()
    assert (first[2] == 0).all()
    assert all(np.array_equal(first, other) for other in others)
