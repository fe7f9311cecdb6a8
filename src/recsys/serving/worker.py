"""The program of one worker: answers on a socket that the supervisor opened, until the supervisor ends.

Its settings come as the first line of standard input, where no other user of the machine reads keys; the end of
standard input is the end of the supervisor, however it died.
"""

import json
import logging
import socket
import sys
import threading
from typing import Any

import uvicorn

from recsys.serving.app import App
from recsys.serving.service import Service
from recsys.serving.settings import ServingSettings

_GRACE_SECONDS = 10
_IDLE_SECONDS = 65  # longer than a load balancer keeps a connection


def main() -> None:
    """Serve until told to stop."""
    given: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    service = Service(ServingSettings.model_validate(given["settings"]))
    config = uvicorn.Config(
        App(service),
        loop="uvloop",
        http="httptools",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = uvicorn.Server(config)

    def watch() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True

    threading.Thread(target=watch, daemon=True).start()
    server.run(sockets=[socket.socket(fileno=given["socket"])])


if __name__ == "__main__":
    main()
