"""Chains that begin where another one is."""

import copy
from dataclasses import replace

import numpy as np
import torch

from recsys.arrays import Array, Codes
from recsys.models.bayesian_mf.gibbs import Chain


def fork(chain: Chain) -> Chain:
    """A chain at the same place that goes on by itself, with the same random numbers. Ratings are shared."""
    other = copy.copy(chain)  # a sweep replaces tensors and does not write into them
    other.users, other.items = replace(chain.users), replace(chain.items)
    other.runs = replace(chain.runs) if chain.runs else None
    other.generator, other.noise_generator = (
        torch.Generator(old.device).set_state(old.get_state()) for old in (chain.generator, chain.noise_generator)
    )
    return other


def go_on_from(chain: Chain, start: int, users: tuple[Codes, Array], items: tuple[Codes, Array]) -> None:
    """Take the place of a chain over other ratings: codes of the rows that it had, (m,), and their factors, (m, d).

    Rows that it had not begin at the mean of the others. `start` is how many sweeps that counts for; the first
    sweeps from there draw what else the chain knew, and are no draws of the posterior yet.
    """
    for side, (codes, factors) in ((chain.users, users), (chain.items, items)):
        whole = np.tile(factors.mean(0), (len(side.counts), 1)).astype(np.float32)
        whole[codes] = factors
        side.factors = torch.from_numpy(whole).to(chain.device)
    chain.sweeps = start
