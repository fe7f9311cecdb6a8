"""What `retrain` is told beside the policy of promotion."""

from typing import Literal

from pydantic import Field

from recsys.retraining.reasons import Rules
from recsys.settings import OptionalFloat, OptionalSeconds, Seconds
from steps.support.parameter_groups import STORE, Trying


class RetrainParameters(Trying, Rules):
    """Of `retrain`: when to train again, from what, and how."""

    every: OptionalSeconds = Field(None, description="look again and again, so often, such as 1h; none: once")
    ratings: str = Field("", description="ratings in place of those that the champion's came from; empty: these")
    store: str = STORE
    database: str = Field(
        "",
        description="team's MySQL that keeps the feedback of several servers, without a password; empty: "
        "RECSYS_FEEDBACK_DATABASE, or else the file in store",
    )
    since: str = Field(
        "",
        description="feedback received from then on, as 2026-11-29T12:00; empty: as in the retraining that made the "
        "champion, or all",
    )
    within: Seconds = Field(  # type: ignore[assignment]
        "7d", description="feedback that names no request answers lists of at most so long ago"
    )
    kinds: str = Field(
        "auto",
        description="types of feedback to learn from, by commas; auto: rating, or all where only takes count",
    )
    propensities: OptionalFloat = Field(
        None,
        gt=1,
        description="without ratings: takes of feedback count by one over the recorded probability that the item was "
        "shown, at most this, such as 10; none: all alike",
    )
    memory: Literal["auto"] | float = Field("auto", description="GB to use; auto: half of what is free")
    on_change: Literal["warn", "refuse", "ignore"] = Field(
        "warn", description="ratings that differ much from those of the retraining before: warn, refuse or ignore"
    )
    warm_start: bool = Field(True, description="go on from the champion where its family can; false: from scratch")
    tune: bool = Field(False, description="search settings anew instead of taking the champion's")
    trials: int = Field(20, ge=0, description="of the search: trials to complete or prune")
    timeout: OptionalFloat = Field(
        None, gt=0, description="of the search: seconds until no further trial starts, or none"
    )
    dry_run: bool = Field(False, description="say whether a retraining is due and why, and train nothing")
