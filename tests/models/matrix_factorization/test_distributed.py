import shutil

import numpy as np
import pytest

from recsys.distributed.process_group import Group
from recsys.models.matrix_factorization import compiled, sgd
from recsys.models.matrix_factorization.config import Config
from recsys.models.matrix_factorization.sampler import DistributedBatches
from recsys.models.matrix_factorization.training import Problem
from tests.support.matrix_factorization_fits import (
    FEW,
    HASTY,
    N_ITEMS,
    N_USERS,
    SEED,
    SETTINGS,
    SHARDINGS,
    crash_and_learn_on,
    learn_and_stop,
    learn_both_ways,
    learn_on,
    planted,
)
from tests.support.process_groups import together

ALONE = {"blocks": compiled, "batches": sgd}
STEPS = {"blocks": 16, "batches": 5}  # an epoch
AT_ONCE = {"blocks": 8, "batches": 1}  # steps without a word, by two processes


@pytest.fixture(scope="module", params=ALONE)
def learner(request):
    """What computes the steps."""
    return request.param


def curve(history):
    return [(e.train_rmse, e.validation_rmse, e.validation_auc) for e in history]


def as_table(rows):
    return np.array(rows, np.float64)  # NaN for what was not measured


@pytest.fixture(scope="module")
def alone(learner):
    """The same trainings in one process, without a group."""
    train, held_out = planted()

    def fit(rows, validation, **given):
        config = Config(**SETTINGS | given)
        return ALONE[learner].fit_factors(
            Problem(rows, (N_USERS, N_ITEMS), config, SEED, validation, like_threshold=4.0)
        )

    return {
        "": fit(train, held_out),
        ", few": fit(train[:3], None, **FEW),
        ", hasty": fit(train[:60], held_out, **HASTY),
    }


@pytest.fixture(scope="module")
def unbroken(learner, tmp_path_factory):
    return together(2, learn_on, tmp_path_factory.mktemp("unbroken"), learner)


@pytest.mark.process
@pytest.mark.parametrize("size", [1, 2, 4])
def test_any_number_of_processes_learns_what_one_learns(alone, learner, tmp_path, size):
    answers, curves, tables = together(size, learn_both_ways, tmp_path, learner), 1e-5, 1e-4
    if learner == "blocks":
        curves = tables = 0.0  # to the last bit
    for kind, (factors, history, best) in alone.items():
        for way in SHARDINGS:
            for answer in answers:
                assert answer[way + kind]["best"] == best
                assert len(answer[way + kind]["curve"]) == len(history)
            np.testing.assert_allclose(
                as_table(answers[0][way + kind]["curve"]), as_table(curve(history)), rtol=0, atol=curves
            )
            for name, array in answers[0][way + kind]["arrays"].items():
                np.testing.assert_allclose(array, getattr(factors, name), rtol=0, atol=tables)
    learnt, hasty = alone[""][1], alone[", hasty"][1:]
    assert learnt[0].train_rmse - learnt[-1].train_rmse > 0.5  # so that to agree says something
    assert len(hasty[0]) == hasty[1] + 1 < SETTINGS["epochs"]


@pytest.mark.parametrize("n_rows", [1, 3, 10, 1005])
def test_a_batch_is_the_same_set_of_rows_for_every_number_of_processes(n_rows):
    def batches(size):
        samplers = [DistributedBatches(n_rows, 4, Group(rank, size, "cpu"), seed=1) for rank in range(size)]
        found = []
        for batch in range(samplers[0].n_batches):
            parts = [sampler.epoch_rows(epoch=2)[sampler.batch_slice(batch)] for sampler in samplers]
            assert max(map(len, parts)) == samplers[0].largest_share(batch)
            found.append(sorted(np.concatenate(parts).tolist()))
            assert len(found[-1]) == samplers[0].rows_of_batch(batch)
        return found

    alone = batches(1)
    assert sorted(row for batch in alone for row in batch) == list(range(n_rows))
    for size in (2, 3, 5):
        assert batches(size) == alone


@pytest.mark.process
def test_a_training_that_was_stopped_ends_where_the_unbroken_one_ends(unbroken, learner, tmp_path):
    steps, at_once = STEPS[learner], AT_ONCE[learner]
    stopped = together(2, learn_and_stop, tmp_path, learner, 0, 2 * steps)
    for answer in stopped:
        for way in SHARDINGS:
            assert answer[way]["stopped"] == f"stopped in epoch 3 after step {at_once} of {steps}"
            assert answer[way]["saved"] == 3
    shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name}-2")
    again = together(2, learn_on, tmp_path, learner)
    for way in SHARDINGS:
        for rank in range(2):
            assert again[rank][way]["loaded"] == 3
            assert again[rank][way]["curve"] == unbroken[rank][way]["curve"]
            assert min(again[rank][way]["steps"][1:]) == 2 * steps + at_once
            for name, array in unbroken[rank][way]["arrays"].items():
                np.testing.assert_array_equal(again[rank][way]["arrays"][name], array)
    for answer in together(3, learn_on, tmp_path.parent / f"{tmp_path.name}-2", learner):
        for way in SHARDINGS:
            np.testing.assert_allclose(answer[way]["curve"], unbroken[0][way]["curve"], rtol=0, atol=1e-5)


@pytest.mark.process
@pytest.mark.parametrize("learner", ["blocks"], indirect=True)
def test_fewer_processes_go_on_between_two_messages_of_their_own(unbroken, learner, tmp_path):
    for answer in together(4, learn_and_stop, tmp_path, learner, 0, 2 * 16):
        assert {answer[way]["stopped"] for way in SHARDINGS} == {"stopped in epoch 3 after step 4 of 16"}
    for rank, answer in enumerate(together(2, learn_on, tmp_path, learner)):
        for way in SHARDINGS:
            assert answer[way]["steps"][1:4:2] == [2 * 16 + 4, 2 * 16 + 8]
            assert answer[way]["curve"] == unbroken[rank][way]["curve"]
            for name, array in unbroken[rank][way]["arrays"].items():
                np.testing.assert_array_equal(answer[way]["arrays"][name], array)


@pytest.mark.process
@pytest.mark.parametrize(
    ("seconds", "messages"), [(0, 1), (1e-9, 1), (1e-9, 0)], ids=["an epoch", "a step", "the last step of an epoch"]
)
def test_a_training_that_crashed_goes_on_from_its_last_checkpoint(unbroken, learner, tmp_path, seconds, messages):
    begun = 2 * STEPS[learner]
    crashed = begun + messages * AT_ONCE[learner]  # so many messages after the second epoch
    loaded, first = (crashed // AT_ONCE[learner], crashed) if seconds else (2, begun)
    for rank, answer in enumerate(together(2, crash_and_learn_on, tmp_path, learner, seconds, crashed)):
        for way in SHARDINGS:
            assert answer[way]["loaded"] == loaded
            assert answer[way]["steps"][1] == first
            assert answer[way]["curve"] == unbroken[rank][way]["curve"]
            for name, array in unbroken[rank][way]["arrays"].items():
                np.testing.assert_array_equal(answer[way]["arrays"][name], array)
