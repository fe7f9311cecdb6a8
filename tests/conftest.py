import gc
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

# The tests run beside each other, each on a core: threads of the linear algebra would wait for one another. What tests
# start has as many as a user's process.
_threads = os.environ.get("OPENBLAS_NUM_THREADS")
os.environ["OPENBLAS_NUM_THREADS"] = "1"
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.linalg  # noqa: F401  # it and NumPy read the variable now

del os.environ["OPENBLAS_NUM_THREADS"]
if _threads is not None:
    os.environ["OPENBLAS_NUM_THREADS"] = _threads
pytest.register_assert_rewrite("recsys.testing")
# jsonschema imports it where it is installed, for addresses with foreign letters: seconds for grammars nobody asks for.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

from recsys.data.dataset import Dataset
from recsys.testing.datasets import prepared
from tests.support import tiers
from tests.support.services import GIVEN, DatabaseServer, database_server

# Imports and the tests themselves are a million objects that stay: looking for rubbish among them took a fifth of both.
gc.disable()
tiers.watch()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tier", choices=["unit", "all"], default="all", help="unit: what needs only its own process")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark every test by its fixtures before `-m` chooses; leave out other tiers, and what stops a foreign database."""
    kept, left_out = [], []
    for item in items:
        tiers.mark(item)
        foreign = os.environ.get(GIVEN) and item.get_closest_marker("stops_database")
        wanted = not foreign and (config.getoption("--tier") == "all" or tiers.is_unit(item))
        (kept if wanted else left_out).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left_out)


def pytest_collection_finish() -> None:
    """From here on rubbish is looked for again, among what tests make."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item):
    """Note what the test starts, and put back the path of imports.

    MLflow puts the code that a model carries before everything else, for good; a process that starts later would
    import the few modules of that model in place of this package.
    """
    tiers.begin()
    path = list(sys.path)
    try:
        return (yield)
    finally:
        sys.path[:] = path


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    """Put back the environment: a step sets variables for its own process, which here goes on with other tests."""
    environment = dict(os.environ)
    try:
        return (yield)
    finally:
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Fail a unit test that starts what no unit test may, and in CI a test that is skipped."""
    report = yield
    if call.when == "call" and report.passed and tiers.is_unit(item) and (found := tiers.started()):
        report.outcome = "failed"
        report.longrepr = f"a unit test started {', '.join(found)}: mark it `process`, or do without"
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"in CI no test is skipped; install what is missing: {call.excinfo and call.excinfo.value}"
    return report


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """What tests write in this process outlives no power cut: they do not wait until it is on the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture
def write(tmp_path: Path):
    def write(content: str | bytes, name: str = "ratings.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def write_parquet(tmp_path: Path):
    def write(name: str = "ratings.parquet", **columns: object) -> Path:
        defaults = {
            "user_id": ["u1", "u2", "u1"],
            "item_id": ["i1", "i1", "i2"],
            "rating": [5.0, 3.5, 1.0],
            "timestamp": [10, 20, 30],
        }
        table = pa.table({key: value for key, value in (defaults | columns).items() if value is not None})
        pq.write_table(table, tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def prepare_rows(tmp_path: Path):
    """Prepares a dataset of (user, item, rating[, timestamp]) rows; further arguments are prepare's parameters."""

    def prepare_rows(rows, **parameters) -> Dataset:
        return prepared(tmp_path, rows, **parameters)

    return prepare_rows


@pytest.fixture(scope="session")
def movielens_100k() -> Path:
    """The file of MovieLens 100K, from where the steps keep it or obtained now."""
    from recsys.data.movielens import obtain
    from steps.support.entrypoint import data_folder

    return obtain("movielens-100k", data_folder() / "downloads")


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DatabaseServer]:
    """A real MariaDB or MySQL; where there is none the test is skipped."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(database_server(tmp_path_factory.mktemp("mariadb")))
        except FileNotFoundError as error:
            pytest.skip(str(error))
        yield server
