"""Settings of Bayesian matrix factorization."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from recsys.settings import Settings


def _check_folder(path: str) -> str:
    if path != "none" and not Path(path).is_absolute():
        raise ValueError("expected the absolute path of a folder, or none")
    return path


FEW, MANY, MANY_RATINGS = 30, 46, 250_000  # with the bias and the rating they fill whole lines of the cache


class Config(Settings):
    """Settings of Bayesian matrix factorization."""

    embedding_size: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = Field(
        "auto", description=f"factors per user and item; auto: {FEW}, or {MANY} from {MANY_RATINGS:,} ratings on"
    )
    samples: int = Field(
        30, ge=1, le=10_000, description="most posterior draws to keep; fewer once validation gains nothing"
    )
    implicit: Literal["auto", "true", "false"] = Field(
        "auto",
        description="learn from which items a user rated, whatever the rating; auto: if validation says it helps",
    )
    time: Literal["auto", "true", "false"] = Field(
        "auto", description="learn how a user's ratings go up and down with time; auto: where that helps as served"
    )
    user_noise: Literal["auto", "true", "false"] = Field(
        "auto", description="weigh a user's ratings by how consistent they are; auto: if validation says it helps"
    )
    chain: Annotated[str, AfterValidator(_check_folder)] = Field(
        "none", description="folder, by its absolute path, where a stopped training is kept and goes on; none: nowhere"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: the GPU where there is one")

    def factors(self, n_ratings: int) -> int:
        """The number of factors that so many ratings are learnt with."""
        if self.embedding_size == "auto":
            return MANY if n_ratings >= MANY_RATINGS else FEW
        return self.embedding_size
