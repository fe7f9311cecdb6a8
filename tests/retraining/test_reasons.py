import pytest

from recsys.retraining.reasons import Rules, Situation, weigh

DAY = 86_400.0
NOW = 1_000 * DAY


def holding(rules: Rules | None = None, **situation: object) -> list[str]:
    """The reasons that hold in a situation that, as far as not said otherwise, gives none."""
    quiet = {"now": NOW, "trained": NOW - DAY, "learnt": 1_000, "new": 0, "looked": NOW - 60, "alarms": ()}
    return [reason.name for reason in weigh(Situation(**quiet | situation), rules or Rules()) if reason.holds]


def test_a_fresh_champion_without_alarm_and_news_stays():
    assert holding() == []


@pytest.mark.parametrize(
    ("situation", "rules", "expected"),
    [
        ({"alarms": ("rating_level",)}, Rules(), ["drift"]),
        ({"alarms": ("rating_level",)}, Rules(drift=False), []),
        ({"alarms": ("rating_level",), "looked": None}, Rules(), []),
        ({"new": 50}, Rules(), ["new_ratings"]),
        ({"new": 49}, Rules(), []),
        ({"new": 49}, Rules(new_ratings=49), ["new_ratings"]),
        ({"new": 10**9}, Rules(new_ratings=None), []),
        ({"new": 0, "learnt": 0}, Rules(), []),
        ({"trained": NOW - 31 * DAY}, Rules(), ["age"]),
        ({"trained": NOW - 29 * DAY}, Rules(), []),
        ({"trained": NOW - 400 * DAY}, Rules(max_age=None), []),
        ({}, Rules(force=True), ["force"]),
        ({"alarms": ("new_users",), "new": 50, "trained": 0.0}, Rules(), ["drift", "new_ratings", "age"]),
    ],
)
def test_each_rule_holds_from_its_limit_on(situation, rules, expected):
    assert holding(rules, **situation) == expected


@pytest.mark.parametrize(
    ("tried", "looked", "expected"),
    [
        (NOW - 100, NOW - 200, []),  # the alarm is the one that was answered
        (NOW - 100, NOW - 50, []),  # a new look, within the pause
        (NOW - 2 * DAY, NOW - 50, ["drift"]),
    ],
)
def test_an_alarm_is_answered_once_and_again_after_the_pause(tried, looked, expected):
    assert holding(alarms=("rating_level",), tried=tried, looked=looked) == expected


def test_the_age_counts_from_the_last_retraining_that_was_tried():
    assert holding(trained=NOW - 60 * DAY, tried=NOW - DAY) == []
    assert holding(trained=NOW - 60 * DAY, tried=NOW - 31 * DAY) == ["age"]


def test_every_rule_says_why():
    found = weigh(
        Situation(now=NOW, trained=NOW - 40 * DAY, learnt=1_000, new=70, alarms=("a", "b"), looked=NOW), Rules()
    )
    assert [reason.sentence for reason in found] == [
        "monitor alarmed 0 s ago: a, b",
        "70 ratings are new, at least 0.05 of 1,000",
        "the champion was trained 40.0 d ago, max_age is 30.0 d",
    ]
