"""The server over an object store: its bucket and artifacts, and datasets in a backup; without databases."""

import os
import sys
import tarfile
from io import BytesIO

import boto3
import pytest

from server.artifacts import Bucket
from server.backup import BackupError, Server
from server.start import WrongSettings, make_bucket
from tests.support.object_stores import BUCKET, client, keys, moto_store, names, s3rver_store

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


@pytest.fixture(scope="module")
def s3rver(tmp_path_factory):
    try:
        with s3rver_store(tmp_path_factory.mktemp("store") / "s3rver") as endpoint:
            yield endpoint
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.mark.service
def test_the_bucket_of_artifacts_is_made_and_keeps_large_ones(s3rver, monkeypatch, capsys):
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    for name, value in keys(s3rver).items():
        monkeypatch.setenv(name, value)
    make_bucket("s3://made/artifacts", s3rver)
    assert "made the bucket made" in capsys.readouterr().out
    make_bucket("s3://made/artifacts", s3rver)
    place, content = Bucket("s3://made/artifacts", s3rver), os.urandom(20 << 20)
    place.write("1/model.bin", BytesIO(content))
    assert list(place.paths()) == ["1/model.bin"]
    place.read("1/model.bin", into := BytesIO())
    assert into.getvalue() == content


@pytest.mark.service
def test_a_key_that_the_store_does_not_know_ends_the_server_s_start_with_a_sentence(s3rver, monkeypatch):
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # which keeps the first keys that it finds
    for name, value in keys(s3rver, "somebody").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(WrongSettings) as caught:
        make_bucket("s3://made/artifacts", s3rver)
    assert str(caught.value).startswith("MLFLOW_ARTIFACTS_DESTINATION: the bucket 'made' cannot be used (")
    assert str(caught.value).endswith("check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and MLFLOW_S3_ENDPOINT_URL")
    assert "\n" not in str(caught.value)


@pytest.mark.process
def test_datasets_are_packed_with_their_manifests_last_and_unpacked_elsewhere(server_over, tmp_path):
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


@pytest.mark.process
def test_datasets_in_a_folder_are_not_packed_and_do_not_take_those_of_a_store(server_over, tmp_path, capfd):
    folder = server_over(str(tmp_path))
    assert folder.count_artifacts("datasets") == 0
    with tarfile.open(tmp_path / "datasets.tar", "w"):
        pass
    with pytest.raises(BackupError):
        folder.unpack(tmp_path / "datasets.tar", "datasets")
    assert "RECSYS_DATA=s3://bucket/prefix is needed" in capfd.readouterr().err
