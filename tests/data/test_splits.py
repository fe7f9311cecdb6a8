import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from recsys.data.splits import (
    TEST,
    TRAIN,
    VALIDATION,
    check_sizes,
    digest_rows,
    hash_pairs,
    split_at_random,
    split_by_hash,
    split_by_time,
)
from recsys.errors import InputError

# Never change these to make a test pass. Another value moves rows of every dataset there is to another part, and
# versions trained before would be tested on rows they learnt from.
FROZEN = [
    ("1", "1", 0x2F729F660089852C, TEST),
    ("5", "7", 0x5E79023F25E8C5A5, TRAIN),
    ("7", "5", 0xA2E5AA297769569C, TRAIN),
    ("196", "242", 0x596EBC4E01ECC52F, TRAIN),
    ("alice", "Amélie (2001)", 0x03FC57B485F8EF69, TEST),
    ("Ωmega", "映画", 0xDF2025CAB92BD9C4, TRAIN),
    ("u-😀", "i 1", 0x4761BF70A1BE8919, VALIDATION),
    ("007", "7", 0xFDBD74CE99F48AA4, TRAIN),
    ("7", "7", 0x4CE9062D6D379FFA, TRAIN),
]


def hash_of(pairs):
    users, items = (np.array(side, object) for side in zip(*pairs, strict=True))
    user_ids, user_codes = np.unique(users, return_inverse=True)
    item_ids, item_codes = np.unique(items, return_inverse=True)
    return hash_pairs(user_ids, item_ids, user_codes.astype(np.int32), item_codes.astype(np.int32))


def grid(users, items):
    """Every pair of so many users and items."""
    return [(str(user), str(item)) for user in range(users) for item in range(items)]


@pytest.fixture(scope="module")
def many():
    return hash_of(grid(1000, 100))


def test_the_hash_of_a_pair_is_frozen():
    hashes = hash_of([(user, item) for user, item, _, _ in FROZEN])
    assert [int(value) for value in hashes] == [value for _, _, value, _ in FROZEN]


def test_the_part_of_a_pair_is_frozen():
    hashes = hash_of([(user, item) for user, item, _, _ in FROZEN])
    assert split_by_hash(hashes, 0.2, 0.1).tolist() == [part for _, _, _, part in FROZEN]


def test_the_digest_of_a_test_set_is_frozen():
    hashes = hash_of([(user, item) for user, item, _, _ in FROZEN[:3]])
    assert digest_rows(hashes, np.array([1.0, 2.5, 5.0]), None, 4.0) == "f9568f7165aae377f98144fe1965f7cb"
    timed = digest_rows(hashes, np.array([1.0, 2.5, 5.0]), np.array([0.0, 1.5, 1e9]), 4.0)
    assert timed == "0b446f237766e040eac822b8ec029d82"


def test_user_5_on_item_7_is_another_pair_than_user_7_on_item_5():
    one, other, same = hash_of([("5", "7"), ("7", "5"), ("5", "7")])
    assert one != other
    assert one == same


def test_a_hundred_thousand_pairs_have_as_many_hashes(many):
    assert len(np.unique(many)) == len(many)


def test_blocks_do_not_change_the_hash(many, monkeypatch):
    monkeypatch.setattr("recsys.data.splits._BLOCK", 7)
    assert (hash_of(grid(10, 100)) == many[:1000]).all()


@pytest.mark.parametrize(("test_size", "validation_size"), [(0.2, 0.1), (0.5, 0.25), (0.01, 0.02), (0.1, 0.899)])
def test_shares_are_near_the_sizes_asked_for(many, test_size, validation_size):
    parts = split_by_hash(many, test_size, validation_size)
    for part, size in ((TEST, test_size), (VALIDATION, validation_size)):
        # Five standard deviations of a binomial share.
        assert abs((parts == part).mean() - size) < 5 * np.sqrt(size * (1 - size) / len(parts))


def test_shares_are_near_the_sizes_within_users_and_items_too(many):
    tested = (split_by_hash(many, 0.2, 0.1) == TEST).reshape(1000, 100)
    for side, n in ((0, 1000), (1, 100)):
        # The shares of users (of items) scatter as independent draws do.
        assert tested.mean(axis=side).std() == pytest.approx(np.sqrt(0.2 * 0.8 / n), rel=0.3)


def test_the_order_of_the_rows_does_not_matter(many):
    pairs = grid(1000, 100)
    order = np.random.default_rng(1).permutation(len(pairs))
    parts = split_by_hash(hash_of([pairs[k] for k in order]), 0.2, 0.1)
    assert (parts == split_by_hash(many, 0.2, 0.1)[order]).all()


def test_rows_keep_their_part_in_a_larger_file(many):
    pairs = grid(1000, 100)
    small = np.sort(np.random.default_rng(2).choice(len(pairs), 5000, replace=False))
    parts = split_by_hash(hash_of([pairs[k] for k in small]), 0.2, 0.1)
    assert (parts == split_by_hash(many, 0.2, 0.1)[small]).all()


def test_a_larger_test_size_keeps_the_test_rows_of_a_smaller_one(many):
    smaller, larger = split_by_hash(many, 0.1, 0.1), split_by_hash(many, 0.3, 0.1)
    assert (larger[smaller == TEST] == TEST).all()
    assert (larger == TEST).sum() > (smaller == TEST).sum()


def test_no_row_moves_between_test_and_train_when_the_validation_grows(many):
    smaller, larger = split_by_hash(many, 0.2, 0.1), split_by_hash(many, 0.2, 0.3)
    assert ((smaller == TEST) == (larger == TEST)).all()


@pytest.mark.parametrize("n", [10, 11, 1003])
def test_random_test_rows_are_those_of_scikit_learn(n):
    _, expected = train_test_split(np.arange(n), test_size=0.2, random_state=42)
    parts = split_at_random(n, 0.2, 0.1, 42)
    assert sorted(expected) == np.flatnonzero(parts == TEST).tolist()


def test_random_parts_have_the_sizes_asked_for_and_depend_on_the_seed():
    parts = split_at_random(1000, 0.2, 0.1, 42)
    assert [(parts == part).sum() for part in (TRAIN, VALIDATION, TEST)] == [700, 100, 200]
    assert (parts == split_at_random(1000, 0.2, 0.1, 42)).all()
    assert (parts != split_at_random(1000, 0.2, 0.1, 43)).any()


@pytest.mark.parametrize("n", [1, 2])
def test_too_few_rows_for_a_random_split_are_refused(n):
    with pytest.raises(InputError, match=rf"do not leave of {n}; pass more ratings"):
        split_at_random(n, 0.2, 0.1, 42)


def test_the_newest_ratings_are_the_test_and_those_before_them_the_validation():
    timestamps = np.array([50.0, 10, 90, 20, 80, 30, 70, 40, 60, 0])
    parts = split_by_time(timestamps, 0.2, 0.1)
    assert timestamps[parts == TEST].tolist() == [90, 80]
    assert timestamps[parts == VALIDATION].tolist() == [70]


def test_ratings_of_one_moment_stay_together():
    timestamps = np.array([1.0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    parts = split_by_time(timestamps, 0.2, 0.2)
    assert all(len(set(parts[timestamps == moment])) == 1 for moment in (1, 2, 3))
    assert timestamps[parts == TEST].tolist() == [3, 3, 3]
    assert timestamps[parts == VALIDATION].tolist() == [2, 2, 2]


def test_a_digest_does_not_depend_on_the_order_of_the_rows():
    hashes, ratings, times = hash_of(grid(3, 2)), np.array([1.0, 2, 3, 4, 5, 1]), np.arange(6.0)
    order = [3, 1, 5, 0, 2, 4]
    assert digest_rows(hashes, ratings, None, 4.0) == digest_rows(hashes[order], ratings[order], None, 4.0)
    assert digest_rows(hashes, ratings, times, 4.0) == digest_rows(hashes[order], ratings[order], times[order], 4.0)


@pytest.mark.parametrize(
    ("pairs", "ratings", "like_threshold"),
    [
        pytest.param(grid(3, 2), [1, 2, 3, 4, 5, 2], 4.0, id="another rating"),
        pytest.param(grid(3, 2), [2, 1, 3, 4, 5, 1], 4.0, id="two ratings swapped"),
        pytest.param(grid(3, 2), [1, 2, 3, 4, 5, 1], 3.5, id="another threshold"),
        pytest.param([*grid(3, 2)[:-1], ("9", "9")], [1, 2, 3, 4, 5, 1], 4.0, id="another pair"),
        pytest.param(grid(3, 2)[:-1], [1, 2, 3, 4, 5], 4.0, id="a row fewer"),
    ],
)
def test_a_digest_changes_with_what_is_tested(pairs, ratings, like_threshold):
    before = digest_rows(hash_of(grid(3, 2)), np.array([1.0, 2, 3, 4, 5, 1]), None, 4.0)
    assert digest_rows(hash_of(pairs), np.array(ratings, np.float64), None, like_threshold) != before


def test_a_digest_changes_with_the_timestamps_alone():
    hashes, ratings = hash_of(grid(3, 2)), np.array([1.0, 2, 3, 4, 5, 1])
    times = [None, *np.array([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 7], [2, 1, 3, 4, 5, 6], [0, 0, 0, 0, 0, 0]], float)]
    assert len({digest_rows(hashes, ratings, some, 4.0) for some in times}) == 5


def test_a_digest_takes_0_and_minus_0_for_the_same_rating():
    hashes = hash_of(grid(2, 1))
    assert digest_rows(hashes, np.array([0.0, 1]), None, 1.0) == digest_rows(hashes, np.array([-0.0, 1]), None, 1.0)


def test_sizes_that_leave_nothing_to_learn_from_are_refused():
    check_sizes(0.5, 0.49)
    with pytest.raises(InputError, match=r"'test_size' and 'validation_size': together below 1, got 0.7 and 0.3"):
        check_sizes(0.7, 0.3)
