"""A version is trained again from what the registry says of it, and comes out the same to the byte."""

import shutil
from dataclasses import replace

import pytest

from recsys.models.base.capabilities import capabilities, family_names
from steps import rebuild as module
from steps.support import other_code
from tests.support.pipeline import COLUMNS, write_csv

SEARCHED = "matrix_factorization"


@pytest.fixture(scope="module")
def registered(module_store):
    """Numbers of versions by what made them; empty until the first test has made them."""
    return {}


@pytest.fixture
def versions(registered, module_store, module_step):
    """One version of every family, those of `main` by `main`, a search's winner, and one that went on from another."""
    if not registered:
        module_step("main", ratings="my.csv", max_rmse=4, **COLUMNS)
        takes = [(f"u{u}", f"i{(u * 3 + k * k) % 12}") for u in range(30) for k in range(6)]
        write_csv(module_store.home / "takes.csv", takes, "user_id,item_id")
        for family in family_names():
            if capabilities(family).implicit:
                module_step("train", ratings="takes.csv", family=family)
            elif family == "bias":
                module_step("train", ratings="my.csv", family=family, **COLUMNS)
        module_step("tune", ratings="my.csv", family=SEARCHED, trials=2, study="small", **COLUMNS)
        lines = (module_store.home / "my.csv").read_bytes().splitlines(keepends=True)
        (module_store.home / "older.csv").write_bytes(b"".join(lines[: len(lines) * 7 // 10]))
        for version in module_store.client.search_model_versions("name = 'recsys'"):
            searched = "study" in version.tags
            registered["search" if searched else version.tags["family"]] = int(version.version)
        newest = max(registered.values())
        module_step("train", ratings="older.csv", family=SEARCHED, **COLUMNS)
        module_step("train", ratings="my.csv", family=SEARCHED, warm_start=newest + 1, **COLUMNS)
        registered |= {"older": newest + 1, "gone on": newest + 2}
    return registered


def said(capsys, step, refused=False, **parameters):
    capsys.readouterr()
    if refused:
        with pytest.raises(SystemExit):
            step("rebuild", **parameters)
    else:
        step("rebuild", **parameters)
    told = capsys.readouterr()
    return told.out + told.err


def test_every_family_and_a_search_s_winner_are_the_same_again(versions, module_step, module_store, capsys):
    assert versions.keys() == {*family_names(), "search", "older", "gone on"}
    told = said(capsys, module_step, version="all")
    for what, number in versions.items():
        family = what if what in family_names() else SEARCHED
        (line,) = [line for line in told.splitlines() if line.startswith(f"version {number}, {family}: ")]
        assert "identical, " in line
        count = line.split()[-4]
        assert line.endswith(f"identical, {count} of {count} files")
        assert int(count) >= 3
    assert told.count("processor, threads and package versions as then") == len(versions)
    run = module_store.run_named("rebuild")
    assert run.data.metrics == {"identical": len(versions), "not_identical": 0}
    assert "rebuild.json" in module_store.artifacts(run)


def test_what_comes_out_otherwise_is_named_and_by_how_much(versions, module_step, module_store, capsys, monkeypatch):
    def reseeded(folder):
        made = real(folder)
        return replace(made, given=made.given | {"seed": 7}, machine=made.machine | {"capability": "X86_V1"})

    real = module.read_provenance
    monkeypatch.setattr(module, "read_provenance", reseeded)
    told = said(capsys, module_step, refused=True, version=versions["random_forest"])
    number = versions["random_forest"]
    (line,) = [line for line in told.splitlines() if line.startswith(f"version {number}, random_forest: ")]
    assert " files identical; " in line
    assert "differs" in line or "was" in line
    assert "capability: " in told
    assert " here, X86_V1 then" in told
    assert f"not as registered when trained again: version {number}, see above" in told
    assert module_store.run_named("rebuild").info.status == "FAILED"


def test_it_obtains_its_ratings_or_says_that_they_changed(versions, module_step, module_store, capsys):
    number, home = versions["bias"], module_store.home
    shutil.rmtree(module_store.data / "prepared")
    kept = (home / "my.csv").read_bytes()
    (home / "kept.csv").write_bytes(kept)
    (home / "my.csv").write_bytes(b"".join(kept.splitlines(keepends=True)[:-40]))
    told = said(capsys, module_step, refused=True, version=number)
    assert "are not those it learnt from: they make dataset" in told
    assert "identical, " in said(capsys, module_step, version=number, ratings="kept.csv")
    shutil.rmtree(module_store.data / "prepared")
    (home / "my.csv").write_bytes(kept)
    assert "identical, " in said(capsys, module_step, version=number)


@pytest.mark.process
def test_another_commit_s_code_trains_what_it_registered(versions, module_step, capsys, monkeypatch):
    here = module.made_by()
    monkeypatch.setattr(module, "made_by", lambda: here | {"git_commit": "f" * 40})
    told = said(capsys, module_step, version=versions["bias"])
    assert "identical, " in told
    assert f"code: commit {here['git_commit'][:12]} of this clone" in told
    assert "code: that of here, commit ffffffffffff, as asked" in said(
        capsys, module_step, version=versions["bias"], code="here"
    )
    monkeypatch.setattr(module, "has_commit", lambda _: False)
    assert "is not in this clone" in said(capsys, module_step, version=versions["bias"])
    monkeypatch.setattr(module, "has_commit", other_code.has_commit)
    assert not other_code.has_commit("f" * 40)


def test_a_version_that_does_not_say_how_it_was_made_is_told(versions, module_step, module_store, capsys, monkeypatch):
    from registry import integrity

    real = integrity.fetch_checked

    def without(version, folder):
        place, count = real(version, folder)
        (place / "provenance.json").unlink()
        return place, count

    monkeypatch.setattr(integrity, "fetch_checked", without)
    told = said(capsys, module_step, refused=True, version=versions["bias"])
    assert "cannot be made again: it does not say how it was made: an earlier release" in told
