"""S3-compatible stores for tests: moto's server, which takes any key, and s3rver, which knows one alone."""

import logging
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import boto3
import requests
from moto.server import ThreadedMotoServer

from tests.support.services import free_port
from tests.support.waiting import wait

PROJECT = Path(__file__).resolve().parents[2]
KEY = "S3RVER"
"""The access key that s3rver knows, and its secret."""
BUCKET = "team"


def keys(endpoint: str, key: str = KEY) -> dict[str, str]:
    """The environment of somebody who uses a store."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": key,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def client(endpoint: str) -> Any:
    """A client of another maker, to look at what is in a store."""
    access = {"aws_access_key_id": KEY, "aws_secret_access_key": KEY}
    return boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **access)


def names(endpoint: str, prefix: str = "") -> list[str]:
    """The keys in the bucket, without those that stand for folders."""
    found = client(endpoint).list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    return sorted(item["Key"] for item in found if not item["Key"].endswith("/"))


@contextmanager
def moto_store() -> Iterator[str]:
    """The address of moto's server, in this process, with an empty bucket."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", free_port(), verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    requests.post(f"{endpoint}/moto-api/reset", timeout=60)  # what an earlier one of this process was given
    client(endpoint).create_bucket(Bucket=BUCKET)
    try:
        yield endpoint
    finally:
        server.stop()


@contextmanager
def s3rver_store(folder: Path) -> Iterator[str]:
    """The address of s3rver with an empty bucket; raises FileNotFoundError where it is not installed."""
    program = shutil.which("s3rver") or shutil.which("s3rver", path=PROJECT / ".venv/node/node_modules/.bin")
    if program is None:
        raise FileNotFoundError("s3rver is not installed: npm install --prefix .venv/node s3rver@3.7.1")
    port = free_port()
    command = [program, "-d", str(folder), "-a", "127.0.0.1", "-p", str(port), "--configure-bucket", BUCKET]
    folder.mkdir(parents=True)
    with (folder.parent / "s3rver.log").open("w") as log:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:

            def answers() -> bool:
                assert server.poll() is None, log.name
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=5).close()
                except OSError:
                    return False
                return True

            wait(answers, "the start of s3rver")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()


@contextmanager
def refusing_store(status: int, code: str) -> Iterator[str]:
    """The address of a store that answers every request with one error."""
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>no</Message></Error>'.encode()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response_only(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
