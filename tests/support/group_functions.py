"""What the tests run in several processes: functions of a group that return plain values."""

import os
import resource
import signal
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from recsys.distributed import checkpoints
from recsys.distributed.checkpoints import Checkpoints
from recsys.distributed.process_group import GLOO_LOOP, Group


def collectives(group: Group) -> dict[str, object]:
    own = torch.arange(group.rank, dtype=torch.float32)  # of 0, 1, 2, ... entries
    answers = {
        "rank": (group.rank, group.size),
        "agree": [group.agree(False), group.agree(group.rank == group.size - 1), group.agree(True)],
        "sum": group.sum(torch.tensor([1.0, float(group.rank)])).tolist(),
        "gather": group.gather(own).tolist(),
        "gather_table": list(group.gather(torch.ones(group.rank, 3)).shape),
        "texts": group.gather_texts("né" * group.rank),
        "broadcast": group.broadcast(torch.tensor([group.rank, 7]), source=group.size - 1).tolist(),
    }
    before = group.traffic.sent
    group.sum(torch.zeros(1000))
    return answers | {"sent": group.traffic.sent - before}


def policies_of_loops(_group: Group) -> list[int]:
    """By which policies the system schedules the threads of gloo's connections."""
    tasks = Path("/proc/self/task").iterdir()
    return [os.sched_getscheduler(int(t.name)) for t in tasks if (t / "comm").read_text().strip() == GLOO_LOOP]


def _state(group: Group, value: float, split: bool) -> dict[str, torch.Tensor]:
    table = torch.arange(10.0).reshape(5, 2) + value  # 5 rows: no two or four processes hold equally many
    whole = {"step": torch.tensor(value), "table": table}
    if split:
        whole["table"] = distribute_tensor(table, group.mesh(), [Shard(0)])
    return whole


def _plain(group: Group, state: dict[str, torch.Tensor] | None) -> list[float] | None:
    if state is None:
        return None
    table = state["table"]
    if isinstance(table, DTensor):
        table = group.gather(table.to_local())
    return [float(state["step"]), *table.flatten().tolist()]


def save_some(
    group: Group, folder: Path, split: bool, values: list[float], every_seconds: float = 0
) -> dict[str, object]:
    kept = Checkpoints(folder, "d1", group, every_seconds)
    due = []
    for value in values:
        due.append((kept.is_due(), kept.is_due(at_epoch_end=False)))
        kept.save(_state(group, value, split))
    return {"due": due, "saved": kept.saved}


def load_newest(group: Group, folder: Path, split: bool, digest: str = "d1") -> dict[str, object]:
    said: list[str] = []
    kept = Checkpoints(folder, digest, group, 0, said.append)
    return {"state": _plain(group, kept.load(_state(group, 0, split))), "said": said, "number": kept.loaded}


def save_on_a_full_disk(group: Group, folder: Path, split: bool) -> dict[str, object]:
    """The last rank that writes finds that no file can grow beyond some bytes; later there is room again."""
    said: list[str] = []
    kept = Checkpoints(folder, "d1", group, 0, said.append)
    kept.save(_state(group, 1, split))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if group.rank == (group.size - 1 if split else 0):
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
    kept.save(_state(group, 2, split))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    state = kept.load(_state(group, 0, split))
    kept.save(_state(group, 3, split))
    return {"said": said, "state": _plain(group, state), "saved": kept.saved}


def die_while_saving(group: Group, folder: Path) -> None:
    """Saves one checkpoint, and is killed in the middle of writing another."""
    kept = Checkpoints(folder, "d1", group, 0)
    kept.save(_state(group, 1, split=False))
    real = checkpoints.dcp.FileSystemWriter.finish

    def die(*arguments: object, **named: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    checkpoints.dcp.FileSystemWriter.finish = die  # type: ignore[method-assign]
    try:
        kept.save(_state(group, 2, split=False))
    finally:
        checkpoints.dcp.FileSystemWriter.finish = real  # type: ignore[method-assign]
