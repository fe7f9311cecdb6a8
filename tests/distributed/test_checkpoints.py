import json

import pytest

from tests.support.group_functions import die_while_saving, load_newest, save_on_a_full_disk, save_some
from tests.support.process_groups import DIED, together

pytestmark = pytest.mark.process


def expected(value):
    return [value] + [value + n for n in range(10)]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("split", [False, True])
def test_the_last_two_are_kept_and_read_by_another_number_of_processes(tmp_path, split):
    made = together(2, save_some, tmp_path, split, [1.0, 2.0, 3.0])
    assert made == [{"due": [(True, False)] * 3, "saved": 3}] * 2
    assert names(tmp_path) == ["2", "3"]
    for size in (1, 2, 3):
        for answer in together(size, load_newest, tmp_path, split):
            assert answer == {"state": expected(3.0), "said": [], "number": 3}


def test_by_the_clock_one_is_due_only_after_its_time(tmp_path):
    assert together(2, save_some, tmp_path, False, [1.0], 3600)[1]["due"] == [(False, False)]
    assert together(2, save_some, tmp_path, False, [1.0], 1e-9)[1]["due"] == [(True, True)]


def test_a_half_written_a_foreign_and_a_damaged_one_are_skipped_and_told(tmp_path):
    together(1, save_some, tmp_path, False, [1.0, 2.0])
    (tmp_path / "partial-3").mkdir()
    (tmp_path / "partial-3" / "__0_0.distcp").write_bytes(b"half")
    data = tmp_path / "2" / "__0_0.distcp"
    data.write_bytes(data.read_bytes()[:-5])
    first = together(2, load_newest, tmp_path, False)
    assert first[0]["state"] == first[1]["state"] == expected(1.0)
    assert "checkpoint 2 is skipped: it is not whole (__0_0.distcp has" in first[0]["said"][0]
    assert first[1]["said"] == []
    foreign = together(2, load_newest, tmp_path, False, "d2")
    assert [answer["state"] for answer in foreign] == [None, None]
    assert "checkpoint 1 is skipped: it is of training d1, not of d2" in foreign[0]["said"]


def test_one_that_looks_whole_but_cannot_be_read_is_skipped_and_told(tmp_path):
    together(1, save_some, tmp_path, False, [1.0, 2.0])
    index = json.loads((tmp_path / "2" / "checkpoint.json").read_text())
    (tmp_path / "2" / ".metadata").write_bytes(b"x" * index["files"][".metadata"])
    answer = together(2, load_newest, tmp_path, False)
    assert answer[0]["state"] == answer[1]["state"] == expected(1.0)
    assert "checkpoint 2 cannot be read and is skipped" in answer[0]["said"][0]


@pytest.mark.parametrize("split", [False, True])
def test_a_disk_that_fills_leaves_the_last_good_one_and_the_training_goes_on(tmp_path, split):
    first, second = together(2, save_on_a_full_disk, tmp_path, split)
    assert first["state"] == second["state"] == expected(1.0)
    assert first["saved"] == second["saved"] == 2
    assert "checkpoint 2 could not be written: [Errno 27] File too large; the training goes on" in first["said"][0]
    assert names(tmp_path) == ["1", "2"]


def test_a_process_killed_while_it_writes_leaves_the_last_good_one(tmp_path):
    assert together(1, die_while_saving, tmp_path) == [DIED]
    assert names(tmp_path) == ["1", "partial-2"]
    assert together(2, load_newest, tmp_path, False)[1]["state"] == expected(1.0)
    together(2, save_some, tmp_path, False, [2.0])
    assert names(tmp_path) == ["1", "2"]
