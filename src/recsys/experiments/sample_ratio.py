"""Does each arm have the users that it should have: a sequential multinomial test."""

from collections.abc import Sequence

import numpy as np
from scipy.special import gammaln

from recsys.arrays import Floats

CONCENTRATION = 100.0
"""Of the prior around the shares: a split that is off by some points of a hundred is expected, where one is."""


def log_evidence(counts: Sequence[float] | Floats, shares: Sequence[float] | Floats) -> Floats:
    """The logarithm of the Bayes factor against "users fall into arms by these shares".

    Lindon and Malek (NeurIPS 2022, "Anytime-valid inference for multinomial count data", equation 5), with a Dirichlet
    prior of parameters a_i = C share_i; it exceeds 1 / alpha at any time with probability alpha at most:

        log E = log Γ(Σa) - log Γ(Σa + Σn) + Σ (log Γ(a_i + n_i) - log Γ(a_i)) - Σ n_i log share_i

    Args:
        counts: users by arm, (..., arms).
        shares: (arms,), which sum to 1.
    """
    n, given = np.asarray(counts, np.float64), np.asarray(shares, np.float64)
    prior = CONCENTRATION * given
    whole = gammaln(prior.sum()) - gammaln(prior.sum() + n.sum(-1))
    parts = gammaln(prior + n) - gammaln(prior) - n * np.log(given)
    return np.asarray(whole + parts.sum(-1), np.float64)
