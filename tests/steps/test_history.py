"""The history of models that no record of ours tells of."""

import pytest
from mlflow.tracking import MlflowClient

from tests.support.pipeline import VERSION_TAGS, Store


@pytest.fixture
def registered(store: Store) -> MlflowClient:
    """A client of a store with versions 1 and 2, neither of which was ever moved."""
    store.client.create_registered_model("recsys")
    for _ in range(2):
        store.client.create_model_version("recsys", "s3://bucket/nothing", tags=VERSION_TAGS)
    return store.client


def test_before_the_first_promotion_nobody_is_in_production(registered, step, capsys):
    step("history")
    assert capsys.readouterr().out.splitlines()[-1] == "no version is in Production"


@pytest.mark.parametrize("by", ["alias", "stage"])
def test_a_champion_whom_another_client_put_there_is_named(registered, step, capsys, by):
    if by == "alias":
        registered.set_registered_model_alias("recsys", "champion", "2")
    else:
        registered.transition_model_version_stage("recsys", "2", "Production")
    step("history")
    assert "version 2 is in Production, which no record explains" in capsys.readouterr().out
