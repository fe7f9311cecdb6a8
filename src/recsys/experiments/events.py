"""A sequential test of rare events, such as errors: do they befall the challenger's users more often than allowed."""

import math

from scipy.special import betainc, betaln

_MANYFOLD = 100.0  # a broken version: its rate is this many times what is allowed
_BROKEN = 0.75  # of the mixture; the rest is for versions that are only worse


def log_evidence(champion: int, challenger: int, share: float, ratio: float = 1.0) -> float:
    """The logarithm of an e-value against "events befall users of the challenger at most `ratio` times as often".

    Given that an event happens, it is the challenger's with probability p0 = share ratio / (share ratio + 1 - share) at
    most (Lindon, Sanden and Shirikian, KDD 2022, "Rapid regression detection in software deployments through sequential
    testing", where the arms' counting processes are compared by that). For k events of the challenger among k + m, the
    likelihood ratio, mixed over what p may be instead, is a supermartingale; it exceeds 1 / alpha at any time with
    probability alpha at most (Ville's inequality). A quarter of the mixture is uniform above p0, the rest is where the
    rate is a hundred times the allowed one:

        E = ¼ ∫ p^k (1 - p)^m dp / (1 - p0) / L0 + ¾ p1^k (1 - p1)^m / L0,    L0 = p0^k (1 - p0)^m

    Args:
        champion, challenger: the first such event of each user, counted by arm, so that they are independent.
        share: of users that see the challenger.
    """
    k, m = challenger, champion
    allowed = _probability(share, ratio)
    broken = _probability(share, ratio * _MANYFOLD)
    null = k * math.log(allowed) + m * math.log1p(-allowed)
    above = max(1 - float(betainc(k + 1, m + 1, allowed)), 1e-300)
    spread = float(betaln(k + 1, m + 1)) + math.log(above) - math.log1p(-allowed) - null
    point = k * math.log(broken) + m * math.log1p(-broken) - null
    high = max(spread, point)
    return high + math.log((1 - _BROKEN) * math.exp(spread - high) + _BROKEN * math.exp(point - high))


def _probability(share: float, ratio: float) -> float:
    return share * ratio / (share * ratio + 1 - share)
