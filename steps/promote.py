"""Promote: all versions compared on one test set, the best moved to Production."""

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

from recsys.data.dataset import Dataset
from recsys.errors import InputError
from steps.evaluate import measure
from steps.support import datasets, decision_record, trial_record
from steps.support.entrypoint import NotPromotedError, run_step
from steps.support.parameters import PromoteParameters
from steps.support.runs import made_by, open_run

if TYPE_CHECKING:
    from registry.policy import Candidate, Decision
    from registry.transitions import State
    from registry.versions import Version

_DATA_VERSION = "data_version"  # tag of a version: the digest of the dataset that it learnt from
_LEAST_KNOWN = 0.1


def promote(parameters: PromoteParameters, dataset: Dataset | None = None) -> "Decision":
    """Compare all versions on the same test rows, those not yet measured there first, and promote the best.

    Raises:
        NotPromotedError: after the decision, where `require_promotion` is set and nobody was promoted.
    """
    from registry import transitions, trials

    with open_run("promote") as run:
        run.log_parameters(parameters)
        state = transitions.read_state(parameters.model_name)
        _check_versions(state, parameters.version)
        record = decision_record.Record(run, parameters)
        if parameters.repair:
            return _repair(parameters, record)
        dataset = dataset or _dataset(parameters.dataset, state)
        _check_classes(dataset)
        _check_reward(parameters, dataset)
        run.log_dataset(dataset, "test")
        run.set_tags({"data_version": dataset.digest})
        record.decide_on(dataset.test_digest)
        choose = _Chooser(parameters, dataset, record)
        if parameters.dry_run:
            decision = choose(state)
            record.finish(decision, "dry_run", dataset)
        elif parameters.trial is not None and state.champion is not None:
            decision = _put_on_trial(parameters, dataset, choose, record)
        else:
            trials.tidy(parameters.model_name, made_by()["author"])
            decision, mended = transitions.settle(parameters.model_name, choose, made_by()["author"])
            if mended:
                print("note: a promotion that had been interrupted was finished first")
            outcome = "promoted" if decision.changes else "none" if decision.winner is None else "kept"
            record.finish(decision, outcome, dataset)
            trials.tidy(parameters.model_name, made_by()["author"])  # a trial against the champion before is over
    if parameters.require_promotion and not decision.changes:
        raise NotPromotedError(decision.reason)
    return decision


def _put_on_trial(
    parameters: PromoteParameters, dataset: Dataset, choose: "_Chooser", record: decision_record.Record
) -> "Decision":
    """Let users decide between the champion and the version that would have been promoted."""
    from recsys.experiments.plan import SHADOW, Plan
    from registry import transitions, trials
    from registry.trial_state import Trial

    author = made_by()["author"]

    def make(decision: "Decision", state: "State") -> Trial:
        assert decision.winner is not None
        assert state.champion is not None
        plan = Plan(**parameters.model_dump(include=set(Plan.model_fields)))
        share = None if parameters.trial == SHADOW else parameters.trial
        threshold = None if dataset.implicit else float(dataset.like_threshold)
        moment = transitions.now()
        return Trial(secrets.token_hex(8), decision.winner, state.champion, share, moment, author, threshold, plan)

    decision, trial = trials.start(parameters.model_name, choose, make, author)
    if trial is None or not decision.changes:
        outcome = "promoted" if decision.changes else "none" if decision.winner is None else "kept"
        record.finish(decision, outcome, dataset)
        return decision
    if trial_record.is_begun(parameters.model_name, trial):
        reason = (
            f"version {trial.version} is on trial {trial.mode} since {trial.started[:16]} already, and that goes on as "
            f"it was begun; version {trial.champion} stays in Production. To begin with other settings stop it first: "
            "mlflow run . -e trial -P action=stop"
        )
        record.finish(replace(decision, winner=None, reason=reason), "none", dataset)
        return decision
    reason = f"{decision.reason}; first it is on trial {trial.mode}, and version {trial.champion} stays in Production"
    decision = replace(decision, reason=reason)
    trial_record.note_start(record, trial)
    record.finish(decision, trial_record.STARTED, dataset)
    return decision


class _Chooser:
    """Decides from the registry as it stands; measures what was not measured on the test set, once."""

    def __init__(self, parameters: PromoteParameters, dataset: Dataset, record: decision_record.Record) -> None:
        self.parameters = parameters
        self.dataset = dataset
        self.record = record
        self._unmeasurable: dict[int, str] = {}
        self._checked: set[int] = set()  # whose files are those registered

    def __call__(self, state: "State") -> "Decision":
        from registry import integrity, policy

        chosen = policy.Policy(**self.parameters.model_dump(include=set(policy.Policy.model_fields)))
        decision = policy.decide(
            [self._candidate(version, state) for version in state.versions],
            champion=state.champion,
            policy=chosen,
            scale=self.dataset.scale,
            implicit=self.dataset.implicit,
            test_rows=len(self.dataset.test),
        )
        winner = state.find(decision.winner) if decision.changes else None
        if winner is not None and winner.number not in self._checked:
            try:
                integrity.check_version(winner)
                self._checked.add(winner.number)
            except InputError as error:
                self._unmeasurable[winner.number] = str(error)
                return self(state)
        moves = self.parameters.trial is None or state.champion is None
        if decision.changes and moves and not self.parameters.dry_run:
            self.record.intend(decision)
        return decision

    def _candidate(self, version: "Version", state: "State") -> "Candidate":
        from registry.policy import Candidate

        family = version.family or "unknown"
        if version.family is None:
            return Candidate(version.number, family, version.stage, {}, "it was not registered by recsys")
        if (version.tags.get("feedback") == "implicit") != self.dataset.implicit:
            kind = "has none" if self.dataset.implicit else "has ratings"
            learnt = "with" if self.dataset.implicit else "without"
            reason = f"it learnt from data {learnt} ratings, and this test set {kind}"
            return Candidate(version.number, family, version.stage, {}, reason)
        digest = self.dataset.test_digest
        metrics = version.metrics_on(digest)
        measured = metrics is not None and version.replicates_on(digest) is not None and "makes_lists" in metrics
        asked = self.parameters.version in (None, version.number) or version.number == state.champion
        if not measured and asked and version.number not in self._unmeasurable:
            try:
                with open_run(f"evaluate version {version.number}") as run:
                    version = measure(version, self.dataset, run)
                metrics = version.metrics_on(digest)
            except InputError as error:
                self._unmeasurable[version.number] = str(error)
        problem = self._unmeasurable.get(version.number) or self._unfit(version, metrics or {}, state)
        lists = version.list_replicates_on(digest)
        return Candidate(
            version.number,
            family,
            version.stage,
            metrics or {},
            problem,
            replicates=version.replicates_on(digest),
            user_replicates=version.user_replicates_on(digest),
            list_replicates=lists.ndcg if lists else None,
            list_gains=lists.gain if lists else None,
            forward=version.forward,
        )

    def _unfit(self, version: "Version", metrics: dict[str, float], state: "State") -> str | None:
        from registry.trial_state import BARRING, read_trial

        asked = self.parameters.version
        if seen := int(metrics.get("seen_rows", 0)):
            return f"it learnt from {seen:,} of the {len(self.dataset.test):,} test ratings"
        # Where nearly everyone rated once, whose test rating is theirs is new to every version; its own data is no
        # other project's.
        own = version.tags.get(_DATA_VERSION) == self.dataset.digest
        if not own and (stranger := _stranger(metrics, len(self.dataset.test))):
            return stranger
        if asked is not None:
            return None if version.number in (asked, state.champion) else f"only version {asked} was asked for"
        if version.rolled_back:
            return f"it was {version.rolled_back}; ask for it with -P version={version.number}"
        trial = read_trial(version)
        if trial is not None and trial.outcome in BARRING and version.number != state.champion:
            ended = f"its trial against version {trial.champion} ended on {trial.ended[:10]} ({trial.why})"
            return f"{ended}; ask for it with -P version={version.number}"
        return None


def _repair(parameters: PromoteParameters, record: decision_record.Record) -> "Decision":
    from registry import transitions, trials
    from registry.policy import Decision

    trials.tidy(parameters.model_name, made_by()["author"])

    def stay(state: "State") -> Decision:
        return Decision(state.champion, state.champion, f"version {state.champion} is the champion as things stand")

    decision, mended = transitions.settle(parameters.model_name, stay, made_by()["author"])
    if decision.winner is None:
        print(f"{parameters.model_name} has no version in Production, there is nothing to repair")
        return decision
    print(f"{'repaired' if mended else 'nothing to repair'}: {decision.reason}")
    record.finish(decision, "repaired" if mended else "kept", None)
    return decision


def _dataset(digest: str, state: "State") -> Dataset:
    """The dataset asked for; by default the newest that a version of this model learnt from.

    The folder of datasets is the machine's: the newest of all may be another project's.
    """
    if digest != "newest":
        return datasets.load(digest)
    learnt = {version.tags[_DATA_VERSION] for version in state.versions if _DATA_VERSION in version.tags}
    return datasets.newest(learnt)


def _stranger(metrics: dict[str, float], rows: int) -> str | None:
    """Why a version that knows almost nobody or nothing of a test set cannot be judged by it; None where it can."""
    known = {side: 1 - metrics.get(f"unknown_{side}_rows", 0.0) / rows for side in ("user", "item")}
    if min(known.values()) >= _LEAST_KNOWN:
        return None
    return (
        f"it knows the user of {known['user']:.0%} and the item of {known['item']:.0%} of the test ratings, and at "
        f"least {_LEAST_KNOWN:.0%} of each is needed: are they of another project?"
    )


def _check_versions(state: "State", asked: int | None) -> None:
    from registry import versions

    if not state.versions:
        versions.find_or_raise_version(state.name)
    ours = [version.number for version in state.versions if version.family]
    known = ", ".join(map(str, ours))
    if not ours:
        raise InputError(f"model {state.name!r} has no version that recsys registered; run the entry point train first")
    if asked is not None and asked not in ours:
        raise InputError(f"parameter 'version': one of model {state.name!r}'s versions ({known}), got {asked}")


def _check_reward(parameters: PromoteParameters, dataset: Dataset) -> None:
    from recsys.experiments.plan import LIKE, RATING, SHADOW

    rated = parameters.trial_reward in (LIKE, RATING)
    if parameters.trial is not None and parameters.trial != SHADOW and dataset.implicit and rated:
        raise InputError(
            f"parameter 'trial_reward': a type of feedback, such as click, is needed for data without ratings, got "
            f"{parameters.trial_reward!r}"
        )


def _check_classes(dataset: Dataset) -> None:
    if dataset.implicit:
        return
    likes = int(dataset.likes(dataset.test).sum())
    if likes in (0, len(dataset.test)):
        raise InputError(
            f"dataset {dataset.digest}: comparing by AUC needs test ratings of both kinds, but {likes:,} of "
            f"{len(dataset.test):,} are at least like_threshold={dataset.like_threshold:g}; prepare with another "
            f"like_threshold between {dataset.scale[0]:g} and {dataset.scale[1]:g}"
        )


if __name__ == "__main__":
    run_step("promote", promote)
