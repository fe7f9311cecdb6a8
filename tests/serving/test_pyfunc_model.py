from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from recsys.serving.pyfunc_model import _as_moments


def moments(*values):
    return _as_moments(pd.DataFrame({"timestamp": pd.Series(values, dtype=object)}))


def test_without_the_column_no_moment_is_known():
    assert _as_moments(pd.DataFrame({"user_id": ["a"]})) is None


def test_moments_are_numbers_dates_or_nothing():
    given = 5, 6.5, np.int64(7), None, float("nan"), pd.NaT, datetime(1970, 1, 2), datetime(1970, 1, 2, tzinfo=UTC)
    expected = [5, 6.5, 7, np.nan, np.nan, np.nan, 86400, 86400]
    assert moments(*given) == pytest.approx(expected, nan_ok=True)


def test_dates_are_text_where_they_came_by_json():
    given = "1970-01-02", "1970-01-02T00:00:00Z", "1970-01-02 01:00:00+01:00", ""
    assert moments(*given) == pytest.approx([86400, 86400, 86400, np.nan], nan_ok=True)


def test_columns_of_one_kind_are_read_too():
    for column in (pd.Series([1, 2]), pd.Series([1.0, 2.0]), pd.to_datetime(pd.Series([1, 2]), unit="s")):
        assert _as_moments(pd.DataFrame({"timestamp": column})).tolist() == [1, 2]


@pytest.mark.parametrize("value", ["yesterday", True, float("inf"), [1]])
def test_anything_else_is_refused_with_its_row(value):
    with pytest.raises(ValueError, match=r"row 1: column 'timestamp': a number, a date such as .* is needed, got"):
        moments(3, value)
