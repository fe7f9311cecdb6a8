"""Every family in src/recsys/models keeps to the contract. A new one is covered by being there."""

import numpy as np
import pytest

from recsys import metrics
from recsys.data.builder import prepare
from recsys.data.preparation import Preparation
from recsys.evaluation.evaluator import evaluate
from recsys.models.base.capabilities import family_names
from recsys.models.base.family import family_module
from recsys.testing.family_contract import FamilyContract
from recsys.training.trainer import train
from steps.support.parameters import TrainParameters

# What a family needs on small datasets and can know; one that is not named has nothing but the contract to keep to.
KNOWN = {
    "bias": {"knows_pairs": False},
    "matrix_factorization": {
        "small": {"embedding_size": 8, "learning_rate": 0.05, "batch_size": 64, "patience": 10},
        "knows_pairs": True,
    },
    # By their averages it tells a few users and items apart: of pairs, nothing is expected.
    "random_forest": {"small": {"n_estimators": 30}},
    "bayesian_mf": {"small": {"embedding_size": 8, "samples": 12}, "knows_pairs": True},
}


class Contract(FamilyContract):
    """The contract, with the tier of the one test that starts a process."""

    @pytest.mark.process
    def test_another_process_predicts_the_same_without_what_training_needed(self, recommender, pairs, tmp_path):
        super().test_another_process_predicts_the_same_without_what_training_needed(recommender, pairs, tmp_path)


for name in family_names():
    globals()[f"Test_{name}"] = type(f"Test_{name}", (Contract,), {"family": name, **KNOWN.get(name, {})})


@pytest.mark.parametrize("family", family_names())
def test_no_setting_has_the_name_of_a_step_s_parameter(family):
    assert not set(family_module(family).Config.model_fields) & set(TrainParameters.model_fields)


@pytest.mark.e2e
@pytest.mark.parametrize("family", family_names())
def test_it_beats_the_item_mean_on_movielens_100k(family, movielens_100k, tmp_path):
    dataset = prepare(movielens_100k, Preparation(), tmp_path)
    measured = evaluate(train(family, dataset, family_module(family).Config(), seed=42).final, dataset, ranking=False)
    learnt = dataset.train.joined(dataset.validation)
    count = np.bincount(learnt.items, minlength=len(dataset.item_ids))
    total = np.bincount(learnt.items, weights=learnt.ratings, minlength=len(dataset.item_ids))
    means = np.where(count > 0, total / np.maximum(count, 1), learnt.ratings.mean())[dataset.test.items]
    assert measured.metrics["rmse"] < metrics.rmse(dataset.test.ratings, means)
    assert measured.metrics["auc"] > metrics.auc(measured.liked, means)
