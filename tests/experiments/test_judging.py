"""Verdicts on evidence that is plain, and how often they are wrong where nothing is the matter."""

import math
from dataclasses import replace

import pytest

from recsys.experiments.differences import Summary
from recsys.experiments.judging import Beside, Evidence, judge
from recsys.experiments.plan import Plan

EQUAL = Summary(2000, 0.5, 0.05), Summary(2000, 0.5, 0.05)
PLAN = Plan()


def evidence(rewards=EQUAL, users=(2000, 2000), lists=(5000, 5000), unanswered="", **events):
    return Evidence(lists, users, rewards, events, 0.03, lists[1], unanswered)


def verdict(found, share=0.5, days=1.0, plan=PLAN, **arguments):
    return judge(plan, share, found, days, **arguments)


def rewards(mean):
    return Summary(5000, 0.5, 0.05), Summary(5000, mean, 0.05)


def test_a_trial_without_news_goes_on_and_says_how_it_stands():
    found = verdict(evidence())
    assert found.outcome is None
    assert found.reason.startswith("difference in like a user +0.0000 (-0.0")


def test_more_reward_promotes_and_less_rolls_back():
    assert verdict(evidence(rewards(0.53))).outcome == "promoted"
    worse = verdict(evidence(rewards(0.47)))
    assert (worse.outcome, worse.reason.split(", ")[-1]) == ("rolled_back", "surely below zero")


def test_rewards_promote_only_whom_the_latency_guard_could_look_at():
    unwatched = replace(evidence(rewards(0.53)), slow=None, watched=0)
    waiting = verdict(unwatched)
    assert waiting.outcome is None
    assert waiting.reason.endswith("surely above zero; of 100 lists whose time must be watched before, it has 0")
    assert verdict(replace(unwatched, slow=0.03, watched=100)).outcome == "promoted"
    assert verdict(unwatched, days=15.0).outcome == "promoted"  # as many as there were
    assert verdict(replace(unwatched, rewards=rewards(0.47))).outcome == "rolled_back"


def test_a_margin_lets_an_equal_challenger_through():
    assert verdict(evidence(rewards(0.5)), plan=Plan(trial_margin=0.03)).outcome == "promoted"


def test_a_guard_comes_before_any_reward():
    found = verdict(evidence(rewards(0.6), errors=(0, 15)))
    assert found.outcome == "rolled_back"
    assert found.reason == "guard errors: 15 users of the challenger's and 0 of the champion's answered with an error"
    slow = verdict(evidence(latency=(1, 25)))
    assert "were answered slowly (slower than 30 ms)" in slow.reason


@pytest.mark.parametrize("events", [{"errors": (14, 15)}, {"fallback": (100, 115)}, {"empty_lists": (3, 5)}])
def test_events_of_both_arms_are_nobody_s_fault(events):
    assert verdict(evidence(**events)).outcome is None


def test_a_mismatch_decides_nothing_and_is_said_and_stays():
    found = verdict(evidence(rewards(0.6), users=(2200, 1800)))
    assert (found.outcome, found.mismatched) == (None, True)
    assert "2,200 and 1,800 users, which a share of 0.5 does not explain" in found.reason
    later = verdict(evidence(rewards(0.6)), mismatched=True)
    assert later.outcome is None
    assert verdict(evidence(rewards(0.6)), days=14.0, mismatched=True).outcome == "mismatch"
    assert verdict(evidence(errors=(0, 15)), mismatched=True).outcome == "rolled_back"


@pytest.mark.parametrize(("days", "plan"), [(14.0, PLAN), (1.0, Plan(trial_users=4000))])
def test_without_a_difference_it_ends_and_the_champion_stays(days, plan):
    found = verdict(evidence(), days=days, plan=plan)
    assert found.outcome == "no_difference"
    assert "(-0.0" in found.reason


def test_a_trial_that_nobody_comes_to_ends_too():
    nobody = Summary(0, 0.0, 0.0)
    found = verdict(evidence((nobody, nobody), (0, 0), (0, 0)), days=15.0)
    assert (found.outcome, math.isnan(found.interval.difference)) == ("no_difference", True)
    assert "too few to compare by (100 each are needed); its 14 days are over" in found.reason


def test_shadow_mode_ends_by_a_guard_or_by_enough_lists():
    pairs = evidence(lists=(20_000, 20_000))
    assert verdict(pairs, share=None).outcome == "passed"
    assert verdict(evidence(errors=(0, 12)), share=None).outcome == "rolled_back"
    assert verdict(evidence(rewards(0.9)), share=None).outcome is None
    told = verdict(replace(pairs, beside=Beside(0.75, (0.003, 0.006))), share=None).reason
    assert "75% of their items are in the champion's too, and they take 6.0 ms where the champion's take 3.0" in told


def test_a_challenger_that_cannot_be_loaded_is_rolled_back():
    found = verdict(evidence(unanswered="version 2 is refused: InputError"))
    assert (found.outcome, found.reason) == (
        "rolled_back",
        "the challenger cannot answer: version 2 is refused: InputError",
    )


def test_several_judges_share_the_error_probabilities():
    alone, many = (verdict(evidence(rewards(0.51)), plan=Plan(trial_servers=count)) for count in (1, 4))
    assert many.interval.low < alone.interval.low
    assert many.guards[0].limit > alone.guards[0].limit
