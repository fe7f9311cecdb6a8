"""Starts processes that meet over gloo on this machine. They are forked from one that has imported PyTorch already."""

import multiprocessing
import socket
import traceback
from collections.abc import Callable
from typing import Any

from recsys.distributed.group import Group, connect

SECONDS = 120  # a busy machine is slow; nothing here waits for this unless it hangs

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["torch.distributed.checkpoint", "torch.distributed.tensor.parallel"])


def together(size: int, work: Callable[..., Any], *arguments: Any, attempts: int = 1) -> list[Any]:
    """What `work(group, *arguments)` returns in each of `size` processes, by rank.

    With more attempts the processes meet again in the same store, as after a restart of torchrun, where the store
    outlives them.
    """
    port = _free_port()
    inbox = _context.SimpleQueue()
    workers = [
        _context.Process(target=_run, args=(inbox, rank, size, port, attempts, work, arguments)) for rank in range(size)
    ]
    for worker in workers:
        worker.start()
    try:
        answers = {}
        for _ in workers:
            rank, answer, trace = inbox.get()
            assert not trace, f"rank {rank}: {trace}"
            answers[rank] = answer
        return [answers[rank] for rank in range(size)]
    finally:
        for worker in workers:
            worker.join(0 if len(answers) < size else SECONDS)
            worker.kill()


def _run(inbox: Any, rank: int, size: int, port: int, attempts: int, work: Callable[..., Any], arguments: Any) -> None:
    place = {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        answer = None
        for _ in range(attempts):
            with connect(place, "cpu", SECONDS) as group:
                answer = work(group, *arguments)
        inbox.put((rank, answer, ""))
    except BaseException:
        inbox.put((rank, None, traceback.format_exc()))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def everyone(group: Group) -> bool:
    """Whether the group can still talk."""
    return group.agree(True)
