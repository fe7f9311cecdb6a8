"""A trial's evidence from record and feedback: each thing once, late feedback for its list, a restart alike."""

import time

import pytest

from recsys.experiments.assignment import CHALLENGER, CHAMPION
from recsys.monitoring.trial_evidence import Tally
from recsys.monitoring.trial_rows import TrialRows
from tests.support.trial_site import Site

DAY = 86_400.0
NOTHING = {"errors": (0, 0), "latency": (0, 0), "empty_lists": (0, 0), "fallback": (0, 0)}


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path, "t1")
    yield made
    made.close()


def tally_of(site, reward="like", shadow=False, trial="t1"):
    return Tally(
        TrialRows(site.path, trial), reward=reward, like_threshold=4.0, latency=0.01, shadow=shadow, within=7 * DAY
    )


def test_a_server_that_has_written_nothing_is_no_evidence(tmp_path):
    tally = Tally(
        TrialRows(tmp_path / "none.db", "t1"), reward="like", like_threshold=4.0, latency=0, shadow=False, within=DAY
    )
    found = tally.look()
    assert (found.lists, found.users, found.events, tally.begun) == ((0, 0), (0, 0), NOTHING, False)


def test_a_user_s_value_is_the_mean_of_what_was_rated_and_counts_once_a_user(site):
    for user, arm, ratings in (("u", CHAMPION, (5, 2)), ("v", CHALLENGER, (5, 5)), ("w", CHALLENGER, (1, 5))):
        site.show(user, arm)
        for item, rating in zip("ab", ratings, strict=True):
            site.give(user, item, rating)
    found = tally_of(site).look()
    assert found.lists == (1, 2)
    assert [(one.users, one.mean) for one in found.rewards] == [(1, 0.5), (2, 0.75)]
    assert [one.mean for one in tally_of(site, "rating").look().rewards] == [3.5, 4.0]


def test_lists_and_events_count_once_however_often_it_looks_and_after_a_restart(site):
    tally = tally_of(site)
    for number in range(3):
        site.show("u", CHAMPION)
        site.give("u", "a", 5 if number else 1)
        tally.look()
    for found in (tally.look(), tally_of(site).look()):
        assert (found.lists, found.users) == ((3, 0), (1, 0))
        assert (found.rewards[0].users, found.rewards[0].mean) == (1, 1.0)  # the last rating of the item


def test_a_rating_that_is_replaced_counts_with_its_last_value(site):
    tally, now = tally_of(site), time.time()
    site.show("u", CHAMPION, moment=now)
    site.give("u", "a", 5, received=now)
    assert tally.look().rewards[0].mean == 1.0
    site.replace("u", "a", 1.0, now + 1)
    assert tally.look().rewards[0].mean == 0.0


def test_what_was_not_shown_in_the_trial_does_not_count(site):
    site.show("u", CHAMPION, ["a"])
    site.give("u", "z")
    site.give("stranger", "a")
    site.give("u", "a", kind="read", value=None)
    other = Site(site.path.parent, "another trial")
    other.show("x", CHALLENGER)
    other.give("x", "a")
    other.close()
    assert sum(one.users for one in tally_of(site).look().rewards) == 0


def test_late_feedback_counts_for_the_list_that_it_names_and_else_within_a_week(site):
    request = site.show("u", CHAMPION, ["a", "b"])
    site.give("u", "a", received=1000 + 60 * DAY, request=request)
    site.give("u", "b", received=1000 + 60 * DAY)
    found = tally_of(site, "rating").look()
    assert found.rewards[0].users == 1
    site.show("v", CHAMPION, ["a"])
    site.give("v", "a", received=1000 + 6 * DAY)
    assert tally_of(site).look().rewards[0].users == 2


def test_feedback_that_is_written_before_its_list_finds_it_at_the_next_look(site):
    tally = tally_of(site)
    site.give("u", "a")
    assert tally.look().rewards[0].users == 0
    site.show("u", CHAMPION)
    assert tally.look().rewards[0].users == 1


def test_a_server_whose_clock_is_some_minutes_behind_loses_no_feedback(site):
    site.show("u", CHAMPION, moment=1000)
    site.give("u", "a", received=800)
    site.give("u", "b", received=-5000)
    assert tally_of(site).look().rewards[0].users == 1


def test_an_event_type_counts_by_the_user_s_lists_that_it_answered(site):
    for _ in range(4):
        request = site.show("u", CHAMPION)
    site.show("v", CHAMPION)
    site.give("u", "a", None, kind="read", request=request)
    site.give("u", "b", None, kind="read", request=request)
    found = tally_of(site, "read").look().rewards[0]
    assert (found.users, found.mean) == (2, 0.125)


def test_guards_count_each_user_by_the_first_event_of_a_kind(site):
    for _ in range(3):
        site.show("u", CHALLENGER, failed=True)
    site.show("v", CHAMPION, [])
    site.show("w", CHALLENGER, policy="popular")
    found = tally_of(site).look().events
    assert found == NOTHING | {"errors": (0, 1), "empty_lists": (1, 0), "fallback": (0, 1)}


def test_slow_is_what_is_beyond_the_champion_s_first_lists(site):
    for number in range(200):
        site.show(f"u{number}", CHAMPION, seconds=0.001 * (1 + number % 5))
    site.show("late", CHAMPION, seconds=0.0151)
    site.show("v", CHALLENGER, seconds=0.0149)
    site.show("w", CHALLENGER, seconds=0.016)
    found = tally_of(site).look()
    assert found.slow == pytest.approx(0.015)
    assert found.events["latency"] == (1, 1)
    assert found.watched == 2


def test_in_shadow_mode_what_both_do_is_nobody_s_fault(site):
    fine = {"failed": False, "seconds": 0.002, "policy": "personal", "items": ["a"]}
    site.show("u", CHAMPION, beside={"failed": True, "seconds": 0.1})
    site.show("v", CHAMPION, beside=fine | {"items": []})
    site.show("w", CHAMPION, policy="popular", beside=fine | {"policy": "popular"})
    site.show("x", CHAMPION, policy="popular", beside=fine)
    site.show("y", CHAMPION)
    found = tally_of(site, shadow=True).look()
    assert found.lists == (5, 4)
    assert found.events == NOTHING | {"errors": (0, 1), "empty_lists": (0, 1), "fallback": (1, 0)}


def test_in_shadow_mode_it_is_told_how_lists_and_times_differ(site):
    def beside(items, seconds):
        return {"failed": False, "seconds": seconds, "policy": "personal", "items": items}

    assert tally_of(site, shadow=True).look().beside is None
    site.show("u", CHAMPION, ["a", "b"], seconds=0.002, beside=beside(["b", "c"], 0.004))
    site.show("v", CHAMPION, ["a", "b"], seconds=0.004, beside=beside(["a", "b"], 0.008))
    site.show("w", CHAMPION, beside={"failed": True, "seconds": 9.0})
    found = tally_of(site, shadow=True).look().beside
    assert found.same == 0.75
    assert found.seconds == pytest.approx((0.003, 0.006))
