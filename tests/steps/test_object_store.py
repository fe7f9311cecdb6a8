"""The steps over an object store that two machines share: each has its own folder of copies."""

import pytest

from recsys.data.object_store import ObjectStore
from recsys.errors import InputError
from recsys.testing.datasets import prepared, rated
from steps.prepare import locate
from steps.support.parameters import PrepareParameters
from tests.support.object_stores import BUCKET, client, keys, moto_store, names, refusing_store
from tests.support.pipeline import COLUMNS, stepper, write_sample

TRAIN = {"ratings": "my.csv", "family": "bias", "lists": False, "forward": False, **COLUMNS}


@pytest.fixture(scope="module")
def endpoint():
    with moto_store() as address:
        yield address


@pytest.fixture
def machine(store, in_process, tmp_path):
    """Runs steps on a machine of this name."""
    write_sample(store.home / "my.csv")

    def machine(name, endpoint):
        return stepper(
            store.home,
            in_process,
            MLFLOW_TRACKING_URI=store.uri,
            RECSYS_DATA=f"s3://{BUCKET}/{tmp_path.name}",
            RECSYS_DATA_CACHE=str(tmp_path / name),
            **keys(endpoint),
        )

    return machine


def test_what_one_machine_prepared_another_reads_and_does_not_prepare(machine, store, endpoint, tmp_path, capsys):
    machine("first", endpoint)("train", **TRAIN)
    assert "in the object store: s3://team/" in capsys.readouterr().out
    kept = names(endpoint, tmp_path.name)
    assert len(kept) == 6
    second = machine("second", endpoint)
    second("promote", beat_bias=False, max_rmse=4)
    assert "goes to Production" in capsys.readouterr().out
    second("prepare", ratings="my.csv", **COLUMNS)
    assert "reused " in capsys.readouterr().out
    (digest,) = {name.split("/")[2] for name in kept}
    (copy,) = (tmp_path / "second").glob("team-*/prepared/*")
    assert copy.name == digest
    assert names(endpoint, tmp_path.name) == kept
    assert not store.data.exists()


def test_the_file_before_is_found_though_another_machine_prepared_it(machine, store, endpoint, capsys):
    machine("first", endpoint)("prepare", ratings="my.csv", **COLUMNS)
    write_sample(store.home / "my.csv", users=20)
    machine("second", endpoint)("prepare", ratings="my.csv", **COLUMNS)
    assert "67% of the 60 users of the last file are missing" in capsys.readouterr().out


def test_a_store_that_may_not_be_written_ends_prepare_before_it_reads(machine, store, capsys):
    with refusing_store(403, "AccessDenied") as endpoint, pytest.raises(SystemExit):
        machine("first", endpoint)("prepare", ratings="my.csv", **COLUMNS)
    said = capsys.readouterr()
    assert "the store refuses that to this key" in said.err
    assert store.statuses()[0] == ("prepare", "FAILED")


def test_datasets_that_are_gone_are_asked_for_by_their_place(machine, endpoint, tmp_path, capsys):
    machine("first", endpoint)("train", **TRAIN)
    for name in names(endpoint, tmp_path.name):
        client(endpoint).delete_object(Bucket=BUCKET, Key=name)
    with pytest.raises(SystemExit):
        machine("second", endpoint)("promote")
    assert f"is in s3://{BUCKET}/{tmp_path.name}; run the entry point prepare" in capsys.readouterr().err


def test_moving_to_a_server_takes_the_datasets_along_and_spreads_no_damaged_one(machine, endpoint, tmp_path):
    from server import migrate

    machine("first", endpoint)
    rows = rated(20, 20, 1, 5, step=1)
    digests = [prepared(tmp_path, rows[:size]).digest for size in (len(rows), len(rows) - 1)]
    assert migrate._move_datasets(tmp_path) == 2
    assert {name.split("/")[2] for name in names(endpoint, tmp_path.name)} == set(digests)
    (tmp_path / "prepared" / digests[0] / "users.parquet").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"users.parquet is not what prepare wrote"):
        migrate._move_datasets(tmp_path)


def test_ratings_in_a_bucket_are_not_taken_for_a_path():
    with pytest.raises(InputError, match=r"on this machine is needed, got 's3://team/orders'; copy it here"):
        locate(PrepareParameters(ratings="s3://team/orders"), ".")


def test_doctor_looks_at_the_store(machine, endpoint, monkeypatch, capsys):
    machine("first", endpoint)("doctor")
    said = capsys.readouterr().out
    assert "ok    object store: s3://team/" in said
    monkeypatch.setattr(ObjectStore, "times", lambda _: 1 / 0)
    with refusing_store(403, "AccessDenied") as refusing, pytest.raises(SystemExit):
        machine("first", refusing)("doctor")
    said = capsys.readouterr().out
    assert "wrong object store: s3://team/" in said
    assert "type: check AWS_ACCESS_KEY_ID" in said
