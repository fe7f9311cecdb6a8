import json
import shutil
import threading

import pytest

from recsys.serving.follower import Challenger, Champion, Follower
from recsys.serving.http import ProblemError
from recsys.serving.service import CALL, Service
from recsys.serving.settings import ServingSettings
from tests.support.serving_site import form
from tests.support.waiting import wait


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


@pytest.mark.parametrize("is_restarted", [True, False])
def test_a_form_that_was_cut_off_or_deleted_is_made_anew_and_workers_take_it(site, tmp_path, is_restarted):
    follower, _, pointer, _ = site
    follower.look()
    place = tmp_path / "serving" / pointer()["form"]
    if is_restarted:
        with (place / "item_factors.npy").open("r+b") as file:
            file.truncate(100)
        follower = Follower(tmp_path / "serving", follower._find, follower._make)
    else:
        shutil.rmtree(place)
    service = Service(ServingSettings(folder=str(tmp_path / "serving"), record=False))
    try:
        service.follow()
        with pytest.raises(ProblemError, match=r"(is|are) expected"):
            service.current()
        follower.look()
        service.follow()
        assert service.current().version == "1"
    finally:
        service.close()
    assert pointer()["refused"] == {}


def test_whoever_asks_while_the_first_champion_is_refused_is_told_why(site, tmp_path):
    follower, _, _, forms = site
    service = Service(ServingSettings(folder=str(tmp_path / "serving"), record=False))
    try:
        with pytest.raises(ProblemError, match="no version is served yet; promote one"):
            service.current()
        shutil.rmtree(forms["1"])
        follower.look()
        service.follow()
        with pytest.raises(ProblemError, match=r"^version 1 is refused: FileNotFoundError"):
            service.current()
    finally:
        service.close()


def test_a_version_that_failed_is_tried_again_after_a_while(site, monkeypatch):
    follower, _, pointer, forms = site
    aside = forms["1"].rename(forms["1"].with_name("aside"))
    now, made = [0.0], []
    monkeypatch.setattr("recsys.serving.follower.time.monotonic", lambda: now[0])
    make = follower._make
    follower._make = lambda *arguments: (made.append(now[0]), make(*arguments))
    for now[0] in (0.0, 9.0, 11.0, 30.0):
        follower.look()
    assert made == [0.0, 11.0]
    assert "version 1 is refused" in pointer()["refused"]["1-a"]
    aside.rename(forms["1"])
    now[0] = 32.0
    follower.look()
    assert pointer()["version"] == "1"
    assert pointer()["refused"] == {}


def test_a_call_makes_it_look_at_once_and_a_full_disk_does_not_end_it(site, tmp_path, monkeypatch):
    follower, _, pointer, _ = site
    looked, full, stop = threading.Event(), [True], threading.Event()
    look = follower.look

    def noted():
        if full.pop() if full else False:
            raise OSError("disk full")
        look()
        looked.set()

    monkeypatch.setattr(follower, "look", noted)
    (tmp_path / "serving").mkdir()
    thread = threading.Thread(target=follower.run, args=(stop, 10**6))
    thread.start()
    try:
        wait(lambda: not full, "the first look")
        while not looked.is_set():
            (tmp_path / "serving" / CALL).touch()
            looked.wait(0.1)
    finally:
        stop.set()
        thread.join()
    assert pointer()["version"] == "1"


@pytest.fixture
def trial_site(site, tmp_path):
    """A follower whose registry may have version 2 on trial."""
    follower, said, pointer, forms = site
    said["trial"] = Challenger("t1", 0.1, Champion("2", "2-b"))

    def follow():
        return Follower(tmp_path / "serving", follower._find, follower._make, lambda: said["trial"])

    return follow, said, pointer, forms


def test_a_challenger_is_brought_beside_the_champion_and_let_go_of(trial_site):
    follow, said, pointer, _ = trial_site
    follower = follow()
    follower.look()
    expected = {"id": "t1", "share": 0.1, "version": "2", "form": "forms/2-b"}
    assert (pointer()["version"], pointer()["trial"]) == ("1", expected)
    said["trial"] = None
    follower.look()
    assert (pointer()["version"], pointer()["trial"]) == ("1", None)


def test_the_challenger_is_kept_while_the_registry_is_gone(trial_site):
    follow, said, pointer, _ = trial_site
    follow().look()
    said["champion"] = ConnectionError("refused")
    follow().look()
    assert pointer()["trial"]["id"] == "t1"


def test_a_challenger_that_wins_is_not_made_again(trial_site):
    follow, said, pointer, forms = trial_site
    follower = follow()
    follower.look()
    shutil.rmtree(forms["2"])
    said["champion"], said["trial"] = Champion("2", "2-b"), None
    follower.look()
    assert (pointer()["version"], pointer()["trial"]) == ("2", None)


def test_a_challenger_that_cannot_be_had_is_shown_to_nobody_and_its_attempts_are_counted(trial_site, monkeypatch):
    follow, _, pointer, forms = trial_site
    shutil.rmtree(forms["2"])
    now = [0.0]
    monkeypatch.setattr("recsys.serving.follower.time.monotonic", lambda: now[0])
    follower = follow()
    for now[0], attempts in ((0.0, 1), (5.0, 1), (11.0, 2), (40.0, 3)):
        follower.look()
        said, count = follower.refusal("2")
        assert count == attempts
    assert said.startswith("version 2 is refused: FileNotFoundError")
    assert pointer().get("trial") is None
    assert pointer()["version"] == "1"


def test_a_suspended_challenger_stays_so_over_a_restart_until_another_trial(trial_site):
    follow, said, pointer, _ = trial_site
    follower = follow()
    follower.look()
    follower.suspend("t1")
    assert pointer()["trial"]["suspended"]
    again = follow()
    again.look()
    assert pointer()["trial"]["suspended"]
    said["trial"] = Challenger("t2", 0.1, Champion("2", "2-b"))
    again.look()
    assert "suspended" not in pointer()["trial"]
