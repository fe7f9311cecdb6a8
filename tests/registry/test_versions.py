import json

import pytest
from pipeline import Store

from recsys.errors import InputError
from registry import versions

TAGS = {
    "family": "bias",
    "data_version": "d" * 32,
    "test_digest": "e" * 32,
    "split": "hash",
    "ratings": "/data/my.csv",
    "git_commit": "0123456789abcdef",
    "git_dirty": "true",
    "author": "Anna",
    "validation": '{"rmse": 0.9}',
}
MEASURED = {"rmse": 0.91234, "mae": 0.7, "auc": 0.8123456789, "auc_per_user": 0.7, "rows": 100.0}


@pytest.fixture
def register(registry: Store):
    """Registers versions of logged models that hold nothing: a hundredth of a second each."""
    run = registry.client.create_run("0")

    def register(count: int = 1, name: str = "recsys", **tags: str) -> list[versions.Version]:
        made = []
        for _ in range(count):
            model = registry.client.create_logged_model("0", "recommender", source_run_id=run.info.run_id)
            made.append(versions.register(run.info.run_id, model.model_id, name, TAGS | tags))
        return made

    return register


def stages(registry: Store, name: str = "recsys") -> dict[int, str]:
    found = registry.client.search_model_versions(f"name = '{name}'", max_results=1000)
    return {int(version.version): version.current_stage for version in found}


def test_a_registered_version_says_what_it_is(registry, register):
    (version,) = register()
    assert (version.name, version.number, version.stage, version.family) == ("recsys", 1, "None", "bias")
    assert version.tags == TAGS
    assert version == versions.find_or_raise_version("recsys", 1)
    for part in (
        "bias: not evaluated yet",
        "/data/my.csv",
        "d" * 32,
        "0123456789ab with uncommitted changes",
        "RMSE 0.9000",
        "Anna",
    ):
        assert part in version.description
    assert "champion" in registry.client.get_registered_model("recsys").description


def test_the_logged_model_leads_to_its_version(registry, register):
    (version,) = register()
    tags = registry.client.get_logged_model(version.model_id).tags
    assert json.loads(tags["mlflow.modelVersions"]) == [{"name": "recsys", "version": version.number}]


def test_versions_are_listed_by_number_not_by_text(register):
    register(11)
    assert [version.number for version in versions.list_versions("recsys")] == list(range(1, 12))
    assert versions.find_or_raise_version("recsys").number == 11


def test_versions_of_other_models_are_not_listed(register):
    register(2)
    register(1, name="recsys-2")
    assert [version.number for version in versions.list_versions("recsys")] == [1, 2]
    assert [version.number for version in versions.list_versions("recsys-2")] == [1]


def test_more_versions_than_a_page_are_all_listed(register, registry, monkeypatch):
    register(5)
    search = type(registry.client).search_model_versions

    def by_two(self, filter_string=None, max_results=2, **rest):
        return search(self, filter_string, max_results=2, **rest)

    monkeypatch.setattr(versions.MlflowClient, "search_model_versions", by_two)
    assert [version.number for version in versions.list_versions("recsys")] == [1, 2, 3, 4, 5]


def test_a_model_that_nobody_registered_has_no_versions(registry):
    assert versions.list_versions("recsys") == []
    with pytest.raises(InputError, match=r"model 'recsys' has no version in sqlite:///.*; run the entry point train"):
        versions.find_or_raise_version("recsys")
    with pytest.raises(InputError, match="model 'recsys' has no version"):
        versions.find_or_raise_version("recsys", 3)


def test_a_version_that_is_not_there_is_told_with_those_that_are(register):
    register(3)
    with pytest.raises(InputError, match=r"^parameter 'version': one of model 'recsys''s versions \(1, 2, 3\), got 7$"):
        versions.find_or_raise_version("recsys", 7)


def test_a_deleted_version_is_gone_and_its_number_is_not_used_again(register, registry):
    register(3)
    registry.client.delete_model_version("recsys", "3")
    assert versions.find_or_raise_version("recsys").number == 2
    assert register()[0].number == 4
    assert [version.number for version in versions.list_versions("recsys")] == [1, 2, 4]


def test_metrics_are_remembered_to_the_last_digit_for_each_test_set(register):
    (version,) = register()
    assert version.metrics_on("one") is None
    versions.record_metrics(version, "one", MEASURED)
    recorded = versions.record_metrics(version, "two", MEASURED | {"auc": 0.5})
    assert recorded.metrics_on("one") == MEASURED
    assert recorded.metrics_on("two")["auc"] == 0.5
    assert recorded == versions.find_or_raise_version("recsys", 1)


def test_the_description_tells_the_latest_measures(register):
    (version,) = register()
    recorded = versions.record_metrics(version, "one", MEASURED)
    assert recorded.description.startswith("bias: AUC 0.8123, per-user AUC 0.7000, RMSE 0.9123, MAE 0.7000.")
    assert "`one`" in recorded.description
    recorded = versions.record_metrics(recorded, "two", MEASURED | {"rmse": 1.5})
    assert "RMSE 1.5000" in recorded.description
    assert "`two`" in recorded.description
    assert "`one`" not in recorded.description


def test_a_measure_that_is_undefined_on_the_latest_test_set_is_not_told_from_an_earlier_one(register):
    (version,) = register()
    recorded = versions.record_metrics(version, "one", MEASURED)
    recorded = versions.record_metrics(recorded, "two", {"rmse": 1.5, "mae": 1.0})
    assert "AUC" not in recorded.description
    assert "auc" not in recorded.tags


def test_one_version_is_in_production_after_every_promotion(register, registry):
    made = register(3)
    for version in (made[0], made[2], made[2], made[1]):
        versions.promote_version(version)
        found = stages(registry)
        assert [number for number, stage in found.items() if stage == "Production"] == [version.number]
        assert int(registry.client.get_model_version_by_alias("recsys", "champion").version) == version.number
    assert stages(registry) == {1: "Archived", 2: "Production", 3: "Archived"}
    assert versions.find_or_raise_version("recsys", 2).stage == "Production"


@pytest.mark.filterwarnings("ignore:.*transition_model_version_stage:FutureWarning")
def test_a_promotion_mends_two_in_production(register, registry):
    made = register(3)
    for number in ("1", "2"):
        registry.client.transition_model_version_stage("recsys", number, "Production")
    versions.promote_version(made[2])
    assert stages(registry) == {1: "Archived", 2: "Archived", 3: "Production"}


@pytest.mark.filterwarnings("ignore:.*transition_model_version_stage:FutureWarning")
def test_a_version_in_staging_stays_there(register, registry):
    made = register(2)
    registry.client.transition_model_version_stage("recsys", "1", "Staging")
    versions.promote_version(made[1])
    assert stages(registry) == {1: "Staging", 2: "Production"}


def test_a_version_of_another_tool_is_listed_and_refused_by_name(registry):
    registry.client.create_registered_model("recsys")
    registry.client.create_model_version("recsys", "s3://bucket/model", tags={"by": "another tool"})
    (foreign,) = versions.list_versions("recsys")
    assert (foreign.family, foreign.model_id, foreign.description) == (None, None, "")
    assert foreign.metrics_on("one") is None
    with pytest.raises(InputError, match=r"version 1 of 'recsys' was not registered by recsys \(no tag 'family'\)"):
        versions.load_version(foreign)


def test_a_version_whose_files_are_gone_is_told(register):
    (version,) = register()
    with pytest.raises(InputError, match=r"^version 1 of 'recsys' cannot be loaded \(.*\); train it again$") as caught:
        versions.load_version(version)
    assert "\n" not in str(caught.value)
