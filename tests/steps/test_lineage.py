"""From a ratings file to what was decided on a version, and back."""

import pytest

from registry.trial_state import TRIAL, Trial, pack_trial
from tests.support.pipeline import grid, write_csv

ANY = {"max_rmse": 4, "beat_bias": False}


@pytest.fixture
def three(module_store, module_step):
    """Three versions: 1 of a file, 2 of the same place with other content, 3 found by a search; 2 was promoted."""
    home = module_store.home
    if not module_store.client.search_registered_models():
        write_csv(home / "grid.csv", grid())
        module_step("train", ratings="grid.csv", family="bias")
        (home / "grid.csv").rename(home / "before.csv")
        write_csv(home / "grid.csv", [*grid(), *(("somebody", f"i{item}", 1.0 + item % 5) for item in range(12))])
        module_step("train", ratings="grid.csv", family="bias")
        module_step("promote", version=2, **ANY)
        module_step("tune", ratings="grid.csv", family="bias", trials=1, study="small")
    return home


def shown(capsys, step, **parameters):
    capsys.readouterr()
    step("lineage", **parameters)
    return capsys.readouterr().out


def test_the_way_of_a_version_is_shown_and_logged(three, module_step, module_store, capsys):
    said = shown(capsys, module_step, version=2)
    kinds = [line.split()[0] for line in said.splitlines() if line[:1].strip()][1:]
    assert kinds[:5] == ["ratings", "dataset", "run", "version", "decision"]
    tags = module_store.client.get_model_version("recsys", "2").tags
    assert f"{three / 'grid.csv'}\n" in said
    assert "the bytes that it learnt from" in said
    assert f"dataset   {tags['data_version']}" in said
    trained = module_store.run_named("train bias").data.tags
    assert f"code {trained['git_commit'][:12]}" in said
    assert "seed 42" in said
    assert "UTC, promoted, by " in said
    run = module_store.run_named("lineage")
    assert {"lineage.json", "lineage.txt", "plots/lineage.png"} <= module_store.artifacts(run)
    assert f"prepared by run {module_store.run_named('prepare grid.csv').info.run_id}" in said


def test_ratings_that_changed_or_went_are_told(three, module_step, module_store, capsys):
    assert "changed since" in shown(capsys, module_step, version=1)
    (three / "grid.csv").rename(three / "moved.csv")
    assert "not here, or not readable" in shown(capsys, module_step, version=2)
    (three / "moved.csv").rename(three / "grid.csv")


def test_a_search_and_a_trial_with_users_are_stations(three, module_step, module_store, capsys):
    begun = Trial(id="t1", version=3, champion=2, share=0.1, started="2026-11-29T12:00:00", by="Ada")
    module_store.client.set_model_version_tag("recsys", "3", TRIAL, pack_trial(begun))
    said = shown(capsys, module_step, version=3)
    trained = module_store.client.get_run(module_store.client.get_model_version("recsys", "3").run_id)
    study = trained.data.tags["study_run"]
    assert "search    study small" in said
    assert f"run {study}" in said
    assert "trial     with 10% of the users, against version 2\n" in said
    assert "from 2026-11-29T12:00 on, by Ada" in said
    assert "it runs" in said


def test_what_learnt_from_a_file_is_found_by_its_content(three, module_step, capsys):
    said = shown(capsys, module_step, ratings="before.csv")
    assert f"versions of recsys that learnt from {three / 'before.csv'} as it is now: 1\n  1  bias" in said
    said = shown(capsys, module_step, ratings="grid.csv")
    assert "as it is now: 2\n  2  bias" in said
    assert ", stage Production\n  3  bias" in said
    assert "versions of recsys that learnt from what stood there before: 1\n  1  bias" in said


def test_what_learnt_from_a_user_is_found(three, module_step, capsys):
    said = shown(capsys, module_step, user="somebody")
    assert "versions of recsys that learnt from user 'somebody': 2\n  2  bias" in said
    assert "that learnt from user 'nobody': none" in shown(capsys, module_step, user="nobody")


def test_one_question_at_a_time_and_about_what_is_there(three, module_step, capsys):
    for asked, message in (
        ({"version": 1, "user": "u1"}, "parameters 'version' and 'user': one of them at a time, got 2"),
        ({"version": 9}, "one of model 'recsys'"),
        ({"ratings": "none.csv"}, "none.csv"),
        ({"ratings": "movielens-1m"}, "was not obtained here yet"),
    ):
        with pytest.raises(SystemExit):
            module_step("lineage", **asked)
        assert message in capsys.readouterr().err


def test_a_version_of_an_earlier_release_says_what_its_tags_say(three, module_step, module_store, capsys):
    kept = module_store.client.get_model_version("recsys", "1").tags["provenance"]
    module_store.client.delete_model_version_tag("recsys", "1", "provenance")
    said = shown(capsys, module_step, version=1)
    assert "whether they changed is not on record" in said
    assert "states no digests" in said
    assert "note: of version 1 it cannot be said" in shown(capsys, module_step, ratings="grid.csv")
    module_store.client.set_model_version_tag("recsys", "1", "provenance", kept)
