"""Blocks of lists: what goes in comes out, to the byte."""

import json

import numpy as np
import pytest

from recsys.serving.record_blocks import MOST_LISTS, Impression, line_of, pack, unpack, without

NAMES = ["u", "", 'a "quoted" one', "two\nlines", "comma, [and] more", "ünï\u2028\U0001f600", "\\", "\x00\x7f"]


def impression(number, user="u", n=3, propensities=None, **given):
    """One whose numbers are those of 32 bits."""
    likes = (np.arange(n) + number).astype("<f4").astype(np.float64) / 64
    items = json.dumps([f"{number}\n{at}ü" for at in range(n)], ensure_ascii=False)
    one = Impression(f"r{number}", 1.7e9 + number / 7, user, "1", "champion", "personal", 0, items, likes)
    return one._replace(propensities=propensities, **given)


def row(one):
    numbers = [None if column is None else column.astype("<f4").tobytes() for column in (one.likes, one.propensities)]
    return (*one[:8], *numbers)


def test_lists_come_out_as_they_went_in():
    random = np.random.default_rng(0)
    lists = [
        impression(
            number,
            user=NAMES[number % len(NAMES)],
            n=(number * 7) % 12,  # some of them empty
            version=str(number % 3),
            policy=("personal", "popular")[number % 2],
            first=number % 40,
        )
        for number in random.permutation(200).tolist()
    ]
    block = pack(lists)
    assert unpack(block) == [row(one) for one in lists]
    assert (block.request, block.earliest, block.latest) == (
        lists[0].request,
        min(one.moment for one in lists),
        max(one.moment for one in lists),
    )


def test_propensities_are_kept_of_the_lists_that_have_some():
    lists = [
        impression(0),
        impression(1, propensities=np.array([0.5, 0.25, 1.0])),
        impression(2, n=1, propensities=np.array([0.125])),
        impression(3, n=0),
    ]
    assert unpack(pack(lists)) == [row(one) for one in lists]
    assert pack([lists[0]]).propensities is None


def test_the_largest_block_may_have_as_many_kinds_as_lists():
    lists = [impression(number, first=number) for number in range(MOST_LISTS)]
    assert unpack(pack(lists)) == [row(one) for one in lists]


@pytest.mark.parametrize("user", NAMES)
def test_a_users_lists_are_found_and_taken_out_and_no_other_changes(user):
    lists = [impression(number, user=name) for number, name in enumerate(NAMES * 2)]
    block = pack(lists)
    assert line_of(user) in block.users.split("\n")
    left = without(block, user)
    assert unpack(left) == [row(one) for one in lists if one.user != user]
    assert left.request == block.request
    assert line_of(user) not in left.users.split("\n")
    assert without(pack([impression(0, user=user)]), user) is None
