"""Trial: what is on trial and how it stands; stop it, or let it go on for longer."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.serving.trial_page import JUDGED
from steps.support import trial_record
from steps.support.entrypoint import run_step
from steps.support.runs import made_by, name_own_run
from steps.support.trial_parameters import TrialParameters

if TYPE_CHECKING:
    from recsys.experiments.replay import Replayed
    from registry.transitions import State
    from registry.trial_state import Trial


def trial(parameters: TrialParameters) -> "Trial | Replayed | None":
    """Say how the trial stands, stop it, or extend it; the trial as it was when it was asked for.

    Or replay a version's lists; what came of that.
    """
    from registry import transitions, trials

    name = parameters.model_name
    if parameters.action == "status":
        name_own_run("trial, status")
        state = transitions.read_state(name)
        print(_told(state, parameters))
        return state.trial
    if parameters.action == "extend":
        name_own_run("trial, extend")
        extended = trials.extend(name, parameters.users, parameters.days)
        plan = extended.plan
        print(
            f"the trial of version {extended.version} ends undecided after {plan.trial_users:,} users or "
            f"{plan.trial_days:g} days"
        )
        return extended
    if parameters.action == "replay":
        return _replay(parameters)
    running = trials.find_or_raise_trial(transitions.read_state(name))
    why = f"{made_by()['author']} stopped it"
    trial_record.end_trial(name, running, "stopped", why, parameters, _page(parameters, running.id))
    print(f"the trial of version {running.version} is stopped; version {running.champion} stays in Production")
    return running


def _replay(parameters: TrialParameters) -> "Replayed":
    from registry import versions
    from steps.support.replay import replay_version

    name_own_run("trial, replay")
    version = versions.find_or_raise_version(parameters.model_name, parameters.version)
    folder = Path(parameters.folder, parameters.store).absolute() / parameters.model_name
    found = replay_version(version, folder, time.time())
    print(
        f"version {version.number}'s lists in place of those shown to {found.users:,} users since it was trained: "
        f"likes a list {found.low:+.4f} to {found.high:+.4f} to the {found.shown:.4f} that there were (95%, and what "
        f"the record is silent about: it speaks for {found.covered:.0%} of these lists)"
    )
    return found


def _page(parameters: TrialParameters, identity: str) -> dict[str, Any] | None:
    """What the judge of the server in `store` wrote of this trial; None where it is elsewhere."""
    path = Path(parameters.folder, parameters.store).absolute() / parameters.model_name / JUDGED
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if found.get("trial") == identity else None


def _told(state: "State", parameters: TrialParameters) -> str:
    from registry.trials import past_trials

    lines = []
    running = state.trial
    if running is None:
        lines.append(f"no version of {state.name} is on trial")
    else:
        plan = running.plan
        lines.append(
            f"version {running.version} is on trial against version {running.champion} {running.mode} since "
            f"{running.started[:16].replace('T', ' ')} (UTC), started by {running.by}"
        )
        limits = f"{plan.trial_users:,} {'lists' if running.share is None else 'users'} or {plan.trial_days:g} days"
        lines.append(f"ends undecided after {limits}; reward: {plan.trial_reward}, margin {plan.trial_margin:g}")
        page = _page(parameters, running.id)
        lines.append(f"as judged last: {page['reason']}" if page and "reason" in page else "not judged here yet")
    lines += [
        f"before: version {one.version}, {one.ended[:16].replace('T', ' ')}, {one.outcome.replace('_', ' ')}: {one.why}"
        for one in past_trials(state)
        if one.outcome
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    run_step("trial", trial)
