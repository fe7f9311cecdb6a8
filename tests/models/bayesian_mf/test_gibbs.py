import numpy as np
import pytest

from recsys.data.interactions import Interactions
from recsys.models.bayesian_mf import gibbs, numpy_backend
from recsys.models.bayesian_mf.config import Config
from recsys.models.bayesian_mf.gibbs import Chain
from recsys.models.bayesian_mf.numpy_backend import NumpyBackend
from recsys.models.bayesian_mf.priors import draw_normal_wishart, draw_spread, draw_stretch, spread_weights
from recsys.models.bayesian_mf.torch_backend import TorchBackend
from recsys.models.bayesian_mf.warm_start import fork
from recsys.runtime import threads
from recsys.runtime.threads import workers

CPU = "cpu"


def chain_of(users, items, ratings, n_users, n_items, *, size=1, seed=0, implicit=False, sessions=None) -> Chain:
    """A chain past its start, whose targets are the ratings as they are."""
    rows = Interactions(np.asarray(users, np.int32), np.asarray(items, np.int32), np.asarray(ratings, float))
    chain = Chain(rows, (n_users, n_items), Config(embedding_size=size, device="cpu"), seed)
    if sessions:
        chain.add_sessions(*sessions)
    if implicit:
        chain.add_implicit()
    chain.ratings = chain.target = chain.backend.table(np.append(rows.ratings, 0).astype(np.float32))
    chain.sweeps = chain.warm_up.start
    return chain


def random_ratings(n_users=30, n_items=20, share=0.4, seed=0):
    random = np.random.default_rng(seed)
    users, items = np.nonzero(random.random((n_users, n_items)) < share)
    return users, items, random.normal(size=len(users))


def set_prior(entity, mean, inverse):
    entity.mean, entity.inverse = np.array(mean), np.array(inverse)


def sweep(chain, times=1):
    with workers(CPU) as each:
        for _ in range(times):
            chain.sweep(each)


def draw_users(chain, starting):
    with workers(CPU) as each:
        return chain._draw_factors(chain.users, chain.items, starting, each)


@pytest.mark.parametrize("backend", [NumpyBackend(), TorchBackend("cpu")], ids=["NumPy", "PyTorch"])
def test_draws_have_the_mean_and_variance_of_the_closed_form(backend, monkeypatch):
    """20,000 users who gave the same three ratings: what one draw gives each of them is a sample of one posterior.

    So is the next draw, though overrelaxation puts it on the other side of the mean.
    """
    monkeypatch.setattr(gibbs, "find_backend", lambda device: backend)
    n, rated = 20_000, np.array([2.0, -1, 0.5])
    users, items = np.repeat(np.arange(n), 3), np.tile(np.arange(3), n)
    chain = chain_of(users, items, np.tile(rated, n), n, 3)
    set_prior(chain.users, [0.3, -0.2], [[2.0, 0.5], [0.5, 1.5]])
    chain.noise = 1.7
    chain.items.factors = backend.table(np.array([[1.0, 0.1], [-0.5, 0.2], [2.0, -0.3]], np.float32))
    draw_users(chain, starting=False)
    first = backend.array(chain.users.factors).astype(float)
    regressors = np.array([[1.0, 1], [-0.5, 1], [2.0, 1]])
    prior = np.array([[2.0, 0.5], [0.5, 1.5]])
    precision = prior + 1.7 * regressors.T @ regressors
    mean = np.linalg.solve(precision, prior @ [0.3, -0.2] + 1.7 * regressors.T @ (rated - [0.1, 0.2, -0.3]))
    chain.sweeps += chain.warm_up.plain
    draw_users(chain, starting=False)
    second = backend.array(chain.users.factors).astype(float)
    for drawn in (first, second):
        assert drawn.mean(0) == pytest.approx(mean, abs=5 * 0.6 / n**0.5)
        assert np.cov(drawn.T) == pytest.approx(np.linalg.inv(precision), abs=0.01)
    between = np.cov(first.T, second.T)[:2, 2:]
    assert between == pytest.approx(-gibbs.OVERRELAXATION * np.linalg.inv(precision), abs=0.01)


@pytest.mark.parametrize("cells", [None, 16, 1 << 15], ids=["compiled", "rows in segments", "one block a row"])
def test_a_sweep_is_a_loop_of_solves(cells, monkeypatch):
    backend = TorchBackend("cpu") if cells else NumpyBackend()
    backend.most_cells = cells or backend.most_cells
    monkeypatch.setattr(gibbs, "find_backend", lambda device: backend)
    users, items, ratings = random_ratings(30, 41, 0.6)
    items = np.where(items == 40, 0, items)  # nobody rated item 40
    chain = chain_of(users, items, ratings, 30, 41, size=5)
    assert (max(len(chunk.positions) for chunk in chain.users.chunks) > 1) == (cells == 16)
    chain.users.precision = backend.table(np.random.default_rng(1).random(30, np.float32) + np.float32(0.5))
    set_prior(chain.users, np.arange(6.0), np.eye(6) * 3)
    chain.users.expected = None
    sums = backend.array(draw_users(chain, starting=True))
    q = backend.array(chain.items.factors).astype(float)
    for user in range(30):
        rows = np.flatnonzero(users == user)
        regressors = np.column_stack((q[items[rows], :-1], np.ones(len(rows))))
        target = ratings[rows] - q[items[rows], -1]
        weight = float(chain.users.precision[user]) * chain.noise
        system = 3 * np.eye(6) + weight * regressors.T @ regressors
        expected = np.linalg.solve(system, 3 * np.arange(6) + weight * regressors.T @ target)
        assert backend.array(chain.users.factors)[user] == pytest.approx(expected, abs=1e-4)
        assert backend.array(chain.users.expected)[user] == pytest.approx(expected, abs=1e-4)
        product, rest = regressors[:, :-1] @ expected[:-1], target - expected[-1]
        bias = expected[-1]
        found = (
            *(((rest - product) ** 2).sum(), (product**2).sum(), (product * rest).sum()),
            *(len(rows) * bias**2, bias * (rest + bias - product).sum(), bias * product.sum()),
        )
        assert sums[user] == pytest.approx(found, rel=1e-3, abs=2e-3)


def test_padding_does_not_leak():
    """A user with one rating beside one with all of them: the block is as wide as the longest row."""
    users = np.array([0] * 20 + [1])
    items = np.array([*range(20), 7])
    ratings = np.append(np.full(20, 2.0), 3.0)
    both = chain_of(users, items, ratings, 2, 20, size=3)
    assert both.users.chunks[0].positions[0].shape == (2, 20)
    alone = chain_of(users[20:], items[20:], ratings[20:], 2, 20, size=3)
    alone.items.factors = both.items.factors
    alone.noise = both.noise
    draw_users(both, starting=True)
    draw_users(alone, starting=True)
    assert both.users.factors[1] == pytest.approx(alone.users.factors[1], abs=1e-6)


def test_an_item_nobody_rated_is_drawn_from_the_prior():
    users, items, ratings = random_ratings(10, 5)
    chain = chain_of(users, items, ratings, 10, 4000)
    set_prior(chain.items, [1.0, -1.0], [[4.0, 0.0], [0.0, 25.0]])
    with workers(CPU) as each:
        chain._draw_factors(chain.items, chain.users, False, each)
    drawn = chain.items.factors[5:]
    assert drawn.mean(0) == pytest.approx([1, -1], abs=0.05)
    assert drawn.std(0) == pytest.approx([0.5, 0.2], rel=0.06)


class FixedNoise(Chain):
    """A chain whose noise and priors stay as they were set."""

    noise = property(lambda self: 2.0, lambda self, value: None)
    spread = property(lambda self: 4.0, lambda self, value: None)

    def _draw_prior(self, entity, starting, each):
        pass

    def _stretch(self, entity, moments):
        return 1.0

    def _stretch_biases(self, entity, moments):
        pass


def test_true_values_have_uniform_ranks_among_the_draws(monkeypatch):
    """Simulation-based calibration (Talts et al. 2018) of factors, biases and precisions.

    500 small data sets that share no user and no item are 500 independent replications within one chain.
    """
    monkeypatch.setitem(globals(), "Chain", FixedNoise)
    sets, n_users, n_items, draws = 500, 4, 5, 19
    random = np.random.default_rng(3)
    spread = np.array([0.8, 0.5])
    p, q = (random.normal(size=(sets * n, 2)) * spread for n in (n_users, n_items))
    precision = random.gamma(4.0, 1 / 4.0, sets * n_users)
    block, user, item = (part.ravel() for part in np.indices((sets, n_users, n_items)))
    users, items = block * n_users + user, block * n_items + item
    mean = p[users, 0] * q[items, 0] + p[users, 1] + q[items, 1]
    ratings = mean + random.normal(size=len(mean)) / np.sqrt(2 * precision[users])
    chain = chain_of(users, items, ratings, len(p), len(q))
    for entity, start in ((chain.users, p), (chain.items, q)):
        set_prior(entity, [0.0, 0.0], np.diag(1 / spread**2))
        entity.factors = (random.normal(size=start.shape) * spread).astype(np.float32)
    first = np.arange(sets) * n_users, np.arange(sets) * n_items

    def statistics(p, q, precision):
        p, q = p[first[0]].astype(float), q[first[1]].astype(float)
        return np.stack((p[:, 0] * q[:, 0] + p[:, 1] + q[:, 1], p[:, 1], p[:, 0] ** 2, precision[first[0]]))

    truth, ranks = statistics(p, q, precision), 0
    sweep(chain, 20)
    for _ in range(draws):
        sweep(chain, 8)
        drawn = chain.users.factors, chain.items.factors, chain.users.precision
        ranks = ranks + (statistics(*drawn) < truth)
    for row in ranks:
        counts = np.bincount(row, minlength=draws + 1)
        expected = sets / (draws + 1)
        assert ((counts - expected) ** 2 / expected).sum() < 43.8  # chi-square of 19 degrees, 1 in 1,000


def test_the_biases_of_sessions_are_those_of_the_closed_form():
    users, items, ratings = random_ratings(6, 30, 1.0)
    session_users, session_of = np.repeat(np.arange(6), 3).astype(np.int32), (users * 3 + items // 10).astype(np.int32)
    chain = chain_of(users, items, ratings, 6, 30, sessions=(session_users, session_of))
    assert len(chain.sessions.levels) == 1  # too few sessions for groups of them
    chain.sessions.levels[0].precision = 4.0
    chain.users.precision = np.arange(1, 7, dtype=np.float32)
    draw_users(chain, starting=True)
    chain._draw_sessions(chain.sessions, starting=True)
    p, q = chain.users.factors, chain.items.factors
    rest = ratings - p[users, 0] * q[items, 0] - p[users, 1] - q[items, 1]
    weight = chain.noise * (session_users + 1)
    sums, counts = np.bincount(session_of, weights=rest), np.bincount(session_of)
    expected = weight * sums / (weight * counts + 4)
    assert chain.sessions.value == pytest.approx(expected, abs=1e-4)
    assert chain.target[:-1] == pytest.approx(ratings - expected[session_of], abs=1e-4)


@pytest.mark.parametrize("true", [2.0, 8.0, None])
def test_how_alike_users_are_is_learnt(true):
    """Within a third of the truth where users differ, and near the end of the scale where they do not."""
    random = np.random.default_rng(1)
    counts = random.integers(5, 60, 4000)
    precision = np.ones(4000) if true is None else random.gamma(true, 1 / true, 4000)
    half_errors = random.chisquare(counts) / precision / 2
    given = counts / 2, half_errors, np.random.default_rng(0), spread_weights(counts), NumpyBackend()
    drawn = np.array([draw_spread(*given) for _ in range(20)])
    if true is None:
        assert drawn.min() > 60
    else:
        assert np.log(drawn).mean() == pytest.approx(np.log(true), abs=0.3)


def test_normal_wishart_draws_have_the_posterior_s_mean():
    random = np.random.default_rng(0)
    rows = random.normal(size=(40, 2)) @ np.array([[1.0, 0.4], [0, 0.5]]) + [1, -2]
    generator = np.random.default_rng(0)
    mean = rows.mean(0)
    around = (rows - mean).T @ (rows - mean)
    drawn = [draw_normal_wishart(40, mean, around, generator) for _ in range(3000)]
    scatter = around + np.eye(2) + 2 * 40 / 42 * np.outer(mean, mean)
    assert np.mean([m for m, _ in drawn], 0) == pytest.approx(40 * mean / 42, abs=0.02)
    assert np.mean([p for _, p in drawn], 0) == pytest.approx(42 * np.linalg.inv(scatter), rel=0.03, abs=0.02)


@pytest.mark.parametrize(("squares", "products", "width"), [(400.0, 500.0, 0.5), (3.0, -2.0, 0.02), (0.0, 0.0, 1.0)])
def test_the_stretch_is_drawn_from_its_density(squares, products, width):
    generator, moments = np.random.default_rng(0), np.array([squares, products])
    drawn = np.log([draw_stretch(moments, width, generator) for _ in range(500)])
    steps = np.linspace(-12, 5, 100_001)
    density = np.exp(
        2 * steps - width * np.exp(2 * steps) - (squares * np.exp(2 * steps) - 2 * products * np.exp(steps)) / 2
    )
    density /= density.sum()
    mean = (steps * density).sum()
    spread = np.sqrt(((steps - mean) ** 2 * density).sum())
    assert drawn.mean() == pytest.approx(mean, abs=4 * spread / 500**0.5)
    assert drawn.std() == pytest.approx(spread, rel=0.2)


class FixedRatings(Chain):
    """A chain whose noise stays, to test what is above the factors."""

    noise = property(lambda self: 2.0, lambda self, value: None)
    spread = property(lambda self: 256.0, lambda self, value: None)


@pytest.mark.simulation
def test_draws_go_with_data_drawn_by_them(monkeypatch):
    """Geweke (2004): drawing ratings given the unknowns and the unknowns given the ratings keeps to the prior.

    So the width of each entity, whose prior is Gamma(1, 1), is in each third of that a third of the time; and so is
    the precision of its biases, whose prior is chi-square with 2 degrees of freedom.
    """
    monkeypatch.setitem(globals(), "Chain", FixedRatings)
    users, items, ratings = random_ratings(4, 3, 1.0)
    widths, precisions = [], []
    for seed in range(8):  # the share of one chain has a standard error of 0.05, and each machine rounds to another one
        chain = chain_of(users, items, ratings, 4, 3, size=1, seed=seed)
        generator = np.random.default_rng(seed)
        with workers(CPU) as each:
            for _ in range(2500):
                p, q = chain.users.factors.astype(float), chain.items.factors.astype(float)
                mean = p[users, 0] * q[items, 0] + p[users, 1] + q[items, 1]
                drawn = mean + generator.normal(size=len(mean)) / np.sqrt(2 * chain.users.precision[users])
                chain.target = np.append(drawn, 0).astype(np.float32)
                chain.sweep(each)
                widths.append((chain.users.width, chain.items.width))
                precisions.append([float(entity.inverse[-1, -1]) for entity in (chain.users, chain.items)])
    for values, scale in ((widths, 1), (precisions, 2)):
        share = np.mean(np.array(values)[:, :, None] < -scale * np.log([2 / 3, 1 / 3]), 0)
        assert share == pytest.approx(np.array([[1 / 3, 2 / 3]] * 2), abs=0.1)


def states_equal(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def full_chain(seed=0):
    users, items, ratings = random_ratings(40, 30)
    sessions = np.arange(40, dtype=np.int32), users.astype(np.int32)
    return chain_of(users, items, ratings, 40, 30, size=4, implicit=True, sessions=sessions, seed=seed)


def test_a_chain_is_the_same_with_either_backend_but_for_rounding(monkeypatch):
    """Given the same random numbers: the start, and three draws of everything."""
    states = []
    for backend in (NumpyBackend(), TorchBackend("cpu")):
        random = np.random.default_rng(3)

        def normal(generator, *shape, each=None, random=random, backend=backend):
            return backend.table(random.standard_normal(shape, np.float32))

        def gamma(generator, shape, random=random, backend=backend):
            return backend.table(random.standard_gamma(backend.array(shape), dtype=np.float32))

        backend.normal, backend.gamma = normal, gamma
        monkeypatch.setattr(gibbs, "find_backend", lambda device, backend=backend: backend)
        chain = full_chain()
        chain.sweeps = 0
        sweep(chain, chain.warm_up.start + 3)
        states.append(chain.state())
    assert states[0].keys() == states[1].keys()
    for name in states[0].keys() - {"generator", "noise_generator"}:
        np.testing.assert_allclose(states[0][name], states[1][name], rtol=1e-3, atol=1e-3, err_msg=name)


def test_the_same_seed_gives_the_same_chain_on_any_number_of_threads(monkeypatch):
    """With chunks of a few ratings and small blocks, so that there are many for the threads."""
    monkeypatch.setattr(NumpyBackend, "most_cells", 64)
    monkeypatch.setattr(NumpyBackend, "block", 8)
    monkeypatch.setattr(numpy_backend, "_SMALL", 0)
    found = []
    for number in (1, 3):
        monkeypatch.setattr(threads, "available_threads", lambda number=number: number)
        chain = full_chain()
        assert len(chain.users.chunks) > 3
        sweep(chain, 5)
        found.append(chain.state())
    assert states_equal(*found)
    other = full_chain(seed=1)
    sweep(other, 5)
    assert not states_equal(found[0], other.state())


def test_a_restored_chain_goes_on_as_the_unbroken_one_does():
    unbroken, broken, resumed = full_chain(), full_chain(), full_chain()
    sweep(unbroken, 6)
    sweep(broken, 3)
    resumed.restore(broken.state())
    sweep(resumed, 3)
    assert states_equal(unbroken.state(), resumed.state())
    assert not states_equal(unbroken.state(), broken.state())


def test_a_fork_goes_on_as_the_chain_does_and_leaves_it_alone():
    alone, chain = full_chain(), full_chain()
    sweep(alone, 2)
    sweep(chain, 2)
    twin, grown = fork(chain), fork(chain)
    grown.sessions = None
    sweep(grown, 3)
    sweep(chain, 3)
    sweep(twin, 3)
    sweep(alone, 3)
    assert states_equal(chain.state(), alone.state())
    assert states_equal(twin.state(), alone.state())
    assert not states_equal(grown.state(), alone.state())


def test_the_state_of_another_chain_is_refused():
    users, items, ratings = random_ratings(20, 30)
    other = chain_of(users, items, ratings, 20, 30, size=4)
    with pytest.raises(ValueError, match=r"users_factors is of shape \(40, 5\), not \(20, 5\)"):
        other.restore(full_chain().state())


def test_a_sum_of_squares_that_rounding_makes_negative_does_not_end_a_chain(monkeypatch):
    """As of users whose ratings factors fit without any error, times a large precision."""
    chain = chain_of(*random_ratings(), 30, 20)
    draw = chain._draw_factors

    def rounded(*arguments):
        sums = draw(*arguments)
        sums[:, 0] = -1e4
        return sums

    monkeypatch.setattr(chain, "_draw_factors", rounded)
    sweep(chain)
    assert chain.residual == 0
    assert np.isfinite(chain.users.precision).all()
