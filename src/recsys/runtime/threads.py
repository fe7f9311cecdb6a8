"""Where a chain is computed: the device, and on the CPU the threads."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

Each = Callable[[Callable[[Any], None], Sequence[Any]], None]
"""Applies a function to every member of a sequence, perhaps several at a time."""


@contextmanager
def one_thread(device: torch.device) -> Iterator[int]:
    """Without torch's own threads on the CPU: sums then come out alike however many there are; yields their number."""
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


@contextmanager
def workers(device: torch.device) -> Iterator[Each]:
    """What `Chain.sweep` spreads its chunks over: on the CPU a thread a core, each working on chunks of its own.

    That scales better than torch's own threads, whose waiting costs more than such small products; and the numbers do
    not depend on how many there are.
    """
    if device.type != "cpu":

        def one_by_one(work: Callable[[Any], None], chunks: Sequence[Any]) -> None:
            for chunk in chunks:
                work(chunk)

        with torch.no_grad():
            yield one_by_one
        return

    def prepare() -> None:
        torch.set_num_threads(1)
        torch.set_grad_enabled(False)  # both hold for the thread that calls them

    with one_thread(device) as threads, torch.no_grad(), ThreadPoolExecutor(threads, initializer=prepare) as pool:

        def spread(work: Callable[[Any], None], chunks: Sequence[Any]) -> None:
            if len(chunks) == 1:  # to wake a thread takes longer than a small chunk
                work(chunks[0])
                return
            left = iter(chunks)  # of all threads: each takes the next one, which costs less than a future a chunk

            def take() -> None:
                for chunk in left:
                    work(chunk)

            for taken in [pool.submit(take) for _ in range(min(threads, len(chunks)))]:
                taken.result()

        yield spread
