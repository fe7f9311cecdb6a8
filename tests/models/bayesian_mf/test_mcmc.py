"""Which draws of a chain are kept."""

import numpy as np
import pytest

from recsys.data.interactions import Interactions
from recsys.models.bayesian_mf.config import Config
from recsys.models.bayesian_mf.gibbs import Chain
from recsys.models.bayesian_mf.mcmc import (
    TRIAL_AFTER,
    TRIAL_LOOKS,
    HeldOut,
    ModelTerm,
    run_chain,
    thinning,
    try_terms,
)


@pytest.fixture
def held_out_and_chain():
    random = np.random.default_rng(0)
    users, items = (codes.astype(np.int32) for codes in np.nonzero(random.random((20, 15)) < 0.7))
    rows = Interactions(users, items, random.normal(size=len(users)))
    out, unknown = rows[:40], np.arange(40) < 3
    held_out = HeldOut(out, ~unknown, np.zeros(40), out.ratings > 0, (-5.0, 5.0))
    return held_out, Chain(rows[40:], (20, 15), Config(embedding_size=2, device="cpu"), seed=0)


def ignore(progress):
    pass


def test_draws_that_a_chain_makes_while_a_term_is_refused_are_kept(held_out_and_chain):
    held_out, chain = held_out_and_chain
    nothing = ModelTerm(lambda chain, each: None, 1.0)
    same, begun = try_terms(chain, [nothing], held_out, ignore, 1)
    assert same is chain
    made = TRIAL_AFTER + TRIAL_LOOKS[-1] - chain.warm_up.burn_in
    assert chain.sweeps == chain.warm_up.start + chain.warm_up.burn_in + made
    assert len(begun) == made
    assert (begun[-1].item_factors == chain.draw().item_factors).all()
    told = []
    kept = run_chain(chain, 10, every=1, stop_early=False, held_out=held_out, on_sweep=told.append, begun=begun)
    assert kept[:5] == begun[-5:]
    assert sorted({progress.draws_kept for progress in told}) == [6, 7, 8, 9, 10]
    assert chain.sweeps == chain.warm_up.start + chain.warm_up.burn_in + made + 5


def test_where_not_every_draw_is_kept_none_of_a_trial_is(held_out_and_chain):
    held_out, chain = held_out_and_chain
    assert try_terms(chain, [ModelTerm(lambda chain, each: None, 1.0)], held_out, ignore, 2) == (chain, [])


def test_a_term_that_helps_begins_its_draws_anew(held_out_and_chain, monkeypatch):
    held_out, chain = held_out_and_chain
    monkeypatch.setattr("recsys.models.bayesian_mf.mcmc.standard_errors", lambda gain, users: 100.0)
    better, begun = try_terms(chain, [ModelTerm(lambda chain, each: None, 1.0)], held_out, ignore, 1)
    assert better is not chain
    assert begun == []


def test_the_error_of_the_mean_counts_unknown_pairs_and_kept_draws(held_out_and_chain):
    held_out, chain = held_out_and_chain
    told = []
    kept = run_chain(chain, 4, every=1, stop_early=False, held_out=held_out, on_sweep=told.append)
    users, items = held_out.rows.users, held_out.rows.items
    predicted = np.zeros(40)
    for draw in kept:
        p, q = draw.user_factors.astype(float)[users], draw.item_factors.astype(float)[items]
        standardised = (p[:, :-1] * q[:, :-1]).sum(1) + p[:, -1] + q[:, -1]
        predicted += (chain.centre + chain.scale * standardised) / len(kept)
    predicted[~held_out.known] = held_out.fallback[~held_out.known]
    expected = np.sqrt(np.mean((np.clip(predicted, *held_out.scale) - held_out.rows.ratings) ** 2))
    assert told[-1].validation_rmse == pytest.approx(expected, rel=1e-5)


def test_more_ratings_than_factors_are_needed_to_keep_draws_in_a_row():
    assert thinning(100, 10, 10) == 1
    assert thinning(99, 10, 10) == 2
