"""What a framework costs on the port: an endpoint that answers ten ids, by each that is installed, one process each.

python -m bench.frameworks [seconds]

Processor time of the server a request, which other work on the machine changes little. Granian, Starlette and FastAPI
are asked where they are installed; none of them is a requirement of ours.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import requests

from bench.measure import heading, table
from bench.serving import load
from tests.support.services import free_port
from tests.support.serving_site import PROJECT
from tests.support.waiting import wait

TEN = [str(number) for number in range(10)]
CONNECTIONS = 16
GET = 'request = function() return wrk.format("GET", "/list") end'


async def raw(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    """As ours: no framework."""
    if scope["type"] != "http":
        return
    body = json.dumps(TEN).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def starlette() -> Any:
    """Starlette's router and response."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def answer(request: Any) -> Any:
        return JSONResponse(TEN)

    return Starlette(routes=[Route("/list", answer)])


def fastapi(waits: bool = True) -> Any:
    """FastAPI, whose function is a coroutine or is run by its pool of threads."""
    from fastapi import FastAPI

    app = FastAPI()

    async def in_loop() -> list[str]:
        return TEN

    def in_thread() -> list[str]:
        return TEN

    app.get("/list")(in_loop if waits else in_thread)
    return app


def fastapi_in_threads() -> Any:
    """The second form."""
    return fastapi(waits=False)


UVICORN = ("-m", "uvicorn", "--no-access-log", "--log-level", "warning", "--lifespan", "off")
FAST, SLOW = ("--loop", "uvloop", "--http", "httptools"), ("--loop", "asyncio", "--http", "h11")
CANDIDATES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("ASGI alone, uvicorn with uvloop and httptools", "uvicorn", (*UVICORN, *FAST, "bench.frameworks:raw")),
    ("ASGI alone, uvicorn with asyncio and h11", "uvicorn", (*UVICORN, *SLOW, "bench.frameworks:raw")),
    ("ASGI alone, granian", "granian", ("-m", "granian", "--interface", "asgi", "bench.frameworks:raw")),
    ("Starlette", "starlette", (*UVICORN, *FAST, "--factory", "bench.frameworks:starlette")),
    ("FastAPI, async def", "fastapi", (*UVICORN, *FAST, "--factory", "bench.frameworks:fastapi")),
    ("FastAPI, def", "fastapi", (*UVICORN, *FAST, "--factory", "bench.frameworks:fastapi_in_threads")),
)


def run(seconds: int) -> None:
    """Print the table."""
    print(heading("Frameworks", ["uvicorn", "uvloop", "httptools"]))
    rows = []
    for name, package, command in CANDIDATES:
        if importlib.util.find_spec(package) is None:
            rows.append((name, "not installed", ""))
            continue
        done = _asked(command, seconds)
        rows.append((name, f"{1000 * done.processor:.0f}", f"{done.rate:,.0f}"))
    print(table(("one process", "processor µs a request", "requests/s"), rows))


def _asked(command: tuple[str, ...], seconds: int) -> Any:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(PROJECT), str(PROJECT / "src")))}
    process = subprocess.Popen([sys.executable, *command, "--port", str(port)], cwd=PROJECT, env=environment)
    try:
        wait(lambda: _answers(address), f"an answer of {command}")
        pids = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True).stdout
        return load(address, [process.pid, *map(int, pids.split())], GET, CONNECTIONS, seconds)
    finally:
        process.terminate()
        process.wait()


def _answers(address: str) -> bool:
    with suppress(requests.RequestException):
        return requests.get(f"{address}/list", timeout=60).json() == TEN
    return False


if __name__ == "__main__":
    run(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
