"""Settings of matrix factorization."""

from typing import Literal

from pydantic import Field

from recsys.settings import Settings


class Config(Settings):
    """Settings of matrix factorization."""

    embedding_size: int = Field(48, ge=1, le=4096, description="factors per user and item")
    learning_rate: float = Field(
        0.09, gt=0, le=1, description="step per rating in the first epoch; later epochs take smaller ones"
    )
    regularization: float = Field(0.06, ge=0, description="L2 penalty per rating on the factors and biases it uses")
    epochs: int = Field(100, ge=1, le=100_000, description="most passes over the ratings")
    patience: int = Field(8, ge=1, description="epochs without a better validation RMSE before training stops")
    batch_size: int = Field(
        8192,
        ge=1,
        description="ratings per gradient step on a GPU; a CPU takes one",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: the GPU where there is one")
