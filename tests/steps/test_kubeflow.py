"""A pipeline that is submitted, to a server that answers as Kubeflow's API does, and one that runs here."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from steps.pipeline import pipeline
from steps.support import components
from steps.support.entrypoint import run_step
from steps.support.parameters import PipelineParameters
from tests.support.pipeline import COLUMNS, PROJECT, options
from tests.support.services import free_port


@dataclass
class Api:
    """What was asked of the server, and whether it takes runs."""

    address: str = ""
    takes: bool = True
    posted: dict[str, Any] = field(default_factory=dict)
    authorized: set[str] = field(default_factory=set)


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            there = self.path.startswith("/apis/v2beta1/")
            self._reply({"multi_user": False} if self.path.endswith("/healthz") else {}, 200 if there else 404)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            kind = self.path.split("?")[0].rpartition("/")[2]
            api.posted[kind] = body
            api.authorized.add(self.headers.get("Authorization", ""))
            if kind == "runs" and not api.takes:
                self._reply({"error": "quota exceeded"}, 403)
            else:
                self._reply({"experiments": {"experiment_id": "e1"}, "runs": {"run_id": "r1"}}[kind])

        def _reply(self, content: object, status: int = 200) -> None:
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield api
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def connected(store, in_process):
    """The pipeline's step, connected to the test's store."""
    in_process.setenv("MLFLOW_TRACKING_URI", store.uri)

    def submit(**parameters: object) -> None:
        given = {"folder": store.home, "tracking_uri": "http://mlflow:5000", **parameters}
        run_step("pipeline", pipeline, options(**given))

    return submit


def test_a_pipeline_is_submitted_with_its_parameters(connected, store, api, monkeypatch, capsys):
    monkeypatch.setenv("RECSYS_KUBEFLOW_TOKEN", "token of mine")
    connected(where=api.address, families="bias", max_rmse=0.9, seed=7, namespace="team-a")
    sent = api.posted["runs"]
    assert sent["experiment_id"] == "e1"
    spec = sent["pipeline_spec"]
    assert spec.get("pipeline_spec", spec)["pipelineInfo"]["name"] == "recsys"
    given = sent["runtime_config"]["parameters"]
    assert (given["max_rmse"], given["seed"], given["folder"]) == (0.9, 7, ".")
    assert api.posted["experiments"]["display_name"] == "recsys"
    assert api.authorized == {"Bearer token of mine"}
    run = store.run_named("pipeline")
    assert run.data.tags["kubeflow_run"] == "r1"
    assert "kubeflow-pipeline.yaml" in store.artifacts(run)
    assert f"{api.address}/#/runs/details/r1" in capsys.readouterr().out


def test_a_run_that_is_refused_is_told_with_the_server_s_words(connected, store, api, capsys):
    api.takes = False
    with pytest.raises(SystemExit):
        connected(where=api.address, families="bias")
    assert "quota exceeded" in capsys.readouterr().err
    assert store.run_named("pipeline").info.status == "FAILED"


def test_an_address_where_nothing_answers_is_told_at_once(connected, store, capsys):
    with pytest.raises(SystemExit):
        connected(where=f"http://127.0.0.1:{free_port()}", families="bias")
    told = capsys.readouterr().err
    assert "parameter 'where': a Kubeflow Pipelines API that answers is needed" in told
    assert "nothing was submitted" in told
    assert store.run_named("pipeline").info.status == "FAILED"


def test_what_is_no_pipelines_api_is_told(connected, api, capsys):
    with pytest.raises(SystemExit):
        connected(where=f"{api.address}/elsewhere", families="bias")
    assert "a Kubeflow Pipelines API that answers is needed" in capsys.readouterr().err
    assert api.posted == {}


def test_a_pipeline_is_written_where_it_is_asked_for(tmp_path):
    given = PipelineParameters(where="compile", folder=str(tmp_path), families="bias", output="mine/p.yaml")
    with ThreadPoolExecutor(1) as thread:  # kfp inspects the whole stack for every setting: a new one is short
        thread.submit(pipeline, given).result()
    assert (tmp_path / "mine" / "p.yaml").read_text(encoding="utf-8").startswith("# PIPELINE DEFINITION")


@pytest.fixture
def here(module_store, in_process):
    """The pipeline, each component a process on this machine, over the module's store."""
    in_process.setenv("MLFLOW_TRACKING_URI", module_store.uri)
    in_process.setenv("RECSYS_DATA", str(module_store.data))
    in_process.chdir(PROJECT)

    def run(**parameters: object) -> None:
        run_step("pipeline", pipeline, options(folder=module_store.home, ratings="my.csv", **COLUMNS, **parameters))

    return run


def in_production(store):
    return [number for number, stage, _ in store.contents()[1] if stage == "Production"]


@pytest.mark.e2e
def test_both_branches_run_here_with_the_real_steps(here, module_store, capfd):
    """The door is closed first: the version of the second run is the same one, from the same dataset."""
    here(families="bias", max_rmse=0.001)
    assert "nobody is promoted: the smallest test RMSE" in capfd.readouterr().out
    assert in_production(module_store) == []
    here(families="bias", max_rmse=3, beat_bias="false", beat_popularity="false")
    assert len(in_production(module_store)) == 1
    parents = [run for run in module_store.runs() if run.info.run_name == "pipeline"]
    assert [run.info.status for run in parents] == ["FINISHED", "FINISHED"]
    below = {run.data.tags.get("mlflow.parentRunId") for run in module_store.runs()} - {None}
    assert {run.info.run_id for run in parents} <= below


@pytest.mark.e2e
def test_a_component_that_fails_in_the_middle_ends_the_run_and_promotes_nobody(here, module_store, capfd):
    before = module_store.contents()[1]
    with pytest.raises(SystemExit):
        here(families="bias", feedback="implicit", max_rmse=3)
    told = capfd.readouterr()
    assert "component train failed, and nothing behind it has run" in told.err
    assert "error: train: " in told.out + told.err
    failed = {run.info.run_name for run in module_store.runs() if run.info.status == "FAILED"}
    assert failed == {"pipeline", "train bias"}
    assert module_store.runs()[0].info.run_name == "train bias"
    assert module_store.contents()[1] == before


@pytest.mark.parametrize(("state", "status"), [("SUCCEEDED", "FINISHED"), ("FAILED", "FAILED")])
def test_how_a_pipeline_ended_in_a_cluster_is_recorded(store, in_process, state, status):
    in_process.setenv("MLFLOW_TRACKING_URI", store.uri)
    in_process.setenv("RECSYS_PIPELINE_RUN", "a run of Kubeflow")
    components.tell(
        "projects/1/recsys-abc", state, "train ran out of memory" if state == "FAILED" else "", {"model_name": "recsys"}
    )
    run = store.run_named("pipeline recsys-abc")
    assert run.info.status == status
    assert run.data.tags["kubeflow_run"] == "a run of Kubeflow"
    assert ("train ran out of memory" in run.data.tags["mlflow.note.content"]) is (state == "FAILED")


@pytest.mark.process
def test_a_component_stops_when_the_pipeline_that_runs_it_is_gone(monkeypatch):
    sent: list[tuple[int, int]] = []
    pipeline = subprocess.Popen([sys.executable, "-c", ""])
    pipeline.wait()
    ask = os.kill
    monkeypatch.setattr(
        os, "kill", lambda process, number: sent.append((process, number)) if number else ask(process, 0)
    )
    components.end_with(pipeline.pid)
    assert sent == [(os.getpid(), signal.SIGTERM)]
