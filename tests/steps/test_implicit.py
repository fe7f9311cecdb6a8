"""Orders without ratings: from the file to a version in Production, by the command a user types."""

import re

import numpy as np
import pytest

from recsys.errors import InputError
from tests.support.pipeline import write_csv

ORDERS = {"ratings": "orders.csv", "user_column": "customer", "item_column": "sku"}


def orders(customers: int = 60, articles: int = 30) -> list[tuple[str, str]]:
    """Customers of two kinds, each of whom orders most of one half of the articles, and few of them."""
    random = np.random.default_rng(5)
    return [
        (f"c{customer}", f"s{article}")
        for customer in range(customers)
        for article in range(articles)
        if random.random() < (0.7 if customer % 2 == article % 2 else 0.05)
    ]


@pytest.mark.e2e
def test_main_brings_orders_to_production_and_what_needs_ratings_is_refused(store, step, capsys):
    write_csv(store.home / "orders.csv", orders(), "customer,sku")
    step("main", **ORDERS)
    said = capsys.readouterr().out
    assert re.search(r"^ +1 +ease +- +- 0\.\d{4} ", said, re.MULTILINE)  # no RMSE, no MAE
    assert "implicit feedback: column 'rating' is not there" in said
    assert "family ease: a catalogue of 30 items fits" in said
    assert "goes to Production: AUC 0." in said
    (version,) = store.client.search_model_versions("name = 'recsys'")
    assert version.current_stage == "Production"
    assert (version.tags["family"], version.tags["feedback"]) == ("ease", "implicit")
    measured = store.run_named("evaluate version 1").data.metrics
    assert measured["auc"] > measured["baseline_most_popular_auc"]
    assert measured["auc_per_user"] > 0.7
    assert measured["ndcg_at_10"] > measured["baseline_most_popular_ndcg_at_10"]
    assert 0.7 < measured["expected_takes"] < 1.3
    with pytest.raises((InputError, SystemExit)):
        step("train", **ORDERS, family="bias")
    assert "ease, neighbourhood learn from that: pass -P family=ease" in capsys.readouterr().err

    # A version that learnt from ratings is no candidate where there are none.
    rated = [(*pair, 1 + number % 5) for number, pair in enumerate(orders())]
    write_csv(store.home / "rated.csv", rated, "customer,sku,rating")
    step("train", **{**ORDERS, "ratings": "rated.csv"}, family="bias")
    step("prepare", **ORDERS)
    step("promote")
    assert "it learnt from data with ratings, and this test set has none" in capsys.readouterr().out
