import numpy as np
import pytest

from recsys.data import parquet_store
from recsys.data.loader import BlockLoader, RowStream
from recsys.errors import InputError
from recsys.models.base.family import family_module
from recsys.models.base.knowledge import sorted_pairs
from recsys.models.base.storage import load_arrays
from recsys.training import out_of_core, trainer

ROWS = [(f"u{u}", f"i{i}", 1 + (u * i + u + i) % 5) for u in range(50) for i in range(40)]


@pytest.fixture
def dataset(prepare_rows, monkeypatch):
    """About 1400 training rows in 23 row groups of three files."""
    monkeypatch.setattr(parquet_store, "ROW_GROUP", 64)
    monkeypatch.setattr(parquet_store, "FILE_ROWS", 512)
    return prepare_rows(ROWS)


def stream_of(dataset, *names):
    codes = (np.arange(len(ids), dtype=np.int32) for ids in (dataset.user_ids, dataset.item_ids))
    return RowStream([dataset.folder / name for name in names], *codes, dataset.folder.parent)


def feed_of(dataset, batch_size=100, seed=1):
    return BlockLoader(stream_of(dataset, "train"), 50, 40, batch_size, seed)


def triples(batches):
    return [row for users, items, ratings in batches for row in zip(users, items, ratings, strict=True)]


def test_an_epoch_has_every_row_once_in_batches_of_one_size(dataset):
    feed = feed_of(dataset)
    batches = list(feed.epoch(1))
    train = dataset.train
    assert sorted(triples(batches)) == sorted(zip(train.users, train.items, train.ratings, strict=True))
    assert [len(batch[0]) for batch in batches[:-1]] == [100] * (len(train) // 100)
    assert feed.n == len(train)
    assert feed.mean == pytest.approx(train.ratings.mean())
    assert feed.scale == pytest.approx(train.ratings.std())
    assert feed.counts[0].tolist() == np.bincount(train.users, minlength=50).tolist()
    assert feed.counts[1].tolist() == np.bincount(train.items, minlength=40).tolist()


def test_the_order_follows_from_seed_and_epoch(dataset):
    def order(seed, epoch):
        return triples(feed_of(dataset, seed=seed).epoch(epoch))

    assert order(1, 1) == order(1, 1)
    assert order(1, 1) != order(1, 2)
    assert order(1, 1) != order(2, 1)


def test_a_batch_mixes_rows_of_many_places(dataset):
    users, _, _ = next(feed_of(dataset).epoch(1))
    assert len(np.unique(users)) > 30  # of 50: the file is in the order of users, and a row group has two or three


def test_pairs_are_sorted_as_in_memory(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(out_of_core, "_BUCKET", 100)
    stream = stream_of(dataset, "train", "validation")
    found = out_of_core.sort_pairs(stream.blocks, len(stream), 50, tmp_path)
    assert found.tolist() == sorted_pairs(dataset.train.joined(dataset.validation)).tolist()
    assert not list(tmp_path.glob(".partial-*"))


def test_a_streamed_training_knows_what_one_in_memory_does(dataset, tmp_path):
    module = family_module("matrix_factorization")
    config = module.Config(embedding_size=4, epochs=8, batch_size=64)
    in_memory = trainer.train("matrix_factorization", dataset, config, seed=3)
    heard = []
    streamed = trainer.train(
        "matrix_factorization", dataset, config, seed=3, gigabytes=1e-6, report=lambda *told: heard.append(told)
    )
    assert heard
    for one, other in ((in_memory.chosen, streamed.chosen), (in_memory.final, streamed.final)):
        a, b = one.knowledge, other.knowledge
        assert a.user_ids.tolist() == b.user_ids.tolist()
        assert a.item_ids.tolist() == b.item_ids.tolist()
        assert a.seen.tolist() == b.seen.tolist()
        assert a.biases.user == pytest.approx(b.biases.user)
        assert a.calibration.slope == pytest.approx(b.calibration.slope, rel=1e-3)
        known = dataset.train.users, dataset.train.items
        assert a.count_seen(*known) == b.count_seen(*known) == len(dataset.train)
    rows = dataset.test
    errors = [
        np.sqrt(np.mean((model.score(rows.users, rows.items).rating - rows.ratings) ** 2))
        for model in (in_memory.final, streamed.final)
    ]
    assert errors[1] == pytest.approx(errors[0], rel=0.05)
    streamed.final.save(tmp_path / "model")
    in_memory.final.save(tmp_path / "other")
    assert (tmp_path / "model/seen.parquet").read_bytes() == (tmp_path / "other/seen.parquet").read_bytes()
    assert set(load_arrays(tmp_path / "model/factors.npz")) == set(load_arrays(tmp_path / "other/factors.npz"))


def test_a_family_that_holds_all_rows_says_what_it_needs(dataset, monkeypatch):
    monkeypatch.setattr("recsys.runtime.memory.available", lambda: 100_000)
    module = family_module("random_forest")
    with pytest.raises(
        InputError, match=r"family random_forest, which learns from all [\d,]+ ratings at once, needs about 0\.0 GB"
    ):
        trainer.train("random_forest", dataset, module.Config(), seed=0)
    monkeypatch.setattr("recsys.runtime.memory.available", lambda: 10_000)
    with pytest.raises(InputError, match=r"loading the .* train ratings needs about .* are available"):
        _ = dataset.train


def test_few_validation_rows_stand_for_many(dataset, monkeypatch):
    monkeypatch.setattr(out_of_core, "MOST_VALIDATED", 50)
    monkeypatch.setattr(parquet_store, "ROW_GROUP", 64)
    every = -(-len(dataset.validation) // 50)
    assert out_of_core.sample_validation(dataset).ratings.tolist() == dataset.validation.ratings[::every].tolist()
