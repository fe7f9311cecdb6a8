"""Replays worked by hand, and on invented traffic whose truth is known."""

import numpy as np
import pytest

from recsys.experiments.replay import replay

NAN = float("nan")


def replayed(rewards, propensities, listed, lists, sizes, users, **options):
    columns = (np.array(column, float) for column in (rewards, propensities))
    flags, places = np.array(listed, bool), np.array(lists)
    return replay(*columns, flags, places, np.array(sizes, float), np.array(users), **options)


def test_the_lists_that_were_shown_bring_what_they_brought():
    found = replayed([1, 0, 1, 1], [NAN] * 4, [True] * 4, [0, 0, 1, 1], [2, 2], [5, 9])
    assert (found.users, found.shown, found.covered) == (2, 1.5, 1.0)
    assert found.low == found.high == 0


def test_an_unlikely_item_counts_for_those_that_were_not_shown():
    """Two users, one item each of propensity one half, which the version would list: weight 2."""
    found = replayed([1, 1], [0.5, 0.5], [True, True], [0, 1], [1, 1], [0, 1])
    assert found.low == found.high == 1  # 2 less the 1 that was shown
    clipped = replayed([1, 1], [0.01, 0.01], [True, True], [0, 1], [1, 1], [0, 1], most_weight=3)
    assert clipped.low == clipped.high == 2


def test_what_was_never_shown_may_bring_anything():
    found = replayed([1, 0] * 2, [NAN] * 4, [False] * 4, [0, 0, 1, 1], [2, 2], [0, 1])
    assert (found.low, found.high, found.covered) == (-1.0, 1.0, 0.0)


def test_a_user_with_many_lists_counts_once():
    lists = list(range(5))
    found = replayed([1, 1, 1, 1, 0], [NAN] * 5, [False] * 5, lists, [0] * 5, [0, 0, 0, 0, 1])
    assert found.shown == 0.5


@pytest.mark.simulation
@pytest.mark.parametrize("floor", [0.2, 0.02])
def test_the_interval_holds_the_truth_of_a_server_that_explores(floor):
    """Of ten items three are shown; the version would list the three that were shown least."""
    random = np.random.default_rng(4)
    chances = np.linspace(0.6, floor, 10)
    chances *= 3 / chances.sum()
    likes = np.linspace(0.2, 0.6, 10)
    truth = likes[7:].sum() - (likes * chances).sum()
    held = 0
    for _ in range(300):
        shown = random.random((400, 10)) < chances  # three of ten in the mean
        rewards = random.random((400, 10)) < likes
        lists, items = np.nonzero(shown)
        found = replay(
            rewards[shown].astype(float), chances[items], items >= 7, lists, np.full(400, 3.0), np.arange(400)
        )
        held += found.low <= truth <= found.high
    assert held >= 0.92 * 300
