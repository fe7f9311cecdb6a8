"""What happens, chapter by chapter. Every chapter leaves what it claims; demo.claims holds it against the record."""

import contextlib
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demo.people import TAKE, People
from demo.site import MODEL, Site
from demo.visits import Visit
from recsys.models.base.family import family_module
from steps.monitor import monitor
from steps.promote import promote
from steps.retrain import retrain
from steps.support.parameters import MonitorParameters, PromoteParameters, TrainParameters
from steps.support.retraining_parameters import RetrainParameters
from steps.support.trial_parameters import TrialParameters
from steps.train import train
from steps.trial import trial as stop_trial

CHAMPION, BETTER, MIXED_UP, SLOW = 1, 2, 3, 4  # versions, in the order in which they are trained
SLOW_SECONDS, SLOW_EVERY = 0.5, 10  # far above what a list takes on a busy machine; one list in so many
_TRIAL = {"trial": 0.5, "trial_reward": TAKE, "trial_gain": 0.2, "trial_least": 20}
# What the numbers on test rows say is not asked here: the story is about what users say.
_ANY = {"max_rmse": 4.0, "beat_bias": False, "beat_popularity": False, "max_auc_per_user_drop": 1.0}
_FIRST = 500  # the oldest ratings, of the first days, from which the first champion learns
_AT_A_TIME = 60  # visits between two looks of the judge
_BEFORE, _DRIFTED = 200, 350  # visits
_MORE = 50  # visits after the retraining
_TRIAL_SECONDS = 900.0  # a machine may be busy: the visits end before


class Story:
    """The chapters, in their order, over one site."""

    def __init__(self, site: Site, rows: NDArray[np.int64], visits: list[Visit], people: People) -> None:
        self.site, self.people = site, people
        self._rows, self._visits = rows, visits
        self._began, self.began_at = time.monotonic(), time.time()
        self.happened: list[tuple[float, str]] = []
        self.marks: list[tuple[float, str]] = []  # what the picture shows of it
        self.facts: dict[str, Any] = {"drift_at": 0.0, "monitored": {}}

    def tell(self) -> None:
        """All of it."""
        self._mark("four versions are trained, two with something wrong")
        self._train()
        self.site.start(f"{SLOW}:{SLOW_SECONDS}:{SLOW_EVERY}")
        self.site.wait_for(CHAMPION)
        self._say(f"the server answers by version {CHAMPION} on {self.site.address}/status")
        self._mark(f"version {CHAMPION} answers, of the oldest {_FIRST} ratings")
        self.people.visit(self._take(_BEFORE))
        self._say(f"{self.people.seen.lists:,} lists, {self.people.seen.given:,} events of feedback")
        self.trial(BETTER, "version 2, of the whole older half")
        self.trial(MIXED_UP, "version 3, of an export whose item ids are mixed up")
        self.trial(SLOW, f"version 4, of which one list in {SLOW_EVERY} takes {SLOW_SECONDS:g} s longer")
        self._drift()

    def _train(self) -> None:
        """Four versions: two good ones, one that no test of its own data finds wrong, and one that will be slow."""
        older, first = self._write("ratings.csv", self._rows), self._write("first.csv", self._rows[:_FIRST])
        random = np.random.default_rng(0)
        items = np.unique(self._rows[:, 1])
        mixed = self._rows.copy()
        mixed[:, 1] = random.permutation(items)[np.searchsorted(items, mixed[:, 1])]
        self.facts["datasets"] = {}
        # The fourth is tested on the newest ratings, some of which the second has learnt from: only so can it win.
        made: tuple[tuple[int, str, dict[str, Any], dict[str, Any]], ...] = (
            (CHAMPION, "matrix_factorization", {"ratings": first}, {"embedding_size": 4}),
            (BETTER, "bayesian_mf", {"ratings": older}, {"samples": 12, "time": "false"}),
            (MIXED_UP, "matrix_factorization", {"ratings": self._write("mixed.csv", mixed)}, {"embedding_size": 16}),
            (SLOW, "matrix_factorization", {"ratings": older, "split": "time"}, {"embedding_size": 16}),
        )
        for number, family, given, settings in made:
            with self._quietly():
                parameters = TrainParameters(
                    **self._common(), **given, family=family, forward=False, on_change="ignore"
                )
                version = train(parameters, family_module(family).Config(**settings))
            assert version.number == number, f"version {number} was expected, it is {version.number}"
            self.facts["datasets"][number] = version.tags["data_version"]
            self._say(f"version {number} is trained: {family}")
            if number == CHAMPION:
                with self._quietly():
                    promote(PromoteParameters(**self._common(), **_ANY, version=number))
                self._say(f"version {number} is in Production")

    def trial(self, number: int, what: str) -> None:
        """Put a version on trial, and have users come until the server has ended it."""
        with self._quietly():
            promote(
                PromoteParameters(
                    **self._common(),
                    **_TRIAL,
                    **_ANY,
                    version=number,
                    dataset=self.facts["datasets"][number],
                )
            )
        self._say(f"{what}, is on trial with half of the users")
        self._mark(f"{what}, on trial")
        limit = time.monotonic() + _TRIAL_SECONDS
        kept = 2 * _DRIFTED + _MORE  # for what comes after
        while self._on_trial() == number and len(self._visits) > kept:
            self.people.visit(self._take(_AT_A_TIME))
            seen = time.time()
            while self.site.judged() < seen and self._on_trial() == number and time.monotonic() < limit:
                time.sleep(0.05)
        if self._on_trial() == number:  # no user is left for it: the claim does not hold, and the story goes on
            with self._quietly():
                stop_trial(TrialParameters(model_name=MODEL, folder=str(self.site.folder), action="stop"))
        ended = self._ended(number)
        self._say(f"the trial of version {number}: {ended}")
        self._mark(
            f"version {number} is {ended.partition(':')[0]} by the server{', for its latency' * ('latency' in ended)}"
        )

    def _drift(self) -> None:
        """Ratings fall by a point: monitor alarms, and the champion is trained again."""
        before = time.time()
        self.people.visit(self._take(_DRIFTED))
        self.facts["monitored"]["before"] = self._look(before)
        self._say(f"monitor looks: {self.facts['monitored']['before'] or 'no harm'}")
        started = self.facts["drift_at"] = time.time()
        self._mark("users rate a point lower: drift")
        self.people.visit(self._take(_DRIFTED), lambda rating: max(1.0, rating - 1.0))
        self._say("from here on users rate a point lower")
        self.facts["monitored"]["after"] = self._look(started)
        self._say(f"monitor alarms: {self.facts['monitored']['after']}")
        self._mark("monitor alarms")
        champion = self._champion()
        self.facts["champion_before"] = champion
        with self._quietly():
            given = {**_ANY, "new_ratings": None, "max_age": None}
            self.facts["retrained"] = retrain(RetrainParameters(**self._common(), **given))
        number = self._champion()
        self._say(f"retrain: {self.facts['retrained']}, version {number} is in Production")
        self.facts["champion_after"] = number
        self.site.wait_for(number)
        self._say(f"the server answers by version {number}")
        self._mark(f"retrained and promoted: version {number} answers")
        self.people.visit(self._take(_MORE))

    def _look(self, since: float) -> str:
        time.sleep(0.5)  # the record is written a quarter of a second later
        with self._quietly():
            window = max(1.0, time.time() - since)
            report = monitor(MonitorParameters(**self._common(), window=window, page=False))
        return ", ".join(one.name for one in report.alarms if one.severity != "notice")

    def _champion(self) -> int:
        from registry import transitions

        return int(transitions.read_state(MODEL).champion or 0)

    def _on_trial(self) -> int | None:
        from registry import transitions

        running = transitions.read_state(MODEL).trial
        return running.version if running else None

    def _ended(self, number: int) -> str:
        from registry import transitions
        from registry.trials import past_trials

        found = [trial for trial in past_trials(transitions.read_state(MODEL)) if trial.version == number]
        return f"{found[0].outcome.replace('_', ' ')}: {found[0].why}" if found and found[0].outcome else "undecided"

    def _take(self, count: int) -> list[Visit]:
        taken, self._visits = self._visits[:count], self._visits[count:]
        return taken

    def _write(self, name: str, rows: NDArray[np.int64]) -> str:
        path = self.site.folder / name
        np.savetxt(path, rows, "%d", delimiter=",", header="user_id,item_id,rating,timestamp", comments="")
        return str(path)

    def _common(self) -> dict[str, Any]:
        return {"folder": str(self.site.folder), "model_name": MODEL}

    def _say(self, sentence: str) -> None:
        self.happened.append((time.monotonic() - self._began, sentence))
        print(f"{self.happened[-1][0]:6.1f} s  {sentence}", flush=True)

    def _mark(self, sentence: str) -> None:
        self.marks.append((time.monotonic() - self._began, sentence))

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """What the steps print goes to a file beside the server's log."""
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                yield
        finally:
            with (self.site.folder / "steps.log").open("a") as log:
                log.write(said.getvalue())
