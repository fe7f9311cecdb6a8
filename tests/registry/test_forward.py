"""What a version says of the newest ratings of its training, and the guard that compares it."""

import json

import numpy as np
import pytest

from recsys.evaluation.forward import ForwardEvaluation
from registry import policy as policies
from registry.forward import ForwardMeasures, describe_forward, forward_of_tags, pack_forward, unpack_forward
from registry.policy import Candidate, Policy

METRICS = {"forward_rows": 100.0, "forward_warm_rows": 40.0, "forward_auc": 0.72, "forward_rmse": 0.95}


def candidate(number, auc, forward, warm=0.7, *, digest="a", spread=0.001):
    """A version whose forward replicates are its AUC and as much around it, independent of the others'."""
    noise = spread * np.random.default_rng(number).normal(size=2000)
    metrics = {"forward_auc": forward, "forward_warm_auc": warm}
    found = ForwardMeasures(digest, metrics, {name: value + noise for name, value in metrics.items()})
    return Candidate(number, "bias", "None", {"auc": auc, "rmse": 0.9}, forward=found)


def decide(*candidates, **settings):
    policy = Policy(beat_bias=False, **settings)
    return policies.decide(candidates, champion=1, policy=policy, scale=(1, 5), test_rows=100)


def test_todays_champion_that_loses_tomorrow_is_refused():
    decision = decide(candidate(1, 0.80, 0.72), candidate(2, 0.82, 0.70))
    assert decision.winner == 1
    assert (
        "its forward AUC 0.7000 is more than 0.01 below version 1's 0.7200 (95% interval of the difference -0.02"
        in (decision.reason)
    )
    assert decision.reason.endswith("(max_forward_drop)")
    assert decide(candidate(1, 0.80, 0.72), candidate(2, 0.82, 0.70), max_forward_drop=0.03).winner == 2


def test_known_users_are_guarded_though_most_of_the_newest_rows_are_of_new_ones():
    decision = decide(candidate(1, 0.80, 0.72, warm=0.80), candidate(2, 0.82, 0.72, warm=0.77))
    assert decision.winner == 1
    failed = [guard.name for guard in decision.assessments[1].guards if not guard.passed]
    assert failed == ["max_forward_drop of known"]
    assert "its forward AUC of known users and items 0.7700" in decision.reason


def test_a_drop_that_may_be_none_passes_and_shows_its_interval():
    decision = decide(candidate(1, 0.80, 0.72), candidate(2, 0.82, 0.70, spread=0.02))
    assert decision.winner == 2
    guard = next(guard for guard in decision.assessments[1].guards if guard.name == "max_forward_drop")
    assert guard.passed
    assert guard.interval[0] < 0.70 < guard.interval[1]


def test_a_small_drop_passes_however_sure_it_is():
    assert decide(candidate(1, 0.80, 0.72), candidate(2, 0.82, 0.715)).winner == 2


@pytest.mark.parametrize(
    "other", [candidate(2, 0.82, 0.5, digest="b"), Candidate(2, "bias", "None", {"auc": 0.82, "rmse": 0.9})]
)
def test_measures_on_other_rows_or_none_are_not_compared(other):
    decision = decide(candidate(1, 0.80, 0.72), other)
    assert decision.winner == 2
    assert [guard.name for guard in decision.assessments[1].guards] == ["max_rmse"]


def test_what_a_version_carries_is_read_back():
    replicates = 0.72 + 0.01 * np.random.default_rng(0).normal(size=2000)
    packed = pack_forward(ForwardEvaluation("d" * 32, METRICS, replicates, None))
    found = unpack_forward(packed)
    assert (found.digest, found.metrics) == ("d" * 32, METRICS)
    assert set(found.replicates) == {"forward_auc"}
    np.testing.assert_allclose(found.replicates["forward_auc"], replicates, atol=2e-5)
    drawn = json.dumps(packed.pop("replicates"))
    earlier = forward_of_tags({"forward": json.dumps(packed), "forward_replicates": drawn})
    np.testing.assert_array_equal(unpack_forward(earlier).replicates["forward_auc"], found.replicates["forward_auc"])
    assert forward_of_tags({"family": "bias"}) is None


def test_a_version_says_it_in_words():
    said = describe_forward(METRICS | {"forward_warm_auc": 0.81})
    assert said == (
        "on the newest 100 ratings, learnt from those before: rmse 0.9500, auc 0.7200; on the 40 of known users and "
        "items: auc 0.8100"
    )
    assert "known" not in describe_forward(METRICS | {"forward_warm_rows": 0.0})
