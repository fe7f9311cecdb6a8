import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

from recsys.data.interactions import Interactions
from recsys.errors import DivergedError
from recsys.models.matrix_factorization import compiled, sgd
from recsys.models.matrix_factorization.config import Config
from recsys.models.matrix_factorization.factors import Factors
from recsys.models.matrix_factorization.schedule import Epoch
from recsys.models.matrix_factorization.training import Problem


def fit_columns(
    fit_factors, users, items, ratings, n_users, n_items, *, seed=0, validation=None, on_epoch=None, **settings
):
    """A fit of columns. The settings are not checked: a learning rate that diverges is one of them."""
    config = Config(device="cpu").model_copy(update=settings)
    held_out = None if validation is None else Interactions(*validation)
    rows = Interactions(users, items, ratings)
    return fit_factors(Problem(rows, (n_users, n_items), config, seed, held_out), on_epoch)


@pytest.fixture(params=[compiled, sgd], ids=["compiled", "torch"])
def factorize(request):
    """A fit of columns by each engine."""
    return partial(fit_columns, request.param.fit_factors)


@pytest.fixture
def train(factorize):
    """The same, of the planted ratings."""
    return partial(factorize, n_users=N_USERS, n_items=N_ITEMS)


N_USERS, N_ITEMS, NOISE = 300, 200, 0.3


def predict(model: Factors, users, items):
    """The formula of Factors, with the rule for the code -1 written out row by row."""
    ratings = []
    for u, i in zip(users, items, strict=True):
        rating = model.mean
        rating += model.user_bias[u] if u >= 0 else 0
        rating += model.item_bias[i] if i >= 0 else 0
        rating += model.user_factors[u] @ model.item_factors[i] if u >= 0 and i >= 0 else 0
        ratings.append(rating)
    return np.array(ratings)


def rmse(model: Factors, rows):
    return float(np.sqrt(np.mean((predict(model, rows[0], rows[1]) - rows[2]) ** 2)))


@pytest.fixture(scope="module")
def planted():
    """Ratings made from three factors, biases and noise: 20,000 to train on, 4,000 to test on."""
    random = np.random.default_rng(0)
    pairs = random.choice(N_USERS * N_ITEMS, 24_000, replace=False)
    users, items = pairs // N_ITEMS, pairs % N_ITEMS
    p, q = random.normal(size=(N_USERS, 3)), random.normal(size=(N_ITEMS, 3))
    b_u, b_i = random.normal(scale=0.5, size=N_USERS), random.normal(scale=0.5, size=N_ITEMS)
    ratings = 3 + b_u[users] + b_i[items] + (p[users] * q[items]).sum(1)
    ratings += random.normal(scale=NOISE, size=len(pairs))
    rows = users, items, ratings
    return tuple(c[:20_000] for c in rows), tuple(c[20_000:] for c in rows)


def test_a_planted_low_rank_matrix_is_recovered(train, planted):
    rows, held_out = planted
    model, _, _ = train(*rows, embedding_size=6, regularization=0.005, validation=held_out)
    assert NOISE * 0.95 < rmse(model, held_out) < NOISE * 1.25
    assert held_out[2].std() > 5 * NOISE  # so the line above is an achievement


def test_the_defaults_beat_the_biases_alone(train, planted):
    rows, held_out = planted
    model, _, _ = train(*rows, validation=held_out)
    biases = Factors(model.mean, model.user_bias, model.item_bias, 0 * model.user_factors, 0 * model.item_factors)
    assert rmse(model, held_out) < 0.5 * rmse(biases, held_out)


def test_the_arrays_have_the_promised_shapes_and_types(train, planted):
    model, _, _ = train(*planted[0], embedding_size=7, epochs=1)
    shapes = {name: array.shape for name, array in vars(model).items() if name != "mean"}
    assert shapes == {
        "user_bias": (N_USERS,),
        "item_bias": (N_ITEMS,),
        "user_factors": (N_USERS, 7),
        "item_factors": (N_ITEMS, 7),
    }
    assert all(array.dtype == np.float32 for name, array in vars(model).items() if name != "mean")
    assert model.mean == pytest.approx(planted[0][2].mean())


def test_one_seed_gives_the_same_numbers_and_another_seed_others(train, planted):
    rows, held_out = planted
    one, again, other = (train(*rows, epochs=3, seed=s, validation=held_out)[0] for s in (1, 1, 2))
    for name in ("user_bias", "item_bias", "user_factors", "item_factors"):
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name))
    assert not np.array_equal(one.user_factors, other.user_factors)


def test_torch_is_left_as_it_was(train, planted):
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    train(*planted[0], epochs=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_unknown_user_or_item_in_validation_counts_by_the_bias_that_is_known(train, planted):
    users, items, ratings = planted[1]
    held_out = np.where(users % 3 == 0, -1, users), np.where(items % 4 == 0, -1, items), ratings
    model, history, best = train(*planted[0], epochs=4, validation=held_out)
    assert history[best - 1].validation_rmse == pytest.approx(rmse(model, held_out), rel=1e-5)


def test_a_user_without_training_ratings_has_zeros(factorize, planted):
    users, items, ratings = planted[0]
    model, _, _ = factorize(users, items, ratings, N_USERS + 2, N_ITEMS, epochs=1)
    assert not model.user_bias[N_USERS:].any()
    assert not model.user_factors[N_USERS:].any()


def test_early_stopping_keeps_the_best_epoch(train, planted):
    rows, held_out = planted
    few = tuple(c[:6_000] for c in rows)  # twenty ratings a user and no penalty: it overfits soon
    model, history, best = train(*few, regularization=0.0, learning_rate=0.3, patience=4, validation=held_out)
    scores = [epoch.validation_rmse for epoch in history]
    assert len(history) == best + 4 < 100
    assert best == 1 + int(np.argmin(scores))
    assert rmse(model, held_out) == pytest.approx(min(scores), rel=1e-5)
    assert rmse(model, held_out) < scores[-1]


def test_without_validation_it_runs_exactly_the_epochs_asked_for(train, planted):
    _, history, best = train(*planted[0], epochs=12, patience=2)
    assert [epoch.number for epoch in history] == list(range(1, 13))
    assert best == 12
    assert all(epoch.validation_rmse is None and epoch.seconds > 0 for epoch in history)


def test_a_refit_of_the_best_number_of_epochs_repeats_the_best_model(train, planted):
    rows, held_out = planted
    few = tuple(c[:3_000] for c in rows)
    kept, _, best = train(*few, learning_rate=0.3, patience=3, validation=held_out)
    refit, _, _ = train(*few, learning_rate=0.3, epochs=best)
    np.testing.assert_array_equal(kept.user_factors, refit.user_factors)


def test_epochs_are_reported_in_order_as_they_end(train, planted):
    seen: list[Epoch] = []
    _, history, _ = train(*planted[0], epochs=3, validation=planted[1], on_epoch=seen.append)
    assert seen == history
    assert [epoch.number for epoch in seen] == [1, 2, 3]
    assert seen[2].train_rmse < seen[0].train_rmse


def test_what_on_epoch_raises_passes_through_and_ends_the_training(train, planted):
    class Pruned(Exception):
        pass

    calls = []

    def prune(epoch: Epoch) -> None:
        calls.append(epoch.number)
        if epoch.number == 2:
            raise Pruned

    with pytest.raises(Pruned):
        train(*planted[0], epochs=9, on_epoch=prune)
    assert calls == [1, 2]


@pytest.mark.filterwarnings("error")
def test_a_loss_that_is_not_finite_names_the_epoch_and_the_remedy(train, planted):
    with pytest.raises(DivergedError, match=r"'learning_rate'.* with 1e\+06 .* epoch \d+; pass a lower one"):
        train(*planted[0], learning_rate=1e6, batch_size=100)


@pytest.mark.parametrize(("factor", "shift"), [(10, -25), (0.25, 0), (1, 5)])
def test_ratings_on_another_scale_give_the_same_predictions_on_that_scale(train, planted, factor, shift):
    (users, items, ratings), (u, i, _) = planted
    plain, first, _ = train(users, items, ratings, epochs=8)
    other, history, _ = train(users, items, factor * ratings + shift, epochs=8)
    expected = factor * predict(plain, u, i) + shift
    assert np.abs(predict(other, u, i) - expected).max() < 0.01 * factor
    assert history[-1].train_rmse == pytest.approx(first[-1].train_rmse * factor, rel=1e-3)


def test_ratings_that_are_all_alike_predict_themselves(factorize):
    model, history, _ = factorize(np.array([0, 1]), np.array([0, 0]), np.array([4.0, 4.0]), 2, 1, epochs=5)
    np.testing.assert_allclose(predict(model, [0, 1, -1], [0, 0, 0]), 4, atol=1e-3)
    assert history[-1].train_rmse < 1e-3


@pytest.mark.parametrize("batch_size", [1, 4096])
def test_users_and_items_with_one_rating_stay_within_the_scale(factorize, batch_size):
    users, items, ratings = np.arange(200), np.arange(200), np.tile([1.0, 5.0], 100)
    model, _, _ = factorize(users, items, ratings, 200, 200, batch_size=batch_size, epochs=30)
    predicted = predict(model, users, items)
    assert predicted.min() >= 0.9
    assert predicted.max() <= 5.1


def test_one_rating_is_enough(factorize):
    model, history, _ = factorize(np.array([0]), np.array([0]), np.array([3.0]), 1, 1, epochs=2)
    assert predict(model, [0], [0])[0] == pytest.approx(3, abs=1e-3)
    assert len(history) == 2


@pytest.mark.parametrize("purpose", ["training", "validation"])
def test_no_ratings_is_an_error(train, planted, purpose):
    none = np.array([], dtype=int), np.array([], dtype=int), np.array([])
    rows, held_out = (none, planted[1]) if purpose == "training" else (planted[0], none)
    with pytest.raises(ValueError, match=f"{purpose} needs at least one rating"):
        train(*rows, validation=held_out)


@pytest.mark.parametrize("code", [-1, N_USERS])
def test_a_training_code_outside_its_table_is_an_error(train, planted, code):
    users, items, ratings = planted[0]
    wrong = users.copy()
    wrong[7] = code
    with pytest.raises(ValueError, match=f"users must be codes from 0 to {N_USERS - 1}, got .*{code}"):
        train(wrong, items, ratings)


@pytest.mark.process
def test_a_fit_on_a_cpu_leaves_pytorchs_compiler_alone():
    """It takes most of a second to import, of every rank: PyTorch does so when it is asked to be deterministic."""
    program = """
import sys
import torch
from recsys.models.matrix_factorization.sgd import reproducible_torch
before = torch.get_num_threads()
with reproducible_torch(torch.device("cpu")):
    inside = torch.get_num_threads()
assert (inside, torch.get_num_threads()) == (1, before)
print(*{"torch._inductor", "torch._dynamo"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
