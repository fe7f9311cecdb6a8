"""How much was taken counts in lists where validation says so."""

import numpy as np
import pytest

from recsys.data import builder
from recsys.data.preparation import Preparation
from recsys.models.base.family import family_module
from recsys.models.base.loading import load_recommender
from recsys.training.trainer import train

CUSTOMERS, ARTICLES = 150, 40


@pytest.fixture(scope="module", params=["told by quantities", "not told"])
def trained(request, tmp_path_factory):
    """Customers take much of what is of their kind and little of anything else; or the quantities say nothing."""
    told = request.param == "told by quantities"
    folder, random = tmp_path_factory.mktemp("orders"), np.random.default_rng(1)
    lines = []
    for customer in range(CUSTOMERS):
        for article in range(ARTICLES):
            of_kind = customer % 4 == article % 4
            if random.random() < (0.8 if of_kind else 0.3):
                quantity = (20 if of_kind else 1) if told else random.choice([1, 20])
                lines.append(f"c{customer},a{article},{quantity}")
    source = folder / "orders.csv"
    source.write_text("\n".join(["user_id,item_id,quantity", *lines]))
    dataset = builder.prepare(source, Preparation(ratings=str(source), weight="quantity"), folder / "prepared")
    return told, train("ease", dataset, family_module("ease").Config(), seed=0).final


def test_weights_count_where_they_tell_something(trained):
    told, recommender = trained
    assert recommender.choices()["signal"] == ("ratings" if told else "likes")


def test_a_version_keeps_what_its_customers_took_and_how_much(trained, tmp_path):
    recommender = trained[1]
    recommender.save(tmp_path)
    loaded, users = load_recommender(tmp_path), recommender.knowledge.user_ids[:5]
    assert np.ptp(loaded.lists.rated.ratings) > 0
    one, other = (model.recommend(users, 5) for model in (recommender, loaded))
    assert [items.tolist() for items in one.items] == [items.tolist() for items in other.items]
    assert all(((likes > 0) & (likes < 1)).all() for likes in one.probabilities)
