"""Where a chain is computed: on the CPU by several threads, on a GPU by one."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from recsys.runtime.blas import one_thread
from recsys.runtime.compilation import available_threads

Each = Callable[[Callable[[Any], None], Sequence[Any]], None]
"""Applies a function to every member of a sequence, perhaps several at a time."""


def one_by_one(work: Callable[[Any], None], members: Sequence[Any]) -> None:
    """An Each of one thread."""
    for member in members:
        work(member)


def side_by_side(pool: ThreadPoolExecutor, works: Sequence[Callable[[], object]]) -> None:
    """Does the first work in the thread that calls, the others in those of the pool; raises what one of them raised."""
    others = [pool.submit(work) for work in works[1:]]
    works[0]()
    for other in others:
        other.result()


@contextmanager
def workers(device: str) -> Iterator[Each]:
    """What `Chain.sweep` spreads its chunks over: on the CPU a thread a core, each working on chunks of its own.

    That scales better than threads within a product of small matrices, whose waiting costs more than the product; and
    the numbers do not depend on how many there are.
    """
    if device != "cpu":
        yield one_by_one
        return

    threads = available_threads()
    with one_thread(), ThreadPoolExecutor(max(1, threads - 1)) as pool:  # the thread that calls takes its part

        def spread(work: Callable[[Any], None], chunks: Sequence[Any]) -> None:
            if len(chunks) < 2:  # to wake a thread takes longer than a small chunk; a process may have none
                one_by_one(work, chunks)
                return
            left = iter(chunks)  # of all threads: each takes the next one, which costs less than a future a chunk

            def take() -> None:
                for chunk in left:
                    work(chunk)

            side_by_side(pool, [take] * min(threads, len(chunks)))

        yield spread
