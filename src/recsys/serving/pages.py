"""Handlers of what is not a list, a score or feedback: health, the page, the documentation."""

import math
from functools import cache
from importlib.resources import files
from typing import Any

from recsys.serving.http import ProblemError, Reply, Request, as_id, dump
from recsys.serving.lists import named
from recsys.serving.scores import check_model
from recsys.serving.service import Service, told

_HTML = b"text/html; charset=utf-8"
# The page loads nothing from elsewhere, and nobody may frame it.
_POLICY = (
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
        b"frame-ancestors 'none'; base-uri 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
)


# Health asks for no key: where the database is and what its driver says is for /api/status.
_AWAY = "the team's database does not take it now"


@cache
def _file(name: str) -> bytes:
    return files("recsys.serving").joinpath("static", name).read_bytes()


def page(service: Service, request: Request) -> Reply:
    """GET /: the page."""
    return Reply(_file("index.html"), _HTML, headers=_POLICY)


def status_page(service: Service, request: Request) -> Reply:
    """GET /status: traffic, measures and alarms at a glance."""
    return Reply(_file("status.html"), _HTML, headers=_POLICY)


def monitor(service: Service, request: Request) -> Reply:
    """GET /api/monitor: the monitor's last report, and the course of those before; empty where it has not run."""
    return Reply(dump(service.monitored.content()))


def trial(service: Service, request: Request) -> Reply:
    """GET /api/trial: the trial that runs, or the last one, as the judge saw it; empty where there was none."""
    return Reply(dump(service.judged.content()))


def docs(service: Service, request: Request) -> Reply:
    """GET /docs: what there is, from openapi.json."""
    return Reply(_file("docs.html"), _HTML, headers=_POLICY)


def openapi(service: Service, request: Request) -> Reply:
    """GET /openapi.json."""
    return Reply(_file("openapi.json"))


def live(service: Service, request: Request) -> Reply:
    """GET /api/health/live: this process answers."""
    return Reply(dump({"live": True}))


def _readiness(service: Service) -> dict[str, Any]:
    served, pointer = service.served, service.pointer
    waiting, problem = service.store.sharing()
    trial = pointer.get("trial")
    return {
        "ready": served is not None,
        "version": served.version if served else None,
        "registry": pointer.get("registry_problem") or "answers",
        "refused": pointer.get("refused") or {},
        "feedback": service.store.problem or "kept",
        "unshared": waiting,
        "sharing": _AWAY if problem else None,
        "trial": {"version": trial["version"], "shown": _shown(service)} if trial else None,
        "problem": service.problem or None,
    }


def _shown(service: Service) -> str:
    """Whether a trial that the registry has takes place here."""
    if service.recorder is None:
        return "to nobody: a trial needs the record, and record=false"
    if service.trial is None:
        return "to nobody: a guard has failed"
    if service.trial.served is None:
        return "to nobody: it cannot be opened"
    return "beside" if service.trial.share is None else f"to {100 * service.trial.share:g}% of the users"


def ready(service: Service, request: Request) -> Reply:
    """GET /api/health/ready: whether a version is served, and what is wrong beside."""
    about = _readiness(service)
    return Reply(dump(about), status=200 if about["ready"] else 503)


def model_ready(service: Service, request: Request) -> Reply:
    """GET /v2/models/{name}/ready."""
    served = check_model(service, request)
    return Reply(dump({"name": service.settings.model_name, "ready": True}), version=served.version)


def model_ready_v1(service: Service, request: Request) -> Reply:
    """GET /v1/models/{name}."""
    check_model(service, request)
    return Reply(dump({"name": service.settings.model_name, "ready": "True"}))


def ping(service: Service, request: Request) -> Reply:
    """GET /ping and /health, as MLflow's scoring server has them: empty, 200 once a version is served."""
    if service.served is None:
        raise ProblemError(503, "no version is served yet; promote one, it is loaded then", 2)
    return Reply(b"\n", b"application/json")


def version(service: Service, request: Request) -> Reply:
    """GET /version: which version is served."""
    served = service.current()
    return Reply(f"{served.version}\n".encode(), b"text/plain", version=served.version, family=served.family)


def server_metadata(service: Service, request: Request) -> Reply:
    """GET /v2: the server."""
    return Reply(dump({"name": "recsys", "version": "1", "extensions": []}))


def status(service: Service, request: Request) -> Reply:
    """GET /api/status: what the page shows of the version."""
    served = service.current()
    about = served.about
    content = {
        **_readiness(service),
        "sharing": service.store.sharing()[1] or None,
        "family": served.family,
        "since": served.since,
        "sizes": about["sizes"],
        "scale": about["scale"],
        "loss": about["loss"],
        "chosen": about.get("chosen"),
    }
    return Reply(dump(content), version=served.version, family=served.family)


def history(service: Service, request: Request) -> Reply:
    """GET /api/user/{user}/history: what a list of this user stands on, feedback included, the newest last."""
    served = service.current()
    engine = served.engine
    user = as_id(request.parts[2], "the user")
    given = told(engine, service.store.of_user(user))
    learnt = engine.history(engine.users.find(user))
    before = [pair for pair in zip(learnt.items.tolist(), learnt.ratings.tolist(), strict=True) if pair[0] not in given]
    n = request.number("n", 50, 1, service.settings.max_n)
    content = [
        {**named(engine, item), "Rating": None if math.isnan(rating) else rating}
        for item, rating in [*before, *given.items()][-n:]
    ]
    return Reply(dump(content), version=served.version, family=served.family)
