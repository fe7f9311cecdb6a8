"""Tune: a family's settings searched, by this process or several, here or on many machines; the best is registered."""

import contextlib
import gc
import importlib
import io
import json
import os
import platform
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.data.dataset import Dataset
from recsys.errors import InputError
from recsys.tuning import database_url, search_space
from steps.prepare import prepare_once
from steps.support.entrypoint import TICKET, connect, run_step
from steps.support.parameters import STORAGE, TrainParameters, Tuning
from steps.support.progress import ProgressDisplay
from steps.support.runs import made_by, open_run
from steps.support.signals import GracefulStop
from steps.support.worker_pool import WorkerPool
from steps.train import train

if TYPE_CHECKING:
    from recsys.tracking.runs import Run
    from recsys.tracking.studies import TrialRecord
    from recsys.tuning.objective import Curves
    from recsys.tuning.search import Search
    from recsys.tuning.study import SearchConfig
    from recsys.tuning.trials import EndedTrial
    from registry.versions import Version

_POLL_SECONDS = 0.2


def tune(parameters: Tuning, pool: WorkerPool | None = None) -> "Version | None":
    """Take part in a search until it is over; the version that came of it, None without `register`.

    One process of all that take part trains the best settings on all rows that are not test, and registers them.

    Args:
        pool: of the workers that `parameters` asks for, where the caller has it open already.
    """
    url = storage_url(parameters)
    if ticket := os.environ.get(TICKET):
        _help_out(parameters, url, **json.loads(ticket))
        return None
    if parameters.workers == 1 or pool is not None:
        return _search(parameters, url, pool)
    with WorkerPool(parameters.workers, parameters.family) as opened:
        return _search(parameters, url, opened)


def tune_as_program(parameters: Tuning) -> None:
    """Connect to MLflow and `tune`. Workers import what they need while this process does."""
    if parameters.workers == 1:
        connect(parameters)
        gc.freeze()  # what was imported stays: to look for rubbish among it takes a fifth of a second
        tune(parameters)
        return
    with WorkerPool(parameters.workers, parameters.family) as pool:
        connect(parameters)
        tune(parameters, pool)


def _search(parameters: Tuning, url: str, pool: WorkerPool | None) -> "Version | None":
    from recsys.tracking import studies
    from recsys.tuning.search import Search

    with open_run(f"tune {parameters.family}", model_type=parameters.family) as run:
        run.log_parameters(parameters)
        dataset = prepare_once(parameters, parameters.folder, parameters.memory, parameters.on_change)
        run.set_tags({"data_version": dataset.digest})
        run.log_dataset(dataset, "tuning")
        config = _search_config(parameters)
        search = Search(config, dataset, url, _study_name(parameters, config, dataset), platform.node() or "localhost")
        search.join(works=pool is None)
        parent = _parent(search, parameters, dataset)
        studies.adopt(parent)
        run.set_tags({"study": search.name, studies.WORKER: search.worker})
        until = None if parameters.timeout is None else time.time() + parameters.timeout
        display = ProgressDisplay(config.metric, until)
        _announce(search)
        with _taking_part(search, parent):
            if pool is None:
                _run_trials(search, parent, display)
            else:
                _employ(search, parent, parameters, url, until, display, pool)
            outcome = _see_to_its_end(search, parent, parameters, dataset)
        return _conclude(outcome, parameters, run)


def storage_url(parameters: Tuning) -> str:
    """The database of the studies: as given, from the environment, or a file beside the caller.

    Raises:
        InputError: if the environment's is no URL.
    """
    folder = Path(parameters.folder).absolute()
    url = str(parameters.storage)
    if url == "auto":
        url = os.environ.get(STORAGE) or f"sqlite:///{folder / 'studies.db'}"
        try:
            database_url.check_url(url)
        except InputError as error:
            raise InputError(f"{STORAGE}: {error}") from None
    if database_url.is_sqlite(url):
        file = database_url.sqlite_path(url)
        url = url.replace(f"/{file}", f"/{folder / file}", 1) if not Path(file).is_absolute() else url
    return url


def _search_config(parameters: Tuning) -> "SearchConfig":
    from recsys.tuning.objective import LOWER_IS_BETTER
    from recsys.tuning.study import SearchConfig

    direction = "minimize" if parameters.metric in LOWER_IS_BETTER else "maximize"
    return SearchConfig(
        family=parameters.family,
        metric=parameters.metric,
        direction=direction if parameters.direction == "auto" else parameters.direction,
        ranges=search_space.read_ranges(parameters.space, parameters.family),
        sampler=parameters.sampler,
        trials=parameters.trials,
        timeout=parameters.timeout,
        seed=parameters.seed,
        heartbeat=parameters.heartbeat,
    )


def _study_name(parameters: Tuning, config: "SearchConfig", dataset: Dataset) -> str:
    """As given, or one that a search of something else does not have."""
    if parameters.study != "auto":
        return str(parameters.study)
    name = f"{config.family}-{dataset.digest[:12]}"
    if (config.metric, config.direction) != ("auc", "maximize"):
        name += f"-{config.direction}-{config.metric}"
    return name + (f"-{search_space.digest_ranges(config.ranges)}" if config.ranges else "")


def _parent(search: "Search", parameters: Tuning, dataset: Dataset) -> str:
    """The study's run, which all who take part share; it is found through the study."""
    from recsys.tracking import studies

    here = database_url.masked(studies.tracking_uri())
    about = {"family": parameters.family, "study": search.name, "metric": search.config.metric}
    about |= {"direction": search.config.direction, "sampler": parameters.sampler}
    about |= {"space": parameters.space or "default"}

    def find(state: dict[str, Any]) -> str:
        run_id = state.get("run")
        if run_id and not studies.has_run(run_id):
            if state["tracking"] != here or search.others_alive():
                raise InputError(
                    f"study {search.name!r} keeps its runs in {state['tracking']}, got MLFLOW_TRACKING_URI={here}, "
                    f"where run {run_id} is not; set it alike on every machine, or pass another -P study=…"
                )
            run_id = None  # its tracking database was removed: the study goes on in a new run
        if not run_id:
            tags = made_by() | {"study": search.name, "model_type": parameters.family, "data_version": dataset.digest}
            run_id = studies.find_or_make_parent(state["key"], f"study {search.name}", tags)
        studies.log_once(str(run_id), about)  # under the lock: two at once would log a parameter twice
        state |= {"run": run_id, "tracking": here}
        return str(run_id)

    parent = search.coordinator.transact(find)
    studies.resume_status(parent)
    return parent


def _announce(search: "Search") -> None:
    progress = search.progress()
    done = progress.done + progress.pruned
    aim = f"to {progress.target}" if progress.target is not None else "until time is up"
    history = f", which has {done} trials" if done else ""
    print(f"search {search.number} of study {search.name}{history}: {aim}", flush=True)


@contextlib.contextmanager
def _taking_part(search: "Search", parent: str) -> Any:
    """Signs of life while at work; the study's run does not stay RUNNING when the last one leaves early."""
    from recsys.tracking import studies

    status = "FAILED"
    try:
        with search.at_work():
            yield
        return
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        if search.outcome() is None and not search.others_alive():
            studies.end(parent, status)


def _run_trials(search: "Search", parent: str, display: ProgressDisplay) -> None:
    """Run trials until the search needs no more, and put each on record."""
    from recsys.tracking import studies

    def ended(trial: "EndedTrial", curves: "Curves") -> None:
        record = _record(trial, search.name, curves)
        studies.record_trial(parent, record)
        display.trial(trial, record.tags.get("error"), record.metrics["seconds"])
        display.status(search.progress)

    alone = TICKET not in os.environ  # else the process that started this one says so for all
    with GracefulStop("stopping after the running trial; once more to stop at once" if alone else "") as stop:
        search.run(ended, stop.stopped, lambda: display.status(search.progress))
    display.end()


def _see_to_its_end(search: "Search", parent: str, parameters: Tuning, dataset: Dataset) -> dict[str, Any]:
    """What came of a search that needs no more trials: one process of all finds out, the others wait for it."""
    from recsys.tracking import studies
    from recsys.tuning.search import SupersededError

    superseded = False
    while (answer := search.contend()) != "over":
        if answer == "wait":
            time.sleep(_POLL_SECONDS)
            continue
        try:
            found = _finish(search, parent, parameters, dataset)
            studies.end(parent, "FINISHED")
            search.close(found)
        except SupersededError:
            superseded = True
        except BaseException:
            search.concede()
            raise
    if superseded:
        studies.end(parent, "FINISHED")  # which this process has shown as running since
    outcome = search.outcome()
    assert outcome is not None
    return outcome


def _finish(search: "Search", parent: str, parameters: Tuning, dataset: Dataset) -> dict[str, Any]:
    """Put the whole study on record, train its best settings and register them, unless that was done already."""
    from recsys.tracking import studies
    from recsys.tuning import plots
    from recsys.tuning.trials import counts, share_saved, value_of
    from registry import versions

    trials = [trial for trial in search.trials() if trial.state.is_finished()]
    studies.reconcile(
        parent, [_record(trial, search.name) for trial in trials], [search.worker, *search.others_alive()]
    )
    best, config = search.best()
    metric, saved = search.config.metric, share_saved(trials)
    with studies.resumed(parent) as run:
        run.log_metrics({f"best_validation_{metric}": value_of(best), "pruning_saved": saved, **counts(trials)})
        run.set_tags({"best_trial": str(best.number)})
        run.log_figures(plots.study_figures(search.study, metric))
        run.log_json(config.model_dump(), "best_params.json")
        outcome = {"trial": best.number, "value": value_of(best), "trials": len(trials), "saved": saved}
        if not parameters.registers:
            return outcome | {"version": None}
        # A worker that died after registering, before it could say so, is not to be followed by a second version.
        trained = {"study": search.name, "study_run": parent, "search": str(search.number), "trial": str(best.number)}
        mark = {"study": f"{search.name}, search {search.number}, trial {best.number} of run {parent[:8]}"}
        version = versions.find_tagged(parameters.model_name, mark)
        if version is None:
            kept = parameters.model_dump(include=set(TrainParameters.model_fields))

            def once(register: "Callable[[], Version]") -> "Version":
                # The training took a while: if this process was paused meanwhile, another one may have finished.
                with search.finishing():
                    return versions.find_tagged(parameters.model_name, mark) or register()

            tags = trained | {studies.WORKER: search.worker}
            version = train(TrainParameters(**kept), config, dataset, tags, mark, once)
        run.set_tags({"version": str(version.number)})
    return outcome | {"version": version.number}


def _conclude(outcome: dict[str, Any], parameters: Tuning, run: "Run") -> "Version | None":
    from registry import versions

    saved = f"; pruning saved about {outcome['saved']:.0%} of the time" if outcome["saved"] else ""
    metric = "AUC" if parameters.metric == "auc" else parameters.metric
    said = f"best of {outcome['trials']} trials: trial {outcome['trial']}, validation {metric} {outcome['value']:.4f}"
    print(said + saved)
    run.describe(said)
    if outcome["version"] is None:
        return None
    run.set_tags({"version": str(outcome["version"])})
    return versions.find_or_raise_version(parameters.model_name, outcome["version"])


def _employ(
    search: "Search",
    parent: str,
    parameters: Tuning,
    url: str,
    until: float | None,
    display: ProgressDisplay,
    pool: WorkerPool,
) -> None:
    """Have the processes of a pool run the trials, and watch over them; raises InputError if none saw them done."""
    ticket = {"number": search.number, "until": until, "parent": parent}
    changes = {"folder": str(Path(parameters.folder).absolute()), "storage": "auto", "study": search.name}
    given = parameters.model_dump() | changes | {"workers": 1}
    with GracefulStop("stopping after the running trials; once more to stop at once") as stop:
        with pool.working(given, {TICKET: json.dumps(ticket), STORAGE: url}):
            _import_for_the_end(parameters)
            while pool.at_work():
                if stop.asked:
                    pool.ask_to_stop()
                display.status(search.progress)
                pool.wait(_POLL_SECONDS)
        display.end()
    statuses = pool.statuses()
    if 0 not in statuses:
        ends = [f"killed by {signal.Signals(-code).name}" if code < 0 else f"status {code}" for code in statuses]
        raise InputError(
            f"study {search.name!r}: all {parameters.workers} workers ended before the search did ({', '.join(ends)}); "
            "run the same line again to go on"
        )


def _import_for_the_end(parameters: Tuning) -> None:
    """What this process needs once the trials are done, while others run them."""
    importlib.import_module("recsys.tuning.plots")
    importlib.import_module("sklearn.ensemble")  # by which Optuna says how important parameters are
    if parameters.registers:
        importlib.import_module("recsys.training.trainer")


def _help_out(parameters: Tuning, url: str, number: int, until: float | None, parent: str) -> None:
    """A worker that another process of this machine started: it has no run of its own."""
    from recsys.tuning.search import Search

    with contextlib.redirect_stdout(io.StringIO()):
        dataset = prepare_once(parameters, parameters.folder, parameters.memory, parameters.on_change)
    search = Search(_search_config(parameters), dataset, url, parameters.study, platform.node() or "localhost")
    if not search.join(number, until):
        return
    with search.at_work():
        _run_trials(search, parent, ProgressDisplay(parameters.metric, until, shared=True))


def _record(trial: "EndedTrial", study: str, curves: "Curves | None" = None) -> "TrialRecord":
    """A trial as it goes on record; without `curves`, those that its worker left in the study."""
    from recsys.tracking.studies import TrialRecord
    from recsys.tuning.trials import milliseconds, note_of

    note = note_of(trial)
    tags = {"study": study} | {key: str(note[key]) for key in ("host", "worker", "error") if key in note}
    if trial.state.name == "FAIL":
        tags.setdefault("error", "its worker died")
    start, end = milliseconds(trial.datetime_start), milliseconds(trial.datetime_complete)
    return TrialRecord(
        number=trial.number,
        state=trial.state.name,
        start=start,
        end=end,
        config=trial.user_attrs.get("config", trial.params),
        metrics={f"validation_{name}": value for name, value in note.get("metrics", {}).items()}
        | {"seconds": float(note.get("seconds", (end - start) / 1000))},
        curves=curves if curves is not None else note.get("curves", {}),
        tags=tags,
    )


if __name__ == "__main__":
    run_step("tune", tune_as_program, connected=False)
