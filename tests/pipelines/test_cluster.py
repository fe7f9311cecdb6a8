"""An InferenceService given to a cluster, by a server that answers as the API of Kubernetes does."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipelines import cluster
from recsys.errors import InputError
from recsys.export import kubernetes
from recsys.export.settings import Manifests

SERVICE = kubernetes.files(Manifests(share=0.1), "recsys", 3, "bayesian_mf")["base/inferenceservice.yaml"]


@pytest.fixture
def account(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("the token\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def api() -> Iterator[tuple[str, list[Any], list[int]]]:
    """Its address, what was asked of it, and the status that it answers with."""
    asked: list[Any] = []
    status = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_PATCH(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append((self.path, dict(self.headers), json.loads(body)))
            text = b'{"message": "forbidden: cannot patch"}'
            self.send_response(status[0])
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked, status
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_service_is_applied_as_the_service_account(api, account):
    address, asked, _ = api
    place = cluster.apply(SERVICE, "team-a", address=address, account=account)
    assert place == "/apis/serving.kserve.io/v1beta1/namespaces/team-a/inferenceservices/recsys"
    path, headers, body = asked[0]
    assert path == f"{place}?fieldManager=recsys&force=true&fieldValidation=Strict"
    assert headers["Authorization"] == "Bearer the token"
    assert headers["Content-Type"] == "application/apply-patch+yaml"
    assert body == SERVICE


def test_a_refusal_is_told_with_what_the_role_needs(api, account):
    address, _, status = api
    status[0] = 403
    with pytest.raises(InputError, match=r"403: .*cannot patch.*needs patch and create on inferenceservices"):
        cluster.apply(SERVICE, "team-a", address=address, account=account)


def test_outside_a_cluster_nothing_is_asked(tmp_path):
    with pytest.raises(InputError, match="no service account of a cluster is here"):
        cluster.apply(SERVICE, "team-a", account=tmp_path)
