"""The command `recsys`: the steps without MLflow Projects, from whatever folder one stands in."""

import ast
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from recsys.settings import did_you_mean
from steps import PROJECT
from steps.support.entrypoint import run_step
from steps.support.parameters import STEPS, StepName

CONNECT_THEMSELVES = ("doctor", "serve", "train", "tune")  # to MLflow, or find out whether it can be reached
_PROGRAMS = {"train": "train_as_program", "tune": "tune_as_program"}  # functions that are not named after the step


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the step that the first argument names with the parameters behind it; ends with status 2 without one."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = given.pop(0) if given else "--help"
    if name in ("-h", "--help"):
        print(_usage())
        return
    if name not in STEPS:
        close = did_you_mean(name, STEPS)
        print(f"error: recsys: no step {name!r}{close}; `recsys --help` lists them", file=sys.stderr)
        sys.exit(2)
    # As of `mlflow run`: runs are kept where the command is typed, and not in the project's folder.
    os.environ.setdefault("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    step: StepName = name
    run_step(step, find_program(step), given, connected=step not in CONNECT_THEMSELVES)


def find_program(step: str) -> Callable[..., Any]:
    """The function that a step's file calls as a program."""
    found: Callable[..., Any] = getattr(import_module(f"steps.{step}"), _PROGRAMS.get(step, step))
    return found


def _usage() -> str:
    lines = ["usage: recsys STEP [--parameter=value ...]", "       recsys STEP --help", "", "steps:"]
    for name in STEPS:
        text = ast.get_docstring(ast.parse((PROJECT / "steps" / f"{name}.py").read_text(encoding="utf-8"))) or ""
        lines.append(f"  {name:<10} {text.splitlines()[0].partition(': ')[2]}")
    return "\n".join(lines)
