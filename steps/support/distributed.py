"""Training in processes of its own: where its state is kept, which run records it, and what that run shows."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING

from recsys.data.dataset import Dataset
from recsys.errors import RankError
from recsys.settings import Settings
from recsys.training.launch.settings import check_rows
from steps.support.entrypoint import data_folder
from steps.support.parameters import TrainParameters

if TYPE_CHECKING:
    from recsys.tracking.runs import Run
    from recsys.training.launch.agent_process import AgentProcess
    from recsys.training.launch.launcher import Launcher
    from recsys.training.trainer import FitAll


def agent_of(parameters: TrainParameters) -> "AbstractContextManager[AgentProcess | None]":
    """What starts the processes of a training: it begins to import. None where this process trains by itself."""
    if not parameters.together:
        return nullcontext()
    from recsys.training.launch.agent_process import AgentProcess

    return AgentProcess(parameters.family, parameters.processes, os.environ)


@contextmanager
def fitting_together(
    parameters: TrainParameters,
    config: Settings,
    dataset: Dataset,
    opened: "Run",
    agent: "AgentProcess | None" = None,
) -> Iterator[tuple["Run", "FitAll"]]:
    """What fits in several processes, and the run to record it in: where a training goes on, the interrupted one's.

    Args:
        opened: the run of this process. It ends as the one that goes on ends, and names it in its tag.
        agent: where the caller has started one already.
    """
    from recsys.tracking import runs
    from recsys.training.launch.job import JobSpec
    from recsys.training.launch.launcher import Launcher
    from recsys.training.launch.workspace import open_workspace

    check_rows(parameters, len(dataset.train))
    spec = JobSpec(
        parameters.family,
        config.model_dump(),
        parameters.seed,
        dataset.digest,
        parameters.refit,
        parameters.sharding,
        parameters.forward,
    )
    with ExitStack() as stack:
        agent = agent or stack.enter_context(agent_of(parameters))
        workspace = stack.enter_context(
            open_workspace(
                data_folder() / "jobs",
                spec.digest,
                resume=parameters.resume == "auto",
                several_machines=parameters.nodes > 1,
                say=_say,
            )
        )
        run = stack.enter_context(_run_of(workspace.interrupted_run, f"train {parameters.family}", opened))
        workspace.record_run(run.run_id)
        launcher = Launcher(
            workspace.folder,
            spec,
            parameters,
            environment=os.environ,
            run_id=run.run_id,
            say=_say,
            on_ranks=run.log_progress,
            agent=agent,
        )
        try:
            yield run, launcher.fit_all
        except BaseException as error:
            with runs.in_passing():
                _log_figures(run, launcher)
                if isinstance(error, RankError):
                    run.log_text(launcher.log(), "ranks.log")
            raise
        _log_figures(run, launcher)


def _log_figures(run: "Run", launcher: "Launcher") -> None:
    run.log_progress(launcher.last_epoch, launcher.figures())
    run.flush()


@contextmanager
def _run_of(interrupted: str, name: str, opened: "Run") -> Iterator["Run"]:
    from recsys.tracking import runs

    if not interrupted or interrupted == opened.run_id:
        yield opened
        return
    if not runs.can_go_on(interrupted):
        _say(f"run {interrupted} of the interrupted training is not here: it goes on in a run of its own")
        yield opened
        return
    _say(f"goes on with the interrupted training of run {interrupted}")
    opened.set_tags({"continued_run": interrupted})
    with runs.start_run(name, {"continued_by": opened.run_id}, interrupted) as run:
        yield run


def _say(text: str) -> None:
    print(text, flush=True)
