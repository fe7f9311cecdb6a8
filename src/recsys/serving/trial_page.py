"""What the judge of a trial wrote beside the server, as metrics."""

from collections.abc import Iterator, Mapping
from typing import Any

from recsys.experiments.assignment import ARMS
from recsys.serving.monitored import Sample

JUDGED = "trial.json"


def trial_samples(content: Mapping[str, Any]) -> list[Sample]:
    """All numbers of the judge's last look; none where there is no trial, or the file is not of this form."""
    try:
        return [one for one in _samples(content) if isinstance(one[3], int | float)]
    except (KeyError, TypeError, IndexError, AttributeError):
        return []


def _samples(content: Mapping[str, Any]) -> Iterator[Sample]:
    if not content:
        return
    trial = {"version": str(content["version"])}
    yield "recsys_trial_running", "1 while the version is on trial", trial, float(not content["outcome"])
    for arm, lists, users, reward in zip(ARMS, content["lists"], content["users"], content["rewards"], strict=True):
        of_arm = {**trial, "arm": arm}
        yield "recsys_trial_lists", "Lists of the trial", of_arm, lists
        yield "recsys_trial_users", "Users of the trial", of_arm, users
        yield "recsys_trial_reward", "Mean reward a user", of_arm, reward["mean"]
    for bound, value in content["interval"].items():
        yield "recsys_trial_difference", "Reward, challenger less champion", {**trial, "bound": bound}, value
    for guard in content["guards"]:
        yield "recsys_trial_guard", "Above 1: rolled back", {**trial, "guard": guard["name"]}, guard["score"]
    yield "recsys_trial_mismatch", "Above 1: users are not in arms as they should", trial, content["mismatch"]
