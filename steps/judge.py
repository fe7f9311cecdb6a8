"""Judge: look at the trial that runs, once or again and again, and end it where the evidence says so."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.errors import InputError
from steps.support.entrypoint import run_step
from steps.support.runs import name_own_run
from steps.support.trial_judge import Judge, watch
from steps.support.trial_parameters import JudgeParameters

if TYPE_CHECKING:
    from recsys.experiments.judging import Verdict


def judge(parameters: JudgeParameters) -> "Verdict | None":
    """Judge by a server's record and feedback; the last verdict, None where nothing is on trial."""
    folder = Path(parameters.folder, parameters.store).absolute() / parameters.model_name
    if not folder.is_dir():
        raise InputError(
            f"{folder}: record and feedback of a server are expected here; run the entry point serve, or name its "
            "folder: -P store=…"
        )
    if parameters.every is None:
        name_own_run("judge")
    judging = Judge(parameters.model_name, folder, parameters)
    if parameters.every is not None:
        watch(judging, parameters.every, _wait, _tell)
    verdict = judging.look()
    if verdict is None:
        _tell(f"no version of {parameters.model_name} is on trial")
    else:
        _tell(f"{verdict.outcome.replace('_', ' ') if verdict.outcome else 'the trial goes on'}: {verdict.reason}")
    return verdict


def _wait(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _tell(sentence: str) -> None:
    print(sentence, flush=True)


if __name__ == "__main__":
    run_step("judge", judge)
