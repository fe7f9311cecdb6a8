"""Starts processes that meet over gloo on this machine. They are forked from one that has imported PyTorch already."""

import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from torch.distributed import TCPStore

from recsys.distributed.process_group import Group, join_group
from tests.support.waiting import HANG_SECONDS

DIED = "died"

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["torch.distributed.checkpoint", "torch.distributed.tensor.parallel"])


def together(size: int, work: Callable[..., Any], *arguments: Any, attempts: int = 1) -> list[Any]:
    """What `work(group, *arguments)` returns in each of `size` processes, by rank; DIED for one that was killed.

    The store in which they meet is here, as it is the launcher's under torchrun. With more attempts they meet in it
    again and again, as after a restart.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    pipes = [_context.Pipe(duplex=False) for _ in range(size)]
    workers = []
    for rank, (_, answer) in enumerate(pipes):
        workers.append(_context.Process(target=_run, args=(answer, rank, size, store.port, attempts, work, arguments)))
        workers[-1].start()
        answer.close()
    try:
        answers = [_answer(rank, pipe) for rank, (pipe, _) in enumerate(pipes)]
    finally:
        for worker in workers:
            worker.join(10)
            worker.kill()
    # All of them: where one rank fails the others only say that it left.
    traces = [f"rank {rank}: {trace}" for rank, (_, trace) in enumerate(answers) if trace]
    assert not traces, "\n".join(traces)
    return [answer for answer, _ in answers]


def _answer(rank: int, pipe: Connection) -> tuple[Any, str]:
    """What a rank returned, and the trace of what it raised."""
    assert pipe.poll(HANG_SECONDS), f"rank {rank} said nothing for {HANG_SECONDS} s"
    try:
        return pipe.recv()
    except EOFError:
        return DIED, ""


def _run(
    pipe: Connection, rank: int, size: int, port: int, attempts: int, work: Callable[..., Any], arguments: Any
) -> None:
    place = {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    place["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    try:
        answer = None
        for _ in range(attempts):
            with join_group(place, "cpu", HANG_SECONDS) as group:
                answer = work(group, *arguments)
        pipe.send((answer, ""))
    except BaseException:
        pipe.send((None, traceback.format_exc()))


def everyone(group: Group) -> bool:
    """Whether the group can still talk."""
    return group.agree(True)
