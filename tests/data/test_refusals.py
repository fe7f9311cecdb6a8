import random

import pytest

from recsys.data.builder import column_names, prepare
from recsys.data.checks import notes as notes_of
from recsys.data.preparation import Preparation
from recsys.data.ratings import read_ratings
from recsys.errors import InputError
from recsys.testing.datasets import write_rows

FEW = " of 100 ratings are likes with like_threshold=4, so that AUC says little"
SQUARE = [(u, i, 1 + (3 * u + i) % 5) for u in range(6) for i in range(6)]


@pytest.mark.parametrize(
    ("rows", "parameters", "message"),
    [
        pytest.param(
            [("ann", i, 1 + i % 5) for i in range(30)],
            {},
            "ratings.csv: column 'user_id': at least 2 users are needed to compare, got only 'ann' in 30 ratings; ",
            id="one user",
        ),
        pytest.param(
            [(u, "film", 1 + u % 5) for u in range(30)],
            {},
            "ratings.csv: column 'item_id': at least 2 items are needed to compare, got only 'film' in 30 ratings; ",
            id="one item",
        ),
        pytest.param(
            [(u, i, 3) for u, i, _ in SQUARE],
            {"feedback": "explicit"},
            "ratings.csv: column 'rating': ratings that differ are needed, but all 36 are 3, ",
            id="all ratings equal",
        ),
        pytest.param(
            SQUARE,
            {"like_threshold": 6.0},
            "parameter 'like_threshold': above the lowest rating of ratings.csv (1) and at most the highest (5), "
            "got 6, with which no rating is a like and AUC is undefined; pass for instance -P like_threshold=",
            id="threshold above the scale",
        ),
        pytest.param(
            SQUARE,
            {"like_threshold": 1.0},
            "parameter 'like_threshold': above the lowest rating of ratings.csv (1) and at most the highest (5), "
            "got 1, with which every rating is a like",
            id="threshold at the lowest rating",
        ),
        pytest.param(
            [(u, i, 1) for u, i, _ in SQUARE[:-1]] + [(5, 5, 2)],
            {},
            "parameter 'like_threshold': with 4 no rating is a like and AUC is undefined; pass -P like_threshold=2",
            id="nearly all ratings equal",
        ),
        pytest.param(
            SQUARE,
            {"split": "time"},
            "parameter 'split': time needs timestamps, and ratings.csv has no column 'timestamp'; ",
            id="time without timestamps",
        ),
        pytest.param(
            SQUARE,
            {"test_size": 0.6, "validation_size": 0.4},
            "parameters 'test_size' and 'validation_size': together below 1, got 0.6 and 0.4, ",
            id="sizes",
        ),
        pytest.param(
            SQUARE,
            {"test_size": 1e-9},
            "ratings.csv: at least one test rating is needed, but split=hash with test_size=1e-09 and "
            "validation_size=0.1 leaves none of 36; pass more ratings or other sizes",
            id="no test rating",
        ),
        pytest.param(
            [(1, 1, 5), (2, 2, 1)],
            {"split": "random"},
            "parameter 'split': random needs at least one rating for each of train, validation and test",
            id="two ratings at random",
        ),
    ],
)
def test_what_cannot_be_prepared_is_refused_and_leaves_nothing(tmp_path, rows, parameters, message):
    source = write_rows(tmp_path / "ratings.csv", rows)
    with pytest.raises(InputError) as caught:
        prepare(source, Preparation(**parameters), tmp_path / "prepared")
    assert str(caught.value).startswith(message)
    assert list(tmp_path.rglob("*")) == [source]


@pytest.mark.parametrize(
    ("ratings", "threshold", "notes"),
    [
        pytest.param(
            range(100),
            4.0,
            ["96" + FEW + "; if a like is something else on your scale, pass for instance -P like_threshold=60"],
            id="a scale to 100",
        ),
        pytest.param(range(100), 60.0, [], id="two fifths are likes"),
        pytest.param(
            [*[3] * 97, 4, 5, 2],
            4.0,
            ["2" + FEW + "; if a like is something else on your scale, pass for instance -P like_threshold=3"],
            id="few likes",
        ),
        pytest.param(
            [*[1] * 98, 5, 5],
            4.0,
            ["2" + FEW],
            id="nothing better to propose",
        ),
        pytest.param([*[1] * 2, *[5] * 98], 4.0, ["98" + FEW], id="a proposal of the same likes"),
        pytest.param([*[1] * 5, *[5] * 95], 4.0, [], id="a twentieth is enough"),
    ],
)
def test_few_likes_or_few_others_are_told(tmp_path, ratings, threshold, notes):
    rows = [(n // 10, n % 10, rating) for n, rating in enumerate(ratings)]
    random.Random(0).shuffle(rows)
    source = write_rows(tmp_path / "ratings.csv", rows)
    preparation = Preparation(like_threshold=threshold, min_rating=0)
    with read_ratings(source, column_names(preparation), min_rating=0) as found:
        assert notes_of(found, "explicit", preparation) == notes


def test_the_threshold_that_is_proposed_can_be_prepared(tmp_path):
    source = write_rows(tmp_path / "ratings.csv", SQUARE)
    with pytest.raises(InputError) as caught:
        prepare(source, Preparation(like_threshold=6.0), tmp_path / "prepared")
    proposed = float(str(caught.value).split("like_threshold=")[1])
    dataset = prepare(source, Preparation(like_threshold=proposed), tmp_path / "prepared")
    assert dataset.like_threshold == proposed


@pytest.mark.parametrize("rating", ["1e308", "1.7976931348623157e308", "-1e308", "1e13", "'1e200'"])
def test_a_rating_whose_square_is_no_number_is_refused_with_its_line(tmp_path, rating):
    source = write_rows(tmp_path / "ratings.csv", [*SQUARE, (7, 7, rating.strip("'"))])
    with pytest.raises(InputError, match=r"ratings.csv:38: column 'rating': expected a number from -1e\+12 to 1e\+12"):
        prepare(source, Preparation(min_rating="none"), tmp_path / "prepared")


@pytest.mark.parametrize("moment", ["0000-01-01", "0000-12-31T10:00:00"])
def test_there_is_no_year_0(tmp_path, moment):
    rows = "".join(f"{u},{i},{rating},2024-01-01\n" for u, i, rating in SQUARE)
    source = tmp_path / "ratings.csv"
    source.write_text(f"user_id,item_id,rating,timestamp\n{rows}7,7,3,{moment}\n")
    with pytest.raises(InputError, match=r"ratings.csv:38: column 'timestamp': expected a date from the year 1 on"):
        prepare(source, Preparation(), tmp_path / "prepared")
