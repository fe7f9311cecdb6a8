"""Chains that begin where another one is: with one more term, or with more ratings."""

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from recsys.arrays import Array, Codes
from recsys.models.bayesian_mf.implicit_features import learn_coratings
from recsys.models.bayesian_mf.session_bias import start_run_bias
from recsys.runtime.threads import one_thread

if TYPE_CHECKING:
    from recsys.models.bayesian_mf.gibbs import Chain


def fork(chain: "Chain") -> "Chain":
    """A chain at the same place that goes on by itself, with the same random numbers. Ratings are shared."""
    other = copy.copy(chain)  # a sweep replaces tensors and does not write into them
    other.users, other.items = replace(chain.users), replace(chain.items)
    other.runs = replace(chain.runs) if chain.runs else None
    other.generator, other.noise_generator = (
        torch.Generator(old.device).set_state(old.get_state()) for old in (chain.generator, chain.noise_generator)
    )
    return other


def add_implicit(chain: "Chain") -> None:
    """Have the chain learn from who rated what; the link is drawn in the next sweep."""
    with one_thread(chain.device):
        learnt = learn_coratings(chain.users, chain.items, chain.noise_generator)
    chain.users.features, chain.items.features, chain.projection = learnt
    for side in (chain.users, chain.items):
        assert side.features is not None
        side.link = torch.zeros(side.features.shape[1], chain.size + 1, device=chain.device)


def add_runs(chain: "Chain", users: Codes, of_rating: Codes) -> None:
    """Have the chain learn a bias of every run, given the user of each, (m,), and the run of every rating, (n,)."""
    chain.runs = start_run_bias(users, of_rating, chain.device)
    chain.rest = torch.zeros_like(chain.target)


def go_on_from(chain: "Chain", start: int, users: tuple[Codes, Array], items: tuple[Codes, Array]) -> None:
    """Take the place of a chain over other ratings: codes of the rows that it had, (m,), and their factors, (m, d).

    Rows that it had not begin at the mean of the others. `start` is how many sweeps that counts for; the first
    sweeps from there draw what else the chain knew, and are no draws of the posterior yet.
    """
    for side, (codes, factors) in ((chain.users, users), (chain.items, items)):
        whole = np.tile(factors.mean(0), (len(side.counts), 1)).astype(np.float32)
        whole[codes] = factors
        side.factors = torch.from_numpy(whole).to(chain.device)
    chain.sweeps = start
