"""Data that says only who took what: how it is recognised, and what its dataset holds."""

import numpy as np
import pytest

from recsys.data.builder import prepare
from recsys.data.dataset import digest_source
from recsys.data.preparation import Preparation
from recsys.data.ratings import read_ratings
from recsys.data.readers.source import WeightedNames
from recsys.errors import InputError

PAIRS = [(f"u{u}", f"i{i}") for u in range(8) for i in range(8) if (u + i) % 3]
NAMES = {"user_column": "customer", "item_column": "sku"}


@pytest.fixture
def orders(tmp_path):
    """Prepares rows of a file with columns of its own."""

    def prepared(header, rows, **parameters):
        path = tmp_path / "orders.csv"
        path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
        return prepare(path, Preparation(**{**NAMES, **parameters}), tmp_path / "prepared")

    return prepared


def parts(dataset):
    rows = [getattr(dataset, name) for name in ("train", "validation", "test")]
    return [sorted(zip(dataset.user_ids[r.users], dataset.item_ids[r.items], strict=True)) for r in rows]


def test_a_file_without_ratings_is_who_took_what_and_says_so(orders):
    dataset = orders("customer,sku", PAIRS)
    assert dataset.implicit
    assert dataset.scale == (0.0, 1.0)
    assert set(dataset.train.ratings) | set(dataset.test.ratings) == {1.0}
    assert dataset.likes(dataset.test).all()
    assert "column 'rating' is not there" in dataset.manifest["notes"][0]


def test_so_is_one_whose_ratings_are_all_the_same_or_are_not_to_be_read(orders):
    alike = orders("customer,sku,rating", [(*pair, 5) for pair in PAIRS])
    assert alike.implicit
    assert set(alike.train.ratings) == {1.0}
    assert "has only one value" in alike.manifest["notes"][0]
    rated = [(*pair, 1 + n % 5) for n, pair in enumerate(PAIRS)]
    assert not orders("customer,sku,rating", rated).implicit
    unread = orders("customer,sku,rating", rated, feedback="implicit")
    assert unread.implicit
    assert unread.manifest["notes"] == []


def test_whoever_rates_by_0_and_1_is_told_that_zeros_were_dropped_and_how_they_stay(orders):
    rows = [(*pair, n % 2) for n, pair in enumerate(PAIRS)]
    zeros, kept = len(PAIRS) - len(PAIRS) // 2, {"min_rating": "none", "like_threshold": 1}
    remedy = f"{zeros} rows below min_rating were dropped: to learn from those too pass -P min_rating=none -P "
    (note,) = orders("customer,sku,rating", rows).manifest["notes"]
    assert f"column 'rating' has only one value, 1, left ({remedy}like_threshold=1)" in note
    with pytest.raises(InputError, match=f"all {len(PAIRS) - zeros} are 1, .*; {remedy}like_threshold=1$"):
        orders("customer,sku,rating", rows, feedback="explicit")
    dataset = orders("customer,sku,rating", rows, **kept)
    assert not dataset.implicit
    assert dataset.scale == (0.0, 1.0)
    assert dataset.manifest["notes"] == []


def test_pairs_are_in_the_part_that_they_are_in_with_ratings(orders):
    rated = orders("customer,sku,rating", [(*pair, 1 + n % 5) for n, pair in enumerate(PAIRS)])
    assert parts(orders("customer,sku", PAIRS)) == parts(rated)


def test_a_pair_that_is_there_twice_counts_once_and_its_newest_moment_stays(orders):
    rows = [(*pair, n) for n, pair in enumerate(PAIRS)] + [(*PAIRS[0], 99)]
    dataset = orders("customer,sku,timestamp", rows)
    assert dataset.manifest["ratings"] == len(PAIRS)
    assert dataset.manifest["dropped"]["repeated_pair"] == 1
    moments = np.concatenate([getattr(dataset, name).timestamps for name in ("train", "validation", "test")])
    assert 99 in moments
    assert 0 not in moments


def test_measures_compare_only_where_all_pairs_are_the_same(orders):
    """One more pair that is learnt from is one less that was never taken."""
    whole = orders("customer,sku", PAIRS)
    learnt = next(pair for pair in parts(whole)[0])
    fewer = orders("customer,sku", [pair for pair in PAIRS if pair != learnt])
    assert parts(fewer)[2] == parts(whole)[2]
    assert fewer.test_digest != whole.test_digest
    assert orders("customer,sku", PAIRS[::-1]).test_digest == whole.test_digest


def test_ratings_that_are_asked_for_are_needed(orders):
    with pytest.raises(InputError, match=r"orders\.csv: column 'rating' is needed for feedback=explicit; name yours"):
        orders("customer,sku", PAIRS, feedback="explicit")
    with pytest.raises(InputError, match="needed column 'stars' is missing"):
        orders("customer,sku", PAIRS, rating_column="stars")


def test_a_file_without_header_is_read_by_position_and_its_ratings_are_passed_over(tmp_path):
    path = tmp_path / "plain.tsv"
    path.write_text("".join(f"{u}\t{i}\t{3}\t{7}\n" for u in range(6) for i in range(6)))
    dataset = prepare(path, Preparation(feedback="implicit"), tmp_path / "prepared")
    assert dataset.implicit
    assert set(dataset.train.timestamps) == {7.0}


def test_parquet_needs_no_ratings_either(tmp_path):
    import pandas as pd

    pd.DataFrame(PAIRS, columns=["user_id", "item_id"]).to_parquet(tmp_path / "orders.parquet")
    dataset = prepare(tmp_path / "orders.parquet", Preparation(), tmp_path / "prepared")
    assert dataset.implicit
    assert dataset.manifest["ratings"] == len(PAIRS)


def test_datasets_with_ratings_keep_their_digests(tmp_path):
    path = tmp_path / "ratings.csv"
    path.write_text("user_id,item_id,rating\na,b,1\n")
    assert digest_source([path], Preparation()) == "7f802e254f463effd63512cb969ad20e"
    assert not {"feedback", "weight"} & set(Preparation().recorded())
    assert Preparation(feedback="implicit").recorded()["feedback"] == "implicit"


def weights(dataset):
    """What each pair counts, of all parts."""
    return {
        (dataset.user_ids[user], dataset.item_ids[item]): value
        for rows in (dataset.train, dataset.validation, dataset.test)
        for user, item, value in zip(rows.users, rows.items, rows.ratings, strict=True)
    }


def test_repeats_count_where_asked_and_test_pairs_are_all_alike(orders):
    plain = orders("customer,sku", PAIRS)
    learnt, tested = parts(plain)[0][0], parts(plain)[2][0]
    again = [*PAIRS, learnt, learnt, tested]
    counted = orders("customer,sku", again, weight="repeats")
    assert counted.implicit
    found = weights(counted)
    assert found[learnt] == pytest.approx(1 + np.log(3))
    assert found[tested] == 1
    assert sorted(found.values())[:-1] == [1.0] * (len(PAIRS) - 1)
    assert counted.test_digest == plain.test_digest
    assert counted.likes(counted.train).all()


def test_a_column_s_numbers_are_added_up_whatever_their_unit(orders):
    plain = orders("customer,sku", PAIRS)
    first, second = parts(plain)[0][:2]
    rows = [(*pair, 500) for pair in PAIRS if pair not in (first, second)]
    rows += [(*first, 400), (*first, 600), (*second, 20), (*first, 0)]
    found = weights(orders("customer,sku,grams", rows, weight="grams"))
    assert found[first] == pytest.approx(1 + np.log(2))
    assert found[second] == 1
    assert set(found) == set(PAIRS)


def test_sums_are_the_same_by_way_of_the_disk(orders, tmp_path):
    path = tmp_path / "many.csv"
    rows = [f"{u},{i},{1 + n % 7},{n}" for n in range(3) for u in range(30) for i in range(20) if (u + i + n) % 4]
    path.write_text("\n".join(["user_id,item_id,count,timestamp", *rows]))
    columns = WeightedNames(rating="count")
    with (
        read_ratings(path, columns, summed=True) as held,
        read_ratings(path, columns, summed=True, scratch=tmp_path) as kept,
    ):
        one, other = held.load(), kept.load()
        assert one.values.tolist() == other.values.tolist()
    expected = {}
    for row in rows:
        user, item, count, _ = row.split(",")
        expected[user, item] = expected.get((user, item), 0) + int(count)
    names = held.users.ids[one.users], held.items.ids[one.items]
    assert dict(zip(zip(*names, strict=True), one.values, strict=True)) == expected


def test_a_weight_that_is_not_there_or_beside_ratings_is_refused(orders):
    with pytest.raises(InputError, match=r"needed column 'amount' is missing, .* name yours with -P weight=<column>"):
        orders("customer,sku", PAIRS, weight="amount")
    with pytest.raises(InputError, match="parameter 'weight': a column of numbers is needed, but 'rating' is not"):
        orders("customer,sku", PAIRS, weight="rating")
    with pytest.raises(InputError, match="parameter 'weight': it is for data without ratings"):
        orders(
            "customer,sku,rating",
            [(*pair, 1 + n % 5) for n, pair in enumerate(PAIRS)],
            weight="repeats",
            feedback="explicit",
        )
    with pytest.raises(InputError, match=r"orders\.csv:3: column 'amount': expected a number, got 'many'"):
        orders(
            "customer,sku,amount", [(*pair, "many" if n == 1 else 2) for n, pair in enumerate(PAIRS)], weight="amount"
        )
