import shutil
import subprocess
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.support.pipeline import COLUMNS, PROJECT, Store, new_store, serving, step_command, write_sample

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
    """Debian's browser; on a machine without it the tests are skipped."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium on PATH: apt-get install chromium")
    return path


@pytest.fixture(scope="module")
def finished(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with everything that the pipeline leaves: two families trained, evaluated, one promoted."""
    store = new_store(tmp_path_factory.mktemp("ui") / "store", tmp_path_factory.getbasetemp())
    write_sample(store.home / "my.csv")
    parameters = {"families": "bias,random_forest", "beat_bias": False}  # biases alone explain the sample
    command = step_command("main", folder=store.home, ratings="my.csv", **parameters, **COLUMNS)
    subprocess.run(command, cwd=PROJECT, env=store.environment(), check=True, capture_output=True)
    return store


@pytest.fixture(scope="module")
def ui(finished: Store) -> Iterator[str]:
    """The address of an `mlflow ui` over that store."""
    with serving(finished, "ui") as address:
        yield address


@pytest.fixture(scope="module")
def page(chromium: str) -> Iterator[Page]:
    """A page of a headless browser, large enough for MLflow's tables."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_OPTIONS)
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(60_000)
        yield page
        browser.close()
