"""Small fits of bayesian_mf in the processes of a group."""

from pathlib import Path
from typing import Any

import numpy as np

from recsys.data.interactions import Interactions
from recsys.distributed.checkpoints import Checkpoints
from recsys.distributed.context import Context
from recsys.distributed.process_group import Group
from recsys.errors import StoppedError
from recsys.models.base.biases import learn_biases
from recsys.models.base.calibration import LikeCalibration
from recsys.models.base.family import FitOptions
from recsys.models.base.knowledge import Knowledge
from recsys.models.bayesian_mf import family
from recsys.models.bayesian_mf.config import Config

N_USERS, N_ITEMS = 70, 50
CONFIG = Config(embedding_size=3, samples=12, device="cpu")


def planted() -> Interactions:
    """Ratings by two factors, biases and noise, in time; a user who rated nearly all, one with two, an unrated item."""
    random = np.random.default_rng(4)
    shares = np.linspace(0.05, 0.95, N_USERS)
    users, items = np.nonzero(random.random((N_USERS, N_ITEMS)) < shares[:, None])
    known = items != 7
    users, items = users[known].astype(np.int32), items[known].astype(np.int32)
    p, q = random.normal(size=(N_USERS, 2)), random.normal(size=(N_ITEMS, 2))
    ratings = 3 + (p[users] * q[items]).sum(1) * 0.7 + random.normal(size=len(users)) * 0.5
    return Interactions(users, items, ratings, random.integers(0, 10**6, len(users)).astype(float))


def _knowledge(rows: Interactions) -> Knowledge:
    ids = np.arange(N_USERS).astype(str).astype(object), np.arange(N_ITEMS).astype(str).astype(object)
    biases = learn_biases(rows.users, rows.items, rows.ratings, N_USERS, N_ITEMS)
    return Knowledge(*ids, np.zeros((0, 2), np.int32), (0.0, 6.0), 3.5, biases, LikeCalibration(1.0, -3.5))


def fit_both(context: Context | None = None, seen: list[float] | None = None) -> dict[str, Any]:
    """What validation chooses, and the refit that it starts, as arrays."""
    rows = planted()
    held_out = np.arange(len(rows)) % 6 == 0
    first, validation = rows[np.flatnonzero(~held_out)], rows[np.flatnonzero(held_out)]

    def report(sweep: int, metrics: dict[str, float]) -> None:
        if seen is not None:
            seen.append(metrics["validation_rmse"])

    chosen = family.fit(_knowledge(first), first, CONFIG, FitOptions(2, validation, None, report, context))
    if context is not None:  # as a rank does: each fit has checkpoints of its own
        kept = context.checkpoints
        folder = kept.folder.parent / f"{kept.folder.name}-2"
        context = Context(context.group, Checkpoints(folder, "2", context.group, kept.every_seconds))
    final = family.fit(_knowledge(rows), rows, CONFIG, FitOptions(2, warm_start=chosen, context=context))
    arrays = {}
    for name, fitted in (("chosen", chosen), ("final", final)):
        arrays |= {f"{name} users": fitted.draws.users, f"{name} items": fitted.draws.items}
        arrays |= {f"{name} sessions": fitted.draws.session_bias, f"{name} threshold": np.array(fitted.threshold)}
    return arrays | {"choices": chosen.choices()}


def share(group: Group, folder: Path, stop_at: int | None = None) -> dict[str, Any]:
    """A fit of the group; the last rank alone is told to stop once it has heard of so many sweeps."""
    seen: list[float] = []
    beats: list[tuple[int, bool]] = []

    def told() -> bool:
        return stop_at is not None and group.rank == group.size - 1 and len(seen) >= stop_at

    checkpoints = Checkpoints(folder, "1", group, 1e-9)  # after every sweep
    context = Context(
        group, checkpoints, is_told_to_stop=told, beat=lambda step, waiting: beats.append((step, waiting))
    )
    try:
        answer = fit_both(context, seen)
    except StoppedError:
        return {"stopped": len(seen), "saved": checkpoints.saved}
    waits = sum(waiting for _, waiting in beats)
    return answer | {"curve": seen, "loaded": checkpoints.loaded, "waits": waits, "sent": group.traffic.sent}
