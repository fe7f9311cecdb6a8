"""Handlers of scores: MLflow's scoring protocol, the Open Inference Protocol v2, and KServe's v1."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recsys.arrays import Floats
from recsys.errors import InputError
from recsys.serving.engine import NO_HISTORY
from recsys.serving.http import ProblemError, Reply, Request, as_id, cut, dump
from recsys.serving.invoked_lists import invoked_lists
from recsys.serving.service import Scorer, Served, Service

_COLUMNS = ("user_id", "item_id")
_FORM = 'send {"dataframe_split": {"columns": ["user_id", "item_id"], "data": [["1", "2"]]}}'


async def invocations(service: Service, request: Request) -> Reply:
    """POST /invocations: MLflow's scoring protocol in JSON; users alone are answered by lists."""
    own = _own_names(service.current())
    body = request.json()
    if not isinstance(body, dict):
        raise ProblemError(400, f"an object is needed as body, got {cut(body)}; {_FORM}")
    rows: Any
    if "dataframe_split" in body:
        rows = _of_split(body["dataframe_split"], own)
    else:
        rows = next((body[key] for key in ("dataframe_records", "instances", "inputs") if key in body), None)
        rows = _of_columns(rows, own) if isinstance(rows, dict) else _of_records(rows, own)
    if rows and len(rows[0]) == 1:
        return invoked_lists(service, [user for (user,) in rows], body.get("params"))
    return _predictions(service, rows)


async def predict(service: Service, request: Request) -> Reply:
    """POST /v1/models/{name}:predict: KServe's v1."""
    own = _own_names(check_model(service, request))
    body = request.json()
    rows = _of_records(body.get("instances") if isinstance(body, dict) else None, own)
    if rows and len(rows[0]) == 1:
        raise ProblemError(400, f"row 0: user_id and item_id are needed; lists: POST /invocations; {_FORM}")
    return _predictions(service, rows)


def _own_names(served: Served) -> Mapping[str, str]:
    """What user_id and item_id were called in the ratings learnt from, where that was otherwise."""
    found: Mapping[str, str] = served.about.get("columns", {})  # forms of earlier releases do not say
    return found


def _of_split(table: Any, own: Mapping[str, str]) -> list[tuple[Any, ...]]:
    columns, data = (table.get(key) if isinstance(table, dict) else None for key in ("columns", "data"))
    if not isinstance(columns, list) or not isinstance(data, list):
        raise ProblemError(400, f"columns user_id and item_id are needed, got {cut(columns)}; {_FORM}")
    at = [columns.index(name) for name in _asked(columns, "columns", own)]
    for row, values in enumerate(data):
        if not isinstance(values, list) or len(values) != len(columns):
            raise ProblemError(400, f"row {row}: {len(columns)} values are needed, one a column, got {cut(values)}")
    return [tuple(values[place] for place in at) for values in data]


def _of_columns(columns: dict[str, Any], own: Mapping[str, str]) -> list[tuple[Any, ...]]:
    found = [columns[name] for name in _asked(list(columns), "lists", own)]
    if not all(isinstance(values, list) and len(values) == len(found[0]) for values in found):
        raise ProblemError(400, f"as many user_id as item_id are needed, as two lists; {_FORM}")
    return list(zip(*found, strict=True))


def _of_records(rows: Any, own: Mapping[str, str]) -> list[tuple[Any, ...]]:
    if not isinstance(rows, list):
        raise ProblemError(400, f"rows of user_id and item_id are needed, got {cut(rows)}; {_FORM}")
    names = _asked(list(rows[0]), "row 0:", own) if rows and isinstance(rows[0], dict) else _COLUMNS
    for row, values in enumerate(rows):
        if not isinstance(values, dict) or not set(names) <= set(values):
            raise ProblemError(400, f"row {row}: {' and '.join(names)} are needed, got {cut(values)}; {_FORM}")
    return [tuple(values[name] for name in names) for values in rows]


def _asked(columns: Sequence[Any], where: str, own: Mapping[str, str]) -> Sequence[str]:
    """The columns that count, ours before own ones: user and item, or users alone, who are asked about as a whole."""
    user, item = (next((name for name in (ours, own.get(ours, ours)) if name in columns), None) for ours in _COLUMNS)
    if user is None:
        as_learnt = " and ".join(repr(own.get(name, name)) for name in _COLUMNS)
        also = f", or {as_learnt} as in the ratings learnt from," if own.keys() & set(_COLUMNS) else ""
        raise ProblemError(400, f"{where} user_id and item_id{also} are needed, got {cut(list(columns))}; {_FORM}")
    return (user,) if item is None else (user, item)


def _predictions(service: Service, pairs: Sequence[tuple[Any, ...]]) -> Reply:
    served = service.current()
    rating, like = _score(service, served, pairs)
    content = [
        {"rating": one, "like_probability": other} for one, other in zip(rating.tolist(), like.tolist(), strict=True)
    ]
    return Reply(dump({"predictions": content}), version=served.version, family=served.family)


def _score(service: Service, served: Served, pairs: Sequence[tuple[Any, ...]]) -> tuple[Floats, Floats]:
    """Expected ratings and probabilities of a like, (n,) each, in the order of the pairs."""
    if len(pairs) > service.settings.max_batch:
        raise ProblemError(413, f"at most {service.settings.max_batch} rows are taken, got {len(pairs)}; send fewer")
    engine = served.engine
    of_user: dict[str, list[int]] = {}
    items = np.empty(len(pairs), np.int32)
    for row, (user, item) in enumerate(pairs):
        of_user.setdefault(as_id(user, f"row {row}: user_id"), []).append(row)
        items[row] = engine.items.find(as_id(item, f"row {row}: item_id"))
    rating, like = np.empty(len(pairs)), np.empty(len(pairs))
    if served.scorer is not None:
        _score_stored(served.scorer, served, pairs, rating, like)
    for user, rows in of_user.items():
        code = engine.users.find(user)
        if code >= 0 and served.scorer is not None:
            continue
        # A user who was learnt from is answered as the version answers; for another the feedback tells.
        history = NO_HISTORY if code >= 0 else service.history(engine, user)[1]
        rating[rows], like[rows] = engine.predict(code, history, items[rows])
    return rating, like


def _score_stored(
    scorer: Scorer, served: Served, pairs: Sequence[tuple[Any, Any]], rating: Floats, like: Floats
) -> None:
    """Fill in the scores of users who were learnt from."""
    ids = np.array([(str(user), str(item)) for user, item in pairs], object).reshape(-1, 2)
    known = np.flatnonzero([served.engine.users.find(user) >= 0 for user in ids[:, 0]])
    try:
        found = scorer.predict(ids[known, 0], ids[known, 1])
    except InputError as error:
        raise ProblemError(503, str(error), 2) from None
    rating[known], like[known] = found


async def infer(service: Service, request: Request) -> Reply:
    """POST /v2/models/{name}[/versions/{version}]/infer: tensors `user_id` and `item_id` in, two of FP64 out."""
    served = check_model(service, request)
    body = request.json()
    tensors = body.get("inputs") if isinstance(body, dict) else None
    found = {
        tensor["name"]: tensor["data"]
        for tensor in (tensors if isinstance(tensors, list) else [])
        if isinstance(tensor, dict) and isinstance(tensor.get("name"), str) and isinstance(tensor.get("data"), list)
    }
    if not set(_COLUMNS) <= set(found) or len(found["user_id"]) != len(found["item_id"]):
        raise ProblemError(
            400, "inputs user_id and item_id, BYTES of the same shape, are needed; see /v2/models/recsys"
        )
    users, items = (_flat(found[name]) for name in _COLUMNS)
    rating, like = _score(service, served, list(zip(users, items, strict=False)))
    outputs = [
        {"name": name, "shape": [len(data)], "datatype": "FP64", "data": data.tolist()}
        for name, data in (("rating", rating), ("like_probability", like))
    ]
    content = {"model_name": service.settings.model_name, "model_version": served.version, "outputs": outputs}
    identity = body.get("id")
    content["id"] = identity if isinstance(identity, str) else request.id
    return Reply(dump(content), version=served.version, family=served.family)


def _flat(data: list[Any]) -> list[Any]:
    """The values of a tensor of shape (n,) or (n, 1)."""
    return [value[0] if isinstance(value, list) and len(value) == 1 else value for value in data]


def check_model(service: Service, request: Request) -> Served:
    """The version that a path /v2/models/{name}[/versions/{version}] means: the one served, or it is not found."""
    served, parts = service.current(), request.parts
    asked = parts[4] if len(parts) > 4 and parts[3] == "versions" else served.version
    if parts[2].partition(":")[0] != service.settings.model_name or asked != served.version:
        raise ProblemError(
            404, f"{cut('/'.join(parts))}: model {service.settings.model_name!r} in version {served.version} is served"
        )
    return served


def model_metadata(service: Service, request: Request) -> Reply:
    """GET /v2/models/{name}: its tensors."""
    served = check_model(service, request)
    tensors = {
        "inputs": [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in _COLUMNS],
        "outputs": [{"name": name, "datatype": "FP64", "shape": [-1]} for name in ("rating", "like_probability")],
    }
    about = {"name": service.settings.model_name, "versions": [served.version], "platform": "recsys", **tensors}
    return Reply(dump(about), version=served.version, family=served.family)
