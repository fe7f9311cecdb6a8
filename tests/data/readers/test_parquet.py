from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from tests.support.ratings_files import ROWS, TEXT, message, read_ratings, rows


class TestParquet:
    @pytest.mark.parametrize("name", ["ratings.parquet", "ratings.pq", "ratings"])
    def test_known_by_suffix_or_content(self, write_parquet, name) -> None:
        assert rows(read_ratings(write_parquet(name))) == ROWS

    @pytest.mark.parametrize(
        "ids",
        [
            pa.array([1, 2, 1]),
            pa.array([1, 2, 1], pa.uint64()),
            pa.array([1.0, 2.0, 1.0]),
            pa.array([1, 2, 1], pa.float32()),
            pa.array(["1", "2", "1"], pa.large_string()),
            pa.array([b"1", b"2", b"1"]),
            pa.array(["1", "2", "1"]).dictionary_encode(),
            pa.array([1, 2, 1]).dictionary_encode(),
            pa.array([Decimal(1), Decimal(2), Decimal(1)]),
        ],
        ids=lambda array: str(array.type),
    )
    def test_ids(self, write_parquet, ids) -> None:
        ratings = read_ratings(write_parquet(user_id=ids))
        assert ratings.user_ids.tolist() == ["1", "2"]
        assert ratings.users.tolist() == [0, 1, 0]

    @pytest.mark.parametrize(
        "ids", [["a", None, "b"], [1, None, 2], [1.0, None, 2.0], [1.0, np.nan, 2.0], ["a", " ", "b"]]
    )
    def test_missing_ids(self, write_parquet, ids) -> None:
        ratings = read_ratings(write_parquet(item_id=pa.array(ids)))
        assert ratings.dropped["missing_value"] == 1
        assert len(ratings) == 2

    @pytest.mark.parametrize(
        "values",
        [
            pa.array([5, 3, 1], pa.int8()),
            pa.array([5, 3, 1], pa.float16()),
            pa.array(["5", " 3.0", "1"]),
            pa.array(["5", "3", "1"]).dictionary_encode(),
            pa.array([Decimal("5.00"), Decimal("3.00"), Decimal("1.00")]),
        ],
        ids=lambda array: str(array.type),
    )
    def test_ratings(self, write_parquet, values) -> None:
        assert read_ratings(write_parquet(rating=values)).values.tolist() == [5, 3, 1]

    @pytest.mark.parametrize("values", [[5.0, None, 1.0], [5.0, np.nan, 1.0], [5, None, 1], ["5", "NA", "1"]])
    def test_missing_ratings(self, write_parquet, values) -> None:
        assert read_ratings(write_parquet(rating=pa.array(values))).values.tolist() == [5, 1]

    @pytest.mark.parametrize(
        "stamps",
        [
            [date(1970, 1, 1), date(1970, 1, 2), date(1970, 1, 3)],
            [datetime(1970, 1, day) for day in (1, 2, 3)],
            [datetime(1970, 1, day, tzinfo=UTC) for day in (1, 2, 3)],
            pa.array([datetime(1970, 1, day) for day in (1, 2, 3)], pa.timestamp("ns")),
            ["1970-01-01", "1970-01-02", "1970-01-03"],
            [0.0, 86400.0, 172800.0],
        ],
    )
    def test_timestamps(self, write_parquet, stamps) -> None:
        ratings = read_ratings(write_parquet(timestamp=stamps))
        assert ratings.timestamps is not None
        assert ratings.timestamps.tolist() == [0, 86400, 172800]

    @pytest.mark.parametrize("stamps", [None, [None] * 3, pa.array([None] * 3, pa.int64())])
    def test_no_timestamps(self, write_parquet, stamps) -> None:
        assert read_ratings(write_parquet(timestamp=stamps)).timestamps is None

    @pytest.mark.parametrize(
        ("columns", "said"),
        [
            (
                {"rating": ["5", "abc", "1"]},
                "ratings.parquet: row 2: column 'rating': expected a number, got 'abc'",
            ),
            ({"rating": [5.0, 1.0, np.inf]}, "row 3: column 'rating': expected a number, got 'inf'"),
            ({"rating": [True, False, True]}, "column 'rating': expected numbers, got values of type bool"),
            ({"timestamp": ["1", "x", "2"]}, "row 2: column 'timestamp': expected a number or a date"),
            ({"timestamp": [[1], [2], [3]]}, "column 'timestamp': expected numbers or dates"),
            ({"user_id": [1.0, 2.5, 1.0]}, "row 2: column 'user_id': expected text or an integer"),
            ({"user_id": [1.0, 2.0, 1e17]}, "row 3: column 'user_id'"),
            ({"item_id": [True, False, True]}, "column 'item_id': expected text or integers"),
            ({"item_id": [b"a", b"\xff", b"c"]}, "not UTF-8"),
        ],
    )
    def test_unusable_values(self, write_parquet, columns, said) -> None:
        assert said in message(write_parquet(**columns))

    def test_no_rows(self, write_parquet) -> None:
        path = write_parquet(user_id=[], item_id=[], rating=[], timestamp=[])
        assert "no rows" in message(path)

    def test_broken(self, write, write_parquet) -> None:
        whole = write_parquet().read_bytes()
        for content in (whole[:-10], b"PAR1", TEXT.encode()):
            assert "not a readable Parquet file" in message(write(content, "broken.parquet"))


@pytest.mark.parametrize("column", ["user_id", "item_id"])
def test_a_nul_byte_in_an_id_is_refused_as_in_text(write_parquet, column):
    path = write_parquet(**{column: ["a", "b\0c", "d"]})
    assert f"{path}: row 2: the {column.removesuffix('_id')} id holds a NUL byte" in message(path)
