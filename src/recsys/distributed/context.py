"""What a family's `fit` is handed in each of the processes that train together."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # which import PyTorch
    from recsys.distributed.checkpoints import Checkpoints
    from recsys.distributed.process_group import Group

Sharding = Literal["none", "row"]
"""Every process holds whole tables, or its rows of them."""


@dataclass(frozen=True)
class Context:
    """The processes, where their state is kept, and how they are stopped and watched.

    Families `group.agree()` on `is_told_to_stop` about every step, save a checkpoint together and raise StoppedError.
    """

    group: "Group"
    checkpoints: "Checkpoints"  # where this fit keeps its state; knows the job's digest
    sharding: Sharding = "none"
    is_told_to_stop: Callable[[], bool] = lambda: False  # this process was asked to end
    # beat(step, waiting) before and after what waits for others, so that a process that hangs can be named: cheap
    beat: Callable[[int, bool], None] = lambda step, waiting: None
