"""Chains that begin where another chain is, or ended."""

import copy
from dataclasses import replace

import numpy as np

from recsys.arrays import Array, Codes
from recsys.models.bayesian_mf.gibbs import Chain


def fork(chain: Chain) -> Chain:
    """An independent chain in the same state, with the same random numbers to come. The ratings are shared."""
    other = copy.copy(chain)  # a sweep replaces tables and does not write into them
    other.users, other.items = replace(chain.users), replace(chain.items)
    other.sessions = chain.sessions.fork() if chain.sessions else None
    other.generator, other.noise_generator = copy.deepcopy(chain.generator), chain.backend.fork(chain.noise_generator)
    return other


def continue_from(chain: Chain, users: tuple[Codes, Array], items: tuple[Codes, Array]) -> None:
    """Give a new chain the factors of an earlier chain, which had other ratings.

    Users and items that the earlier chain did not have get the mean of the others. The chain then counts as started.
    Its first sweeps draw the other unknowns, so that they are not yet draws from the posterior.

    Args:
        chain: a chain without any sweep.
        users: codes of the users that the earlier chain had, shape (m,), and their factors, shape (m, d).
        items: the same of the items.
    """
    for entity, (codes, factors) in ((chain.users, users), (chain.items, items)):
        whole = np.tile(factors.mean(0), (len(entity.counts), 1)).astype(np.float32)
        whole[codes] = factors
        entity.factors = chain.backend.table(whole)
    chain.sweeps = chain.warm_up.start
