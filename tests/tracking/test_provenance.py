import subprocess

import pytest

from recsys.tracking.provenance import provenance


def git(folder, *arguments):
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path):
    git(tmp_path, "init")
    git(tmp_path, "config", "user.name", "Ada Lovelace")
    git(tmp_path, "config", "user.email", "ada@example.org")
    (tmp_path / "code.py").write_text("pass\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    return tmp_path


def test_a_clean_checkout_is_its_commit(checkout):
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, check=True, capture_output=True, text=True)
    assert provenance(checkout) == {
        "author": "Ada Lovelace",
        "git_commit": head.stdout.strip(),
        "git_dirty": "false",
    }


@pytest.mark.parametrize("name", ["code.py", "new.py"])
def test_a_changed_or_new_file_makes_it_dirty(checkout, name):
    (checkout / name).write_text("1\n")
    assert provenance(checkout)["git_dirty"] == "true"


def test_outside_a_checkout_the_code_is_unknown_and_somebody_is_the_author(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    found = provenance(tmp_path)
    assert (found["git_commit"], found["git_dirty"]) == ("unknown", "unknown")
    assert found["author"]


def test_without_git_the_code_is_unknown(checkout, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("PATH", str(tmp_path_factory.mktemp("empty")))
    monkeypatch.setattr("getpass.getuser", lambda: "someone")
    assert provenance(checkout) == {"author": "someone", "git_commit": "unknown", "git_dirty": "unknown"}


def test_a_user_without_a_name_is_unknown(tmp_path, monkeypatch):
    def nameless():
        raise KeyError("uid not found")

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("getpass.getuser", nameless)
    assert provenance(tmp_path)["author"] == "unknown"
