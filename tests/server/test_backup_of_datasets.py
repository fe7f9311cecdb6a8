"""The datasets of an object store in a backup, without databases."""

import os
import sys
import tarfile

import pytest

from server.backup import BackupError, Server
from tests.support.object_stores import BUCKET, client, keys, moto_store, names

pytestmark = pytest.mark.process
FILES = [
    f"prepared/{digest * 32}/{name}" for digest in "ab" for name in ("items.parquet", "manifest.json", "train/part")
]


@pytest.fixture
def server_over():
    """A server whose programs see this RECSYS_DATA."""

    def server_over(place, **environment):
        given = {**os.environ, "MLFLOW_ARTIFACTS_DESTINATION": "unused", "RECSYS_DATA": place, **environment}
        return Server([], [sys.executable], given, (), is_composed=False)

    return server_over


def test_they_are_packed_with_their_manifests_last_and_unpacked_elsewhere(server_over, tmp_path):
    with moto_store() as endpoint:
        for name in FILES:
            client(endpoint).put_object(Bucket=BUCKET, Key=f"data/{name}", Body=name.encode())
        client(endpoint).put_object(Bucket=BUCKET, Key="data/prepared/", Body=b"")  # some clients' folder
        client(endpoint).put_object(Bucket=BUCKET, Key="artifacts/other", Body=b"not a dataset")
        kept = server_over(f"s3://{BUCKET}/data/", **keys(endpoint))
        assert kept.count_artifacts("datasets") == len(FILES)
        kept.pack(tmp_path / "datasets.tar", "datasets")
        server_over(f"s3://{BUCKET}/new", **keys(endpoint)).unpack(tmp_path / "datasets.tar", "datasets")
        assert names(endpoint, "new/") == [f"new/{name}" for name in sorted(FILES)]
    with tarfile.open(tmp_path / "datasets.tar") as archive:
        order = [name.rpartition("/")[2] for name in archive.getnames()]
    assert order[-2:] == ["manifest.json"] * 2
    assert "manifest.json" not in order[:-2]


def test_datasets_in_a_folder_are_not_packed_and_do_not_take_those_of_a_store(server_over, tmp_path, capfd):
    folder = server_over(str(tmp_path))
    assert folder.count_artifacts("datasets") == 0
    with tarfile.open(tmp_path / "datasets.tar", "w"):
        pass
    with pytest.raises(BackupError):
        folder.unpack(tmp_path / "datasets.tar", "datasets")
    assert "RECSYS_DATA=s3://bucket/prefix is needed" in capfd.readouterr().err
