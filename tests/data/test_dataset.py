import json
import multiprocessing
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from recsys.data import builder
from recsys.data import dataset as datasets
from recsys.data.parquet_store import PARTS
from recsys.data.preparation import Preparation
from recsys.errors import InputError
from recsys.testing.datasets import write_rows

ROWS = [(f"u{u}", f"i{i}", 1 + (u * i) % 5) for u in range(10) for i in range(10)]
TIMED = [(*row, moment) for moment, row in enumerate(ROWS)]


@pytest.fixture
def source(tmp_path):
    return write_rows(tmp_path / "ratings.csv", ROWS)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "prepared"


def prepare(source, folder, **parameters):
    return builder.prepare(source, Preparation(**parameters), folder)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_rating_is_in_exactly_one_part(source, folder):
    dataset = prepare(source, folder)
    found = [
        (dataset.user_ids[user], dataset.item_ids[item], rating)
        for part in PARTS
        for user, item, rating in zip(*(getattr(getattr(dataset, part), n) for n in ("users", "items", "ratings")))  # noqa: B905
    ]
    assert sorted(found) == sorted(ROWS)


def test_the_same_input_and_parameters_reuse_the_dataset(source, folder, tmp_path):
    first = prepare(source, folder)
    before = content(folder)
    elsewhere = write_rows(tmp_path / "same ratings, another name.csv", ROWS)
    second = prepare(elsewhere, folder)
    assert (first.reused, second.reused) == (False, True)
    assert second.digest == first.digest
    assert content(folder) == before


def test_what_is_loaded_is_what_was_prepared(tmp_path, folder):
    made = prepare(write_rows(tmp_path / "timed.csv", TIMED), folder, split="time")
    loaded = datasets.load_dataset(made.digest, folder)
    assert loaded.user_ids.tolist() == made.user_ids.tolist()
    assert loaded.item_ids.tolist() == made.item_ids.tolist()
    for part in PARTS:
        for name in ("users", "items", "ratings", "timestamps"):
            one, other = getattr(getattr(made, part), name), getattr(getattr(loaded, part), name)
            assert one.dtype == other.dtype
            assert one.tolist() == other.tolist()
    for side in ("user", "item"):
        for name in ("average", "std", "count"):
            assert (getattr(getattr(made.features, side), name) == getattr(getattr(loaded.features, side), name)).all()
    assert loaded.preparation == made.preparation
    assert (loaded.scale, loaded.like_threshold, loaded.test_digest) == ((1, 5), 4, made.test_digest)


@pytest.mark.parametrize(
    "changed",
    [{"test_size": 0.3}, {"validation_size": 0.2}, {"split": "random"}, {"like_threshold": 3.0}, {"min_rating": 2.0}],
    ids=lambda changed: next(iter(changed)),
)
def test_other_parameters_make_another_dataset(source, folder, changed):
    first, second = prepare(source, folder), prepare(source, folder, **changed)
    assert second.digest != first.digest
    assert not second.reused
    assert second.test_digest != first.test_digest or changed == {"validation_size": 0.2}


def test_other_ratings_make_another_dataset(source, folder, tmp_path):
    other = write_rows(tmp_path / "other.csv", [*ROWS[:-1], (*ROWS[-1][:2], 5)])
    assert prepare(other, folder).digest != prepare(source, folder).digest


def test_the_seed_counts_for_a_random_split_only(source, folder):
    assert prepare(source, folder, seed=1).digest == prepare(source, folder, seed=2).digest
    one, other = (prepare(source, folder, split="random", seed=seed) for seed in (1, 2))
    assert one.digest != other.digest
    assert one.test_digest != other.test_digest


def test_a_larger_file_keeps_every_row_in_its_part(source, folder, tmp_path):
    def placed(dataset):
        return {
            (dataset.user_ids[user], dataset.item_ids[item]): part
            for part in PARTS
            for user, item in zip(getattr(dataset, part).users, getattr(dataset, part).items, strict=True)
        }

    more = [("a new user", "i1", 3), *reversed(ROWS), ("u1", "a new item", 2)]
    small, large = prepare(source, folder), prepare(write_rows(tmp_path / "larger.csv", more), folder)
    assert len(placed(large)) == len(ROWS) + 2
    assert placed(small).items() <= placed(large).items()


def test_the_manifest_says_what_the_dataset_is(tmp_path, folder):
    rows = [*ROWS, ("u1", "i1", 5), ("u1", "", 5), ("u2", "i2", 0)]
    dataset = prepare(write_rows(tmp_path / "ratings.csv", rows), folder, like_threshold=3.0)
    manifest = json.loads((dataset.folder / "manifest.json").read_text(encoding="utf-8"))
    assert dataset.folder == folder / dataset.digest
    assert manifest["digest"] == dataset.digest
    assert manifest["source"] == str(tmp_path / "ratings.csv")
    assert manifest["rows_read"] == 103
    assert manifest["dropped"] == {"missing_value": 1, "below_min_rating": 1, "repeated_pair": 1}
    assert (manifest["ratings"], manifest["users"], manifest["items"]) == (100, 10, 10)
    assert manifest["scale"] == [1, 5]
    assert manifest["preparation"] == dataset.preparation.recorded()
    assert manifest["sizes"] == {part: len(getattr(dataset, part)) for part in PARTS}
    assert sum(manifest["sizes"].values()) == 100
    assert len(manifest["features"]) == 8
    assert set(manifest["files"]) | {"manifest.json"} == set(content(dataset.folder))


def test_the_tables_can_be_read_without_this_code(source, folder):
    dataset = prepare(source, folder)
    users, train = (pq.read_table(dataset.folder / name).to_pandas() for name in ("users.parquet", "train"))
    expected = ["user_id", "average_rating", "rating_std", "rating_count", "unique_items"]
    assert users.columns.tolist() == expected
    averages = train.groupby("user")["rating"].mean()
    assert users["average_rating"][averages.index].to_numpy() == pytest.approx(averages.to_numpy())


@pytest.mark.parametrize(
    "name", ["manifest.json", "users.parquet", "items.parquet", "train/part-00000.parquet", "test/part-00000.parquet"]
)
@pytest.mark.parametrize("damage", ["altered", "cut", "missing"])
def test_a_damaged_dataset_is_refused_and_left_as_it_is(source, folder, name, damage):
    made = prepare(source, folder).folder
    path = made / name
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(whole[:-20] if damage == "cut" else whole.replace(b"0", b"1", 1) + b" ")
    before = content(folder)
    for attempt in (lambda: prepare(source, folder), lambda: datasets.load_dataset(made.name, folder)):
        with pytest.raises(InputError) as caught:
            attempt()
        message = str(caught.value)
        assert message.startswith(f"dataset {made}: {name} ")
        assert "delete that folder and run the entry point prepare again" in message
    assert content(folder) == before


def test_an_altered_value_in_the_manifest_is_noticed(source, folder):
    path = prepare(source, folder).folder / "manifest.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"like_threshold": 4.0', '"like_threshold": 3.0'))
    with pytest.raises(InputError, match=r"manifest\.json is not what prepare wrote; delete that folder"):
        datasets.load_dataset(path.parent.name, folder)


def test_an_empty_folder_in_the_dataset_s_place_is_refused(source, folder):
    path = prepare(source, folder).folder
    shutil.rmtree(path)
    path.mkdir()
    with pytest.raises(InputError, match=r"manifest\.json is missing.*delete that folder"):
        prepare(source, folder)


def test_a_dataset_of_another_format_is_refused(source, folder):
    path = prepare(source, folder).folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"format": 99}), encoding="utf-8")
    with pytest.raises(InputError, match="has format 99, this version of recsys reads format 2"):
        prepare(source, folder)


def test_a_dataset_is_found_by_the_beginning_of_its_digest(source, folder):
    dataset = prepare(source, folder)
    assert datasets.load_dataset(dataset.digest[:10], folder).digest == dataset.digest
    other = "0123" if not dataset.digest.startswith("0123") else "1234"
    for digest in (other, ""):
        with pytest.raises(InputError, match=rf"dataset '{digest}' is not in .*run the entry point prepare"):
            datasets.load_dataset(digest, folder)


def test_a_beginning_of_several_digests_is_refused_with_their_names(source, folder):
    digest = prepare(source, folder).digest
    (folder / f"{digest[:6]}ffff").mkdir()
    with pytest.raises(InputError, match=f"begins several: .*{digest}"):
        datasets.load_dataset(digest[:6], folder)


def test_the_newest_dataset_is_the_one_last_asked_for(source, folder):
    with pytest.raises(InputError, match="no dataset is prepared in"):
        datasets.newest_dataset(folder)
    first, second = prepare(source, folder), prepare(source, folder, test_size=0.3)
    os.utime(first.folder, (1, 1))
    os.utime(second.folder, (2, 2))
    assert datasets.newest_dataset(folder).digest == second.digest
    prepare(source, folder)
    assert datasets.newest_dataset(folder).digest == first.digest


def test_datasets_of_another_format_are_passed_over(source, folder):
    dataset = prepare(source, folder)
    (old := folder / "0123").mkdir()
    (old / "manifest.json").write_text('{"format": 1}', encoding="utf-8")
    os.utime(dataset.folder, (1, 1))
    assert datasets.newest_dataset(folder).digest == dataset.digest


def test_the_timestamps_of_test_rows_count_for_the_test_set(tmp_path, folder):
    def digest(rows):
        return prepare(write_rows(tmp_path / "timed.csv", rows), folder).test_digest

    dataset = prepare(write_rows(tmp_path / "timed.csv", TIMED), folder)
    tested = {
        (dataset.user_ids[u], dataset.item_ids[i]) for u, i in zip(dataset.test.users, dataset.test.items, strict=True)
    }
    later = {
        is_tested: [(*row[:3], row[3] + ((row[:2] in tested) == is_tested)) for row in TIMED]
        for is_tested in (True, False)
    }
    assert digest(later[True]) != dataset.test_digest
    assert digest(later[False]) == dataset.test_digest


def test_the_scale_is_that_of_the_rows_learnt_from(source, folder, tmp_path):
    dataset = prepare(source, folder)

    def scale(part):
        pair = dataset.user_ids[part.users[0]], dataset.item_ids[part.items[0]]
        rows = [(*row[:2], 10) if row[:2] == pair else row for row in ROWS]
        return prepare(write_rows(tmp_path / "other.csv", rows), folder).scale

    assert scale(dataset.test) == (1, 5)
    assert scale(dataset.validation) == (1, 10)


def test_rows_to_learn_from_that_are_rated_alike_are_refused(source, folder, tmp_path):
    dataset = prepare(source, folder)
    tested = {
        (dataset.user_ids[u], dataset.item_ids[i]) for u, i in zip(dataset.test.users, dataset.test.items, strict=True)
    }
    rows = [(*row[:2], 5 if row[:2] in tested else 3) for row in ROWS]
    with pytest.raises(InputError) as caught:
        prepare(write_rows(tmp_path / "alike.csv", rows), folder)
    assert str(caught.value) == (
        "alike.csv: column 'rating': ratings that differ are needed to learn from, but split=hash with test_size=0.2 "
        "and validation_size=0.1 leaves only ratings of 3 for train and validation; pass more ratings or other sizes"
    )


@pytest.mark.parametrize("change", ["another rating", "a row more", "another file"])
def test_a_file_that_changes_while_it_is_read_is_refused_and_leaves_nothing(tmp_path, folder, monkeypatch, change):
    (given := tmp_path / "given").mkdir()
    path = write_rows(given / "a.csv", ROWS)
    read_ratings = builder.read_ratings

    def read_changed(*arguments, **options):
        if change == "another file":
            write_rows(given / "b.csv", ROWS)
        else:
            write_rows(path, [*ROWS[:-1], (*ROWS[-1][:2], 5)] if change == "another rating" else [*ROWS, ("u", "i", 1)])
        return read_ratings(*arguments, **options)

    monkeypatch.setattr(builder, "read_ratings", read_changed)
    with pytest.raises(InputError, match="given: changed while it was read; run prepare again"):
        prepare(given, folder)
    assert not folder.exists()
    monkeypatch.undo()
    assert not prepare(given, folder).reused


def test_what_a_killed_prepare_left_is_removed_after_a_day(source, folder):
    fresh, stale = folder / ".partial-fresh", folder / ".partial-stale"
    for path in (fresh, stale):
        path.mkdir(parents=True)
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(stale, (two_days_ago, two_days_ago))
    prepare(source, folder)
    assert fresh.exists()
    assert not stale.exists()


def _prepare_at_once(barrier, source, folder, answers):
    publish = builder._publish

    def publish_together(*arguments):
        barrier.wait()
        publish(*arguments)

    builder._publish = publish_together
    try:
        answers.put(builder.prepare(source, Preparation(), folder).digest)
    except BaseException:
        barrier.abort()  # or the other would wait for ever
        raise


@pytest.mark.process
def test_two_processes_that_prepare_at_once_both_succeed(source, folder):
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_prepare_at_once, args=(barrier, source, folder, answers)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()  # an answer is so short that the pipe takes it
    assert [worker.exitcode for worker in workers] == [0, 0]
    digests = {answers.get() for _ in workers}
    assert [path.name for path in folder.iterdir()] == list(digests)
    assert prepare(source, folder).reused


def test_joined_rows_stand_one_after_the_other(tmp_path, folder):
    dataset = prepare(write_rows(tmp_path / "timed.csv", TIMED), folder, split="time")
    joined = dataset.train.joined(dataset.validation)
    assert len(joined) == len(dataset.train) + len(dataset.validation)
    assert joined.timestamps.tolist() == list(range(len(joined)))
    assert joined[np.array([0, 2])].timestamps.tolist() == [0, 2]
