import subprocess
import sys
from pathlib import Path

import pytest

from recsys.runtime import files
from recsys.runtime.files import write_atomically

SOURCE = Path(files.__file__).parents[2]


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "file.json"
    path.write_text("old")
    return path


def test_a_file_is_replaced_and_nothing_else_is_left(old, tmp_path):
    with write_atomically(old) as partial:
        partial.write_text("new")
        assert old.read_text() == "old"
    assert old.read_text() == "new"
    assert list(tmp_path.iterdir()) == [old]


def test_a_folder_appears_with_all_that_is_in_it(tmp_path):
    target = tmp_path / "folder"
    with write_atomically(target) as partial:
        (partial / "inner").mkdir(parents=True)
        (partial / "inner" / "file").write_text("new")
        assert not target.exists()
    assert (target / "inner" / "file").read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("kind", ["file", "folder", "nothing"])
def test_an_exception_leaves_the_old_file_alone(old, tmp_path, kind):
    with pytest.raises(ZeroDivisionError), write_atomically(old) as partial:  # noqa: PT012
        if kind == "folder":
            partial.mkdir()
        elif kind == "file":
            partial.write_text("half")
        _ = 1 / 0
    assert old.read_text() == "old"
    assert list(tmp_path.iterdir()) == [old]


KILLED = """
import os, signal, sys
from pathlib import Path
from recsys.runtime import files
if {when} == "before the rename":
    files.sync = lambda path: os.kill(os.getpid(), signal.SIGKILL)
with files.write_atomically(Path({path!r})) as partial:
    partial.write_text("half")
    if {when} == "while writing":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.process
@pytest.mark.parametrize("when", ["while writing", "before the rename"])
def test_a_process_that_is_killed_leaves_the_old_file_and_the_next_one_writes(old, tmp_path, when):
    script = KILLED.format(path=str(old), when=repr(when))
    ended = subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": str(SOURCE)}, check=False)
    assert ended.returncode == -9
    assert old.read_text() == "old"
    with write_atomically(old) as partial:
        partial.write_text("new")
    assert old.read_text() == "new"
    assert not [path for path in tmp_path.glob("*.json") if path != old]  # who looks for such files sees no partial one


def test_all_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    target, seen = tmp_path / "folder", []
    monkeypatch.setattr(files, "sync", lambda path: seen.append((path.name, target.exists())))
    with write_atomically(target) as partial:
        partial.mkdir()
        (partial / "file").write_text("new")
    assert seen == [("file", False), (partial.name, False), (tmp_path.name, True)]


def test_two_writers_of_one_file_do_not_meet(old):
    with write_atomically(old) as one, write_atomically(old) as other:
        one.write_text("one")
        other.write_text("other")
    assert old.read_text() == "one"
