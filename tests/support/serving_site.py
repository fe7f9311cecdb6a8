"""A server under test: real workers on a real socket, and forms of tiny models for them to serve."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests

from recsys.data.interactions import Interactions
from recsys.models.base.biases import Biases
from recsys.models.base.calibration import LikeCalibration
from recsys.models.base.item_to_item import Regression, keep_largest
from recsys.models.base.knowledge import Knowledge
from recsys.models.base.lists import ListModel, rated_items
from recsys.serving.compact import make_form
from recsys.serving.settings import ServingSettings
from tests.support.builders import TableRecommender
from tests.support.waiting import wait

PROJECT = Path(__file__).resolve().parents[2]

SERVE = """
import json, os, signal, sys, threading
from recsys.serving.settings import ServingSettings
from recsys.serving.supervisor import Supervisor, open_socket
given = json.loads(sys.argv[1])
settings = ServingSettings.model_validate(given["settings"])
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
Supervisor(open_socket("127.0.0.1", given["port"], settings), settings, given["workers"], os.environ).run(stop)
"""


def two_tastes(users: int = 24, items: int = 24, liked: float = 0.9) -> TableRecommender:
    """Users of even number took and like items of even number, the others the others; a third is left to recommend."""
    ids = [np.array(sorted(f"{kind}{at}" for at in range(size)), object) for kind, size in (("u", users), ("i", items))]
    number = [np.array([int(name[1:]) for name in names]) for names in ids]
    same = number[0][:, None] % 2 == number[1][None, :] % 2
    like = np.where(same, liked, 0.1)
    seen = np.argwhere(same & ((number[0][:, None] + number[1][None, :] // 2) % 3 > 0)).astype(np.int32)
    knowledge = Knowledge(
        *ids, seen, (1.0, 5.0), 4.0, Biases(3.0, np.zeros(users), np.zeros(items)), LikeCalibration(1.0, -3.5)
    )
    recommender = TableRecommender(knowledge, 3.5 + np.log(like / (1 - like)) / 2, like)
    recommender.lists = by_cosines(knowledge)
    return recommender


def by_cosines(knowledge: Knowledge) -> ListModel:
    """Weights that can be checked by hand: cosines between the items' sets of users. Everything was rated 5."""
    users, items = knowledge.seen.T
    taken = np.zeros((len(knowledge.user_ids), len(knowledge.item_ids)))
    taken[users, items] = 1
    counts = np.maximum(taken.sum(0), 1)
    cosines = taken.T @ taken / np.sqrt(np.outer(counts, counts))
    np.fill_diagonal(cosines, 0)
    rated = rated_items(Interactions(users, items, np.full(len(users), 5.0)), len(taken))
    weights = keep_largest(cosines.astype(np.float32), len(cosines))
    return ListModel(weights, Regression("ratings", 1.0, 0.0), 0.5, rated, taken.mean(0))


def form(folder: Path, version: str = "1", titles: Mapping[str, str] | None = None, **arguments: Any) -> Path:
    about = {"version": version, "model": "recsys", "columns": {"user_id": "customer", "item_id": "sku"}}
    make_form(two_tastes(**arguments), folder, about, max_loss=1, titles=titles)
    return folder


class Server:
    """The server's process, its workers and its folder."""

    def __init__(self, folder: Path, workers: int = 2, paths: Sequence[Path] = (), **settings: Any) -> None:
        self.paths = paths  # of modules, before the package's
        self.folder = folder
        self.workers = workers
        self.settings = ServingSettings(folder=str(folder), **settings)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.address = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def point_at(self, form: Path, **said: Any) -> None:
        """Move the pointer, as the follower does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        aside = self.folder / "aside.json"
        aside.write_text(json.dumps({"form": os.path.relpath(form, self.folder), **said}))
        aside.replace(self.folder / "current.json")

    def start(self) -> "Server":
        given = {"settings": self.settings.model_dump(), "port": self.port, "workers": self.workers}
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*self.paths, PROJECT / "src")))}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE, json.dumps(given)], env=environment, start_new_session=True
        )
        wait(self.answers, "an answer of the server")
        return self

    def answers(self) -> bool:
        assert self.process
        assert self.process.poll() is None
        with suppress(requests.RequestException):
            return requests.get(f"{self.address}/api/health/live", timeout=60).ok
        return False

    def worker_pids(self) -> list[int]:
        assert self.process
        found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True)
        return [int(line) for line in found.stdout.split()]

    def pids(self) -> list[int]:
        """The workers, and the processes beside them."""
        workers = self.worker_pids()
        return [*workers, *(child.pid for pid in workers for child in psutil.Process(pid).children())]

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait()

    def get(self, path: str, **arguments: Any) -> requests.Response:
        return requests.get(f"{self.address}/{path}", timeout=120, **arguments)

    def post(self, path: str, content: Any, headers: Mapping[str, str] | None = None) -> requests.Response:
        return requests.post(f"{self.address}/{path}", json=content, headers=headers, timeout=120)
