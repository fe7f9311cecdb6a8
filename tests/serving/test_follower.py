import json
import shutil

import pytest

from recsys.serving.follower import Champion, Follower
from tests.support.serving_site import form


@pytest.fixture
def site(tmp_path):
    """A follower, what its registry says, and the pointer as it stands."""
    forms = {version: form(tmp_path / version, version) for version in ("1", "2")}
    said = {"champion": Champion("1", "1-a")}

    def find():
        if isinstance(said["champion"], Exception):
            raise said["champion"]
        return said["champion"]

    def make(champion, place):
        shutil.copytree(forms[champion.version], place)

    def pointer():
        return json.loads((tmp_path / "serving" / "current.json").read_text())

    return Follower(tmp_path / "serving", find, make), said, pointer, forms


def test_the_champion_is_brought_and_pointed_at(site):
    follower, said, pointer, _ = site
    follower.look()
    assert (pointer()["version"], pointer()["form"]) == ("1", "forms/1-a")
    said["champion"] = Champion("2", "2-b")
    follower.look()
    assert pointer()["version"] == "2"


def test_a_registry_that_is_gone_is_told_and_the_version_stays(site):
    follower, said, pointer, _ = site
    follower.look()
    said["champion"] = ConnectionError("refused")
    follower.look()
    assert pointer()["version"] == "1"
    assert "refused" in pointer()["registry_problem"]
    said["champion"] = Champion("1", "1-a")
    follower.look()
    assert pointer()["registry_problem"] == ""


def test_a_form_that_was_changed_is_refused_and_named(site):
    follower, said, pointer, forms = site
    follower.look()
    path = forms["2"] / "item_factors.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    said["champion"] = Champion("2", "2-b")
    follower.look()
    assert pointer()["version"] == "1"
    assert "version 2 is refused" in pointer()["refused"]["2-b"]
    assert "item_factors.npy" in pointer()["refused"]["2-b"]


def test_a_form_that_answers_otherwise_is_refused(site):
    follower, _, pointer, forms = site
    about = json.loads((forms["1"] / "form.json").read_text())
    about["probe"][0]["items"].reverse()
    (forms["1"] / "form.json").write_text(json.dumps(about))
    follower.look()
    assert "does not answer as it did" in pointer()["refused"]["1-a"]
    assert "form" not in pointer()


def test_another_start_goes_on_from_the_copy_on_the_disk(site, tmp_path):
    follower, _, pointer, _ = site
    follower.look()

    def gone(*_):
        raise ConnectionError("gone")

    Follower(tmp_path / "serving", gone, gone).look()
    assert pointer()["form"] == "forms/1-a"
    assert "gone" in pointer()["registry_problem"]
