"""Serve the champion on a port, and whoever takes its place."""

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from recsys.data import movielens
from recsys.data.titles import read_titles
from recsys.errors import InputError
from recsys.runtime.files import digest_file
from recsys.serving import graph_scores
from recsys.serving.follower import Challenger, Champion, Follower
from recsys.serving.service import FEEDBACK
from recsys.serving.settings import Limits, ServingSettings
from recsys.serving.supervisor import Supervisor, open_socket
from steps import PROJECT
from steps.support import feature_store, feedback_database
from steps.support.entrypoint import data_folder, given_path, run_step
from steps.support.parameters import ServeParameters

if TYPE_CHECKING:
    from recsys.models.base.recommender import Recommender
    from registry.transitions import State
    from registry.versions import Version

_READ, _FEEDBACK = "RECSYS_READ_KEYS", "RECSYS_FEEDBACK_KEYS"
_SECRET = "RECSYS_WEBHOOK_SECRET"
_CLAIM = "server.lock"
_SHARING_PAUSE = 5.0
_TICK = 0.5  # seconds
_SHARING_SECONDS = 30  # for what is under way when the server ends; what waits is sent at the next start
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
        webhook_secret=os.environ.get(_SECRET, ""),
        feature_store=_feature_store(parameters),
        feature_database=os.environ.get(feature_store.DATABASE, ""),
    )
    url = feedback_database.find_url(parameters.database)
    listening = open_socket(parameters.host, parameters.port, settings)
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    stop = threading.Event()
    registry = _Registry(parameters)
    if parameters.feature_store and parameters.runtime == "onnx":
        raise InputError(
            "parameters 'feature_store' and 'runtime': a graph reads no feature store; leave one of them out"
        )
    if parameters.runtime == "onnx":
        _graphs()  # what is not installed is told at once
    if parameters.feature_store:
        feature_store.open_store(parameters).origin()  # what is not there is told at once
    claim = _claim(folder)
    follower = Follower(folder, registry.find, registry.make, registry.find_trial)
    path = [str(PROJECT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    supervisor = Supervisor(listening, settings, parameters.workers, environment)
    port = listening.getsockname()[1]
    print(f"serving {parameters.model_name} on http://{parameters.host}:{port} by {parameters.workers} workers")
    sys.stdout.flush()
    threads = [threading.Thread(target=follower.run, args=(stop, parameters.poll), daemon=True)]
    sharing = [threading.Thread(target=_share, args=(folder / FEEDBACK, url, stop))] if url else []
    if parameters.judge is not None:
        os.environ.pop("MLFLOW_RUN_ID", None)  # the run of `mlflow run` is this server's, not that of a trial's end
        # Not waited for at the end: what is cut off there, the next look carries through.
        judged = parameters, folder, follower, registry, stop
        threads.append(threading.Thread(target=_judge, args=judged, daemon=True))
    for thread in threads + sharing:
        thread.start()
    try:
        supervisor.run(stop)
    finally:
        stop.set()
        for thread in sharing:
            thread.join(_SHARING_SECONDS)
        claim.release()


def _claim(folder: Path) -> FileLock:
    """Have the server's folder for this process alone: another would begin its metrics anew, and judge trials twice.

    Raises:
        InputError: if another server has it, or it cannot be written.
    """
    claim = FileLock(folder / _CLAIM)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        claim.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"parameter 'store': {folder} is another server's, which runs; stop that one, or pass another store"
        ) from None
    except OSError as error:
        raise InputError(
            f"parameter 'store': a folder that can be written is needed, but {error.filename or folder} cannot "
            f"({error.strerror}); pass another store, or make it writable"
        ) from None
    return claim


def _share(path: Path, url: str, stop: threading.Event) -> None:
    from recsys.serving.sharing import Sharing  # SQLAlchemy is needed here only

    sharing: Sharing | None = None
    while sharing is None and not stop.is_set():
        try:
            sharing = Sharing(path, url)
        except Exception as error:  # the file cannot be opened, as on a full disk
            print(f"note: feedback is not shared yet ({error})", flush=True)
            stop.wait(_SHARING_PAUSE)
    if sharing is not None:
        sharing.run(stop)


def _judge(
    parameters: ServeParameters, folder: Path, follower: Follower, registry: "_Registry", stop: threading.Event
) -> None:
    assert parameters.judge is not None
    while not registry.connected:  # what has never answered has no trial that is known here
        if stop.wait(_TICK):
            return
    from recsys.tracking import experiments  # brings MLflow, which the follower has imported by now
    from steps.support.trial_judge import Judge, watch

    judge: Judge | None = None
    while judge is None:
        try:
            experiments.enter(parameters.model_name, given=False)
            judge = Judge(parameters.model_name, folder, parameters, follower)
        except Exception as error:  # whatever a client of a registry raises: a trial must not go on unjudged
            print(f"note: trials are not judged yet ({type(error).__name__}: {error})", flush=True)
            if stop.wait(parameters.judge):
                return
    watch(judge, parameters.judge, stop.wait, lambda sentence: print(sentence, flush=True))


class _Registry:
    """The registry, connected to when it is first asked: MLflow takes seconds to import, and may not answer."""

    def __init__(self, parameters: ServeParameters) -> None:
        self._parameters = parameters
        self.connected = False
        self._found: State | None = None
        self._told = ""
        self._titles: dict[str, tuple[dict[str, str], str]] = {}
        if parameters.items not in ("auto", "none", *movielens.KNOWN):
            self._titles[parameters.items] = self._read_titles(parameters.items)  # a wrong table is told at once

    def find(self) -> Champion | None:
        """The champion, None where there is none."""
        from recsys.tracking import connection

        if not self.connected:
            connection.connect(os.environ["MLFLOW_TRACKING_URI"])
            self.connected = True
        state = self._found = self._state()
        version = state.find(state.champion)
        if version is None:
            self._tell(f"model {state.name!r} has no champion; what is served changes once promote has chosen one")
            return None
        return self._key(version)

    def find_trial(self) -> Challenger | None:
        """The trial that runs, as the registry was found last."""
        state = self._found
        trial = state.trial if state else None
        version = state.find(trial.version) if state and trial else None
        return None if trial is None or version is None else Challenger(trial.id, trial.share, self._key(version))

    def _key(self, version: "Version") -> Champion:
        made = f"r{self._parameters.rank}{self._titles_of(version)[1]}{self._mark()}"
        return Champion(str(version.number), f"{version.number}-{version.model_id or 'unnamed'}-{made}")

    def make(self, champion: Champion, place: Path) -> None:
        """Make the served form of a version."""
        from recsys.serving.compact import make_form
        from registry import integrity, probe, versions

        parameters, state = self._parameters, self._state()
        version = state.find(int(champion.version))
        if version is None:
            raise InputError(f"version {champion.version} is gone from the registry")
        recommender, names = integrity.load_named_version(version)
        about = {
            "model": parameters.model_name,
            "version": champion.version,
            "chosen": version.standing,
            "columns": names,
        }
        probe.check(version, recommender)
        form = make_form(
            recommender,
            place,
            about,
            rank=parameters.rank,
            max_loss=parameters.max_loss,
            titles=self._titles_of(version)[0],
        )
        if parameters.feature_store:
            self._keep_scorer(recommender, place, champion.version)
        if parameters.runtime == "onnx":
            self._keep_graph(recommender, place, champion.version)
        loss = form.about["loss"]
        self._tell(
            f"version {champion.version} ({version.family}): its served form changes the probability of a like by "
            f"{loss['probability_rmse']:.4f} (root mean square)"
        )
        try:
            versions.record_served_form(version, parameters.rank, loss)
        except Exception as error:  # the server may not be allowed to write there
            self._tell(f"note: what its served form loses is not kept with version {champion.version} ({error})")

    def _keep_scorer(self, recommender: "Recommender", place: Path, version: str) -> None:
        from recsys.serving.stored_scores import keep_scorer

        database = os.environ.get(feature_store.DATABASE, "")
        kept = keep_scorer(recommender, place, _feature_store(self._parameters), database)
        source = "the feature store's newest values" if kept else "its own: it did not learn from a feature store"
        self._tell(f"version {version} scores by {source}")

    def _keep_graph(self, recommender: "Recommender", place: Path, version: str) -> None:
        """Put the graph of a version beside its form; raises InputError where its answers differ from the version's."""
        onnx_graph, parity = _graphs()
        if recommender.scoring_draws() is None:
            self._tell(f"version {version} scores by its served form: family {recommender.family!r} has no graph")
            return
        path = place / graph_scores.GRAPH
        path.write_bytes(onnx_graph.scores(recommender).SerializeToString())
        off = parity.compare_scores(recommender, graph_scores.open_session(path))["onnx_like_difference"]
        self._tell(f"version {version} scores by its ONNX graph, which is off by {off:.1g} at most")

    def _mark(self) -> str:
        """What tells forms apart that carry more than the form itself."""
        return "-f" * bool(self._parameters.feature_store) + "-onnx" * (self._parameters.runtime == "onnx")

    def _titles_of(self, version: "Version") -> tuple[dict[str, str], str]:
        """Titles by item id, and a mark by which a form with other titles is known to be another."""
        asked = self._parameters.items
        source = version.tags.get("ratings", "") if asked == "auto" else asked
        if source not in self._titles:
            self._titles[source] = self._read_titles(source)
        return self._titles[source]

    def _read_titles(self, source: str) -> tuple[dict[str, str], str]:
        path: Path | None = None
        if source in movielens.KNOWN:
            try:
                path = movielens.obtain_titles(source, data_folder() / "downloads")
            except InputError as error:  # lists are no worse for want of titles
                self._tell(f"note: no titles ({error})")
        elif self._parameters.items not in ("auto", "none"):
            path = Path(self._parameters.folder, source).expanduser()
        return ({}, "") if path is None else (read_titles(path), f"-t{digest_file(path)[:8]}")

    def _state(self) -> "State":
        from registry import transitions

        return transitions.read_state(self._parameters.model_name)

    def _tell(self, sentence: str) -> None:
        if sentence != self._told:
            print(sentence, flush=True)
        self._told = sentence


def _graphs() -> tuple[Any, Any]:
    """What makes graphs and compares them; raises InputError where ONNX is not installed."""
    try:
        from recsys.export import onnx_graph, parity
    except ModuleNotFoundError as error:
        raise graph_scores.missing(error) from None
    graph_scores.import_runtime()
    return onnx_graph, parity


def _feature_store(parameters: ServeParameters) -> str:
    """The folder of the feature store, empty where there is none."""
    given = parameters.feature_store
    return str(given_path(parameters.folder, given, "feature_store").absolute()) if given else ""


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
