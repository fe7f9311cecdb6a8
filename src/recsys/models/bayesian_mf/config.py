"""Settings of Bayesian matrix factorization."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from recsys.settings import Settings


def _check_folder(path: str) -> str:
    if path != "none" and not Path(path).is_absolute():
        raise ValueError("expected the absolute path of a folder, or none")
    return path


class Config(Settings):
    """Settings of Bayesian matrix factorization."""

    embedding_size: int = Field(30, ge=1, le=1024, description="factors per user and item")
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
