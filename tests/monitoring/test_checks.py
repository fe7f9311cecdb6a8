import numpy as np
import pytest

from bench import monitoring as bench
from recsys.data.builder import prepare
from recsys.data.preparation import Preparation
from recsys.models.base.family import family_module
from recsys.monitoring.checks import CHECKS, assess, headline, level_of
from recsys.monitoring.rated import rate
from recsys.training.trainer import train


def test_all_looks_together_spend_alpha_and_no_more():
    spent = sum(level_of(look) * len(CHECKS) for look in range(1, 100_000))
    assert 0.0499 < spent < 0.05
    assert level_of(2) < level_of(1)


def test_a_change_that_follows_from_none_is_headline_and_its_causes_exist():
    names = [check.name for check in CHECKS]
    for at, check in enumerate(CHECKS):
        assert set(check.follows_from) <= set(names[:at])


def test_few_rows_are_not_judged(world):
    _, reference, _ = world
    none = np.zeros(100, bool)
    window = bench.Window(reference.rated[np.arange(100)], 4.0, (1.0, 5.0), none, none, np.arange(100))
    findings = assess(window, reference.rated, 1)
    assert headline(findings) == []
    assert all("too few" in one.problem for one in findings)


@pytest.mark.simulation
def test_windows_of_real_ratings_drawn_at_random_are_rarely_alarmed(movielens_100k, tmp_path):
    """A share of the 200 replays of bench/monitoring.py: 30 looks each, and any alarm counts."""
    dataset = prepare(movielens_100k, Preparation(), tmp_path)
    model = train("bias", dataset, family_module("bias").Config(), seed=0, lists=False).final
    rows = dataset.test
    ids = dataset.user_ids[rows.users], dataset.item_ids[rows.items]
    rated = rate(model, *ids, rows.ratings, rows.users)
    material = bench.Material(dataset, model, rated, rows.timestamps)
    alarmed, names = bench.false_alarms(material, replays=20)
    assert alarmed <= 1, names
