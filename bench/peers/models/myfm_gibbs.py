"""myFM: a factorization machine, Gibbs-sampled in C++, of users and items; perhaps with implicit terms and sessions."""

from typing import Any

import myfm
import numpy as np
from scipy import sparse


def load(rows: Any) -> Any:
    """Known users and items, the ratings with where in those their user and item is, their matrix, their sessions."""
    sides = np.unique(rows.users), np.unique(rows.items)
    codes = _find(sides[0], rows.users), _find(sides[1], rows.items)
    rated = sparse.csr_matrix((np.ones(len(codes[0])), codes), shape=(len(sides[0]), len(sides[1])))
    return sides, codes, rows.ratings, (rated, rated.T.tocsr()), rows.sessions


def fit(data: Any, settings: dict[str, Any], seed: int) -> Any:
    """Users and items are groups of their own, each with its hyperparameters; so are the implicit terms.

    With `implicit`, a user also has the items rated, each as 1 over the root of their number (SVD++), and an item
    the users who rated it, as in the longer examples of myFM's documentation. With `sessions`, a rating has the session
    in which it was given, one of those that ours cut. Unknown ids have no feature, and a rating of no session neither.
    """
    sides, codes, ratings, rated, sessions = data
    groups, blocks = [len(known) for known in sides], []
    if settings["implicit"]:
        for of_side in rated:
            shares = sparse.diags(1 / np.sqrt(np.diff(of_side.indptr))) @ of_side
            nothing = sparse.csr_matrix((1, of_side.shape[1]))  # the last row is that of every unknown id
            blocks.append(sparse.vstack([shares, nothing], format="csr"))
            groups.append(of_side.shape[1])

    if settings["sessions"]:
        n = int(sessions.max()) + 1
        blocks.append(sparse.vstack([sparse.identity(n), sparse.csr_matrix((1, n))], format="csr"))
        groups.append(n)

    def related(codes: Any, sessions: Any) -> Any:
        at = list(codes) if settings["implicit"] else []
        if settings["sessions"]:
            at.append(np.where(sessions < 0, n, sessions).astype(np.int64))
        return [myfm.RelationBlock(code, block) for code, block in zip(at, blocks, strict=True)]

    model = myfm.MyFMGibbsRegressor(rank=settings["rank"], random_seed=seed)
    table = _one_hot(codes, sides)
    model.fit(table, ratings, X_rel=related(codes, sessions), n_iter=settings["n_iter"], group_shapes=groups)

    def predict(rows: Any) -> Any:
        at = _find(sides[0], rows.users), _find(sides[1], rows.items)
        return model.predict(_one_hot(at, sides), related(at, rows.sessions))

    return predict


def _find(known: Any, ids: Any) -> Any:
    """Where the ids are among the known ones, which are sorted; behind the last where they are not."""
    at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    return np.where(known[at] == ids, at, len(known)).astype(np.int64)


def _one_hot(codes: Any, sides: Any) -> Any:
    parts = []
    for code, known in zip(codes, sides, strict=True):
        found = np.flatnonzero(code < len(known))
        entries = np.ones(len(found)), (found, code[found])
        parts.append(sparse.csr_matrix(entries, shape=(len(code), len(known))))
    return sparse.hstack(parts, format="csr")
