"""PyTorch's elastic agent, which starts the ranks of this machine and starts them again where one is lost.

    python -m recsys.training.launch.agent FAMILY

It does what `torch.distributed.run` does, but imports what ranks need while the step is busy, and then forks them. One
line of standard input says what is to be trained (agent_process.py); the end of standard input, which ranks watch, says
that the training is to stop. It has drawn no random number and used no thread of PyTorch's or Numba's when it forks,
so ranks share nothing but the memory of what was imported.
"""

import gc
import importlib
import json
import os
import sys
import traceback
from contextlib import suppress
from typing import Any, NoReturn

from recsys.training.launch import rank

# Those that a rank would import one by one, once it needs them.
_NEEDED = (
    "recsys.distributed.checkpoints",
    "recsys.distributed.process_group",
    "recsys.training.launch.job",
    "sklearn.linear_model",
    "torch.distributed.launcher.api",
)


def main(family: str) -> None:
    """Import, wait for the line, and run the ranks to their end; raises what PyTorch raises where they failed."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # to ask whether there is a GPU must not begin to use it
    gc.disable()  # imports make a million objects that stay
    for name in (*_NEEDED, f"recsys.models.{family}"):
        importlib.import_module(name)
    with suppress(ModuleNotFoundError):  # where that is a module of its own
        importlib.import_module(f"recsys.models.{family}.distributed")
    if compilation := sys.modules.get("recsys.runtime.compilation"):  # a family that compiles
        compilation.get_ready()
    gc.freeze()  # to look through them again would copy them into every rank
    gc.enable()
    line = sys.stdin.readline()
    if line:  # else whoever was to write it is gone
        _launch(**json.loads(line))


def _launch(folder: str, log: str, environment: dict[str, str], launch: dict[str, Any]) -> None:
    """Run the ranks of the job in `folder`.

    Args:
        log: file to which goes what this process and the ranks print.
        environment: of the ranks, where this process has no such variable.
        launch: arguments of PyTorch's LaunchConfig.
    """
    import torch
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    logs = DefaultLogsSpecs(log_dir=f"{folder}/launcher")
    config = LaunchConfig(**launch, logs_specs=logs, start_method="fork")
    if torch.cuda.is_available() or sys.platform != "linux":  # CUDA, and macOS's libraries, want a process that is new
        elastic_launch(config, sys.executable)("-m", rank.__name__, folder)
    else:
        elastic_launch(config, rank.run)(folder, os.dup(0))  # of a forked process multiprocessing closes 0


def run() -> NoReturn:
    """Run as a program; it ends at once, since taking PyTorch down properly costs seconds."""
    try:
        main(*sys.argv[1:])
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    run()
