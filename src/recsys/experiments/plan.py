"""What a trial is: how many see the challenger, what counts as reward, and when it ends."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from recsys.settings import Settings

LIKE, RATING = "like", "rating"
SHADOW: Literal["shadow"] = "shadow"


def _share(value: object) -> object:
    """A share as text or number; none where there is no trial."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if text in ("", "none"):
        return None
    if text == SHADOW:
        return SHADOW
    try:
        return float(text)
    except ValueError:
        raise ValueError("expected a share of users between 0 and 1, shadow, or none") from None


Share = Annotated[
    Annotated[float, Field(gt=0, lt=1)] | Literal["shadow"] | None,
    BeforeValidator(_share),
]
"""The share of users that are shown the challenger; `shadow`: nobody is, it answers beside; None: no trial."""


class Plan(Settings):
    """When a trial ends and how: settled at its start, so that nobody changes the rules while looking."""

    trial_reward: str = Field(
        LIKE,
        min_length=1,
        description="what a user's value is: like (likes among what was rated), rating (their mean), or a type of "
        "feedback (the share of the user's lists that it answered)",
    )
    trial_margin: float = Field(
        0.0, ge=0, description="how much less reward a challenger may bring and still be promoted"
    )
    trial_alpha: float = Field(
        0.05,
        gt=0,
        lt=0.5,
        description="most probable that a challenger that is worse than the margin allows is ever promoted, however "
        "often it is looked at; shared among the servers that judge",
    )
    trial_guard_alpha: float = Field(
        0.01,
        gt=0,
        lt=0.5,
        description="most probable that a guard (errors, latency, empty lists, fallback) ever takes a faultless "
        "challenger for a broken one",
    )
    trial_gain: float = Field(
        0.02, gt=0, description="difference in reward for which the test is quickest; it holds for every other"
    )
    trial_least: int = Field(100, ge=2, description="users of each arm with a reward before rewards decide")
    trial_users: int = Field(
        20_000, ge=1, description="users with a reward, or in shadow mode lists, after which it ends undecided"
    )
    trial_days: float = Field(14.0, gt=0, description="days after which it ends undecided")
    trial_latency: float = Field(
        10.0, ge=0, description="milliseconds above the champion's 99th percentile beyond which a list is slow"
    )
    trial_fallback: float = Field(
        1.25, ge=1, description="how many times the champion's share of lists of what is popular is allowed"
    )
    trial_servers: int = Field(
        1, ge=1, description="servers that judge, each by its own record; the error probabilities are shared among them"
    )
