import numpy as np
import pytest

from recsys.models.base.family import family_module
from recsys.testing.datasets import rated
from recsys.training.forward import hold_back_newest
from recsys.training.trainer import train


def with_moments(rows, moment=lambda number: number):
    return [(*row, moment(number)) for number, row in enumerate(rows)]


def rows_of(part, dataset):
    users, items = dataset.user_ids[part.users], dataset.item_ids[part.items]
    return set(zip(users, items, part.ratings, part.timestamps, strict=True))


def shuffled(seed=0):
    rows = rated(30, 20, 1, 5, step=1)
    return [rows[k] for k in np.random.default_rng(seed).permutation(len(rows))]


@pytest.fixture
def dataset(prepare_rows):
    return prepare_rows(with_moments(shuffled()))


def fit(dataset, **options):
    return train("bias", dataset, family_module("bias").Config(), seed=0, lists=False, **options)


def test_the_newest_rows_are_held_back_and_test_rows_are_in_no_part(dataset):
    held = hold_back_newest(dataset)
    parts = [rows_of(getattr(held, name), dataset) for name in ("train", "validation", "test")]
    assert set.union(*parts) == rows_of(dataset.train, dataset) | rows_of(dataset.validation, dataset)
    assert sum(map(len, parts)) == dataset.size("train") + dataset.size("validation")
    first = min(moment for *_, moment in parts[2])
    assert max(moment for *_, moment in parts[0] | parts[1]) < first
    assert len(parts[2]) == pytest.approx(0.2 * sum(map(len, parts)), abs=1)
    assert parts[0] <= rows_of(dataset.train, dataset)  # what was for choosing stays for choosing
    assert parts[1] <= rows_of(dataset.validation, dataset)
    assert not set.union(*parts) & rows_of(dataset.test, dataset)


def test_rows_of_one_moment_stay_together(prepare_rows):
    held = hold_back_newest(prepare_rows(with_moments(shuffled(), lambda number: number // 100)))
    assert not set(held.test.timestamps) & {*held.train.timestamps, *held.validation.timestamps}
    assert len(set(held.test.timestamps)) > 0


def test_nothing_is_held_back_without_moments_or_of_one_moment_only(prepare_rows):
    assert hold_back_newest(prepare_rows(shuffled())) is None
    dataset = prepare_rows(with_moments(shuffled(), lambda number: 7))
    assert hold_back_newest(dataset) is None
    assert fit(dataset, forward=True).forward is None


def test_what_is_measured_on_the_newest_rows_learnt_from_none_of_them(dataset, prepare_rows):
    fitted = fit(dataset, forward=True).forward
    knowledge = fitted.recommender.knowledge
    seen = {(knowledge.user_ids[user], knowledge.item_ids[item]) for user, item in knowledge.seen}
    assert seen == {row[:2] for row in rows_of(fitted.dataset.train, fitted.dataset)}
    # Whatever the newest ratings are, it predicts the same.
    newest = rows_of(fitted.dataset.test, dataset)
    changed = [
        (user, item, 6 - rating if (user, item, rating, moment) in newest else rating, moment)
        for user, item, rating, moment in with_moments(shuffled())
    ]
    other = fit(prepare_rows(changed), forward=True).forward.recommender
    ids = dataset.user_ids[dataset.test.users], dataset.item_ids[dataset.test.items]
    for one, two in zip(fitted.recommender.predict(*ids), other.predict(*ids), strict=True):
        assert one.tolist() == two.tolist()


def test_what_goes_into_use_is_the_same_with_and_without(dataset):
    ids = dataset.user_ids[dataset.test.users], dataset.item_ids[dataset.test.items]
    with_forward, without = fit(dataset, forward=True).final, fit(dataset).final
    assert with_forward.predict(*ids).rating.tolist() == without.predict(*ids).rating.tolist()
    assert len(with_forward.knowledge.seen) == dataset.size("train") + dataset.size("validation")
