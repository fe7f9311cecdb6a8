from dataclasses import replace

import numpy as np
import pytest

from recsys.data.comparison import Limits, Summary, compare, find_predecessor, summarize
from recsys.testing.datasets import prepared, rated

USERS = np.array([f"u{at}" for at in range(100)], object)
ITEMS = np.array([f"i{at}" for at in range(50)], object)
OLD = Summary("old.csv", 1000, USERS, ITEMS, (1.0, 5.0), 0.0, 3.5, 1000.0)


def test_the_same_again_is_no_change():
    assert compare(OLD, OLD) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"user_ids": OLD.user_ids[:10]}, "90% of the 100 users of the last file are missing"),
        ({"item_ids": OLD.item_ids[:10]}, "80% of the 50 items of the last file are missing"),
        ({"ratings": 300}, "there are 300 ratings, 1,000 in the last file"),
        ({"scale": (1.0, 10.0)}, "ratings are from 1 to 10, 1 to 5 before"),
        ({"mean": 3.0}, "ratings are 3.00 on average, 3.50 before"),
        ({"repeated": 0.4}, "40% of the rows repeat a pair, 0% before"),
        ({"newest": 900.0}, "the newest rating is of 900, of 1000 before: this looks like an older file"),
        ({"newest": None}, "there are no timestamps, of 1000 before: this looks like an older file"),
    ],
)
def test_each_change_is_told_in_one_sentence(changes, sentence):
    assert compare(replace(OLD, **changes), OLD) == [sentence]


def test_ids_of_another_form_are_told_with_an_example():
    new = replace(OLD, user_ids=np.array([f"user-{at}@x" for at in range(100)], object))
    assert compare(new, OLD, Limits(gone_users=1)) == [
        "100% of the user ids have another form than in the last file, such as 'user-0@x' and 'u0'"
    ]


def test_a_bigger_newer_file_is_no_change():
    users = np.append(OLD.user_ids, [f"u{at}" for at in range(100, 130)])
    assert compare(replace(OLD, ratings=1500, user_ids=users, newest=2000.0, mean=3.55), OLD) == []


def test_the_file_before_is_the_last_of_its_name(tmp_path):
    first = prepared(tmp_path, rated(20, 20, 1, 5, step=1))
    assert find_predecessor(first, first.folder.parent) is None
    second = prepared(tmp_path, rated(20, 20, 1, 5, step=1, seed=1))
    assert find_predecessor(second, first.folder.parent).digest == first.digest
    summary = summarize(second)
    whole = np.concatenate([getattr(second, part).ratings for part in ("train", "validation", "test")])
    assert summary.mean == pytest.approx(whole.mean())
    assert summary.newest is None
