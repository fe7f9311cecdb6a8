"""How served lists are: who asked, by which policy they were made, and what of the catalogue they show."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
from scipy import sparse

from recsys.arrays import Codes, Floats
from recsys.models.base.knowledge import Knowledge
from recsys.monitoring.traffic import Names, Traffic

_SAMPLED_LISTS = 1_000  # whose items are compared with each other


def describe_lists(traffic: Traffic, names: Names, knowledge: Knowledge, seed: int = 0) -> dict[str, float]:
    """Numbers of the lists of a window; those that do not exist are left out.

    `coverage`: share of the version's catalogue that was shown. `gini`: of how often its items were shown, 0 where all
    were equally often. `novelty`: mean bits of the share of ratings that a shown item has. `diversity`: one less the
    mean cosine of two items of a list, by who rated them; of a sample of lists.
    """
    found: dict[str, float] = {"lists": len(traffic), "users": len(np.unique(traffic.users))}
    if not len(traffic):
        return found
    hours = float(np.ptp(traffic.moments)) / 3600
    found["lists_per_hour"] = len(traffic) / max(hours, 1 / 60)
    for policy, count in sorted(Counter(traffic.policies.tolist()).items()):
        found[f"policy_{policy}"] = count / len(traffic)
    known_users = knowledge.user_codes(names.users.names) >= 0
    found["unknown_users"] = float(np.mean(~known_users[traffic.users]))
    items = knowledge.item_codes(names.items.names)[traffic.items] if len(traffic.items) else traffic.items
    if not len(items):
        return found
    found["unknown_items"] = float(np.mean(items < 0))
    items = items[items >= 0]
    counts = np.bincount(items, minlength=len(knowledge.item_ids))
    found["coverage"] = float(np.mean(counts > 0))
    found["gini"] = gini(counts.astype(np.float64))
    ratings = np.bincount(knowledge.seen[:, 1], minlength=len(knowledge.item_ids))
    found["novelty"] = float(np.mean(-np.log2(np.maximum(ratings[items], 1) / max(len(knowledge.seen), 1))))
    diversity = _diversity(traffic, knowledge.item_codes(names.items.names), knowledge, seed)
    return found if np.isnan(diversity) else {**found, "diversity": diversity}


def gini(counts: Floats) -> float:
    """The Gini coefficient of how often each item was shown, (n,): 0 for all equally, near 1 for one alone."""
    ordered = np.sort(counts)
    n, total = len(ordered), ordered.sum()
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * total)) if total > 0 else float("nan")


def _diversity(traffic: Traffic, codes: Codes, knowledge: Knowledge, seed: int) -> float:
    seen = knowledge.seen
    table = sparse.csr_array(
        (np.ones(len(seen), np.float32), (seen[:, 1], seen[:, 0])),
        shape=(len(knowledge.item_ids), len(knowledge.user_ids)),
    )
    ends = np.cumsum(traffic.sizes)
    random = np.random.default_rng(seed)
    chosen = random.choice(len(traffic), min(_SAMPLED_LISTS, len(traffic)), replace=False)
    found = []
    for at in chosen:
        items = codes[traffic.items[ends[at] - traffic.sizes[at] : ends[at]]]
        items = items[items >= 0]
        rows = table[items]
        norms = np.sqrt(rows.sum(axis=1))
        if len(items) < 2:
            continue
        cosines = (rows @ rows.T).toarray() / np.maximum(np.outer(norms, norms), 1e-9)
        n = len(items)
        found.append(1 - (cosines.sum() - np.trace(cosines)) / (n * (n - 1)))
    return float(np.mean(found)) if found else float("nan")


def traffic_per_hour(traffic: Traffic, since: float, until: float, bins: int = 48) -> Mapping[str, Floats]:
    """Lists an hour by policy, (bins,), and under "at" where each bin begins, in seconds since 1970."""
    edges = np.linspace(since, until, bins + 1)
    hours = (edges[1] - edges[0]) / 3600
    found: dict[str, Floats] = {"at": edges[:-1]}
    for policy in sorted(set(traffic.policies.tolist())):
        found[policy] = np.histogram(traffic.moments[traffic.policies == policy], edges)[0] / hours
    return found
