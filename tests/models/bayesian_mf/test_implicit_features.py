import numpy as np
import pytest

from recsys.data.interactions import Interactions
from recsys.models.bayesian_mf import implicit_features
from recsys.models.bayesian_mf.config import Config
from recsys.models.bayesian_mf.gibbs import Chain
from recsys.runtime.threads import workers


def implicit_chain(users, items, *sizes):
    rows = Interactions(users, items, np.arange(len(users)) * 1.0)
    chain = Chain(rows, sizes, Config(embedding_size=2, device="cpu"), seed=0)
    chain.add_implicit()
    return chain


@pytest.fixture
def rated():
    return np.random.default_rng(0).random((12, 9)) < 0.5


@pytest.fixture
def chain(rated):
    users, items = (codes.astype(np.int32) for codes in np.nonzero(rated))
    return implicit_chain(users, items, 12, 9)


def test_sums_are_a_product_with_who_rated_what(chain, rated):
    table = np.random.default_rng(1).standard_normal((9, 3), np.float32)
    with workers("cpu") as each:
        total = implicit_features.sum_rated(chain.users, table, each)
    assert total == pytest.approx(rated @ table, abs=1e-5)


def test_features_are_projections_summed_and_have_orthogonal_columns(chain, rated):
    features, projection = chain.users.features, chain.projection
    counts = np.maximum(rated.sum(1, keepdims=True), 1)
    assert features == pytest.approx(rated @ projection / np.sqrt(counts), abs=1e-5)
    for entity in (chain.users, chain.items):
        gram = entity.features.T @ entity.features
        assert gram - np.diag(np.diag(gram)) == pytest.approx(np.zeros_like(gram), abs=1e-4)
        assert (entity.features**2).sum(1).mean() == pytest.approx(1, abs=1e-4)


def test_the_strongest_directions_are_kept(monkeypatch):
    """Two groups that rate items of their own: one number tells who belongs where."""
    monkeypatch.setattr(implicit_features, "LEAST_FEATURES", 2)
    group = np.arange(40) % 2
    users, items = (codes.astype(np.int32) for codes in np.nonzero(group[:, None] == np.arange(30) % 2))
    chain = implicit_chain(users, items, 40, 30)
    features = chain.users.features
    between = np.linalg.norm(features[group == 0].mean(0) - features[group == 1].mean(0))
    within = np.linalg.norm(features[group == 0].std(0))
    assert between > 100 * within


@pytest.mark.parametrize(("each", "features"), [(1, 9), (10, 5), (100, 3)])
def test_there_are_more_features_the_more_ratings_there_are(monkeypatch, rated, each, features):
    """As many as items at most, and at least as many as are set."""
    monkeypatch.setattr(implicit_features, "RATINGS_EACH", each)
    monkeypatch.setattr(implicit_features, "LEAST_FEATURES", 3)
    users, items = (codes.astype(np.int32) for codes in np.nonzero(rated))
    assert 45 <= len(users) < 55
    chain = implicit_chain(users, items, 12, 9)
    assert chain.users.features.shape == (12, features)
    assert chain.projection.shape == (9, features)
