"""Races and deaths at every call, played out in one process; test_races.py has real ones."""

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, PERMISSION_DENIED, TEMPORARILY_UNAVAILABLE
from mlflow.tracking import MlflowClient

from recsys.errors import InputError
from registry import transitions, versions
from registry.policy import Candidate, Decision, Policy, decide
from tests.support.killed import KilledError

WRITES = (
    "set_registered_model_alias",
    "transition_model_version_stage",
    "set_model_version_tag",
    "delete_model_version_tag",
    "update_model_version",
    "update_registered_model",
)
MOMENTS = [1, 2, 3, 4, 5, 7, 9]  # a promotion that replaces makes nine writes
pytestmark = pytest.mark.filterwarnings("ignore:.*transition_model_version_stage:FutureWarning")


@pytest.fixture
def versions_with(register):
    """Registers versions with these AUCs."""

    def versions_with(*aucs):
        for auc in aucs:
            (made,) = register()
            MlflowClient().set_model_version_tag("recsys", str(made.number), "score", str(auc))

    return versions_with


def die():
    raise KilledError


def choose(state):
    """The policy on the tag `score`."""
    candidates = [
        Candidate(v.number, "bias", v.stage, {"auc": float(v.tags.get("score", 0)), "rmse": 0.9}, v.rolled_back)
        for v in state.versions
    ]
    policy = Policy(beat_bias=False)
    return decide(candidates, champion=state.champion, policy=policy, scale=(1, 5), test_rows=10)


def promote():
    return transitions.settle("recsys", choose, "Anna")


def roll_back(number=None):
    return transitions.roll_back("recsys", number, "Anna", lambda target, state: None)


def standing():
    """Alias, versions in Production, and versions whose tag says so."""
    state = transitions.read_state("recsys")
    claims = [v.number for v in state.versions if v.tags.get("standing", "").startswith("in Production since")]
    return state.alias, state.production, claims


def alone(number):
    return number, [number], [number]


def test_the_best_goes_to_production_with_alias_stage_tag_and_words(versions_with, registry):
    versions_with(0.7, 0.8, 0.75)
    decision, mended = promote()
    assert (decision.winner, decision.previous, mended) == (2, None, False)
    assert standing() == alone(2)
    version = versions.find_or_raise_version("recsys", 2)
    assert "In Production since" in version.description
    assert decision.reason in version.description
    assert decision.reason in registry.client.get_registered_model("recsys").description


def test_the_replaced_version_is_archived_and_says_by_whom(versions_with):
    versions_with(0.7)
    promote()
    versions_with(0.8)
    decision, _ = promote()
    assert (decision.winner, decision.previous) == (2, 1)
    assert standing() == alone(2)
    first = versions.find_or_raise_version("recsys", 1)
    assert first.stage == "Archived"
    assert first.tags["standing"].startswith("replaced by version 2 on ")
    assert "Replaced by version 2 on " in first.description


def test_promoting_again_writes_nothing(versions_with, at_write):
    versions_with(0.7, 0.8)
    promote()
    assert at_write(1, die, promote) == 0
    decision, mended = promote()
    assert (decision.changes, mended) == (False, False)


def test_a_version_in_staging_stays_there(versions_with, registry):
    versions_with(0.7, 0.8)
    registry.client.transition_model_version_stage("recsys", "1", "Staging")
    promote()
    assert versions.find_or_raise_version("recsys", 1).stage == "Staging"


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_promotion_killed_before_any_write_is_finished_by_the_next(versions_with, at_write, moment):
    versions_with(0.7)
    promote()
    versions_with(0.8)
    assert at_write(moment, die, promote) == moment
    state = transitions.read_state("recsys")
    assert state.alias in (1, 2)
    versions_with(0.9)  # a better one, which a repair does not look at

    def stay(state):
        return Decision(state.champion, state.champion, "as it stands")

    transitions.settle("recsys", stay, "Anna")
    assert standing() == alone(state.alias)
    promote()
    assert standing() == alone(3)
    assert versions.find_or_raise_version("recsys", 3).tags["replaced"] == str(state.alias)


@pytest.mark.parametrize("moment", MOMENTS)
def test_another_promotion_between_any_two_writes_leaves_one_champion_the_best(versions_with, at_write, moment):
    """The other knows of a better version, which was registered since the first one read."""
    versions_with(0.7)
    promote()
    versions_with(0.8)

    def other():
        versions_with(0.9)
        promote()
        assert standing() == alone(3)

    assert at_write(moment, other, promote) >= moment
    assert standing() == alone(3)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_rollback_between_any_two_writes_of_a_promotion_holds(versions_with, at_write, moment):
    """Version 2 is put in Production by another and rolled back, while a promotion puts it there."""
    versions_with(0.7)
    promote()
    versions_with(0.8)

    def other():
        promote()
        roll_back()
        assert standing() == alone(1)

    assert at_write(moment, other, promote) >= moment
    assert standing() == alone(1)


@pytest.mark.parametrize("moment", [1, 2, 3, 4, 5, 6, 8])
def test_a_rollback_killed_before_any_write_is_all_or_nothing_after_the_next_promotion(versions_with, at_write, moment):
    versions_with(0.7)
    promote()
    versions_with(0.8)
    promote()
    assert at_write(moment, die, roll_back) == moment
    promote()
    assert standing() == alone(2 if moment == 1 else 1)  # the first write bars the champion


def test_a_rollback_goes_back_step_by_step_and_bars_what_it_took_out(versions_with):
    for auc in (0.6, 0.7, 0.8):
        versions_with(auc)
        promote()
    decision = roll_back()
    assert (decision.winner, decision.previous) == (2, 3)
    assert "which Anna rolled back" in decision.reason
    assert standing() == alone(2)
    decision, _ = promote()
    assert (decision.winner, decision.changes) == (2, False)
    assert roll_back().winner == 1
    told = "version 1 of 'recsys' has no champion before it to roll back to but version 3, which was rolled back"
    with pytest.raises(InputError, match=told):
        roll_back()
    assert standing() == alone(1)


def test_a_rollback_to_a_named_version_takes_its_bar_away(versions_with):
    for auc in (0.6, 0.7, 0.8):
        versions_with(auc)
        promote()
    roll_back()
    assert roll_back(3).winner == 3
    assert standing() == alone(3)
    barred = {v.number for v in transitions.read_state("recsys").versions if v.rolled_back}
    assert barred == {2}


def test_after_a_rollback_a_better_newcomer_is_promoted(versions_with):
    for auc in (0.6, 0.7):
        versions_with(auc)
        promote()
    roll_back()
    versions_with(0.65)
    assert promote()[0].winner == 3


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (9, "version 9 of 'recsys' is unknown; expected one of 1, 2"),
        (2, "version 2 of 'recsys' is in Production already"),
        (3, "version 3 of 'recsys' was not registered by recsys"),
    ],
)
def test_a_rollback_to_what_cannot_be_is_refused_and_changes_nothing(versions_with, registry, number, why):
    versions_with(0.7, 0.8)
    promote()
    registry.client.create_model_version("recsys", "s3://bucket/model", tags={"by": "another tool"})
    before = registry.contents()
    with pytest.raises(InputError, match=why):
        roll_back(number)
    assert registry.contents() == before


def test_without_a_champion_there_is_nothing_to_roll_back(versions_with):
    versions_with(0.7)
    with pytest.raises(InputError, match="has no champion to roll back from; run the entry point promote first"):
        roll_back()


def test_a_rollback_is_refused_by_its_check_before_anything_is_written(versions_with, registry):
    versions_with(0.7)
    promote()
    versions_with(0.8)
    promote()
    before = registry.contents()

    def refuse(target, state):
        assert (target.number, state.champion) == (1, 2)
        raise InputError("it does not load")

    with pytest.raises(InputError, match="it does not load"):
        transitions.roll_back("recsys", None, "Anna", refuse)
    assert registry.contents() == before


def test_two_in_production_by_another_hand_are_mended(versions_with, registry):
    versions_with(0.7, 0.8, 0.75)
    for number in ("1", "3"):
        registry.client.transition_model_version_stage("recsys", number, "Production")
    decision, _ = promote()
    assert (decision.winner, decision.previous) == (2, 3)
    assert standing() == alone(2)


def test_a_foreign_version_in_production_is_not_touched_and_told(versions_with, registry):
    versions_with(0.7)
    registry.client.create_model_version("recsys", "s3://bucket/model", tags={"by": "another tool"})
    promote()
    assert versions.list_versions("recsys")[1].tags == {"by": "another tool"}
    registry.client.transition_model_version_stage("recsys", "2", "Production")
    before = registry.contents()
    with pytest.raises(InputError, match=r"version 2 of 'recsys' is in Production, but was not registered by recsys"):
        promote()
    assert registry.contents() == before


def test_a_deleted_champion_is_replaced(versions_with, registry):
    versions_with(0.7, 0.8)
    promote()
    registry.client.delete_model_version("recsys", "2")
    assert promote()[0].winner == 1
    assert standing() == alone(1)


def test_nobody_fit_and_nobody_there_is_at_rest(versions_with):
    versions_with(0.7)

    def refuse(state):
        return Decision(None, state.champion, "nobody")

    assert transitions.settle("recsys", refuse, "Anna")[0].winner is None
    assert standing() == (None, [], [])


@pytest.mark.parametrize(
    "error",
    [
        MlflowException("(1213, 'Deadlock found when trying to get lock')", error_code=TEMPORARILY_UNAVAILABLE),
        MlflowException("UNIQUE constraint failed: registered_model_aliases.name", error_code=INTERNAL_ERROR),
    ],
)
def test_a_write_that_may_pass_is_tried_again(versions_with, at_write, error):
    versions_with(0.7)
    failures = [error] * 3

    def fail():
        if failures:
            raise failures.pop()

    at_write(None, fail, promote)
    assert failures == []
    assert standing() == alone(1)


def test_a_write_that_is_forbidden_is_not_tried_again(versions_with, at_write):
    versions_with(0.7)
    failures = [MlflowException("no", error_code=PERMISSION_DENIED)]

    def forbid():
        raise failures.pop()

    with pytest.raises(MlflowException, match="no"):
        at_write(None, forbid, promote)


def test_who_never_comes_to_rest_ends_with_a_message(versions_with, monkeypatch):
    """As where another process, with another policy, answers every promotion with its own."""
    versions_with(0.7, 0.8)
    monkeypatch.setattr(transitions.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(transitions, "_ROUNDS", 4)

    def choose_another(state):
        return Decision(1 if state.alias == 2 else 2, state.alias, "the other is better")

    with pytest.raises(InputError, match="did not come to rest in 4 attempts: other promotions, with another policy"):
        transitions.settle("recsys", choose_another, "Anna")


def test_the_bar_is_readable(versions_with):
    versions_with(0.6)
    promote()
    versions_with(0.7)
    promote()
    roll_back()
    barred = versions.find_or_raise_version("recsys", 2)
    assert versions.RolledBack.of(barred.tags["rolled_back"]).to == 1
    assert barred.rolled_back.startswith("rolled back by Anna on 20")
