"""A compiled pipeline on its way: run on this machine, or given to a Kubeflow Pipelines API."""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import kfp
import requests
from kfp import local
from kfp.local.orchestrator.enhanced_dag_orchestrator import ConditionEvaluator

from recsys.errors import InputError

_HEALTH = "/apis/v2beta1/healthz"
_ANSWER_SECONDS = 5
_REFERENCE = re.compile(r"inputs\.parameter_values\['([^']+)'\]")


def run_here(pipeline: Any, arguments: Mapping[str, object], folder: Path) -> None:
    """Run each component as a process on this machine, one after another; what they exchange lies in `folder`.

    Raises:
        InputError: naming the component that failed. Nothing behind it has run.
    """
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(folder), raise_on_error=True)
    with _conditions_evaluated(), _failures() as failures:
        try:
            pipeline(**arguments)
        except RuntimeError:
            failed = failures[0] if failures else "of the pipeline"
            raise InputError(
                f"component {failed} failed, and nothing behind it has run; its own message is above"
            ) from None


@contextmanager
def _failures() -> Iterator[list[str]]:
    """The names of the components that fail, as kfp writes them to its log: its error leaves them out."""
    found: list[str] = []

    def look(record: logging.LogRecord) -> bool:
        said = re.sub(r"\x1b\[\d+m", "", record.getMessage())
        if match := re.fullmatch(r"Task '(.+)' finished with status FAILURE", said):
            found.append(match[1])
        return True

    logger = logging.getLogger()
    logger.addFilter(look)
    try:
        yield found
    finally:
        logger.removeFilter(look)


@contextmanager
def _conditions_evaluated() -> Iterator[None]:
    """Kfp 2.16 takes every condition that compares for false when it runs here; this one is evaluated."""
    with mock.patch.object(ConditionEvaluator, "evaluate_condition", staticmethod(holds)):
        yield


def holds(condition: str, values: Any) -> bool:
    """Whether a condition of a compiled pipeline holds.

    Args:
        condition: in the language of Kubeflow (CEL); of its operators those that a comparison needs.
        values: kfp's store of the inputs and outputs of the tasks.

    Raises:
        InputError: where it names what there is not.
    """
    found = {name: _find_value(name, values) for name in _REFERENCE.findall(condition)}
    text = _REFERENCE.sub(lambda match: f"values[{match[1]!r}]", condition)
    text = re.sub(r"!(?!=)", " not ", text).replace("&&", " and ").replace("||", " or ")
    known = {"int": int, "double": float, "string": str, "true": True, "false": False}
    # The text is the compiler's, and no value stands in it.
    return bool(eval(text, {"__builtins__": {}}, known | {"values": found}))  # nosec B307


def _find_value(name: str, values: Any) -> Any:
    """A value by the name that the compiler gave it: of an input, or of a task and its output with - between."""
    short = name.removeprefix("pipelinechannel--")
    for key in (name, short):
        try:
            return values.get_parent_input(key)
        except ValueError:
            pass
    for at in (match.start() for match in re.finditer("-", short)):
        try:
            return values.get_task_output(short[:at], short[at + 1 :])
        except ValueError:
            pass
    raise InputError(f"the pipeline's condition names {name!r}, which no component has put out")


def submit(
    path: Path, arguments: Mapping[str, object], *, where: str, namespace: str, experiment: str, token: str
) -> str:
    """Give a compiled pipeline to an API; returns the id of its run.

    Raises:
        InputError: at once where nothing answers there, or what answers refuses.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = requests.get(where + _HEALTH, timeout=_ANSWER_SECONDS, headers=headers)
        answer.raise_for_status()
        answer.json()
    except (requests.RequestException, ValueError) as error:
        raise InputError(
            f"parameter 'where': a Kubeflow Pipelines API that answers is needed, but {where}{_HEALTH} does not "
            f"({type(error).__name__}: {str(error)[:200]}); nothing was submitted. Open a way to it (kubectl "
            "port-forward svc/ml-pipeline 8888:8888 -n kubeflow), correct the address, or pass -P where=local"
        ) from None
    try:
        client = kfp.Client(host=where, existing_token=token or None, namespace=namespace or "kubeflow")
        done = client.create_run_from_pipeline_package(
            str(path), dict(arguments), experiment_name=experiment, namespace=namespace or None
        )
    except Exception as error:  # kfp, its generated client and urllib3 each raise their own
        raise InputError(
            f"{where}: the run was not taken ({type(error).__name__}: {' '.join(str(error).split())[:500]})"
        ) from None
    return str(done.run_id)
