"""From a dataset and a family's settings to a recommender: learn, choose on validation, learn again from both."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from recsys.data.dataset import Dataset
from recsys.data.interactions import Interactions
from recsys.errors import InputError
from recsys.models.base.capabilities import capabilities, family_names
from recsys.models.base.family import FitOptions, Memo, Report, StoredFeatures, check_feedback, family_module
from recsys.models.base.knowledge import Knowledge, sorted_pairs
from recsys.models.base.list_recommender import ListRecommender
from recsys.models.base.recommender import Recommender
from recsys.settings import Settings
from recsys.training import out_of_core
from recsys.training.fit_task import FitTask, RecodedRows, Recoding, make_fit_task
from recsys.training.forward import ForwardFit, hold_back_newest
from recsys.training.lists import add_lists, learn_lists_as

FitAll = Callable[[Iterable[FitTask[Interactions]], Report | None], list[Recommender]]
"""Fits one task after the other, those without validation rows with the first's recommender as their warm start; only
the first is reported."""


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """The recommenders of a training.

    `chosen` learnt from the training rows alone, so that its measures on the validation rows are honest; `final`
    is what goes into use: with `refit` it learnt from both, else it is the same. `forward` is for measuring only.
    """

    chosen: Recommender
    final: Recommender
    forward: ForwardFit | None = None


def train(
    family: str,
    dataset: Dataset,
    config: Settings,
    *,
    seed: int,
    refit: bool = True,
    report: Report | None = None,
    gigabytes: float | None = None,
    fit_all: FitAll | None = None,
    lists: bool = True,
    forward: bool = False,
    stored: StoredFeatures | None = None,
    warm_start: Recommender | None = None,
    begin: Callable[[str], None] | None = None,
    task: FitTask[Interactions] | None = None,
) -> TrainingResult:
    """Train one family on a dataset; the same arguments give the same recommender on the same machine.

    Args:
        gigabytes: memory to use, in 10^9 bytes; if the rows need more, a family that can reads them from disk. None:
            half of what is available.
        fit_all: fits the tasks elsewhere. None: in this process.
        lists: also learn what lists are made from; families of lists always do.
        forward: also fit to the older rows alone, where there are timestamps and the rows are in memory. Not with
            `stored`, which knows the newest.
        stored: features that a feature store keeps, for a family that takes them.
        warm_start: an earlier recommender of the family to go on from; the dataset is one of `warm_start.divide_anew`.
            One fit, whose choices are the earlier ones, of lists too; `refit` and `forward` do not count.
        begin: told in words what begins after the first fit, for a person who waits.
        task: of `shared_task`, for one fit; `refit`, `forward` and `warm_start` are not for it.

    Raises:
        InputError: if the family needs ratings and the dataset has none, or if the rows do not fit in memory and are
            needed there.
    """
    check_feedback(family, dataset)
    if stored is not None and not capabilities(family).stored_features:
        able = [name for name in family_names() if capabilities(name).stored_features]
        raise InputError(f"parameter 'feature_store': {', '.join(able)} learns from one, got family {family!r}")
    if warm_start is not None:
        return _go_on(family, dataset, config, seed, report, warm_start, lists=lists)
    streamed = task is None and out_of_core.is_needed(family, dataset, gigabytes)
    if fit_all is not None and streamed:
        raise InputError(
            f"parameter 'processes': a training from disk is one of a single process, and all "
            f"{dataset.size('train'):,} rows do not fit in the memory allowed; pass processes=1, or more memory"
        )
    before = hold_back_newest(dataset) if forward and not (streamed or stored) else None
    tasks: Iterator[FitTask[Any]]
    if task is not None:
        tasks = iter([task])
    else:
        tasks = out_of_core.fit_tasks(dataset, refit) if streamed else fit_tasks(dataset, refit)
    if before is not None:
        tasks = chain(tasks, fit_tasks(before, refit=False))
    begin = begin or _tell_nobody
    tasks = _announced(tasks, begin)
    fitted = fit_all(tasks, report) if fit_all else _fit_here(family, tasks, config, seed, report, stored)
    measured = None if before is None else ForwardFit(fitted.pop(), before)
    chosen, final = fitted[0], fitted[-1]
    if lists or capabilities(family).implicit:
        begin("lists")
        add_lists(chosen, final, dataset)
    if measured is not None and chosen.lists is not None:
        measured.recommender.lists = learn_lists_as(chosen.lists, measured.recommender, measured.dataset)
        if isinstance(measured.recommender, ListRecommender) and isinstance(chosen, ListRecommender):
            measured.recommender.answering_as(chosen)
    return TrainingResult(chosen, final, measured)


def _go_on(
    family: str,
    dataset: Dataset,
    config: Settings,
    seed: int,
    report: Report | None,
    earlier: Recommender,
    *,
    lists: bool,
) -> TrainingResult:
    """One fit to the training rows that goes on from an earlier recommender."""
    task = _task_in_memory(dataset, dataset.train, first=earlier.knowledge)
    options = FitOptions(seed, warm_start=earlier, report=report)
    fitted = family_module(family).fit(task.knowledge, task.rows, config, options)
    if lists and earlier.lists is not None:
        fitted.lists = learn_lists_as(earlier.lists, fitted, dataset)
    elif lists:
        add_lists(fitted, fitted, dataset)
    return TrainingResult(fitted, fitted)


def _tell_nobody(what: str) -> None:
    """The default of `begin`."""


def _announced(tasks: Iterable[FitTask[Any]], begin: Callable[[str], None]) -> Iterator[FitTask[Any]]:
    for number, task in enumerate(tasks):
        if task.validation is None:
            begin("all rows")
        elif number:
            begin("older rows, to measure on the newest")
        yield task


def _fit_here(
    family: str,
    tasks: Iterable[FitTask[Any]],
    config: Settings,
    seed: int,
    report: Report | None,
    stored: StoredFeatures | None,
) -> list[Recommender]:
    module = family_module(family)
    fitted: list[Recommender] = []
    for task in tasks:
        warm_start = fitted[0] if task.validation is None else None
        told = None if fitted else report
        options = FitOptions(seed, task.validation, warm_start, told, stored=stored, memo=task.memo)
        fitted.append(module.fit(task.knowledge, task.rows, config, options))
    return fitted


def shared_task(family: str, dataset: Dataset) -> FitTask[Interactions] | None:
    """What trainings of a family that differ in their settings can all fit to, in place of making it each time anew.

    It takes memory as long as it is kept. None where rows are read from disk.

    Raises:
        InputError: as `train`.
    """
    check_feedback(family, dataset)
    if out_of_core.is_needed(family, dataset, None):
        return None
    return replace(next(fit_tasks(dataset, refit=False)), memo=Memo())


def fit_tasks(dataset: Dataset, refit: bool) -> Iterator[FitTask[Interactions]]:
    """The training rows, with validation rows to choose by; then, with `refit`, both together."""
    first = _task_in_memory(dataset, dataset.train, validation=dataset.validation)
    yield first
    if refit:
        yield _task_in_memory(dataset, dataset.train.joined(dataset.validation), first=first.knowledge)


def _task_in_memory(dataset: Dataset, rows: Interactions, **given: Any) -> FitTask[Interactions]:
    def recode(recoding: Recoding) -> RecodedRows[Interactions]:
        recoded = recoding.apply(rows)
        return RecodedRows(recoded, lambda: [recoded], sorted_pairs(recoded))

    return make_fit_task(dataset, lambda: [rows], recode, **given)


def learn_knowledge(dataset: Dataset) -> tuple[Knowledge, Interactions]:
    """What is known from the training and validation rows together, and those rows in its codes.

    Raises:
        InputError: if they do not fit in memory.
    """
    out_of_core.check_memory("the baselines, which learn", dataset, "evaluate on a machine with more")
    *_, both = fit_tasks(dataset, refit=True)
    return both.knowledge, both.rows
