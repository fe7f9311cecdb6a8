"""A page by Evidently beside the report. What it calls drift decides nothing: alarms come from `checks`."""

from pathlib import Path

import numpy as np
import pandas as pd

from recsys.errors import InputError
from recsys.monitoring.rated import Rated

REQUIREMENTS = "src/recsys/monitoring/requirements.txt"
MOST_BYTES = 4_000_000
"""What a browser opens at once, and the size of Evidently's own page."""

_ROWS = (20_000, 2_000, 500)
_DIGITS = 3  # of numbers, which the page holds as text
_TOP = 10
# Evidently's own: drift where half of the columns drift, by a test that a shift of 0.3 points passes.
_DRIFT_SHARE = 0.01
_DISTANCE = 0.1  # Wasserstein, in standard deviations of the reference
_COLUMNS = ("rating", "expected_rating", "like_probability", "user_ratings", "item_ratings")


def write_page(path: Path, window: Rated, reference: Rated, learnt: pd.DataFrame, seed: int = 0) -> int:
    """Write a self-contained HTML page of at most `MOST_BYTES`; its size in bytes.

    Its sample is made smaller until it fits, and the rankings are left out at last.

    Args:
        learnt: of the rows learnt from, columns user_id, item_id and rating.

    Raises:
        InputError: if Evidently is not installed or fails, or the smallest page is too large.
    """
    try:
        from evidently import DataDefinition, Dataset, Recsys, Report
        from evidently.presets import DataDriftPreset, RecsysPreset
    except ImportError as error:
        raise InputError(
            f"no page by Evidently: {error}; install it by `python -m pip install -r {REQUIREMENTS}`"
        ) from None
    ranking = Recsys(user_id="user_id", item_id="item_id", target="rating", prediction="like_probability")
    definition = DataDefinition(numerical_columns=list(_COLUMNS), ranking=[ranking])
    drift = DataDriftPreset(
        columns=list(_COLUMNS), drift_share=_DRIFT_SHARE, num_method="wasserstein", num_threshold=_DISTANCE
    )
    ranks = RecsysPreset(k=_top(window, reference))
    problem = ""
    for rows, metrics in [*((rows, [drift, ranks]) for rows in _ROWS), (_ROWS[-1], [drift])]:
        now, before = (Dataset.from_pandas(_frame(rated, rows, seed), definition) for rated in (window, reference))
        trained = Dataset.from_pandas(_sample(learnt, rows, seed), DataDefinition(numerical_columns=["rating"]))
        beside = {"current_train_data": trained, "reference_train_data": trained}
        try:
            with np.errstate(invalid="ignore"):  # it divides by the deviation of every column, a constant one's too
                Report(metrics).run(now, before, additional_data=beside).save_html(str(path))
        except Exception as error:  # of a window that it does not expect, its rankings raise a KeyError, say
            problem = f"it ended with {type(error).__name__}: {error}"
            continue
        size = path.stat().st_size
        problem = f"it would have {size:,} bytes, more than {MOST_BYTES:,}"
        if size <= MOST_BYTES:
            return size
    path.unlink(missing_ok=True)
    raise InputError(f"no page by Evidently: {problem}")


def _top(*parts: Rated) -> int:
    """The longest ranking that some user has in all parts, at most `_TOP`: Evidently fails beyond."""
    return min(_TOP, *(int(np.bincount(part.users).max()) for part in parts))


def _frame(rated: Rated, rows: int, seed: int) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "user_id": rated.user_ids.astype(str),
            "item_id": rated.item_ids.astype(str),
            "rating": rated.ratings,
            "expected_rating": rated.expected,
            "like_probability": rated.like,
            "user_ratings": np.log2(1 + rated.user_counts),
            "item_ratings": np.log2(1 + rated.item_counts),
        }
    )
    return _sample(table.round(_DIGITS), rows, seed)


def _sample(table: pd.DataFrame, rows: int, seed: int) -> pd.DataFrame:
    return table if len(table) <= rows else table.sample(rows, random_state=seed).reset_index(drop=True)
