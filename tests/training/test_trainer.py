import numpy as np
import pytest

from recsys.training.trainer import learn_knowledge, train

FAMILY = "bias"

# In order of time: f and v come with the validation, g and u with the test.
ROWS = [f"{user}{item}{1 + (3 * u + i) % 5}" for u, user in enumerate("abcd") for i, item in enumerate("wxyz")]
HELD_OUT = ["fw5", "av1", "bv4", "fv2", "gw5", "au1", "bu4", "gu2"]


def dataset_of(prepare_rows, held_out):
    rows = [(user, item, int(rating), moment) for moment, (user, item, rating) in enumerate([*ROWS, *held_out])]
    return prepare_rows(rows, split="time", test_size=4 / 24, validation_size=4 / 24)


@pytest.fixture
def dataset(prepare_rows):
    found = dataset_of(prepare_rows, HELD_OUT)
    assert [len(part) for part in (found.train, found.validation, found.test)] == [16, 4, 4]
    return found


def fit(dataset, **options):
    from recsys.models.base.family import family_module

    return train(FAMILY, dataset, family_module(FAMILY).Config(), seed=0, **options)


def ids(knowledge):
    return "".join(knowledge.user_ids), "".join(knowledge.item_ids)


def test_a_recommender_knows_the_users_and_items_it_learnt_from_only(dataset):
    trained = fit(dataset)
    assert ids(trained.chosen.knowledge) == ("abcd", "wxyz")
    assert ids(trained.final.knowledge) == ("abcdf", "vwxyz")
    assert ids(learn_knowledge(dataset)[0]) == ("abcdf", "vwxyz")


def test_without_refit_the_final_recommender_is_the_chosen_one(dataset):
    trained = fit(dataset, refit=False)
    assert trained.final is trained.chosen


def test_the_seen_pairs_are_the_rows_learnt_from(dataset):
    def pairs(knowledge):
        return {knowledge.user_ids[user] + knowledge.item_ids[item] for user, item in knowledge.seen}

    trained = fit(dataset)
    assert pairs(trained.chosen.knowledge) == {row[:2] for row in ROWS}
    assert pairs(trained.final.knowledge) == {row[:2] for row in [*ROWS, *HELD_OUT[:4]]}
    assert (np.diff(trained.final.knowledge.seen[:, 0]) >= 0).all()


def test_the_codes_of_rows_point_at_their_ids(dataset):
    knowledge, rows = learn_knowledge(dataset)
    found = zip(knowledge.user_ids[rows.users], knowledge.item_ids[rows.items], rows.ratings, strict=True)
    assert [f"{user}{item}{rating:g}" for user, item, rating in found] == [*ROWS, *HELD_OUT[:4]]


def test_the_mean_is_that_of_the_rows_learnt_from(dataset):
    trained = fit(dataset)
    training = [int(row[2]) for row in ROWS]
    assert trained.chosen.knowledge.biases.mean == pytest.approx(np.mean(training))
    assert trained.final.knowledge.biases.mean == pytest.approx(np.mean([*training, 5, 1, 4, 2]))


PAIRS = [np.array(list(side), object) for side in ("aabbcdfghhf", "wvxuyzvwzhg")]


def predictions(dataset, **options):
    trained = fit(dataset, **options)
    return [*trained.chosen.predict(*PAIRS), *trained.final.predict(*PAIRS)]


def test_test_ratings_reach_no_recommender(dataset, prepare_rows):
    before = predictions(dataset)
    after = predictions(dataset_of(prepare_rows, [*HELD_OUT[:4], "gw1", "au5", "bu1", "gu5"]))
    assert [values.tolist() for values in before] == [values.tolist() for values in after]


def test_validation_ratings_reach_the_refitted_recommender_and_only_the_calibration_of_the_other(dataset, prepare_rows):
    rating, _, final_rating, _ = predictions(dataset)
    other = dataset_of(prepare_rows, ["fw1", "av5", "bv1", "fv5", *HELD_OUT[4:]])
    other_rating, _, other_final_rating, _ = predictions(other)
    assert rating.tolist() == other_rating.tolist()
    assert (final_rating != other_final_rating).any()
    assert fit(dataset).chosen.knowledge.calibration != fit(other).chosen.knowledge.calibration


def test_the_refitted_recommender_keeps_the_calibration_on_rows_not_learnt_from(dataset):
    trained = fit(dataset)
    assert trained.final.knowledge.calibration == trained.chosen.knowledge.calibration
    assert learn_knowledge(dataset)[0].calibration == trained.chosen.knowledge.calibration


def test_the_same_arguments_give_the_same_recommender(dataset):
    one, other = predictions(dataset), predictions(dataset)
    assert [values.tolist() for values in one] == [values.tolist() for values in other]
