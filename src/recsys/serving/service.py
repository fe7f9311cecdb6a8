"""What a worker serves with: the version, the feedback, the metrics."""

import json
import logging
import math
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from recsys.arrays import Ids
from recsys.errors import InputError
from recsys.experiments.assignment import CHAMPION, arm_of
from recsys.serving.engine import Engine, History
from recsys.serving.feedback import FeedbackStore, Given
from recsys.serving.form import open_form
from recsys.serving.http import ProblemError
from recsys.serving.kept_lists import KeptLists
from recsys.serving.metrics import Metrics
from recsys.serving.monitored import Monitored
from recsys.serving.record import Recorder, WriterProcess
from recsys.serving.settings import ServingSettings
from recsys.serving.trial_page import JUDGED

if TYPE_CHECKING:
    from recsys.models.base.recommender import Predictions

POINTER = "current.json"
FEEDBACK = "feedback.db"
CALL = "registry-changed"  # touched by a worker that the registry has called
ARM = CHAMPION
_log = logging.getLogger("recsys.serving")


class Scorer(Protocol):
    """Scores pairs of raw ids, whose users were learnt from."""

    def predict(self, user_ids: Ids, item_ids: Ids) -> "Predictions":
        """Expected ratings and probabilities of a like, (n,) each."""


@dataclass(frozen=True, eq=False)
class Served:
    """A version that answers, and since when."""

    engine: Engine
    version: str
    family: str
    since: float
    about: Mapping[str, Any]
    scorer: "Scorer | None" = None
    """What scores pairs in place of the engine: the version itself, over a feature store, or its graph."""
    kept: KeptLists | None = None
    """Lists that it made; None where none are kept."""


@dataclass(frozen=True, eq=False)
class OnTrial:
    """A challenger, and who is shown it; without `served` where it could not be opened here."""

    id: str
    share: float | None  # None: nobody, it answers beside
    served: Served | None

    def arm_of(self, user: str) -> str:
        """The arm of a user: the same in every process of every server."""
        return CHAMPION if self.share is None else arm_of(user, self.id, self.share)


def load(folder: Path) -> Served:
    """Open a form, ask it what its maker asked it, and take it if it answers the same; raises InputError."""
    form = open_form(folder)
    engine = Engine.of_form(form)
    if wrong := engine.differs_from(form.about["probe"]):
        raise InputError(f"{folder}: it does not answer as it did where it was made ({wrong}); delete the folder")
    return Served(engine, form.label, str(form.about["family"]), time.time(), form.about)


def told(engine: Engine, given: Sequence[Given]) -> dict[int, float]:
    """What feedback says of each known item, NaN where it is no rating; the newest last."""
    found: dict[int, float] = {}
    for name, rating in given:
        if (item := engine.items.find(name)) >= 0:
            found.pop(item, None)
            found[item] = math.nan if rating is None else rating
    return found


class Service:
    """The state of one worker. `served` changes between two requests and never within one."""

    def __init__(self, settings: ServingSettings) -> None:
        self.settings = settings
        self.folder = Path(settings.folder)
        self.store = FeedbackStore(self.folder / FEEDBACK, settings.max_waiting)
        self.metrics = Metrics()
        self.monitored = Monitored(self.folder)
        self.judged = Monitored(self.folder, JUDGED)
        self.recorder = self._recorder() if settings.record else None
        self.served: Served | None = None
        self.trial: OnTrial | None = None
        self.pointer: dict[str, Any] = {}
        self.problem = ""
        self.lag = 0.0
        self._read = 0

    def _recorder(self) -> Recorder:
        def count(outcome: str, lists: int) -> None:
            self.metrics.record.labels(outcome).inc(lists)

        return Recorder(lambda: WriterProcess(self.folder / FEEDBACK, self.settings.retention), count)

    def close(self) -> None:
        """Write what waits."""
        self.store.close()
        if self.recorder is not None:
            self.recorder.close()

    def current(self) -> Served:
        """The version that answers; refuses where there is none yet."""
        if self.served is None:
            refused = next(iter(self.pointer.get("refused", {}).values()), "")
            nothing = "no version is served yet; promote one, it is loaded then"
            raise ProblemError(503, self.problem or refused or nothing, 2)
        return self.served

    def is_behind(self) -> bool:
        """Whether the pointer has changed since it was followed. It is looked at often, which must cost nothing."""
        try:
            return (self.folder / POINTER).stat().st_mtime_ns != self._read
        except OSError:
            return False

    def follow(self) -> None:
        """Take the version that the pointer names, if it has changed; one that fails leaves the old in its place."""
        path = self.folder / POINTER
        try:
            changed = path.stat().st_mtime_ns
            if changed == self._read:
                return
            pointer = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        self._read = changed
        self.pointer = pointer
        self.metrics.registry_up.set(not pointer.get("registry_problem"))
        self._follow_champion(pointer)
        self.trial = self._follow_trial(pointer.get("trial"))

    def _follow_champion(self, pointer: dict[str, Any]) -> None:
        if not pointer.get("form"):
            return
        folder = self.folder / pointer["form"]
        if self.served is not None and self.served.about.get("folder") == str(folder):
            return
        try:
            found = load(folder)
            scorer = self._scorer(folder, found.engine)
        except (InputError, OSError) as error:
            self.problem = str(error)
            return
        before = (self.served.version, self.served.family) if self.served else None
        about = {**found.about, "folder": str(folder)}
        kept = KeptLists(self.settings.kept_lists) if self.settings.kept_lists else None
        self.served = replace(found, about=about, scorer=scorer, kept=kept)
        self.problem = ""
        self.metrics.serve(found.version, found.family, before)

    def _follow_trial(self, said: dict[str, Any] | None) -> OnTrial | None:
        """The trial that the pointer names, whose challenger is opened once."""
        if not said or self.recorder is None or said.get("suspended"):
            return None  # a trial without a record is one that nobody can judge
        if self.trial is not None and self.trial.id == said["id"] and self.trial.served is not None:
            return self.trial
        served: Served | None = None
        if said.get("form"):
            try:
                served = load(self.folder / said["form"])
            except (InputError, OSError) as error:
                self.problem = str(error)
        return OnTrial(str(said["id"]), said["share"], served)

    def _scorer(self, folder: Path, engine: Engine) -> Scorer | None:
        if self.settings.runtime == "onnx":
            from recsys.serving import graph_scores

            return graph_scores.load_scorer(folder, engine.users, engine.items)
        if not self.settings.feature_store:
            return None
        from recsys.serving.stored_scores import load_scorer  # brings scikit-learn and Feast

        return load_scorer(folder, self.settings.feature_store, self.settings.feature_database)

    def history(self, engine: Engine, user: str) -> tuple[int, History]:
        """A user's code, -1 for an unknown one, and history, with all feedback that is on the disk."""
        code, given = self.find_user(engine, user)
        return code, engine.history(code, told(engine, given))

    def find_user(self, engine: Engine, user: str) -> tuple[int, list[Given]]:
        """A user's code, and all feedback of the user that is on the disk, in its order."""
        code = engine.users.find(user)
        if code < 0:
            self.metrics.unknown_users.inc()
        return code, self.store.of_user(user)

    def report(self, error: Exception) -> None:
        """Write a fault of ours to the log, with its place and without what was asked."""
        frames = traceback.extract_tb(error.__traceback__)[-4:]
        places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
        _log.error("%s at %s", type(error).__name__, places)
