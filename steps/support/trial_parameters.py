"""The parameters of the steps that deal with a trial."""

from typing import Literal, Self

from pydantic import Field, model_validator

from recsys.settings import OptionalFloat, OptionalInt, OptionalSeconds
from steps.support.parameter_groups import STORE, Recording, Registering


class TrialParameters(Recording, Registering):
    """Of `trial`."""

    action: Literal["status", "stop", "extend", "replay"] = Field(
        "status",
        description="say how it stands, stop or extend it; replay: before a trial, what a version's lists would have "
        "brought, from the record",
    )
    version: OptionalInt = Field(None, ge=1, description="replay: the version; none: the newest")
    users: OptionalInt = Field(None, ge=1, description="extend: users with a reward after which it ends undecided")
    days: OptionalFloat = Field(None, gt=0, description="extend: days after which it ends undecided")
    store: str = STORE

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.action == "extend" and self.users is None and self.days is None:
            raise ValueError("parameter 'action': extend needs -P users=… or -P days=…")
        return self


class JudgeParameters(Recording, Registering):
    """Of `judge`."""

    store: str = STORE
    every: OptionalSeconds = Field(None, description="judge again and again, so often, such as 1m; none: once")
