from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from recsys.serving.pyfunc_model import RecommenderModel, _as_moments, signature
from tests.support.serving_site import two_tastes


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


@pytest.fixture
def model():
    model = RecommenderModel()
    model.recommender, model.names = two_tastes(), {"user_id": "customer", "item_id": "sku"}
    return model


def test_the_names_of_the_ratings_learnt_from_are_taken_as_ours_are(model):
    ours = pd.DataFrame({"user_id": ["u1", "u2"], "item_id": ["i1", "i2"]})
    theirs = ours.rename(columns={"user_id": "customer", "item_id": "sku"})
    pd.testing.assert_frame_equal(model.predict(None, theirs), model.predict(None, ours))
    both = theirs.assign(user_id=["u2", "u2"])  # ours go first
    assert model.predict(None, both)["rating"].tolist() == pytest.approx(
        model.predict(None, ours.assign(user_id="u2"))["rating"].tolist()
    )
    told = "column 'user_id', or 'customer' as in the ratings learnt from, is needed; the table has buyer, sku"
    with pytest.raises(ValueError, match=told):
        model.predict(None, theirs.rename(columns={"customer": "buyer"}))


def test_the_signature_takes_own_names_and_ours():
    assert signature({}).inputs.required_input_names() == ["user_id"]
    inputs = signature({"user_id": "customer", "timestamp": "when"}).inputs
    assert inputs.input_names() == ["user_id", "item_id", "timestamp", "customer", "when"]
    assert inputs.required_input_names() == []


def test_rows_that_are_answered_by_averages_are_told(model, caplog):
    model.predict(None, pd.DataFrame({"user_id": ["u1", "u2"], "item_id": ["i1", "i2"]}))
    assert not caplog.records
    model.predict(None, pd.DataFrame({"user_id": ["u1", "nobody", "x"], "item_id": ["nothing", "i1", "y"]}))
    (record,) = caplog.records
    assert record.getMessage() == (
        "3 of 3 rows are answered by averages, their user or item was not learnt from: user 'nobody', user 'x', item "
        "'nothing' and 1 more"
    )
