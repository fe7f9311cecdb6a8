"""A version's answers and those of its graphs, run by onnxruntime."""

import json
from copy import copy
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest

from recsys.errors import InputError
from recsys.export import onnx_graph, parity
from recsys.models.base.family import family_module
from recsys.serving.compact import make_form
from recsys.serving.graph_scores import GRAPH, load_scorer
from recsys.serving.scores import _score as score
from recsys.serving.service import POINTER, Service
from recsys.serving.settings import ServingSettings
from recsys.testing.datasets import rated
from recsys.training.trainer import train

SMALL = {"epochs": 2, "samples": 4, "n_estimators": 2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Makes a recommender with a list model, once a family."""
    from recsys.testing.datasets import prepared

    made = {}

    def trained(family):
        if family not in made:
            config = family_module(family).Config
            chosen = {name: value for name, value in SMALL.items() if name in config.model_fields}
            dataset = prepared(tmp_path_factory.mktemp(family), rated(60, 40, 1, 5, step=1))
            made[family] = train(family, dataset, config(**chosen), seed=1).final
        return made[family]

    return trained


def session(model):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("family", ["bias", "matrix_factorization", "bayesian_mf"])
def test_the_graphs_answer_as_the_version(trained, family):
    recommender = trained(family)
    scores = parity.compare_scores(recommender, session(onnx_graph.scores(recommender)))
    assert max(scores["onnx_rating_difference"], scores["onnx_like_difference"]) <= 1e-5
    lists = parity.compare_lists(recommender, session(onnx_graph.lists(recommender)))
    assert lists["onnx_list_difference"] <= 1e-5
    assert lists["onnx_same_lists"] > 0.9


def test_the_graph_lets_age_count_as_the_version_does(trained):
    recommender = copy(trained("bias"))
    lists, random = recommender.lists, np.random.default_rng(0)
    sizes = np.diff(lists.rated.starts)
    rated = replace(lists.rated, newer=np.concatenate([random.permutation(size) for size in sizes]).astype(np.int32))
    recommender.lists = replace(lists, regression=replace(lists.regression, half_life=1.5), rated=rated)
    asked = np.unique(random.integers(0, len(recommender.knowledge.item_ids), 6)).tolist()
    one, other = ask(recommender, 0, asked, 5), ask(recommender, 0, asked[::-1], 5)
    assert one != other
    found = parity.compare_lists(recommender, session(onnx_graph.lists(recommender)))
    assert found["onnx_list_difference"] <= 1e-5
    assert found["onnx_same_lists"] > 0.9


@pytest.mark.parametrize("family", ["matrix_factorization", "bayesian_mf"])
def test_a_server_scores_by_the_graph(trained, family, tmp_path):
    recommender = trained(family)
    form = tmp_path / "forms" / "one"
    make_form(recommender, form, {"version": "1", "model": "recsys"}, rank=1, max_loss=1)  # far from the version
    (form / GRAPH).write_bytes(onnx_graph.scores(recommender).SerializeToString())
    (tmp_path / POINTER).write_text(json.dumps({"form": "forms/one"}))
    knowledge = recommender.knowledge
    pairs = [(user, item) for user in knowledge.user_ids[:9] for item in [*knowledge.item_ids[:9], "not there"]]
    expected = recommender.predict(*(np.array(side, object) for side in zip(*pairs, strict=True)))
    service = Service(ServingSettings(folder=str(tmp_path), runtime="onnx", record=False))
    try:
        service.follow()
        assert service.problem == ""
        found = score(service, service.current(), [*pairs, ("nobody", pairs[0][1])])
    finally:
        service.close()
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other[:-1], one, atol=1e-5)
        assert np.isfinite(other[-1])


def test_a_version_without_a_graph_is_served_from_its_form(tmp_path):
    assert load_scorer(tmp_path, None, None) is None


def ask(recommender, user, history, n):
    codes = np.array(history, np.int64)
    found = session(onnx_graph.lists(recommender)).run(
        None,
        {
            "user": np.array([user], np.int64),
            "history": codes,
            "ratings": np.full(len(codes), 5, np.float32),
            "n": np.array([n], np.int64),
        },
    )
    return found[0].tolist()


def test_a_list_has_as_many_as_are_left_and_none_of_the_history(trained):
    recommender = trained("bias")
    everything = len(recommender.knowledge.item_ids)
    assert sorted(ask(recommender, 0, [1, 3], 1000)) == sorted(set(range(everything)) - {1, 3})
    assert ask(recommender, 0, range(everything), 5) == []
    popular = ask(recommender, -1, [], 3)
    assert len(popular) == 3


def test_answers_that_differ_are_refused(trained):
    recommender, other = trained("bias"), trained("matrix_factorization")
    with pytest.raises(InputError, match="differ from the version's by up to"):
        parity.compare_scores(recommender, session(onnx_graph.scores(other)))
    with pytest.raises(InputError, match="differ from the version's by up to"):
        parity.compare_lists(recommender, session(onnx_graph.lists(other)))


def test_a_forest_cannot_be_exported(trained):
    with pytest.raises(InputError, match="family 'random_forest': its answers are no products of tables"):
        onnx_graph.scores(trained("random_forest"))
