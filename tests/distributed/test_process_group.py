import os

import pytest

from recsys.distributed.process_group import join_group
from tests.support.group_functions import collectives, policies_of_loops
from tests.support.process_groups import everyone, together

pytestmark = pytest.mark.process


@pytest.mark.parametrize("size", [1, 3])
def test_what_processes_do_together(size):
    answers = together(size, collectives)
    last = size - 1
    for rank, answer in enumerate(answers):
        assert answer == {
            "rank": (rank, size),
            "agree": [False, True, True],
            "sum": [size, sum(range(size))],
            "gather": [0.0, 0.0, 1.0] if size == 3 else [],
            "gather_table": [sum(range(size)), 3],
            "texts": ["né" * r for r in range(size)],
            "broadcast": [last, 7],
            "sent": 2 * last * 4000 // size,
        }


def test_processes_meet_again_where_the_store_remembers_the_ones_before():
    assert together(2, everyone, attempts=3) == [True, True]


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="the system has one policy")
def test_threads_that_serve_connections_do_not_interrupt_those_that_compute():
    for policies in together(2, policies_of_loops):
        assert policies
        assert set(policies) == {os.SCHED_BATCH}


def test_a_process_that_does_not_come_is_named():
    place = {"RANK": "0", "WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    with pytest.raises(TimeoutError, match=r"rank 0 of 3 waited 0.3 s for rank 1, 2"), join_group(place, "cpu", 0.3):
        pass
