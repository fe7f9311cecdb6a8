"""The judge of a trial: looks at one server's record, ends the trial where the evidence says so, and writes it down."""

import json
import math
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from recsys.errors import in_one_line
from recsys.experiments.judging import Evidence, Verdict, judge
from recsys.runtime.files import write_atomically
from recsys.serving.trial_page import JUDGED
from recsys.settings import Settings
from steps.support import trial_record
from steps.support.runs import made_by

if TYPE_CHECKING:
    from recsys.monitoring.trial_evidence import Tally
    from registry.transitions import State
    from registry.trial_state import Trial

_DAY = 86_400.0
_WITHIN = 7 * _DAY  # feedback that names no request answers lists of at most so long ago
_MOST_LOOKS = 400  # of which the course is kept
_GRACE_SECONDS = 60.0  # for the judge that ended a trial to record that, before others do
_MOST_ATTEMPTS = 3  # to bring the challenger's form before it counts as broken


class Server(Protocol):
    """What a judge beside a server can do at once, without the registry."""

    def suspend(self, trial: str) -> None:
        """Show nobody the challenger any more."""

    def refusal(self, version: str) -> tuple[str, int]:
        """Why a version cannot be served, and how often that was tried."""


class Judge:
    """Judges the trials of one model by one server's file.

    The page beside the server holds what a start must not forget: since when the trial is known, a mismatch or an end
    that was found, and the course. All else is added up from the record again.
    """

    def __init__(self, model_name: str, folder: Path, parameters: Settings, server: Server | None = None) -> None:
        """Take a model and the folder of its server.

        Args:
            parameters: of the step that judges, which go on the record.
            server: that is told what must not wait; None where the judge runs apart.
        """
        self._model, self._folder, self._parameters, self._server = model_name, folder, parameters, server
        self._trial: Trial | None = None
        self._tally: Tally | None = None
        self._page = self._read()

    @property
    def knows_one(self) -> bool:
        """Whether a trial was running at the last look."""
        return bool(self._page.get("trial"))

    def look(self) -> Verdict | None:
        """Look once; the verdict on the trial that runs, None where none does.

        A server's judge begins with the trial that it knows: where the registry is away, a broken challenger is shown
        to nobody from then on all the same, and the registry is told once it is back.
        """
        if self._trial is not None and self._server is not None:
            self._judge(self._trial)
        self._follow()
        trial = self._trial
        if trial is None:
            return None
        verdict = self._judge(trial)
        if verdict.outcome is not None:
            self._end(trial, verdict)
        return verdict

    def _follow(self) -> None:
        """Take up the trial that the registry has, and let go of one that is over."""
        from registry import trials

        trial = trials.tidy(self._model, made_by()["author"]).trial
        known = self._page.get("trial")
        if known and (trial is None or trial.id != known):
            self._let_go()
        if trial is None:
            self._trial = self._tally = None
        elif self._trial is None or self._trial.id != trial.id or self._tally is None:
            self._begin(trial)
        else:
            self._trial = trial  # it may have been extended

    def _begin(self, trial: "Trial") -> None:
        from recsys.monitoring.trial_evidence import Tally
        from recsys.monitoring.trial_rows import TrialRows

        plan = trial.plan
        self._trial = trial
        self._tally = Tally(
            TrialRows(self._folder / "feedback.db", trial.id),
            reward=plan.trial_reward,
            like_threshold=trial.like_threshold or 0.0,
            latency=plan.trial_latency / 1000,
            shadow=trial.share is None,
            within=_WITHIN,
        )
        if self._page.get("trial") != trial.id:
            # Days are counted by this server's clock, from when it heard of the trial.
            self._page = {"trial": trial.id, "version": trial.version, "seen": time.time(), "course": []}

    def _judge(self, trial: "Trial") -> Verdict:
        assert self._tally is not None
        evidence = self._tally.look()
        if self._server is not None:
            said, attempts = self._server.refusal(str(trial.version))
            evidence = replace(evidence, unanswered=said if attempts >= _MOST_ATTEMPTS else "")
        days = (time.time() - self._page["seen"]) / _DAY
        verdict = judge(trial.plan, trial.share, evidence, days, mismatched=bool(self._page.get("mismatched")))
        if decided := self._page.get("decided"):  # at an earlier look, when the registry was away
            verdict = replace(verdict, outcome=decided["outcome"], reason=decided["reason"])
        if verdict.outcome is not None:
            self._page["decided"] = {"outcome": verdict.outcome, "reason": verdict.reason}
        self._page["mismatched"] = verdict.mismatched
        self._show(trial, evidence, verdict)
        if verdict.outcome == "rolled_back" and self._server is not None:
            self._server.suspend(trial.id)
        return verdict

    def _end(self, trial: "Trial", verdict: Verdict) -> None:
        assert verdict.outcome is not None
        trial_record.end_trial(self._model, trial, verdict.outcome, verdict.reason, self._parameters, self._page)
        self._let_go()
        self._trial = self._tally = None

    def _let_go(self) -> None:
        """See that the end of the trial known is on the record, whoever ended it, and on the page."""
        from registry import transitions, trial_state

        page = self._page
        state: State = transitions.read_state(self._model)
        found = trial_state.read_trial(state.find(int(page["version"])))
        if found is None or found.id != page["trial"]:
            outcome, why = "void", "the challenger is gone from the registry, or another trial took its place"
        else:
            outcome, why = found.outcome or "void", found.why
        over = page.setdefault("over", time.time())
        waits = time.time() - over < _GRACE_SECONDS
        if not trial_record.note_end(self._model, page, outcome, why, state.champion, self._parameters, waits=waits):
            return self._write()
        self._page = {**page, "trial": None, "of": page["trial"], "outcome": outcome, "reason": why}
        return self._write()

    def _show(self, trial: "Trial", evidence: Evidence, verdict: Verdict) -> None:
        """Bring the page to the disk, and the course one point further."""
        found = {name: _finite(value) for name, value in verdict.interval._asdict().items()}
        point = {
            "at": time.time(),
            "users": sum(one.users for one in evidence.rewards),
            **found,
            "guards": {guard.name: guard.log_evidence / guard.limit for guard in verdict.guards},
        }
        course = self._page["course"]
        if not course or [v for k, v in course[-1].items() if k != "at"] != [v for k, v in point.items() if k != "at"]:
            course = [*course, point]
        if len(course) > _MOST_LOOKS:
            course = [*course[:-1:2], course[-1]]  # every second, so that the beginning stays in sight
        self._page |= {
            "version": trial.version,
            "champion": trial.champion,
            "mode": trial.mode,
            "started": trial.started,
            "by": trial.by,
            "reward": trial.plan.trial_reward,
            "margin": trial.plan.trial_margin,
            "least": trial.plan.trial_least,
            "outcome": verdict.outcome or "",
            "reason": verdict.reason,
            "lists": evidence.lists,
            "users": evidence.users,
            "rewards": [asdict_of(one) for one in evidence.rewards],
            "interval": found,
            "guards": [
                {**asdict(guard), "score": guard.log_evidence / guard.limit, "failed": guard.failed}
                for guard in verdict.guards
            ],
            "mismatch": verdict.mismatch / verdict.mismatch_limit,
            "course": course,
        }
        self._write()

    def _write(self) -> None:
        if not self._folder.is_dir():
            return  # nothing was served yet
        with write_atomically(self._folder / JUDGED) as aside:
            aside.write_text(json.dumps(self._page, allow_nan=False) + "\n", encoding="utf-8")

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads((self._folder / JUDGED).read_text(encoding="utf-8"))
            if found["trial"] and not {"version", "seen", "course"} <= found.keys():
                return {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return dict(found)


def asdict_of(summary: Any) -> dict[str, float]:
    """A named tuple as a page shows it."""
    return dict(summary._asdict())


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def watch(judge_of: Judge, every: float, wait: Any, tell: Any) -> None:
    """Look again and again until `wait(seconds)` says to stop; what the registry raises is told, once each."""
    told = ""
    while not wait(every):
        try:
            verdict = judge_of.look()
            said = "" if verdict is None or verdict.outcome is None else verdict.reason
        except Exception as error:  # whatever a client of a registry or of a database raises
            said = f"note: the trial is not judged now ({in_one_line(error)})" if judge_of.knows_one else ""
        if said and said != told:
            tell(said)
        told = said
