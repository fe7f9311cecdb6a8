"""A group of processes that compute together: who is in it, and what they exchange."""

import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import Store

GLOO_LOOP = "gloo_tcp_loop"  # the name of such a thread
POLL = 0.01  # seconds between two checks of which ranks have come
COLLECTED = 1 << 16  # rows of a table sent to rank 0 at a time


@dataclass
class Traffic:
    """Bytes that this process has sent, by the arithmetic of a ring; what the sockets really carry is a little more."""

    sent: int = 0


@dataclass(frozen=True)
class Group:
    """This process's view of the group. Every method but those of the mesh is one collective: all must call it."""

    rank: int  # from 0
    size: int
    device: torch.device
    traffic: Traffic = field(default_factory=Traffic, compare=False)

    def agree(self, wish: bool) -> bool:
        """True in all processes if any of them wishes."""
        vote = torch.tensor(int(wish), dtype=torch.int32, device=self.device)
        if self.size > 1:
            dist.all_reduce(vote, dist.ReduceOp.MAX)
            self.count_reduced(vote)
        return bool(vote)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
            self.count_reduced(tensor)
        return tensor

    def begin_sum(self, tensor: Tensor) -> Callable[[], Tensor]:
        """The same, in the background: what is returned waits for the sum and gives it."""
        if self.size == 1:
            return lambda: tensor
        work = dist.all_reduce(tensor, async_op=True)
        self.count_reduced(tensor)

        def wait() -> Tensor:
            if work is not None:  # of a rank that is not in the group
                work.wait()
            return tensor

        return wait

    def gather(self, tensor: Tensor) -> Tensor:
        """The (n_r, ...) of every rank, concatenated by rank; n_r may differ and may be 0."""
        if self.size == 1:
            return tensor
        lengths = self._gather_even(torch.tensor([len(tensor)], device=self.device))
        counts = [int(length) for length in lengths]
        padded = tensor.new_zeros(max(counts), *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        return torch.cat([part[:n] for part, n in zip(self._gather_even(padded), counts, strict=True)])

    def gather_even(self, tensor: Tensor) -> Tensor:
        """The same for tensors of one shape: in one message, not two."""
        return torch.cat(self._gather_even(tensor)) if self.size > 1 else tensor

    def collect(self, tensor: Tensor) -> npt.NDArray[np.float32]:
        """The rows of every rank, by rank, in rank 0's memory on the CPU; elsewhere an array without rows."""
        lengths = self.gather_even(torch.tensor([len(tensor)], device=self.device)).tolist()
        whole = np.empty((0 if self.rank else sum(lengths), *tensor.shape[1:]), np.float32)
        chunks = [(r, s) for r, length in enumerate(lengths) for s in range(0, length, COLLECTED)]
        filled = 0
        for rank, start in chunks:
            rows = min(COLLECTED, lengths[rank] - start)
            part = tensor[start : start + rows] if rank == self.rank else tensor.new_empty(rows, *tensor.shape[1:])
            if self.rank == rank != 0:
                dist.send(part.contiguous(), 0)
                self.traffic.sent += part.nbytes
            if self.rank == 0:
                if rank != 0:
                    dist.recv(part, rank)
                whole[filled : filled + rows] = part.cpu().numpy()
                filled += rows
        return whole

    def gather_texts(self, text: str) -> list[str]:
        """The text of every rank, by rank."""
        data = torch.frombuffer(bytearray(text.encode() or b"\0"), dtype=torch.uint8)[: len(text.encode())]
        ends = self.gather(torch.tensor([len(data)], device=self.device)).cumsum(0).tolist()
        together = bytes(self.gather(data.to(self.device)).tolist())
        return [together[start:end].decode() for start, end in zip([0, *ends], ends, strict=False)]

    def broadcast(self, tensor: Tensor, source: int = 0) -> Tensor:
        """The tensor of rank `source`, written into everyone's."""
        if self.size > 1:
            dist.broadcast(tensor, source)
            self.traffic.sent += tensor.nbytes * (self.size - 1) if self.rank == source else 0
        return tensor

    def exchange(self, outgoing: Mapping[int, Tensor], incoming: Mapping[int, Tensor]) -> None:
        """Send one tensor each to some ranks, and receive one each of some, written into those given."""
        works = [dist.irecv(tensor, rank) for rank, tensor in incoming.items()]
        works += [dist.isend(tensor, rank) for rank, tensor in outgoing.items()]
        for work in works:
            if work is not None:  # of a rank that is not in the group
                work.wait()
        self.traffic.sent += sum(tensor.nbytes for tensor in outgoing.values())

    def mesh(self) -> DeviceMesh:
        """The group as one row of devices, over which DTensor splits a table."""
        return init_device_mesh(self.device.type, (self.size,))

    def count_reduced(self, tensor: Tensor) -> None:
        """Counts an all-reduce: each process sends all parts but one, twice."""
        self.traffic.sent += 2 * (self.size - 1) * tensor.nbytes // self.size

    def count_scattered(self, size: int) -> None:
        """Counts a reduce-scatter of so many bytes: each process sends all parts but one, with gloo twice."""
        times = 1 if self.device.type == "cuda" else 2  # gloo reduces all to all, and lets each keep its part
        self.traffic.sent += times * (self.size - 1) * size // self.size

    def _gather_even(self, tensor: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor.contiguous())
        self.traffic.sent += (self.size - 1) * tensor.nbytes
        return parts


@contextmanager
def join_group(environment: Mapping[str, str], device: str, timeout: float) -> Iterator[Group]:
    """Joins the process group that the launcher's variables describe; leaves it at the end. NCCL on GPUs, else gloo.

    Args:
        environment: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT and TORCHELASTIC_USE_AGENT_STORE, as
            torchrun sets them.
        device: "cpu", "cuda", or "auto" for a GPU where there is one.
        timeout: seconds after which a collective that not all have joined is an error.

    Raises:
        TimeoutError: not all processes have joined in time.
        RuntimeError: the store in which they meet cannot be reached.
    """
    rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    torch_device = _select_device(device, int(environment.get("LOCAL_RANK", rank)))
    hosts = rank == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    store = dist.TCPStore(
        environment["MASTER_ADDR"],
        int(environment["MASTER_PORT"]),
        None,
        is_master=hosts,
        timeout=timedelta(seconds=timeout),
        multi_tenant=True,
        wait_for_workers=False,
    )
    own_store = dist.PrefixStore(_agree_on_prefix(store, rank, size, timeout), store)
    backend = "nccl" if torch_device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=own_store, rank=rank, world_size=size, timeout=timedelta(seconds=timeout))
    if backend == "gloo" and hasattr(os, "SCHED_BATCH"):
        _hold_back_loops()
    try:
        yield Group(rank, size, torch_device)
    finally:
        dist.destroy_process_group()


def _select_device(device: str, local_rank: int) -> torch.device:
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        torch.cuda.set_device(local_rank)
        return torch.device("cuda", local_rank)
    return torch.device("cpu")


def _hold_back_loops() -> None:
    """Have the threads that serve gloo's connections not interrupt those that compute.

    One that interrupts a thread which holds a connection's lock tries that lock again and again, until its turn on the
    core is over: 4 ms, about as long as half an epoch takes.
    """
    for task in Path("/proc/self/task").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or the system does not allow it
            if (task / "comm").read_text(encoding="utf-8").strip() == GLOO_LOOP:
                os.sched_setscheduler(int(task.name), os.SCHED_BATCH, os.sched_param(0))


def _agree_on_prefix(store: Store, rank: int, size: int, timeout: float) -> str:
    """A new prefix of keys in the store, chosen by rank 0 and known to all ranks.

    The store outlives the processes: after a restart it still holds the addresses of processes that ended, and gloo
    would connect to them. The launcher's restart count cannot be the prefix, since it differs between machines.
    """
    mine, deadline = uuid.uuid4().hex, time.monotonic() + timeout
    if rank:
        store.set(f"recsys/hello/{rank}", mine)
        try:
            store.wait([f"recsys/reply/{mine}"], timedelta(seconds=timeout))
        except dist.DistStoreError:
            raise TimeoutError(f"rank {rank} of {size} waited {timeout:g} s for rank 0, which did not come") from None
        prefix = str(store.get(f"recsys/reply/{mine}").decode())
        store.set(f"recsys/present/{prefix}/{rank}", "")
        return prefix
    missing = set(range(1, size))
    answered: set[str] = set()
    while missing:
        for other in sorted(missing):
            if store.check([f"recsys/present/{mine}/{other}"]):
                missing.discard(other)
            elif store.check([f"recsys/hello/{other}"]):
                theirs = store.get(
                    f"recsys/hello/{other}"
                ).decode()  # perhaps of a process that ended: a new one follows
                if theirs not in answered:
                    store.set(f"recsys/reply/{theirs}", mine)
                    answered.add(theirs)
        if missing and time.monotonic() > deadline:
            names = ", ".join(map(str, sorted(missing)))
            raise TimeoutError(f"rank 0 of {size} waited {timeout:g} s for rank {names}, which did not come")
        time.sleep(POLL)
    return mine
