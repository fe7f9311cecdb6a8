import gc

import pytest

from recsys.errors import InputError
from recsys.runtime import memory

GB = 10**9


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 8 GB free, no control groups yet, and a process in the group /a/b."""
    for name in ("_CGROUPS", "_OWN_CGROUP", "_SYSTEM"):
        monkeypatch.setattr(memory, name, tmp_path / name)
    (tmp_path / "_SYSTEM").write_text(f"MemTotal: 1 kB\nMemAvailable:   {8 * GB // 1024} kB\n")
    (tmp_path / "_OWN_CGROUP").write_text("1:name=systemd:/x\n0::/a/b\n")

    def limit(group, most, used):
        folder = tmp_path / "_CGROUPS" / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{most}\n")
        (folder / "memory.current").write_text(f"{used}\n")

    return limit


def test_without_control_groups_it_is_what_the_system_has_free(machine):
    assert memory.available() == 8 * GB // 1024 * 1024


@pytest.mark.parametrize("group", [".", "a", "a/b"], ids=["a container's root", "a group around", "the own group"])
def test_a_limit_less_what_is_used_of_it_is_what_is_left(machine, group):
    machine(group, 3 * GB, GB)
    assert memory.available() == 2 * GB


def test_the_narrowest_of_several_limits_counts(machine):
    machine("a/b", "max", 0)
    machine("a", 5 * GB, 3 * GB)
    machine(".", 4 * GB, GB)
    assert memory.available() == 2 * GB


def test_a_limit_above_what_is_free_and_that_of_another_group_change_nothing(machine):
    machine("a", 50 * GB, GB)
    machine("c", GB, 0)
    assert memory.available() == 8 * GB // 1024 * 1024


def test_more_used_than_allowed_leaves_nothing(machine):
    machine("a/b", GB, 2 * GB)
    assert memory.available() == 0


def test_a_process_that_does_not_know_its_group_is_held_to_the_root(machine, tmp_path):
    (tmp_path / "_OWN_CGROUP").unlink()
    machine(".", GB, 0)
    machine("a", 1, 0)
    assert memory.available() == GB


def test_where_the_system_says_nothing_half_of_all_memory_counts(machine, tmp_path):
    (tmp_path / "_SYSTEM").unlink()
    assert memory.available() > 0


def test_what_does_not_fit_is_refused_with_both_sizes(machine):
    machine(".", 3 * GB, GB)
    memory.check(2 * GB, "this", "buy more")
    with pytest.raises(InputError, match=r"^this needs about 2\.1 GB of memory, 2\.0 are available; buy more$"):
        memory.check(2.1 * GB, "this", "buy more")


def test_python_looks_for_cycles_again_afterwards_and_only_where_it_did_before():
    @memory.uncollected()
    def fail():
        assert not gc.isenabled()
        raise ValueError("wrong")

    assert gc.isenabled()
    with pytest.raises(ValueError, match="wrong"):
        fail()
    assert gc.isenabled()
    with memory.uncollected():
        with memory.uncollected():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
