import shutil

import numpy as np
import pytest

from recsys.distributed.process_group import Group
from recsys.models.matrix_factorization.config import Config
from recsys.models.matrix_factorization.sampler import DistributedBatches
from recsys.models.matrix_factorization.sgd import fit_factors
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

BATCHES = 5  # an epoch


def curve(history):
    return [(e.train_rmse, e.validation_rmse, e.validation_auc) for e in history]


def as_table(rows):
    return np.array(rows, np.float64)  # NaN for what was not measured


@pytest.fixture(scope="module")
def alone():
    """The same trainings in one process, without a group."""
    train, held_out = planted()

    def fit(rows, validation, **given):
        config = Config(**SETTINGS | given)
        return fit_factors(Problem(rows, (N_USERS, N_ITEMS), config, SEED, validation, like_threshold=4.0))

    return {"": fit(train, held_out), ", few": fit(train[:3], None, **FEW), ", hasty": fit(train, held_out, **HASTY)}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    return together(2, learn_on, tmp_path_factory.mktemp("unbroken"))


@pytest.mark.process
@pytest.mark.parametrize("size", [1, 2, 4])
def test_any_number_of_processes_learns_what_one_learns(alone, tmp_path, size):
    answers = together(size, learn_both_ways, tmp_path)
    for kind, (factors, history, best) in alone.items():
        for way in SHARDINGS:
            for answer in answers:
                assert answer[way + kind]["best"] == best
                assert len(answer[way + kind]["curve"]) == len(history)
            np.testing.assert_allclose(as_table(answers[0][way + kind]["curve"]), as_table(curve(history)), atol=1e-5)
            for name, array in answers[0][way + kind]["arrays"].items():
                np.testing.assert_allclose(array, getattr(factors, name), atol=1e-4)
    learnt, hasty = alone[""][1], alone[", hasty"][1:]
    assert learnt[0].train_rmse - learnt[-1].train_rmse > 0.5  # so that to agree says something
    assert (len(hasty[0]), hasty[1]) == (2, 1)


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
def test_a_training_that_was_stopped_ends_where_the_unbroken_one_ends(unbroken, tmp_path):
    stopped = together(2, learn_and_stop, tmp_path, 0, 2 * BATCHES + 1)
    for answer in stopped:
        for way in SHARDINGS:
            assert answer[way]["stopped"] == "stopped in epoch 3 after batch 2 of 5"
            assert answer[way]["saved"] == 3
    shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name}-2")
    again = together(2, learn_on, tmp_path)
    for way in SHARDINGS:
        for rank in range(2):
            assert again[rank][way]["loaded"] == 3
            assert again[rank][way]["curve"] == unbroken[rank][way]["curve"]
            assert min(again[rank][way]["steps"][1:]) == 2 * BATCHES + 2
            for name, array in unbroken[rank][way]["arrays"].items():
                np.testing.assert_array_equal(again[rank][way]["arrays"][name], array)
    for answer in together(3, learn_on, tmp_path.parent / f"{tmp_path.name}-2"):
        for way in SHARDINGS:
            np.testing.assert_allclose(answer[way]["curve"], unbroken[0][way]["curve"], rtol=0, atol=1e-5)


@pytest.mark.process
@pytest.mark.parametrize(("seconds", "loaded", "first"), [(0, 2, 2 * BATCHES), (1e-9, 13, 2 * BATCHES + 1)])
def test_a_training_that_crashed_goes_on_from_its_last_checkpoint(unbroken, tmp_path, seconds, loaded, first):
    for rank, answer in enumerate(together(2, crash_and_learn_on, tmp_path, seconds, 2 * BATCHES + 1)):
        for way in SHARDINGS:
            assert answer[way]["loaded"] == loaded
            assert answer[way]["steps"][1] == first
            assert answer[way]["curve"] == unbroken[rank][way]["curve"]
            for name, array in unbroken[rank][way]["arrays"].items():
                np.testing.assert_array_equal(answer[way]["arrays"][name], array)
