"""Datasets in an S3-compatible store: there whole or not at all, and never taken for what they are not."""

import json
import os
import time

import pytest

from recsys.data.dataset import load_dataset
from recsys.data.manifest import write_manifest
from recsys.data.object_store import ObjectStore
from recsys.errors import InputError
from recsys.testing.datasets import prepared
from tests.support.object_stores import BUCKET, client, keys, moto_store, names, refusing_store, s3rver_store
from tests.support.services import free_port

ROWS = [(f"u{u}", f"i{i}", 1 + (u * i) % 5) for u in range(10) for i in range(10)]


@pytest.fixture(scope="module")
def endpoint():
    with moto_store() as address:
        yield address


@pytest.fixture
def open_store(monkeypatch, request):
    """Opens a store at an address, each test's below a prefix of its own."""

    def open_store(endpoint, key="S3RVER"):
        for name, value in keys(endpoint, key).items():
            monkeypatch.setenv(name, value)
        return ObjectStore(f"s3://{BUCKET}/{abs(hash(request.node.nodeid))}", endpoint=endpoint)

    return open_store


@pytest.fixture
def store(open_store, endpoint):
    return open_store(endpoint)


@pytest.fixture
def dataset(tmp_path):
    return prepared(tmp_path, ROWS)


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def prefix(store):
    return store.uri.removeprefix(f"s3://{BUCKET}/")


def test_what_is_fetched_is_what_was_published(store, dataset, tmp_path):
    assert store.publish(dataset.folder) == f"{store.uri}/prepared/{dataset.digest}"
    assert store.fetch(dataset.digest, tmp_path / "copies")
    assert content(tmp_path / "copies" / dataset.digest) == content(dataset.folder)
    copy = load_dataset(dataset.digest, tmp_path / "copies")
    assert (copy.manifest, copy.user_ids.tolist()) == (dataset.manifest, dataset.user_ids.tolist())
    assert [path.name for path in (tmp_path / "copies").iterdir()] == [dataset.digest]


def test_a_dataset_that_nobody_published_is_not_there(store, tmp_path):
    assert store.times() == {}
    assert not store.fetch("0" * 32, tmp_path / "copies")
    assert not (tmp_path / "copies").exists()


def test_without_its_manifest_a_dataset_is_not_there_and_the_next_publisher_writes_it_anew(
    store, dataset, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(store, "_write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.publish(dataset.folder)
    assert len(names(store.endpoint, prefix(store))) == 5  # all but the manifest
    assert store.times() == {}
    assert not store.fetch(dataset.digest, tmp_path / "copies")
    store.publish(dataset.folder)
    assert list(store.times()) == [dataset.digest]
    assert store.fetch(dataset.digest, tmp_path / "copies")


@pytest.mark.parametrize("damage", ["altered", "cut", "missing"])
@pytest.mark.parametrize("name", ["users.parquet", "train/part-00000.parquet"])
def test_an_object_that_is_not_what_was_written_is_refused_and_no_copy_kept(store, dataset, tmp_path, name, damage):
    store.publish(dataset.folder)
    where = {"Bucket": BUCKET, "Key": f"{prefix(store)}/prepared/{dataset.digest}/{name}"}
    s3, whole = client(store.endpoint), (dataset.folder / name).read_bytes()
    if damage == "missing":
        s3.delete_object(**where)
    else:
        s3.put_object(**where, Body=whole[:-9] if damage == "cut" else b"PAR2" + whole[4:])
    with pytest.raises(InputError) as caught:
        store.fetch(dataset.digest, tmp_path / "copies")
    problem = "is missing" if damage == "missing" else "is not what prepare wrote"
    assert f"dataset {store.uri}/prepared/{dataset.digest}: {name} {problem}" in str(caught.value)
    assert list((tmp_path / "copies").iterdir()) == []


def test_a_manifest_that_names_files_outside_is_refused(store, dataset, tmp_path):
    store.publish(dataset.folder)
    manifest = json.loads((dataset.folder / "manifest.json").read_text())
    manifest["files"]["../../elsewhere"] = "0" * 32
    key = f"{prefix(store)}/prepared/{dataset.digest}/manifest.json"
    client(store.endpoint).put_object(Bucket=BUCKET, Key=key, Body=json.dumps(manifest).encode())
    with pytest.raises(InputError, match="names files outside the dataset"):
        store.fetch(dataset.digest, tmp_path / "copies")


def test_a_file_of_several_parts_arrives_whole(store, tmp_path):
    folder = tmp_path / ("d" * 32)
    (folder / "train").mkdir(parents=True)
    (folder / "train/part-00000.parquet").write_bytes(os.urandom(25 << 20))
    write_manifest(folder, {"format": 2, "digest": folder.name})
    store.publish(folder)
    key = f"{prefix(store)}/prepared/{folder.name}/train/part-00000.parquet"
    parts = int(client(store.endpoint).head_object(Bucket=BUCKET, Key=key)["ETag"].strip('"').partition("-")[2])
    assert parts > 1
    assert store.fetch(folder.name, tmp_path / "copies")
    assert content(tmp_path / "copies" / folder.name) == content(folder)


def test_a_key_that_may_only_read_is_enough_for_what_is_there(store, dataset, tmp_path, monkeypatch):
    store.publish(dataset.folder)

    def refuse(*_):
        raise OSError("When initiating multiple part upload: AWS Error ACCESS_DENIED during CreateMultipartUpload")

    monkeypatch.setattr(store, "_write", refuse)
    store.publish(dataset.folder)
    other = prepared(tmp_path, ROWS[:-1])
    with pytest.raises(InputError, match="the store refuses that to this key"):
        store.publish(other.folder)


def test_content_that_a_store_changed_is_told_before_there_is_a_manifest(store, dataset, monkeypatch):
    monkeypatch.setattr(store, "_sizes", lambda at, whole=store._sizes: {k: v + 40 for k, v in whole(at).items()})
    with pytest.raises(InputError, match=r"bytes were sent, the store has .*AWS_REQUEST_CHECKSUM_CALCULATION"):
        store.publish(dataset.folder)
    assert store.times() == {}


def test_what_is_asked_for_again_is_the_newest(store, tmp_path):
    for name, rows in (("one", ROWS), ("other", ROWS[:-1])):
        (tmp_path / name).mkdir()
        store.publish(prepared(tmp_path / name, rows).folder)
    digests = [next((tmp_path / name / "prepared").iterdir()) for name in ("one", "other")]
    time.sleep(1.1)  # the store's times are whole seconds
    store.publish(digests[0])
    times = store.times()
    assert max(times, key=times.__getitem__) == digests[0].name


def test_a_store_answers_to_doctor_s_probe_and_keeps_nothing_of_it(store):
    store.check()
    assert names(store.endpoint, prefix(store)) == []


@pytest.mark.parametrize("uri", ["s3://", "s3://Team/data", "s3://team?x=1", "s3:/team", "gs://team"])
def test_an_address_that_is_none_is_told(uri):
    with pytest.raises(InputError, match=r"RECSYS_DATA: s3://bucket or s3://bucket/prefix is needed"):
        ObjectStore(uri)


@pytest.mark.parametrize("endpoint", ["localhost:9000", "http://me:secret@host", "ftp://host"])
def test_a_server_s_address_that_is_none_is_told(endpoint):
    with pytest.raises(InputError, match="AWS_ENDPOINT_URL: an address such as"):
        ObjectStore("s3://team", endpoint=endpoint)


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (403, "AccessDenied", "the store refuses that to this key; check AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", "the secret key does not belong to the access key"),
        (404, "NoSuchBucket", "there is no such bucket; make it, or correct RECSYS_DATA"),
    ],
)
def test_what_a_store_refuses_is_told_in_one_sentence(open_store, status, code, told):
    with refusing_store(status, code) as endpoint:
        store = open_store(endpoint)
        with pytest.raises(InputError) as caught:
            store.check()
    assert str(caught.value).startswith(f"{store.uri} at {endpoint}: writing failed: {told}")
    assert "\n" not in str(caught.value)


def test_a_store_that_does_not_answer_is_told(open_store):
    with pytest.raises(InputError, match=r"it does not answer; start it, or correct AWS_ENDPOINT_URL"):
        open_store(f"http://127.0.0.1:{free_port()}").times()


@pytest.mark.service
def test_a_store_that_knows_its_keys(open_store, dataset, tmp_path):
    try:
        with s3rver_store(tmp_path / "s3rver") as endpoint:
            store = open_store(endpoint)
            store.check()
            store.publish(dataset.folder)
            assert store.fetch(dataset.digest, tmp_path / "copies")
            assert content(tmp_path / "copies" / dataset.digest) == content(dataset.folder)
            with pytest.raises(InputError, match=r"the store does not know the access key; check AWS_ACCESS_KEY_ID"):
                open_store(endpoint, "somebody").check()
    except FileNotFoundError as error:
        pytest.skip(str(error))
