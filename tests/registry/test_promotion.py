import pytest

from registry import promotion
from registry.promotion import Candidate


def version(number, auc, rmse=0.9, stage="None", problem=None):
    return Candidate(number, "bias", stage, {"auc": auc, "rmse": rmse}, problem)


def decide(candidates):
    return promotion.decide(candidates, scale=(1, 5), max_rmse=1)


def production(number, auc, rmse=0.9):
    return version(number, auc, rmse, "Production")


def test_the_highest_auc_wins():
    decision = decide([version(1, 0.7), version(2, 0.8), version(3, 0.75)])
    assert (decision.winner, decision.previous, decision.changes) == (2, None, True)
    assert "AUC 0.8000" in decision.reason
    assert decision.refused == {}


def test_a_better_version_replaces_the_incumbent_whatever_their_order():
    for candidates in ([production(1, 0.7), version(2, 0.8)], [version(2, 0.8), production(1, 0.7)]):
        decision = decide(candidates)
        assert (decision.winner, decision.previous, decision.changes) == (2, 1, True)
        assert "replaces version 1 (bias): AUC 0.8000 against 0.7000" in decision.reason


def test_a_tie_keeps_the_incumbent():
    decision = decide([version(1, 0.8), production(2, 0.8), version(3, 0.8)])
    assert (decision.winner, decision.previous, decision.changes) == (2, 2, False)
    assert "stays in Production" in decision.reason


def test_of_newcomers_with_one_auc_the_oldest_wins():
    assert decide([version(3, 0.8), version(2, 0.8), production(1, 0.7)]).winner == 2


def test_an_archived_version_can_return():
    decision = decide([version(1, 0.9, stage="Archived"), production(2, 0.8)])
    assert (decision.winner, decision.previous) == (1, 2)


@pytest.mark.parametrize("rmse", [1.0, 1.2, float("nan"), float("inf")])
def test_the_guard_refuses_what_is_not_below_it(rmse):
    decision = decide([version(1, 0.9, rmse=rmse), version(2, 0.7, rmse=0.999)])
    assert decision.winner == 2
    assert decision.refused.keys() == {1}
    assert "is not below 1" in decision.refused[1]


@pytest.mark.parametrize(
    ("candidate", "why"),
    [
        (production(1, 0.9, rmse=1.5), "its RMSE 1.5000 is not below 1 (max_rmse, stretched to the scale)"),
        (production(1, float("nan")), "its AUC is undefined on this test set"),
        (Candidate(1, "bias", "Production", {"rmse": 0.9}), "its AUC is undefined on this test set"),
        (Candidate(1, "unknown", "Production", {}, "cannot be loaded"), "cannot be loaded"),
    ],
)
def test_a_refused_incumbent_is_replaced_though_its_auc_is_higher(candidate, why):
    decision = decide([candidate, version(2, 0.6)])
    assert (decision.winner, decision.previous, decision.changes) == (2, 1, True)
    assert decision.refused == {1: why}
    assert f"replaces version 1, which is refused ({why})" in decision.reason


@pytest.mark.parametrize(("scale", "limit"), [((1, 5), 0.5), ((-10, 10), 2.5), ((0, 1), 0.125)])
def test_the_guard_is_stretched_to_the_scale(scale, limit):
    for rmse, winner in ((limit, None), (limit * 0.999, 1)):
        decision = promotion.decide([version(1, 0.8, rmse=rmse)], scale=scale, max_rmse=0.5)
        assert decision.winner == winner


def test_where_all_are_refused_nothing_changes():
    decision = decide([production(1, 0.9, rmse=2), version(2, float("nan"))])
    assert (decision.winner, decision.previous, decision.changes) == (None, 1, False)
    assert decision.refused.keys() == {1, 2}
    assert "RMSE 2.0000" in decision.refused[1]
    assert "AUC is undefined" in decision.refused[2]
    assert decision.reason == "no version is fit for Production, nothing is changed"


def test_without_a_candidate_there_is_no_winner():
    decision = decide([])
    assert (decision.winner, decision.previous, decision.changes) == (None, None, False)


def test_deciding_again_after_the_promotion_changes_nothing():
    first = decide([version(1, 0.8), version(2, 0.8)])
    again = decide([production(first.winner, 0.8), version(2, 0.8)])
    assert (again.winner, again.changes) == (first.winner, False)
