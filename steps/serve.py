"""Serve the champion on a port, and whoever takes its place."""

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.errors import InputError
from recsys.serving.follower import Champion, Follower
from recsys.serving.settings import Limits, ServingSettings
from recsys.serving.supervisor import Supervisor, open_socket
from steps import PROJECT
from steps.support.entrypoint import given_path, run_step
from steps.support.parameters import ServeParameters

if TYPE_CHECKING:
    from registry.transitions import State

_READ, _FEEDBACK = "RECSYS_READ_KEYS", "RECSYS_FEEDBACK_KEYS"
# A registry that is down is told by the server's health: nothing waits for it.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


def serve(parameters: ServeParameters) -> None:
    """Listen, answer from the version on this machine's disk at once, and follow the registry."""
    folder = Path(parameters.folder, parameters.store).absolute() / parameters.model_name
    read, feedback = _keys(parameters)
    settings = ServingSettings(
        **{name: getattr(parameters, name) for name in Limits.model_fields},
        model_name=parameters.model_name,
        folder=str(folder),
        read_keys=read,
        feedback_keys=feedback,
    )
    listening = open_socket(parameters.host, parameters.port, settings)
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    stop = threading.Event()
    registry = _Registry(parameters)
    follower = Follower(folder, registry.find, registry.make)
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "src")}
    supervisor = Supervisor(listening, settings, parameters.workers, environment)
    port = listening.getsockname()[1]
    print(f"serving {parameters.model_name} on http://{parameters.host}:{port} by {parameters.workers} workers")
    sys.stdout.flush()
    threading.Thread(target=follower.run, args=(stop, parameters.poll), daemon=True).start()
    try:
        supervisor.run(stop)
    finally:
        stop.set()


class _Registry:
    """The registry, connected to when it is first asked: MLflow takes seconds to import, and may not answer."""

    def __init__(self, parameters: ServeParameters) -> None:
        self._parameters = parameters
        self._connected = False
        self._told = ""

    def find(self) -> Champion | None:
        """The champion, None where there is none."""
        from recsys.tracking import connection

        if not self._connected:
            connection.connect(os.environ["MLFLOW_TRACKING_URI"])
            self._connected = True
        state = self._state()
        version = state.find(state.champion)
        if version is None:
            self._tell(f"model {state.name!r} has no champion yet; it is served once promote has chosen one")
            return None
        return Champion(str(version.number), f"{version.number}-{version.model_id or 'unnamed'}")

    def make(self, champion: Champion, place: Path) -> None:
        """Make the served form of a version."""
        from recsys.serving.compact import make_form
        from registry import integrity

        parameters, state = self._parameters, self._state()
        version = state.find(int(champion.version))
        if version is None:
            raise InputError(f"version {champion.version} is gone from the registry")
        about = {"model": parameters.model_name, "version": champion.version, "chosen": version.tags.get("standing")}
        form = make_form(
            integrity.load_version(version), place, about, rank=parameters.rank, max_loss=parameters.max_loss
        )
        loss = form.about["loss"]
        self._tell(
            f"version {champion.version} ({version.family}): its served form changes the probability of a like by "
            f"{loss['probability_rmse']:.4f} (root mean square)"
        )

    def _state(self) -> "State":
        from registry import transitions

        return transitions.read_state(self._parameters.model_name)

    def _tell(self, sentence: str) -> None:
        if sentence != self._told:
            print(sentence, flush=True)
        self._told = sentence


def _keys(parameters: ServeParameters) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Keys for reading and for feedback, from the file or the environment; raises InputError for a line of neither."""
    if not parameters.keys:
        return _split(os.environ.get(_READ, "")), _split(os.environ.get(_FEEDBACK, ""))
    path = given_path(parameters.folder, parameters.keys, "keys")
    found: dict[str, list[str]] = {"read": [], "feedback": []}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"parameter 'keys': a file is needed, got {parameters.keys!r} ({error})") from None
    for number, line in enumerate(lines, 1):
        right, _, key = line.strip().partition(" ")
        if not right or right.startswith("#"):
            continue
        if right not in found or not key.strip():
            raise InputError(f"{path}:{number}: a line `read KEY` or `feedback KEY` is needed")
        found[right].append(key.strip())
    return tuple(found["read"]), tuple(found["feedback"])


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


if __name__ == "__main__":
    run_step("serve", serve, connected=False)
