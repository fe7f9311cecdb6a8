"""However the rows are cut into blocks, and wherever they are kept: the same files, byte for byte."""

import gzip
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from recsys.data import buckets, builder, parquet_store, ratings
from recsys.data import dataset as datasets
from recsys.data.preparation import Preparation
from recsys.data.readers import delimited, mistakes, parquet
from recsys.errors import InputError

TABLE = np.random.default_rng(5).integers(0, [30, 20, 10, 40], (600, 4))


ON_DISK, IN_MEMORY = 0, 100  # GB of memory to use


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Row groups and files so small that a part has several."""
    monkeypatch.setattr(parquet_store, "ROW_GROUP", 16)
    monkeypatch.setattr(parquet_store, "FILE_ROWS", 64)


@pytest.fixture
def tiny(monkeypatch):
    """Gives a function after which blocks and buckets are so small that every border is crossed."""

    def make_tiny():
        for module, name, size in (
            (delimited, "_BLOCK", 400),
            (mistakes, "_BLOCK", 100),
            (parquet, "_BLOCK", 7),
            (ratings, "_BLOCK", 24),
            (ratings, "_BUCKET", 50),
            (builder, "_BUCKET", 10),
        ):
            monkeypatch.setattr(module, name, size)

    return make_tiny


def csv(rows, header="user_id,item_id,rating,timestamp", sign=",") -> str:
    return "".join(f"{line}\n" for line in [header.replace(",", sign), *(sign.join(map(str, row)) for row in rows)])


def half_stars(rows=TABLE):
    return [(f"u{user}", f"i{item}", rating / 2, moment) for user, item, rating, moment in rows]


def dates(rows=TABLE):
    return [(*row[:3], f"1970-01-{1 + row[3] % 28:02d}") for row in half_stars(rows)]


def sparse_times(rows=TABLE):
    return [(*row[:3], "" if row[3] % 3 else row[3]) for row in half_stars(rows)]


def write_parquet(path: Path, rows) -> None:
    columns = zip(("user_id", "item_id", "rating", "timestamp"), zip(*rows, strict=True), strict=True)
    pq.write_table(pa.table({name: list(values) for name, values in columns}), path, row_group_size=40)


def one(path: Path, content: str | bytes) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def several(folder: Path) -> None:
    """The same pairs in every file: repeats are found across them."""
    rows = half_stars()
    one(folder / "a.csv", csv(rows[:200]))
    one(folder / "b.csv.gz", gzip.compress(csv(rows[200:350], sign="::").encode()))
    write_parquet(folder / "c.parquet", rows[350:])


CASES = {
    "half stars": lambda folder: one(folder / "ratings.csv", csv(half_stars())),
    "decimals": lambda folder: one(folder / "ratings.csv", csv([(*row[:2], row[2] / 1.7, row[3]) for row in TABLE])),
    "text ids": lambda folder: one(folder / "r.csv", csv([(f'"é,{u} 漢"', f" i'{i} ", r, t) for u, i, r, t in TABLE])),
    "no timestamps": lambda folder: one(
        folder / "r.csv", csv([row[:3] for row in half_stars()], "user_id,item_id,rating")
    ),
    "empty timestamps": lambda folder: one(folder / "r.csv", csv([(*row[:3], "") for row in half_stars()])),
    "some timestamps": lambda folder: one(folder / "r.csv", csv(sparse_times())),
    "times late": lambda folder: one(
        folder / "r.csv", csv([(*row[:3], "") for row in half_stars()[:400]] + half_stars()[400:])
    ),
    "dates": lambda folder: one(folder / "r.csv", csv(dates())),
    "dates with a zone late": lambda folder: one(
        folder / "r.csv", csv(dates()[:500] + [(*row[:3], f"{row[3]}T00:00:00+02:00") for row in dates()[500:]])
    ),
    "blanks late": lambda folder: one(folder / "r.csv", csv(half_stars()).replace("\nu", "\n  \t\nu", 2) + "   \n"),
    "line breaks late": lambda folder: one(
        folder / "r.csv", csv([*half_stars(), *((f'"u\n{n}"', "i1", 5, 1) for n in range(9))])
    ),
    "missing values": lambda folder: one(
        folder / "r.csv", csv([("" if row[3] == 3 else row[0], row[1], row[2] or "NA", row[3]) for row in half_stars()])
    ),
    "no header": lambda folder: one(folder / "r.tsv", csv(TABLE, sign="\t").split("\n", 1)[1]),
    "gzip": lambda folder: one(folder / "r.gz", gzip.compress(csv(half_stars(), sign="::").encode())),
    "parquet": lambda folder: write_parquet(folder / "r.parquet", half_stars()),
    "several": several,
}


def prepared(source: Path, folder: Path, gigabytes: float, **parameters) -> tuple[datasets.Dataset, dict]:
    dataset = builder.prepare(source, Preparation(**parameters), folder, gigabytes=gigabytes)
    manifest = {key: value for key, value in dataset.manifest.items() if key not in ("created", "checksum")}
    return dataset, manifest


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("split", ["hash", "random", "time"])
def test_tiny_blocks_on_disk_give_the_same_files_as_one_block_in_memory(tiny, tmp_path, name, split):
    (source := tmp_path / "input").mkdir()
    CASES[name](source)
    given = {"split": split, "like_threshold": 2.0}
    if split == "time" and name in ("no timestamps", "empty timestamps"):
        for gigabytes in (IN_MEMORY, ON_DISK):
            with pytest.raises(InputError, match="parameter 'split': time needs timestamps"):
                prepared(source, tmp_path / "prepared", gigabytes, **given)
        assert not (tmp_path / "prepared").exists()
        return
    made, expected = prepared(source, tmp_path / "one", IN_MEMORY, **given)
    tiny()
    for gigabytes in (IN_MEMORY, ON_DISK):
        folder = tmp_path / f"with {gigabytes} GB"
        cut, manifest = prepared(source, folder, gigabytes, **given)
        assert manifest == expected  # it holds the digest of every other file
        assert sorted(path.name for path in cut.folder.iterdir()) == sorted(path.name for path in made.folder.iterdir())
        assert len(list((cut.folder / "train").iterdir())) > 1
        assert cut.train.ratings.tolist() == made.train.ratings.tolist()
        assert sum(map(len, cut.blocks("train"))) == len(cut.train)
        assert [path.name for path in folder.iterdir()] == [cut.digest]


BAD = {
    "number": (csv(half_stars()).replace("\nu", "\nu7,i7,abc,1\nu", 1) + "u,i,x,1\n", "r.csv:2: column 'rating'"),
    "number late": (csv(half_stars()) + "u,i,x,1\n", "r.csv:602: column 'rating': expected a number, got 'x'"),
    "infinite late": (csv(half_stars()) + "u,i,inf,1\n", "r.csv:602: column 'rating': expected a number, got 'inf'"),
    "fields late": (csv(half_stars()) + "u,i,1,1,1\n", "r.csv:602: expected 4 fields, got 5"),
    "date after numbers": (
        csv(half_stars()) + "u,i,1,2024-01-01\n",
        "r.csv:602: column 'timestamp': expected a number",
    ),
    "not UTF-8 late": (csv(half_stars()).encode() + b"\xe9,i,1,1\n", "r.csv:602: expected UTF-8 text, got byte 0xe9"),
    "NUL": (csv(half_stars()) + "u,i\0,1,1\n", "r.csv:602: expected text, got a NUL byte"),
    "nothing left": (csv([(*row[:2], 0, 1) for row in half_stars()]), "none of the 600 rows is left after cleaning"),
    "no rows": (csv([]), "r.csv: the file has a header but no rows"),
    "broken gzip": (gzip.compress(csv(half_stars()).encode())[:-30], "broken gzip file"),
    "threshold": (csv([(*row[:2], row[2] + 5, 1) for row in half_stars()]), "parameter 'like_threshold': above"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_told_with_the_same_words_and_leaves_nothing(tiny, tmp_path, name):
    content, said = BAD[name]
    one(tmp_path / "r.csv", content)
    found = []
    for gigabytes in (IN_MEMORY, ON_DISK):
        with pytest.raises(InputError) as caught:
            prepared(tmp_path / "r.csv", tmp_path / "prepared", gigabytes, min_rating="positive", like_threshold=2.0)
        found.append(str(caught.value))
        tiny()
    assert said in found[0]
    assert found[1] == found[0]
    assert [path.name for path in tmp_path.iterdir()] == ["r.csv"]


def test_the_row_of_a_mistake_in_parquet_is_its_own_in_that_file(tiny, tmp_path):
    rows = [(*row[:2], str(row[2] + 1), row[3]) for row in half_stars()]
    write_parquet(tmp_path / "a.parquet", rows)
    write_parquet(tmp_path / "b.parquet", [*rows[:311], ("u", "i", "x", 1), *rows[311:]])
    tiny()
    for gigabytes in (IN_MEMORY, ON_DISK):
        with pytest.raises(InputError, match=r"b\.parquet: row 312: column 'rating': expected a number, got 'x'"):
            prepared(tmp_path / "*.parquet", tmp_path / "prepared", gigabytes)


def test_too_little_disk_is_told_before_anything_is_read(tmp_path, monkeypatch):
    one(tmp_path / "r.csv", csv(half_stars()))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match=r"preparing about \d+ ratings.* needs 0\.0 GB of disk there, 0\.0 are free"):
        prepared(tmp_path / "r.csv", tmp_path / "prepared", ON_DISK)
    assert [path.name for path in tmp_path.iterdir()] == ["r.csv"]


@pytest.mark.parametrize("writer", [pq.ParquetWriter, pq], ids=["of parts", "of users"])
def test_a_disk_that_fills_leaves_nothing(tiny, tmp_path, monkeypatch, writer):
    one(tmp_path / "r.csv", csv(half_stars()))

    def fail(self, *arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "write_table", fail)
    tiny()
    for gigabytes in (IN_MEMORY, ON_DISK):
        with pytest.raises(OSError, match="No space left"):
            prepared(tmp_path / "r.csv", tmp_path / "prepared", gigabytes, like_threshold=2.0)
    assert [path.name for path in tmp_path.iterdir()] == ["r.csv"]


@pytest.mark.parametrize("limit", [2_000, 30_000])
def test_a_write_that_fails_in_the_middle_leaves_nothing(tiny, tmp_path, limit):
    """The system refuses to let a file grow beyond the limit: that of a column, or of the pairs, or of neither."""
    one(tmp_path / "r.csv", csv(half_stars(np.tile(TABLE, (20, 1)))))
    tiny()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            prepared(tmp_path / "r.csv", tmp_path / "prepared", ON_DISK, like_threshold=2.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["r.csv"]


@pytest.mark.parametrize(("available", "on_disk"), [(1e9, False), (1e5, True)])
def test_half_of_the_memory_that_is_free_decides_where_rows_are_kept(tmp_path, monkeypatch, available, on_disk):
    one(tmp_path / "r.csv", csv(half_stars()))
    monkeypatch.setattr("recsys.runtime.memory.available", lambda: available)
    kept, scratch_file = set(), buckets.scratch_file
    for module in (buckets, ratings):
        monkeypatch.setattr(module, "scratch_file", lambda folder: kept.add(bool(folder)) or scratch_file(folder))
    prepared(tmp_path / "r.csv", tmp_path / "prepared", None, like_threshold=2.0)
    assert kept == {on_disk}


def test_a_stop_in_the_middle_leaves_nothing(tiny, tmp_path, monkeypatch):
    one(tmp_path / "r.csv", csv(half_stars()))

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(ratings, "_leave_out", stop)
    with pytest.raises(KeyboardInterrupt):
        prepared(tmp_path / "r.csv", tmp_path / "prepared", ON_DISK)
    assert [path.name for path in tmp_path.iterdir()] == ["r.csv"]


KILLED = """
import os, signal, sys
from pathlib import Path
import pyarrow.parquet as pq
from recsys.data import buckets, parquet_store
from recsys.data.builder import prepare
from recsys.data.preparation import Preparation

def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)

owner, method = {
    "pairs": (buckets.Buckets, "drain"), "parts": (parquet_store.PartWriter, "finish"), "users": (pq, "write_table")
}[sys.argv[3]]
setattr(owner, method, die)
prepare(Path(sys.argv[1]), Preparation(), Path(sys.argv[2]), gigabytes=0)
"""


@pytest.mark.process
@pytest.mark.parametrize("place", ["pairs", "parts", "users"])
def test_a_kill_in_the_middle_leaves_no_dataset_and_the_next_prepare_succeeds(tmp_path, place):
    one(tmp_path / "r.csv", csv(half_stars()))
    folder = tmp_path / "prepared"
    done = program(KILLED, tmp_path / "r.csv", folder, place)
    assert done.returncode == -signal.SIGKILL
    (left,) = folder.iterdir()
    assert left.name.startswith(".partial-")
    with pytest.raises(InputError, match="no dataset is prepared"):
        datasets.newest_dataset(folder)
    assert not prepared(tmp_path / "r.csv", folder, ON_DISK)[0].reused


# The peak of the process's memory is read from the system, since what getrusage tells includes the parent's.
GROWTH = """
import sys
from pathlib import Path
import pyarrow as pa
from recsys.data import parquet_store, ratings
from recsys.data.builder import prepare
from recsys.data.preparation import Preparation
from recsys.data.readers import delimited

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000

pa.set_memory_pool(pa.system_memory_pool())
delimited._BLOCK, ratings._BUCKET = 1 << 18, 1 << 16
parquet_store.ROW_GROUP, parquet_store.FILE_ROWS = 1 << 15, 1 << 20
small, large, folder, gigabytes = *map(Path, sys.argv[1:4]), float(sys.argv[4])
prepare(small, Preparation(), folder, gigabytes=gigabytes)  # starts the threads, imports what is imported late
before = peak()
prepare(large, Preparation(), folder, gigabytes=gigabytes)
print(peak() - before)
"""


def program(text: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", text, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": "src"}
    project = Path(__file__).parents[2]
    return subprocess.run(command, env=environment, cwd=project, capture_output=True, text=True)


@pytest.mark.process
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
def test_memory_does_not_grow_with_rows_on_disk(tmp_path):
    """Two and a half million rows are 60 MB as bare columns, and more than that where they are held."""
    rng = np.random.default_rng(0)
    for name, n in (("small", 200_000), ("large", 2_500_000)):
        columns = {"user_id": rng.integers(0, 3000, n), "item_id": rng.integers(0, 3000, n)}
        pa.csv.write_csv(pa.table(columns | {"rating": rng.integers(1, 6, n)}), tmp_path / name)
    grown = []
    for gigabytes in (ON_DISK, IN_MEMORY):
        done = program(GROWTH, tmp_path / "small", tmp_path / "large", tmp_path / f"to {gigabytes}", gigabytes)
        assert done.returncode == 0, done.stderr
        grown.append(float(done.stdout))
    assert grown[0] < 40 < 80 < grown[1], grown
