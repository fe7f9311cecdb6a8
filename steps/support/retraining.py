"""How a champion stands before a retraining: what it learnt from, what is new, what was tried."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.data.dataset import Dataset, digest_source
from recsys.data.preparation import Preparation
from recsys.data.readers.files import find_files
from recsys.errors import InputError
from recsys.retraining.reasons import Situation
from steps.monitor import HARM, UNTIL, find_looks, moment
from steps.prepare import locate
from steps.support import datasets, feedback_database
from steps.support.entrypoint import data_folder
from steps.support.parameters import TrainParameters
from steps.support.retraining_parameters import RetrainParameters

if TYPE_CHECKING:
    from recsys.models.base.recommender import Recommender
    from recsys.monitoring.archive import Archive
    from registry.versions import Version

_ORIGIN = "retrain.origin"
_TRIED = "retrain.champion"
# Of how a champion was trained; what names data, places or a training under way does not carry over.
_CARRIED = (
    "refit", "lists", "forward", "processes", "sharding", "checkpoint_minutes", "rank_timeout", "restarts",
    "feature_store",
)  # fmt: skip


@dataclass(frozen=True)
class Origin:
    """What a retraining took."""

    preparation: dict[str, Any]  # of the ratings, as the first champion of the line took them
    digest: str  # of their bytes
    rows: int  # about how many they were
    until: float  # feedback received before is in it
    since: float = 0.0  # but for what was received before that

    @property
    def name(self) -> str:
        """What the ratings are called."""
        return Path(str(self.preparation["ratings"])).name

    def tags(self) -> dict[str, str]:
        """As a tag of a run: that of the training, and once it has ended that of the retraining."""
        return {_ORIGIN: json.dumps(self.__dict__)}


@dataclass(frozen=True, eq=False)
class Standing:
    """A champion before a retraining."""

    champion: "Version"
    preparation: Preparation
    train: dict[str, Any]  # of the parameters that it was trained with, those that carry over
    implicit: bool
    situation: Situation
    notes: tuple[str, ...]
    recommender: "Callable[[], Recommender]"
    on_trial: int | None  # the version that is
    since: float  # feedback received before does not count


@dataclass(frozen=True, eq=False)
class Gathered:
    """The ratings to train from, written where `prepare` reads them."""

    preparation: Preparation
    origin: Origin
    counts: dict[str, float]
    sentence: str


def find_standing(parameters: RetrainParameters) -> Standing:
    """How things stand now.

    Raises:
        InputError: if there is no champion, or what it was made from is not known or cannot be compared with.
    """
    from registry import integrity, transitions

    registry = transitions.read_state(parameters.model_name)
    champion = registry.find(registry.champion)
    if champion is None:
        raise InputError(
            f"model {parameters.model_name!r} has no champion to retrain; run the entry points train and promote first"
        )
    made = integrity.read_parameters(champion)
    origin = _origin_of(champion)
    before, notes = _dataset_of(champion)
    described = origin["preparation"] if origin else before.preparation.model_dump() if before else made
    if not described:
        raise InputError(
            f"version {champion.number}: what it was prepared with is not known, since its dataset is gone and it is "
            "of an earlier release; run the entry points train and promote once"
        )
    known = {name: value for name, value in described.items() if name in Preparation.model_fields}
    preparation = Preparation(**known | ({"ratings": parameters.ratings} if parameters.ratings else {}))
    if preparation.split == "random":
        raise InputError(
            f"version {champion.number} was trained with split=random, which puts every rating anew into test or "
            "training rows: a retrained version could not be compared with it; train the champion with split=hash"
        )
    implicit = champion.tags.get("feedback") == "implicit"
    if parameters.propensities is not None and not implicit:
        raise InputError(
            f"parameter 'propensities': takes are weighed by it, and version {champion.number} learns from ratings, "
            "each alike; leave it out"
        )
    since = moment(parameters.since, "since") if parameters.since else (origin or {}).get("since", 0.0)
    situation, more = _situation(parameters, champion, preparation, before, since, implicit=implicit)
    train = {name: made[name] for name in _CARRIED if name in made and name in TrainParameters.model_fields}
    return Standing(
        champion,
        preparation,
        train,
        implicit,
        situation,
        (*notes, *more),
        cache(lambda: integrity.load_version(champion)),
        registry.trial.version if registry.trial else None,
        since,
    )


def gather(parameters: RetrainParameters, standing: Standing) -> Gathered:
    """Write the champion's ratings as they stand now, and all feedback, to one file in the data folder."""
    from recsys.retraining import feedback, ratings

    now = time.time()
    source, preparation = locate(standing.preparation, parameters.folder)
    seen = ratings.look_at(source)
    archive, since = _archive(parameters), standing.since
    kinds, implicit = _kinds(parameters), standing.implicit
    given = feedback.NOTHING
    if archive is not None:
        given = feedback.collect(archive, since, now, parameters.within, kinds=kinds, implicit=implicit)
    moment_of = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%S%f")
    path = data_folder() / "retraining" / parameters.model_name / f"ratings-{moment_of}.parquet"
    scale = None if implicit else standing.recommender().knowledge.scale
    prepared = ratings.write_ratings(
        path, source, preparation, given, implicit=implicit, clip=parameters.propensities, scale=scale
    )
    answering = int((given.requests != "").sum())
    counts = {
        "feedback_ratings": float(len(given)),
        "feedback_answering_lists": float(answering),
        "feedback_replaced": float(given.repeated),
        "feedback_passed_over": float(given.passed_over),
    }
    kind = "takes" if implicit else "ratings"
    return Gathered(
        prepared,
        Origin(preparation.model_dump(), seen.digest, seen.rows, now, since),
        counts,
        f"gathered {path}: about {seen.rows:,} {kind} of {source.name} and {len(given):,} of feedback "
        f"({answering:,} answer a list; {given.repeated:,} replaced by newer ones, {given.passed_over:,} passed over)",
    )


def _situation(
    parameters: RetrainParameters,
    champion: "Version",
    preparation: Preparation,
    before: Dataset | None,
    since: float,
    *,
    implicit: bool,
) -> tuple[Situation, list[str]]:
    from recsys.retraining import feedback, ratings

    now, notes = time.time(), list[str]()
    tried = _newest_try(parameters.model_name, champion)
    last = tried or _origin_of(champion)
    source, located = locate(preparation, parameters.folder)
    seen = ratings.look_at(source)
    if last is not None:
        grown = 0 if seen.digest == last["digest"] else max(0, seen.rows - last["rows"])
    else:
        same = digest_source(find_files(source), located) == champion.tags.get("data_version")
        grown = 0 if same or before is None else max(0, seen.rows - int(before.manifest["rows_read"]))
    until = max(last["until"] if last else 0.0, since)
    archive = _archive(parameters)
    given = 0
    if archive is None:
        notes.append("no server has kept feedback here (parameters store and database)")
    else:
        given = feedback.count(archive, until, now, kinds=_kinds(parameters), implicit=implicit)
    looks = [tags for tags in find_looks(parameters.model_name, str(champion.number)) if UNTIL in tags]
    newest = max(looks, key=lambda tags: float(tags[UNTIL]), default=None)
    return Situation(
        now=now,
        trained=champion.created,
        learnt=int(before.manifest["ratings"]) if before else seen.rows,
        new=grown + given,
        alarms=tuple(name for name in newest[HARM].split(", ") if name) if newest else (),
        looked=float(newest[UNTIL]) if newest else None,
        tried=tried["until"] if tried else None,
    ), notes


def _origin_of(champion: "Version") -> dict[str, Any] | None:
    """What the retraining that made a champion took; None for one that was trained by hand."""
    from recsys.tracking import runs

    recorded = runs.tags_of(champion.run_id).get(_ORIGIN)
    return json.loads(recorded) if recorded else None


def _newest_try(model_name: str, champion: "Version") -> dict[str, Any] | None:
    """What the last retraining from a champion took that came to an end."""
    from recsys.tracking import runs

    found = runs.find_runs({"retrain.model": model_name, _TRIED: str(champion.number)})
    ended = [json.loads(tags[_ORIGIN]) for _, tags in found if _ORIGIN in tags]
    return max(ended, key=lambda origin: float(origin["until"]), default=None)


def _dataset_of(champion: "Version") -> tuple[Dataset | None, list[str]]:
    try:
        return datasets.load(champion.tags.get("data_version", "")), []
    except InputError:
        return None, [f"the dataset of version {champion.number} is not on this machine"]


def _archive(parameters: RetrainParameters) -> "Archive | None":
    """The feedback of the team's database, or of the server of this folder; None where there is none."""
    from recsys.monitoring.archive import Archive

    if url := feedback_database.find_url(parameters.database):
        return Archive.of_team(url)
    folder = Path(parameters.folder, parameters.store).absolute() / parameters.model_name
    try:
        return Archive.of_folder(folder)
    except InputError:
        return None


def _kinds(parameters: RetrainParameters) -> list[str]:
    return [] if parameters.kinds == "auto" else [kind.strip() for kind in parameters.kinds.split(",") if kind.strip()]
