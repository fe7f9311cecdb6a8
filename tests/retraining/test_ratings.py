"""What a retraining prepares: the ratings as they stand, and the newest of the feedback behind them."""

import json
import sqlite3

import numpy as np
import pyarrow.parquet as pq
import pytest

from recsys.data import builder
from recsys.data.preparation import Preparation
from recsys.errors import InputError
from recsys.monitoring.archive import Archive
from recsys.retraining import feedback, ratings
from recsys.serving.record_table import TABLE
from tests.support.pipeline import write_csv
from tests.support.served_traffic import FEEDBACK

DAY = 86_400.0
SERVED = [  # request, moment, user, items, propensities
    ("r1", 100.0, "u0", ["i1", "i2"], [0.98, 0.5]),
    ("r2", 200.0, "u1", ["i3", "i1"], None),
]
EVENTS = [  # user, item, kind, value, moment, received, request
    ("u0", "i2", "rating", 2.0, "", 150.0, "r1"),
    ("u0", "i2", "rating", 5.0, "", 160.0, "r1"),
    ("u1", "i1", "rating", 4.0, "", 250.0, None),
    ("u1", "i1", "click", None, "", 260.0, None),
    ("new", "i9", "rating", 3.0, "240", 300.0, None),
]


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "feedback.db"
    with sqlite3.connect(path) as database:
        database.executescript(TABLE + FEEDBACK)
        for request, moment, user, items, chances in SERVED:
            likes = np.full(len(items), 0.5, "<f4").tobytes()
            blob = None if chances is None else np.array(chances, "<f4").tobytes()
            database.execute(
                "insert into served (request, moment, user, version, arm, policy, first, items, likes, propensities) "
                "values (?, ?, ?, '7', 'champion', 'personal', 0, ?, ?, ?)",
                (request, moment, user, json.dumps(items), likes, blob),
            )
        for number, event in enumerate(EVENTS):
            database.execute(
                "insert into feedback (key, user, item, kind, value, moment, received, request) "
                "values (?, ?, ?, ?, ?, ?, ?, ?)",
                (f"k{number}", *event),
            )
    return Archive(f"sqlite:///{path}")


def collect(archive, since=0.0, *, kinds=(), implicit=False):
    return feedback.collect(archive, since, 1000.0, 7 * DAY, kinds=kinds, implicit=implicit)


def test_of_each_pair_the_newest_rating_counts_with_the_list_that_it_answers(archive):
    given = collect(archive)
    rows = zip(given.users, given.items, given.ratings, given.moments, given.requests, given.positions, strict=True)
    assert [tuple(row) for row in rows] == [
        ("u0", "i2", 5.0, 160.0, "r1", 1),
        ("u1", "i1", 4.0, 250.0, "r2", 1),
        ("new", "i9", 3.0, 240.0, "", -1),
    ]
    assert given.versions.tolist() == ["7", "7", ""]
    assert given.propensities[0] == 0.5
    assert np.isnan(given.propensities[1:]).all()
    assert (given.repeated, given.passed_over) == (1, 1)


def test_without_ratings_every_type_of_event_is_a_take_or_those_that_are_named(archive):
    assert collect(archive, implicit=True).ratings.tolist() == [1.0] * 3
    clicks = collect(archive, kinds=["click"], implicit=True)
    assert (clicks.users.tolist(), clicks.items.tolist()) == (["u1"], ["i1"])


@pytest.mark.parametrize(("since", "expected"), [(0.0, 3), (155.0, 3), (200.0, 2), (251.0, 1), (900.0, 0)])
def test_only_what_was_received_since_counts(archive, since, expected):
    assert len(collect(archive, since)) == expected
    assert feedback.count(archive, since, 1000.0, kinds=(), implicit=False) == expected


@pytest.mark.parametrize("moment", ["-1e300", "-inf", "1e300", "inf", "nan", "-5", "9999-12-31", "0001-01-01", "soon"])
def test_a_moment_that_cannot_be_is_that_of_the_arrival(archive, tmp_path, moment):
    given = collect(added(archive, tmp_path, ("u2", "i1", "rating", 2.0, moment, 300.0, None)))
    assert given.moments.tolist() == [160.0, 250.0, 240.0, 300.0]


def test_ids_that_no_ratings_file_may_have_are_passed_over(archive, tmp_path):
    added(archive, tmp_path, ("a\0b", "i1", "rating", 2.0, "", 300.0, None))
    given = collect(added(archive, tmp_path, ("u1", "\0", "rating", 2.0, "", 300.0, None)))
    assert given.users.tolist() == ["u0", "u1", "new"]
    assert given.passed_over == 3
    assert feedback.count(archive, 0.0, 1000.0, kinds=(), implicit=False) == 3


def added(archive, tmp_path, event):
    with sqlite3.connect(tmp_path / "feedback.db") as database:
        database.execute(
            "insert into feedback (key, user, item, kind, value, moment, received, request) "
            "values (?, ?, ?, ?, ?, ?, ?, ?)",
            (repr(event), *event),
        )
    return archive


BASE = [("u0", "i1", 3.0, 10), ("u0", "i2", 1.0, 20), ("u1", "i2", 4.0, 30), ("u1", "i3", 5.0, 40)]


def written(tmp_path, rows, header, given, *, implicit=False, clip=None, scale=None, **parameters):
    source = write_csv(tmp_path / "my.csv", rows, header)
    preparation = Preparation(**{"ratings": str(source), **parameters})
    path = tmp_path / "out" / "ratings.parquet"
    prepared = ratings.write_ratings(path, source, preparation, given, implicit=implicit, clip=clip, scale=scale)
    return prepared, pq.read_table(path)


def test_the_ratings_come_first_with_default_names_and_feedback_behind_them(archive, tmp_path):
    parameters = {"user_column": "who", "item_column": "what", "rating_column": "stars", "timestamp_column": "when"}
    prepared, table = written(tmp_path, BASE, "who,what,stars,when", collect(archive), **parameters)
    assert prepared.user_column == "user_id"
    assert prepared.like_threshold == 4.0
    assert table["user_id"].to_pylist() == ["u0", "u0", "u1", "u1", "u0", "u1", "new"]
    assert table["timestamp"].to_pylist() == [10, 20, 30, 40, 160, 250, 240]
    assert table["origin"].to_pylist() == ["ratings"] * 4 + ["feedback"] * 3
    assert table["request"].to_pylist() == [None] * 4 + ["r1", "r2", None]
    assert table["propensity"].to_pylist() == [None] * 4 + [0.5, None, None]


@pytest.mark.parametrize(("unit", "factor"), [(1.6e9, 1), (1.6e12, 10**3), (1.6e15, 10**6), (1.6e18, 10**9)])
def test_feedback_has_times_in_the_unit_of_the_ratings(archive, tmp_path, unit, factor):
    rows = [(user, item, rating, int(unit) + time) for user, item, rating, time in BASE]
    _, table = written(tmp_path, rows, "user_id,item_id,rating,timestamp", collect(archive))
    assert table["timestamp"].to_pylist()[4:] == [160 * factor, 250 * factor, 240 * factor]


def test_ratings_without_times_or_values_get_feedback_without(archive, tmp_path):
    rows = [row[:2] for row in BASE]
    prepared, table = written(
        tmp_path, rows, "user_id,item_id", collect(archive, implicit=True), implicit=True, feedback="implicit"
    )
    assert {"rating", "timestamp"}.isdisjoint(table.column_names)
    assert prepared.feedback == "implicit"


@pytest.mark.parametrize("scale", [(0.5, 5.0), (1.0, 5.0), (4.0, 5.0), (1.0, 8.0)])
def test_ratings_on_about_the_scale_of_before_are_taken(archive, tmp_path, scale):
    _, table = written(tmp_path, BASE, "user_id,item_id,rating,timestamp", collect(archive), scale=scale)
    assert table.num_rows == 7


@pytest.mark.parametrize("scale", [(0, 100), (1, 9), (-5, -1), (3, 4)])
def test_ratings_on_another_scale_are_refused_before_anything_is_written(archive, tmp_path, scale):
    expected = (
        rf"my\.csv: ratings are from 1 to 5, .* were from {scale[0]} to {scale[1]}: .*; then retrain with -P since="
    )
    with pytest.raises(InputError, match=expected):
        written(tmp_path, BASE, "user_id,item_id,rating,timestamp", collect(archive), scale=scale)
    assert not list((tmp_path / "out").iterdir())


def test_prepare_takes_the_newer_of_rating_and_feedback(archive, tmp_path):
    random = np.random.default_rng(0)
    rows = [(f"u{user}", f"i{item}", int(random.integers(1, 6)), 10) for user in range(20) for item in range(20)]
    prepared, _ = written(tmp_path, rows, "user_id,item_id,rating,timestamp", collect(archive))
    source = tmp_path / "out" / "ratings.parquet"
    dataset = builder.prepare(source, prepared, tmp_path / "prepared")
    assert dataset.manifest["dropped"]["repeated_pair"] == 2
    assert dataset.manifest["ratings"] == 401
    found = {
        (dataset.user_ids[user], dataset.item_ids[item]): rating
        for part in ("train", "validation", "test")
        for block in dataset.blocks(part)
        for user, item, rating in zip(block.users, block.items, block.ratings, strict=True)
    }
    assert found["u0", "i2"] == 5.0
    assert found["u1", "i1"] == 4.0
    assert found["new", "i9"] == 3.0


def test_a_source_is_known_again_by_its_bytes(tmp_path):
    source = write_csv(tmp_path / "my.csv", BASE, "user_id,item_id,rating,timestamp")
    before = ratings.look_at(source)
    assert ratings.look_at(source) == before
    write_csv(source, [*BASE, ("u2", "i1", 2.0, 50)], "user_id,item_id,rating,timestamp")
    after = ratings.look_at(source)
    assert after.digest != before.digest
    assert after.rows > before.rows


TAKES = [(f"u{user}", f"i{item}", 1 + (user + item) % 3) for user in range(12) for item in range(6)]


@pytest.mark.parametrize(("clip", "expected"), [(10.0, 2.0), (1.5, 1.5)])
def test_takes_count_by_the_inverse_of_the_probability_that_they_were_shown_with_a_limit(
    archive, tmp_path, clip, expected
):
    given = collect(archive, implicit=True)
    rows = [row[:2] for row in TAKES]
    prepared, table = written(tmp_path, rows, "user_id,item_id", given, implicit=True, clip=clip)
    assert table["weight"].to_pylist() == [1.0] * len(TAKES) + [expected, 1.0, 1.0]
    assert (prepared.feedback, prepared.weight) == ("implicit", "weight")
    made = builder.prepare(tmp_path / "out" / "ratings.parquet", prepared, tmp_path / "prepared")
    assert made.implicit
    learnt = np.concatenate([made.train.ratings, made.validation.ratings])
    # What is taken again counts together, as with weight=repeats: these pairs are among the ratings too.
    sums = {1.0, 1 + expected, 2.0}
    assert set(np.round(learnt, 6)) <= {round(1 + np.log(count), 6) for count in sums}


@pytest.mark.parametrize(("weight", "header"), [("pieces", "user_id,item_id,pieces"), ("repeats", "user_id,item_id")])
def test_a_champion_whose_takes_are_weighed_keeps_their_weights(archive, tmp_path, weight, header):
    rows = TAKES if weight == "pieces" else [row[:2] for row in TAKES for _ in range(row[2])]
    given = collect(archive, implicit=True)
    prepared, table = written(tmp_path, rows, header, given, implicit=True, weight=weight)
    names = ("user_id", "item_id", "weight", "origin")
    read = list(zip(*(table[name].to_pylist() for name in names), strict=True))
    assert sorted(row[:3] for row in read if row[3] == "ratings") == sorted((*pair, float(n)) for *pair, n in TAKES)
    assert [row[2] for row in read if row[3] == "feedback"] == [1.0] * len(given)
    assert prepared.weight == "weight"
    builder.prepare(tmp_path / "out" / "ratings.parquet", prepared, tmp_path / "prepared")
