import pytest

from recsys.data.builder import prepare
from recsys.data.preparation import Preparation
from recsys.errors import InputError
from recsys.testing.datasets import write_rows

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


def test_the_threshold_that_is_proposed_can_be_prepared(tmp_path):
    source = write_rows(tmp_path / "ratings.csv", SQUARE)
    with pytest.raises(InputError) as caught:
        prepare(source, Preparation(like_threshold=6.0), tmp_path / "prepared")
    proposed = float(str(caught.value).split("like_threshold=")[1])
    dataset = prepare(source, Preparation(like_threshold=proposed), tmp_path / "prepared")
    assert dataset.like_threshold == proposed
