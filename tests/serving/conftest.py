import pytest

from tests.support.serving_site import Server, form


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of two workers with a version of two tastes."""
    folder = tmp_path_factory.mktemp("server")
    running = Server(folder / "serving", max_body=20_000, max_batch=100)
    running.point_at(form(folder / "one", titles={f"i{number}": f"Title {number} <ü>" for number in range(1, 20)}))
    try:
        yield running.start()
    finally:
        running.stop()
