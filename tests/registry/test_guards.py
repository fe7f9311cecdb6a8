"""Conditions on lists, and promotion by them."""

from dataclasses import replace

import numpy as np
import pytest

from registry import policy as policies
from registry.policy import Candidate, Policy
from registry.replicates import ListReplicates
from registry.versions import record_metrics

USERS = 400


def candidate(number, ndcg, *, auc=0.8, popular=0.2, spread=0.01, **metrics):
    """A version whose lists have this nDCG@10, drawn with this spread; popularity's is the same in every draw."""
    replicates = ndcg + spread * np.random.default_rng(number).normal(size=2000)
    measured = {"auc": auc, "rmse": 0.9, "baseline_bias_auc": 0.5, "makes_lists": 1.0, "ndcg_at_10": ndcg}
    measured |= {"baseline_most_popular_ndcg_at_10": popular, "baseline_most_liked_ndcg_at_10": popular - 0.05}
    aucs = auc + 0.01 * np.random.default_rng(100 + number).normal(size=2000)
    return Candidate(number, "bias", "None", measured | metrics, None, aucs, None, replicates, replicates - popular)


def listless(number, **metrics):
    made = candidate(number, 0.1, makes_lists=0.0, **metrics)
    return replace(made, list_replicates=None, list_gains=None)


def decide(candidates, champion=None, **settings):
    return policies.decide(candidates, champion=champion, policy=Policy(**settings), scale=(1, 5), test_rows=1234)


def problems(decision):
    return {a.candidate.number: a.problem for a in decision.assessments if a.problem}


def test_lists_below_what_is_popular_are_refused_unless_allowed():
    versions = [candidate(1, 0.17, auc=0.9), candidate(2, 0.3)]
    decision = decide(versions)
    assert decision.winner == 2
    assert problems(decision)[1].startswith(
        "its lists' nDCG@10 0.1700 is not above 0.2000 of what is popular (95% interval of the difference -0.0"
    )
    assert problems(decision)[1].endswith("(beat_popularity)")
    assert decide(versions, beat_popularity=False).winner == 1


def test_it_is_the_better_of_both_popularities_that_has_to_be_beaten():
    liked = candidate(1, 0.3, baseline_most_liked_ndcg_at_10=0.35)
    liked = replace(liked, list_gains=liked.list_replicates - 0.35)
    assert "0.3500 of what is popular" in problems(decide([liked]))[1]


@pytest.mark.parametrize(("spread", "refused"), [(0.002, True), (0.02, False)])
def test_lists_that_may_be_better_than_what_is_popular_pass_by_default(spread, refused):
    below = candidate(1, 0.19, spread=spread)
    assert (1 in problems(decide([below]))) == refused
    assert 1 in problems(decide([below], confidence=0.5))


def test_with_confidence_the_gain_over_popularity_has_to_be_sure():
    unsure, sure = candidate(1, 0.21, spread=0.02), candidate(2, 0.21, spread=0.002)
    assert problems(decide([unsure, sure])) == {}
    assert "is not surely above" in problems(decide([unsure, sure], confidence=0.95))[1]
    assert decide([unsure, sure], confidence=0.95).winner == 2


def test_a_version_without_lists_is_not_held_to_popularity():
    assert problems(decide([listless(1)])) == {}


def test_the_metric_decides_where_it_is_asked_for_with_the_same_words():
    versions = [candidate(1, 0.3, auc=0.9), candidate(2, 0.4, auc=0.8)]
    assert decide(versions, champion=1).winner == 1
    decision = decide(versions, champion=1, metric="ndcg_at_10")
    assert decision.winner == 2
    assert decision.reason.startswith(
        "version 2 (bias) replaces version 1 (bias): nDCG@10 0.4000 against 0.3000 on 1,234 test ratings, +0.1000 (95%"
    )
    assert decide(versions, metric="ndcg_at_10").reason.startswith(
        "version 2 (bias) goes to Production: nDCG@10 0.4000 on 1,234 test ratings, the highest"
    )


def test_the_evidence_asked_for_is_of_that_metric():
    versions = [candidate(1, 0.3, auc=0.6), candidate(2, 0.301, auc=0.9)]
    decision = decide(versions, champion=1, metric="ndcg_at_10", confidence=0.95)
    assert decision.winner == 1
    assert "+0.0010 (95% interval" in problems(decision)[2]
    assert decide(versions, champion=1, confidence=0.95).winner == 2


def test_a_version_without_lists_cannot_be_compared_by_them():
    decision = decide([listless(1, auc=0.9), candidate(2, 0.3)], champion=1, metric="ndcg_at_10")
    assert decision.winner == 2
    assert "its lists cannot be compared" in problems(decision)[1]


@pytest.mark.parametrize(("ndcg", "spread", "winner"), [(0.395, 0.001, 2), (0.38, 0.001, 1), (0.38, 0.02, 2)])
def test_lists_may_lose_only_so_much_where_that_is_asked_for(ndcg, spread, winner):
    versions = [candidate(1, 0.4, spread=spread), candidate(2, ndcg, auc=0.9, spread=spread)]
    assert decide(versions, champion=1).winner == 2
    decision = decide(versions, champion=1, max_ndcg_drop=0.01)
    assert decision.winner == winner
    if winner == 1:
        assert (
            "is more than 0.01 below version 1's 0.4000 (95% interval of the difference -0.02" in problems(decision)[2]
        )


def test_lists_that_would_be_lost_altogether_are_a_drop():
    decision = decide([candidate(1, 0.4), listless(2, auc=0.9)], champion=1, max_ndcg_drop=0.01)
    assert decision.winner == 1
    assert "it makes no lists, and version 1 does (max_ndcg_drop)" in problems(decision)[2]
    assert decide([listless(1), candidate(2, 0.3, auc=0.9)], champion=1, max_ndcg_drop=0.01).winner == 2


def test_replicates_are_remembered_with_their_test_set(register):
    (version,) = register()
    rng = np.random.default_rng(0)
    found = ListReplicates(0.4 + rng.normal(0, 0.01, 2000), 0.2 + rng.normal(0, 0.01, 2000))
    for digest in "abcd":
        version = record_metrics(version, digest, {"auc": 0.8}, lists=found)
    read = version.list_replicates_on("d")
    np.testing.assert_allclose(read.ndcg, found.ndcg, atol=5e-5)
    np.testing.assert_allclose(read.gain, found.gain, atol=5e-5)
    assert version.list_replicates_on("a") is not None
    assert version.list_replicates_on("e") is None
