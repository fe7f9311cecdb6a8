"""Backups that somebody changed: nothing of them runs, and each is refused by one sentence."""

import gzip
import json
import os
import subprocess
import tarfile

import pytest

from server.artifacts import Folder, unpack
from server.backup import ACCOUNTS, ARTIFACTS, KEY, MANIFEST, BackupError, _fingerprint, _seal, verify
from tests.support.pipeline import PROJECT
from tests.support.team_server import make_databases, secrets

DUMP = b"create table t (a int);\n-- Dump completed on 2026-11-29\n"
WHOLE = gzip.compress(DUMP, mtime=0)


@pytest.fixture
def pack(tmp_path):
    """Writes a backup of these parts, with a manifest that fits them where none is given."""

    def pack(dump=WHOLE, manifest=None, key=""):
        work = tmp_path / "parts"
        work.mkdir()
        (work / "mlflow.sql.gz").write_bytes(dump)
        (work / ACCOUNTS).write_bytes(b"")
        with tarfile.open(work / ARTIFACTS, "w"):
            pass
        files = {path.name: _fingerprint(path) for path in sorted(work.iterdir())}
        whole = {"format": 1, "counts": {"mlflow": {"tables": 1}}, "files": files}
        (work / MANIFEST).write_text(manifest(whole) if manifest else json.dumps(whole))
        _seal(work, {KEY: key})
        with tarfile.open(tmp_path / "backup.tar", "w") as archive:
            for path in work.iterdir():
                archive.add(path, path.name)
        return tmp_path / "backup.tar"

    return pack


def test_a_whole_backup_is_told_from_others(pack, tmp_path):
    assert verify(pack(), {}) == {"mlflow": {"tables": 1}}
    assert {path.name for path in tmp_path.iterdir()} == {"parts", "backup.tar"}


MANIFESTS = {
    "empty": lambda whole: "",
    "no object": lambda whole: "[]",
    "nothing in it": lambda whole: "{}",
    "no counts": lambda whole: json.dumps({key: value for key, value in whole.items() if key != "counts"}),
    "counts of nothing": lambda whole: json.dumps(whole | {"counts": {}}),
    "a list of counts": lambda whole: json.dumps(whole | {"counts": ["mlflow"]}),
    "another database": lambda whole: json.dumps(whole | {"counts": {"../x": {}}}),
    "counts of words": lambda whole: json.dumps(whole | {"counts": {"mlflow": {"tables": "many"}}}),
    "a file less": lambda whole: json.dumps(whole | {"files": {ACCOUNTS: whole["files"][ACCOUNTS]}}),
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_manifest_that_tells_too_little_is_one_sentence(pack, kind):
    with pytest.raises(BackupError, match=r"backup.tar: no whole backup \("):
        verify(pack(manifest=MANIFESTS[kind]), {})


@pytest.mark.parametrize("dump", [gzip.compress(DUMP[:-20], mtime=0), WHOLE[:-9], b"", b"no gzip"])
def test_a_cut_dump_in_a_backup_whose_digests_fit_is_told(pack, dump):
    with pytest.raises(BackupError, match=r"mlflow.sql.gz in it is (cut|damaged)"):
        verify(pack(dump), {})


def test_with_a_key_only_what_is_sealed_with_it_is_taken(pack):
    file = pack(key="our key")
    assert verify(file, {KEY: "our key"})
    assert verify(file, {})
    with pytest.raises(BackupError, match="not sealed with RECSYS_BACKUP_KEY"):
        verify(file, {KEY: "another key"})


def test_a_backup_without_a_seal_is_refused_where_there_is_a_key(pack):
    with pytest.raises(BackupError, match="not sealed with RECSYS_BACKUP_KEY"):
        verify(pack(), {KEY: "our key"})


def test_artifacts_that_end_early_change_nothing(tmp_path):
    place = Folder(tmp_path / "artifacts")
    with (tmp_path / "a.tar").open("wb") as file, tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("first", "second"):
            (tmp_path / name).write_bytes(b"new" * 10_000)
            archive.add(tmp_path / name, name)
    cut = tmp_path / "cut.tar"
    cut.write_bytes((tmp_path / "a.tar").read_bytes()[:40_000])
    with cut.open("rb") as source, pytest.raises(tarfile.TarError):
        unpack(place, source)
    assert list(place.folder.iterdir()) == []
    with (tmp_path / "a.tar").open("rb") as source:
        assert unpack(place, source) == 2
    assert sorted(place.paths()) == ["first", "second"]


@pytest.mark.service
@pytest.mark.parametrize("command", [r"\! touch {}", "system touch {}", r"select 1; \! touch {}", r"\. {}.sql"])
def test_no_command_in_a_dump_runs(mariadb, tmp_path, command):
    """Commands of the client, which it carries out on this machine, among statements that a restore needs."""
    variables = secrets()
    make_databases(mariadb, variables)
    host, port = mariadb.address.rpartition("@")[2].split(":")
    ran = tmp_path / "ran"
    (tmp_path / "ran.sql").write_text(f"\\! touch {ran}\n")
    dump = f"create table t (a int);\n{command.format(ran)}\n"
    done = subprocess.run(
        ["bash", "server/database.sh", "load", "mlflow"],
        input=dump.encode(),
        cwd=PROJECT,
        env=dict(os.environ) | variables | {"MYSQL_HOST": host, "MYSQL_TCP_PORT": port},
        capture_output=True,
        check=False,
    )
    assert not ran.exists(), done
    assert done.returncode != 0
