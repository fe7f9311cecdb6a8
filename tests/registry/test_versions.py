import json
from dataclasses import replace

import numpy as np
import pytest

from recsys.errors import InputError
from registry import documents, integrity, versions
from registry.replicates import pack
from tests.support.pipeline import VERSION_TAGS as TAGS
from tests.support.services import free_port

MEASURED = {"rmse": 0.91234, "mae": 0.7, "auc": 0.8123456789, "auc_per_user": 0.7, "rows": 100.0}


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


def test_replicates_are_remembered_with_their_test_set(register):
    (version,) = register()
    replicates = MEASURED["auc"] + np.random.default_rng(0).normal(0, 0.01, 2000)
    recorded = versions.record_metrics(version, "one", MEASURED, replicates)
    np.testing.assert_allclose(recorded.replicates_on("one"), replicates, atol=2e-5)
    assert recorded.replicates_on("two") is None
    assert max(map(len, recorded.tags.values())) < 100


def test_replicates_of_the_per_user_auc_stand_beside(register):
    (version,) = register()
    replicates = [value + np.random.default_rng(0).normal(0, 0.01, 2000) for value in (MEASURED["auc"], 0.7)]
    recorded = versions.record_metrics(version, "one", MEASURED, *replicates)
    np.testing.assert_allclose(recorded.replicates_on("one"), replicates[0], atol=2e-5)
    np.testing.assert_allclose(recorded.user_replicates_on("one"), replicates[1], atol=2e-5)
    assert versions.record_metrics(version, "one", MEASURED, replicates[0]).user_replicates_on("one") is None


def test_what_an_earlier_release_measured_is_kept_and_not_compared(registry, register):
    """It asked for the test rows with their own timestamps."""
    earlier = {"evaluation.one": json.dumps(MEASURED), "replicates.one": "2026-11-22 AAAA", "evaluated_on": "one"}
    (version,) = register(**earlier, auc="0.8123")
    assert version.metrics_on("one") is None
    assert version.replicates_on("one") is None
    recorded = versions.record_metrics(version, "one", MEASURED | {"auc": 0.79}, np.array([0.7, 0.8]))
    assert recorded.metrics_on("one")["auc"] == 0.79
    assert recorded.tags["evaluation.one"] == earlier["evaluation.one"]
    assert "AUC 0.7900" in recorded.description
    assert "Measured as served on test set `one`" in recorded.description


def test_undefined_replicates_stay_so(register):
    (version,) = register()
    recorded = versions.record_metrics(version, "one", MEASURED, np.array([0.5, np.nan]))
    assert np.isnan(recorded.replicates_on("one")).tolist() == [False, True]


def test_what_was_measured_on_any_test_set_is_kept_and_no_tag_grows(register):
    (version,) = register()
    for digest in ("e", "d", "c", "b", "a"):
        version = versions.record_metrics(version, digest, MEASURED, np.array([0.8, 0.9]))
    assert all(version.replicates_on(digest) is not None for digest in "abcde")
    assert all(version.metrics_on(digest) == MEASURED for digest in "abcde")
    assert version.tags == TAGS | {"auc": "0.8123"}


def test_what_the_release_before_kept_in_tags_is_read(register):
    middle, deviations = 0.4, np.array([-0.01, 0.0, 0.01])
    drawn = f"{middle!r},{pack(middle + deviations, middle)}"
    recorded = {
        "evaluation.as-served.one": json.dumps(MEASURED),
        "replicates.as-served.one": f"2026-11-22T10:00 {pack(MEASURED['auc'] + deviations, MEASURED['auc'])}",
        "list_replicates.as-served.one": f"2026-11-22T10:00 {drawn} {drawn}",
        "forward": json.dumps({"digest": "f", "metrics": {"forward_auc": 0.7}}),
        "forward_replicates": json.dumps({"forward_auc": pack(0.7 + deviations, 0.7)}),
        "rolled_back": json.dumps({"to": 1, "by": "Anna", "at": "2026-11-22T10:00:00"}),
    }
    (version,) = register(**recorded)
    assert version.metrics_on("one") == MEASURED
    assert version.metrics_on("two") is None
    np.testing.assert_allclose(version.replicates_on("one"), MEASURED["auc"] + deviations, atol=2e-5)
    assert version.user_replicates_on("one") is None
    np.testing.assert_allclose(version.list_replicates_on("one").gain, middle + deviations, atol=2e-5)
    np.testing.assert_allclose(version.forward.replicates["forward_auc"], 0.7 + deviations, atol=2e-5)
    assert version.rolled_back == "rolled back by Anna on 2026-11-22"


def test_what_a_process_died_over_counts_as_not_measured(register, registry):
    (version,) = register()
    versions.record_metrics(version, "one", MEASURED)
    registry.client.log_text(version.run_id, '{"metrics": {"au', "version/evaluation.as-served.one.json")
    documents._read.cache_clear()
    assert version.metrics_on("one") is None
    assert versions.record_metrics(version, "one", MEASURED).metrics_on("one") == MEASURED


def test_a_version_whose_run_is_gone_cannot_be_measured(register, registry):
    (version,) = register()
    gone = replace(version, run_id="0" * 32)
    assert gone.metrics_on("one") is None
    with pytest.raises(InputError, match=f"run {'0' * 32}, which trained the version, is gone from MLflow"):
        versions.record_metrics(gone, "one", MEASURED)


def test_what_people_wrote_into_a_description_stays(register, registry):
    (version,) = register()
    registry.client.update_model_version("recsys", "1", f"{version.description}\n\nOurs: the autumn campaign.")
    told = versions.with_standing(
        versions.find_or_raise_version("recsys").description, "in Production since 2026-11-29"
    )
    registry.client.update_model_version("recsys", "1", told)
    recorded = versions.record_metrics(version, "one", MEASURED)
    first, second, third, *_, last = recorded.description.split("\n\n")
    assert first.startswith("bias: AUC 0.8123")
    assert (second, last) == ("In Production since 2026-11-29.", "Ours: the autumn campaign.")
    assert third == "Measured as served on test set `one`."
    assert recorded.standing == "in Production since 2026-11-29"
    assert "In Prod" not in versions.with_standing(recorded.description, "replaced by version 2 on 2026-11-30")


def test_a_name_that_differs_by_case_only_is_refused(register):
    register()
    with pytest.raises(InputError, match="'Recsys' differs from the registered model 'recsys' by case only"):
        register(name="Recsys")
    assert versions.find_model("rec_ys") is None  # no wildcard


def test_a_version_of_another_tool_is_listed_and_refused_by_name(registry):
    registry.client.create_registered_model("recsys")
    registry.client.create_model_version("recsys", "s3://bucket/model", tags={"by": "another tool"})
    (foreign,) = versions.list_versions("recsys")
    assert (foreign.family, foreign.model_id, foreign.description) == (None, None, "")
    assert foreign.metrics_on("one") is None
    with pytest.raises(InputError, match=r"version 1 of 'recsys' was not registered by recsys \(no tag 'family'\)"):
        integrity.load_version(foreign)


def test_a_store_that_does_not_answer_is_not_taken_for_a_damaged_version(registry, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    place = f"http://127.0.0.1:{free_port()}/api/2.0/mlflow-artifacts/artifacts/model"
    registry.client.create_registered_model("recsys")
    registry.client.create_model_version("recsys", place, tags={"family": "bias"})
    (version,) = versions.list_versions("recsys")
    with pytest.raises(InputError, match=f"cannot be had from {place}; .*start the server or store") as caught:
        integrity.load_version(version)
    assert "NewConnectionError" in str(caught.value)


def test_a_version_whose_files_are_gone_is_told(register):
    (version,) = register()
    with pytest.raises(InputError, match=r"^version 1 of 'recsys' cannot be loaded: .*; bring back ") as caught:
        integrity.load_version(version)
    assert "\n" not in str(caught.value)
