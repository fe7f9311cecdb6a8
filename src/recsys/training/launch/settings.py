"""The parameters of training in several processes, and what they refuse before anything is started."""

import re
from typing import Literal

from pydantic import Field

from recsys.errors import InputError
from recsys.models.base.capabilities import capabilities, family_names
from recsys.settings import Settings

MOST = 4096


class Processes(Settings):
    """How many processes train, where, and what happens when one of them is lost."""

    processes: int = Field(1, ge=1, le=MOST, description="processes that train together, on each machine")
    nodes: int = Field(1, ge=1, le=MOST, description="machines that train together; type the same line on each")
    rendezvous: str = Field("auto", description="host:port where the machines meet; auto: this machine alone")
    sharding: Literal["none", "row"] = Field(
        "none", description="none: every process holds whole tables; row: each holds a part of their rows"
    )
    resume: Literal["none", "auto"] = Field(
        "none", description="auto: go on with an interrupted training of the same, in its run; none: begin anew"
    )
    checkpoint_minutes: float = Field(0.5, ge=0, description="minutes between two checkpoints; 0: one every epoch")
    rank_timeout: float = Field(
        120, gt=0, description="seconds after which a process that does not answer is given up and started again"
    )
    restarts: int = Field(3, ge=0, description="how often lost processes are started again")

    @property
    def together(self) -> bool:
        """Whether processes of their own are started: several, or one that keeps checkpoints or parts of tables."""
        return self.processes > 1 or self.nodes > 1 or self.sharding != "none" or self.resume != "none"

    @property
    def size(self) -> int:
        """All processes of all machines."""
        return self.processes * self.nodes


def check_processes(settings: Processes, family: str) -> None:
    """Refuse what cannot be started.

    Raises:
        InputError: naming the parameter.
    """
    if settings.rendezvous != "auto":
        split_address(settings.rendezvous)
    elif settings.nodes > 1:
        raise InputError(
            f"parameter 'rendezvous': with nodes={settings.nodes} a place to meet is needed, got 'auto'; pass the same "
            "-P rendezvous=host:29400 on every machine, host being one of them"
        )
    if not settings.together or family not in family_names():
        return
    known = capabilities(family).shardings
    if settings.sharding not in known:
        able = [name for name in family_names() if settings.sharding in capabilities(name).shardings]
        which = next(
            f"{name}={value}"
            for name, value, plain in (
                ("sharding", settings.sharding, settings.sharding == "none"),
                ("processes", settings.processes, settings.processes == 1),
                ("nodes", settings.nodes, settings.nodes == 1),
                ("resume", settings.resume, False),
            )
            if not plain
        )
        name = which.partition("=")[0]
        cannot = "trains in one process only" if not known else "cannot split its tables"
        raise InputError(
            f"parameter {name!r}: family {family} {cannot}, got {which}; leave it out, or pass one of the families "
            f"that can: {', '.join(able) or 'none yet'}"
        )


def check_rows(settings: Processes, rows: int) -> None:
    """Raises InputError where a process would have no row to learn from."""
    if settings.size > rows:
        got = f"{settings.processes} on each of {settings.nodes} machines" if settings.nodes > 1 else settings.processes
        raise InputError(
            f"parameter 'processes': at most one for each of the {rows} training rows, got {got}; pass fewer"
        )


def split_address(text: str) -> tuple[str, int]:
    """Host and port of `host:port`, or of `[address]:port`; raises InputError."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/@]+)):(\d{1,5})", text)
    if not match or not 1 <= int(match[3]) <= 65535:
        raise InputError(
            f"parameter 'rendezvous': host:port is needed, with a port from 1 to 65535, got {text!r}; pass for "
            "instance -P rendezvous=trainer-1:29400"
        )
    return match[1] or match[2], int(match[3])
