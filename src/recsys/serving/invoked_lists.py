"""Lists by MLflow's scoring protocol: a table of users in, a row a user out, as the MLflow model answers."""

import math
from collections.abc import Sequence
from typing import Any

from recsys.serving.http import ProblemError, Reply, as_id, cut, dump
from recsys.serving.lists import lister
from recsys.serving.service import Service

_MOST_USERS = 100  # of a request: a worker answers nobody else meanwhile
_DEFAULTS: dict[str, Any] = {"n": 10, "exclude_seen": True, "diversity": 0.0}


def invoked_lists(service: Service, users: Sequence[Any], given: Any) -> Reply:
    """Lists for users, who may repeat, in their order; they are not recorded as shown.

    Raises:
        ProblemError: for a parameter that is unknown or out of range, too many users, or a version without lists.
    """
    n, exclude_seen, diversity = _parameters(service, given)
    if len(users) > _MOST_USERS:
        raise ProblemError(
            413, f"lists for at most {_MOST_USERS} users are made, got {len(users)}; send fewer, or run recommend"
        )
    served = lister(service)
    engine, answers = served.engine, []
    for row, user in enumerate(users):
        code, history = service.history(engine, as_id(user, f"row {row}: user_id"))
        listed = engine.recommend(code, history, n, exclude_seen=exclude_seen, diversity=diversity)
        answers.append(
            {
                "items": [engine.items[item] for item in listed.items.tolist()],
                "scores": listed.scores.tolist(),
                "like_probabilities": listed.probabilities.tolist(),
                "policy": listed.policy,
                "note": listed.note,
            }
        )
    return Reply(dump({"predictions": answers}), version=served.version, family=served.family)


def _parameters(service: Service, given: Any) -> tuple[int, bool, float]:
    """n, exclude_seen and diversity of the member `params`."""
    if given is not None and not (isinstance(given, dict) and set(given) <= set(_DEFAULTS)):
        raise ProblemError(400, f"params: an object of {', '.join(_DEFAULTS)} is needed, got {cut(given)}")
    found = _DEFAULTS | (given or {})
    n, seen, diversity, most = found["n"], found["exclude_seen"], found["diversity"], service.settings.max_n
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= most:
        raise ProblemError(400, f"params: n: a whole number from 1 to {most} is needed, got {cut(n)}")
    if not isinstance(seen, bool):
        raise ProblemError(400, f"params: exclude_seen: true or false is needed, got {cut(seen)}")
    is_number = isinstance(diversity, int | float) and not isinstance(diversity, bool)
    if not is_number or not (math.isfinite(diversity) and 0 <= diversity <= 1):
        raise ProblemError(400, f"params: diversity: a number from 0 to 1 is needed, got {cut(diversity)}")
    return n, seen, float(diversity)
