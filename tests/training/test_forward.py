import numpy as np
import pytest

from recsys.models.base.family import FitOptions, family_module
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


def test_what_fits_elsewhere_is_given_the_older_rows_last_with_their_own_validation_rows(dataset):
    given = []

    def fit_all(tasks, report):
        fitted = []
        for task in tasks:
            given.append((len(task.rows), task.validation is not None))
            options = FitOptions(0, task.validation, None if task.validation is not None else fitted[0])
            fitted.append(family_module("bias").fit(task.knowledge, task.rows, family_module("bias").Config(), options))
        return fitted

    elsewhere, here = fit(dataset, forward=True, fit_all=fit_all), fit(dataset, forward=True)
    held = hold_back_newest(dataset)
    sizes = dataset.size("train"), dataset.size("train") + dataset.size("validation"), len(held.train)
    assert given == [(sizes[0], True), (sizes[1], False), (sizes[2], True)]
    ids = dataset.user_ids[dataset.test.users], dataset.item_ids[dataset.test.items]
    for name in ("chosen", "final"):
        assert (
            getattr(elsewhere, name).predict(*ids).rating.tolist() == getattr(here, name).predict(*ids).rating.tolist()
        )
    ours, theirs = (found.forward.recommender.predict(*ids).rating for found in (here, elsewhere))
    assert ours.tolist() == theirs.tolist()


def test_lists_are_learnt_once_for_all_families_and_are_those_of_a_family_alone(dataset):
    config = family_module("bias").Config()
    one, other = (train("bias", dataset, config, seed=seed, forward=True) for seed in (0, 1))
    alone = train("bias", dataset.holding(), config, seed=0, forward=True)
    for name in ("chosen", "final"):
        lists = [getattr(trained, name).lists for trained in (one, other, alone)]
        assert lists[0].item_to_item is lists[1].item_to_item
        assert lists[0].item_to_item is not lists[2].item_to_item
        np.testing.assert_array_equal(lists[0].item_to_item.weights, lists[2].item_to_item.weights)
        assert lists[0].regression == lists[2].regression
    assert one.forward.recommender.lists.item_to_item is other.forward.recommender.lists.item_to_item
