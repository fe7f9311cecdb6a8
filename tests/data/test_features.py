import numpy as np
import pytest

from recsys.data.features import FEATURES, learn_features, out_of_fold_table

# Users 0 and 1, items 0 and 1; user 2 and item 2 have no rating.
USERS, ITEMS = np.array([0, 0, 1]), np.array([0, 1, 0])
RATINGS = np.array([1.0, 5, 3])
MEAN, STD = 3, np.sqrt(8 / 3)


def learnt():
    return learn_features(USERS, ITEMS, RATINGS, 3, 3)


def test_averages_counts_and_spreads_are_those_of_a_hand_worked_example():
    features = learnt()
    assert features.user.average == pytest.approx([3, 3, MEAN])
    assert features.user.count.tolist() == [2, 1, 0]
    assert features.item.average == pytest.approx([2, 5, MEAN])
    assert features.item.count.tolist() == [2, 1, 0]
    # The spread of a single rating, or none, says nothing: that of all ratings stands in.
    assert features.user.std == pytest.approx([2, STD, STD])
    assert features.item.std == pytest.approx([1, STD, STD])


def test_the_table_has_a_column_for_every_name():
    row = learnt().table(np.array([0]), np.array([1]))
    assert dict(zip(FEATURES, row[0], strict=True)) == pytest.approx(
        {
            "user_average_rating": 3,
            "user_rating_std": 2,
            "user_rating_count": 2,
            "user_unique_items": 2,
            "item_average_rating": 5,
            "item_rating_std": STD,
            "item_rating_count": 1,
            "item_unique_users": 1,
        }
    )


def test_an_unknown_user_and_item_have_the_features_of_all_ratings():
    row = learnt().table(np.array([2]), np.array([2]))[0]
    assert row == pytest.approx([MEAN, STD, 0, 0, MEAN, STD, 0, 0])


def test_every_row_s_features_come_from_the_other_folds():
    table = out_of_fold_table(USERS, ITEMS, RATINGS, 3, 3, seed=0, folds=3)
    # Each of three rows is a fold of its own: user 0's first row knows the second, and so on.
    assert table[:, FEATURES.index("user_average_rating")].tolist() == [5, 1, 3]
    assert table[:, FEATURES.index("user_rating_count")].tolist() == [1, 1, 0]
    assert table[:, FEATURES.index("item_average_rating")].tolist() == [3, 2, 1]


def many(n_users=40, n_items=30, seed=0):
    rng = np.random.default_rng(seed)
    pairs = np.flatnonzero(rng.uniform(size=n_users * n_items) < 0.3)
    return pairs // n_items, pairs % n_items, rng.integers(1, 6, len(pairs)).astype(np.float64), n_users, n_items


def sparse():
    """Most users and items have one rating or two."""
    rng = np.random.default_rng(1)
    pairs = np.sort(rng.choice(60 * 60, 60, replace=False))
    return pairs // 60, pairs % 60, rng.integers(1, 6, len(pairs)).astype(np.float64), 60, 60


@pytest.mark.parametrize("rows", [many(), sparse()], ids=["many", "sparse"])
def test_no_training_row_s_rating_reaches_its_own_features(rows):
    users, items, ratings, *sizes = rows
    before = out_of_fold_table(users, items, ratings, *sizes, seed=42)
    for row in range(len(ratings)):
        changed = ratings.copy()
        changed[row] += 64
        after = out_of_fold_table(users, items, changed, *sizes, seed=42)
        assert after[row] == pytest.approx(before[row], abs=1e-5), row


def test_a_training_row_s_rating_reaches_the_features_of_others():
    users, items, ratings, *sizes = many()
    before = out_of_fold_table(users, items, ratings, *sizes, seed=42)
    ratings[0] += 64
    changed = np.abs(out_of_fold_table(users, items, ratings, *sizes, seed=42) - before).max(axis=1) > 1e-3
    assert changed[1:][users[1:] == users[0]].any()


def within_user(rating, average):
    """Correlation of a user's own ratings with the averages given to them; -1: each can be read back exactly."""
    return np.corrcoef(rating, average)[0, 1]


def test_a_leave_one_out_average_would_give_the_rating_away_and_ours_does_not():
    n = 400
    users, items = np.zeros(n, int), np.arange(n)
    ratings = np.random.default_rng(0).integers(1, 6, n).astype(np.float64)
    leave_one_out = (ratings.sum() - ratings) / (n - 1)
    assert within_user(ratings, leave_one_out) == pytest.approx(-1)
    ours = out_of_fold_table(users, items, ratings, 1, n, seed=42)[:, 0]
    assert abs(within_user(ratings, ours)) < 0.3


def test_folds_depend_on_the_seed_alone():
    rows = many()
    assert (out_of_fold_table(*rows, seed=1) == out_of_fold_table(*rows, seed=1)).all()
    assert (out_of_fold_table(*rows, seed=1) != out_of_fold_table(*rows, seed=2)).any()


def test_changing_held_out_ratings_changes_no_feature(prepare_rows, tmp_path):
    rows = [(f"u{u}", f"i{i}", 1 + (u * i) % 5) for u in range(12) for i in range(12)]
    before = prepare_rows(rows)
    held_out = {
        (before.user_ids[user], before.item_ids[item])
        for part in (before.validation, before.test)
        for user, item in zip(part.users, part.items, strict=True)
    }
    after = prepare_rows([(u, i, 6 - rating if (u, i) in held_out else rating) for u, i, rating in rows])
    assert after.digest != before.digest
    for side in ("user", "item"):
        for name in ("average", "std", "count"):
            assert (getattr(getattr(after.features, side), name) == getattr(getattr(before.features, side), name)).all()


def test_changing_a_training_rating_changes_features(prepare_rows):
    rows = [(f"u{u}", f"i{i}", 1 + (u * i) % 5) for u in range(12) for i in range(12)]
    before = prepare_rows(rows)
    first = before.user_ids[before.train.users[0]], before.item_ids[before.train.items[0]]
    after = prepare_rows([(u, i, 6 - rating if (u, i) == first else rating) for u, i, rating in rows])
    assert (after.features.user.average != before.features.user.average).sum() == 1
