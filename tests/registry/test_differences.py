"""What differs between two folders is named: which file, which array in it, and by how much."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.runtime import machine
from registry.differences import compare_folders


@pytest.fixture
def two(tmp_path):
    """Two equal folders."""
    folders = tmp_path / "registered", tmp_path / "made"
    for folder in folders:
        folder.mkdir()
        write(folder)
    return folders


def write(folder, factors=(1.0, 2.0, 3.0), bias=(0.5, 0.25), scale=(1, 5), user="u1"):
    np.savez(folder / "weights.npz", items=np.zeros(2), factors=np.array(factors))
    pq.write_table(pa.table({"user_id": ["u0", user], "bias": list(bias)}), folder / "users.parquet")
    (folder / "recommender.json").write_text(json.dumps({"family": "bias", "knowledge": {"scale": list(scale)}}))


def test_equal_folders_are_identical(two):
    found = compare_folders(*two)
    assert found.identical
    assert str(found) == "identical, 3 of 3 files"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"factors": (1.0, 2.5, 3.125)}, "weights.npz: factors differs in 2 of 3 values, by at most 0.5"),
        ({"factors": (1.0, 2.0)}, "weights.npz: factors was float64 of shape (3,), is float64 of shape (2,)"),
        ({"bias": (0.5, 0.125)}, "users.parquet: column bias differs in 1 of 2 values, by at most 0.125"),
        ({"user": "u9"}, "users.parquet: column user_id differs in 1 of 2 values"),
        ({"scale": (1, 4)}, "recommender.json: knowledge.scale.1 was 5, is 4"),
        ({"scale": (1,)}, "recommender.json: knowledge.scale.1 stands where nothing was made"),
    ],
)
def test_the_first_that_differs_is_named_with_its_amount(two, changes, what):
    write(two[1], **changes)
    assert str(compare_folders(*two)) == f"2 of 3 files identical; {what}"


def test_files_that_are_missing_added_or_broken_are_named(two):
    (two[0] / "weights.npz").unlink()
    (two[1] / "users.parquet").unlink()
    (two[1] / "recommender.json").write_text("{")
    found = compare_folders(*two)
    assert found.differences["weights.npz"] == "is not in the version"
    assert found.differences["users.parquet"] == "was not made again"
    assert found.differences["recommender.json"].startswith("cannot be compared (JSONDecodeError")
    assert str(found).endswith("; 2 more differ")


def test_nan_is_nan_and_other_bytes_of_equal_content_are_told(two):
    write(two[0], factors=(np.nan, 1.0, 2.0))
    np.savez_compressed(two[1] / "weights.npz", items=np.zeros(2), factors=np.array((np.nan, 1.0, 2.0)))
    assert compare_folders(*two).differences == {"weights.npz": "the same content, written otherwise"}


def test_machines_are_compared_by_name():
    here = machine.describe_machine({"OMP_NUM_THREADS": "2", "HOME": "/"})
    assert here["thread limits"] == "OMP_NUM_THREADS=2"
    assert {"processor", "capability", "threads"} <= here.keys()
    assert machine.differing(here, here) == {}
    assert machine.differing({"threads": "2"}, {"threads": "4", "numpy": "2.4.6"}) == {
        "threads": ("2", "4"),
        "numpy": ("-", "2.4.6"),
    }
    assert machine.installed_versions(["numpy", "no-such-package"]).keys() == {"python", "numpy"}
