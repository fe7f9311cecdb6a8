"""The parameters of the steps that look at versions: whether they are what they were, and where they come from."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from recsys.settings import OptionalInt
from steps.support.parameter_groups import Recording, Registering


class VerifyParameters(Registering):
    """Of `verify`."""

    version: Annotated[int, Field(ge=1)] | Literal["all"] | None = Field(
        None, description="version to verify, or all; none: the newest"
    )

    @field_validator("version", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        return None if value in ("none", "") else value


class RebuildParameters(VerifyParameters, Recording):
    """Of `rebuild`."""

    version: Annotated[int, Field(ge=1)] | Literal["all"] | None = Field(
        None, description="version to train again, or all; none: the newest"
    )
    ratings: str = Field(
        "", description="where its ratings are now, if their dataset is not here any more; empty: where they were"
    )
    code: Literal["commit", "here"] = Field(
        "commit", description="train by the code of the version's commit, where this clone has it, or by that here"
    )


class LineageParameters(Registering, Recording):
    """Of `lineage`."""

    version: OptionalInt = Field(None, ge=1, description="version whose way is shown; none: the newest")
    ratings: str = Field("", description="instead: the versions that learnt from this file, folder or pattern")
    user: str = Field("", description="instead: the versions that learnt from the user of this id")
