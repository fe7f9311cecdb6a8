import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests
from pipeline import COLUMNS, PROJECT, Store, new_store, step_command, write_sample
from playwright.sync_api import Page, sync_playwright

_START_SECONDS = 90
_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def chromium() -> str:
    """Debian's browser; on a machine without it the tests are skipped, in CI they fail."""
    path = shutil.which("chromium")
    if path is None:
        reason = "no chromium on PATH: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="module")
def finished(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with everything that the pipeline leaves: two families trained, evaluated, one promoted."""
    store = new_store(tmp_path_factory.mktemp("ui") / "store", tmp_path_factory.getbasetemp())
    write_sample(store.home / "my.csv")
    families = "bias,random_forest"
    command = step_command("main", folder=store.home, ratings="my.csv", families=families, **COLUMNS)
    subprocess.run(command, cwd=PROJECT, env=store.environment(), check=True, capture_output=True, timeout=200)
    return store


@pytest.fixture(scope="module")
def ui(finished: Store) -> Iterator[str]:
    """The address of an `mlflow ui` over that store."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    mlflow = str(Path(sys.executable).parent / "mlflow")
    command = [mlflow, "ui", "--backend-store-uri", finished.uri, "--host", "127.0.0.1", "--port", str(port)]
    log = finished.folder / "ui.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [*command, "--workers", "1"],
            cwd=finished.home,
            env=finished.environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait(address, server, log)
            yield address
        finally:
            top = psutil.Process(server.pid)
            family = [top, *top.children(recursive=True)]
            for process in family:
                process.terminate()
            _, alive = psutil.wait_procs(family, timeout=10)
            for process in alive:
                process.kill()
            server.wait()


def _wait(address: str, server: subprocess.Popen, log: Path) -> None:
    limit = time.monotonic() + _START_SECONDS
    while time.monotonic() < limit:
        assert server.poll() is None, log.read_text()
        try:
            if requests.get(f"{address}/health", timeout=5).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.2)
    raise AssertionError(f"mlflow ui does not answer after {_START_SECONDS} s: {log.read_text()}")


@pytest.fixture(scope="module")
def page(chromium: str) -> Iterator[Page]:
    """A page of a headless browser, large enough for MLflow's tables."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_OPTIONS)
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(60_000)
        yield page
        browser.close()
