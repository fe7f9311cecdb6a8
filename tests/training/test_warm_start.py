"""Trainings that go on from an earlier one: what they begin with, what measures them, and when they may not."""

import numpy as np
import pytest

from recsys.errors import InputError
from recsys.evaluation.evaluator import evaluate
from recsys.models.base.family import family_module
from recsys.settings import parse_settings
from recsys.testing.datasets import prepared
from recsys.training import trainer
from recsys.training.warm_start import divide_anew
from tests.support.pipeline import grid

SETTINGS = {
    "bayesian_mf": {"embedding_size": 2, "samples": 8, "time": "false"},
    "matrix_factorization": {"embedding_size": 2, "epochs": 30},
}


def tastes(users: int, items: int = 40, seed: int = 0) -> list[tuple[str, str, float]]:
    """Half of all pairs: users of even number like items of even number, the others the others, but for noise."""
    random = np.random.default_rng(seed)
    pairs = [(user, item) for user in range(users) for item in range(items) if (user * 7 + item * 3) % 4 < 2]
    return [
        (f"u{user:03}", f"i{item:02}", float(np.clip(round(3 + (1.5 if user % 2 == item % 2 else -1.5) + noise), 1, 5)))
        for (user, item), noise in zip(pairs, random.normal(0, 0.6, len(pairs)), strict=True)
    ]


@pytest.fixture(scope="module", params=SETTINGS)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """The ratings of 80 users, and those of 100."""
    folders = tmp_path_factory.mktemp("before"), tmp_path_factory.mktemp("after")
    return prepared(folders[0], tastes(80)), prepared(folders[1], tastes(100))


@pytest.fixture(scope="module")
def champion(family, datasets):
    config = parse_settings(family_module(family).Config, SETTINGS[family])
    return trainer.train(family, datasets[0], config, seed=1).final


def go_on(family, dataset, champion, seed=2):
    held = divide_anew(dataset, champion, family)
    return trainer.train(family, held, champion.config, seed=seed, warm_start=champion), held


def test_it_knows_new_users_and_is_as_good_as_from_scratch(family, datasets, champion):
    _, after = datasets
    done, held = go_on(family, after, champion)
    assert done.final is done.chosen
    assert {"u095", "u010"} <= set(done.final.knowledge.user_ids)
    assert not done.final.knowledge.has_seen(*codes(done.final, held, "validation")).any()
    scratch = trainer.train(family, after, champion.config, seed=2).final
    new, old = (evaluate(one, after, ranking=False, baselines=False).metrics["auc"] for one in (done.final, scratch))
    assert new == pytest.approx(old, abs=0.02)
    assert new > 0.9
    assert done.final.lists.regression == champion.lists.regression
    assert done.final.choices() == champion.choices()


def codes(recommender, dataset, part):
    rows, knowledge = getattr(dataset, part), recommender.knowledge
    users, items = knowledge.user_codes(dataset.user_ids), knowledge.item_codes(dataset.item_ids)
    return users[rows.users], items[rows.items]


def test_one_fit_does_for_which_a_beginner_needs_two(family, datasets, champion, monkeypatch):
    module, fits = family_module(family), []

    def fit(knowledge, rows, config, options):
        fits.append(options)
        return real(knowledge, rows, config, options)

    real = module.fit
    monkeypatch.setattr(module, "fit", fit)
    go_on(family, datasets[1], champion)
    assert [(options.warm_start is champion, options.validation) for options in fits] == [(True, None)]
    trainer.train(family, datasets[1], champion.config, seed=2)
    assert len(fits) == 3


def test_the_same_seed_gives_the_same_numbers(family, datasets, champion):
    after = datasets[1]
    users, items = np.repeat(after.user_ids[:5], 5), np.tile(after.item_ids[:5], 5)
    one, other = (go_on(family, after, champion)[0].final.predict(users, items).rating for _ in range(2))
    assert one.tolist() == other.tolist()


def test_rows_are_divided_by_what_the_champion_has_learnt(datasets, champion, family):
    _, after = datasets
    held = divide_anew(after, champion, family)
    assert held.size("train") + held.size("validation") == after.size("train") + after.size("validation")
    assert held.size("validation") < after.size("validation")
    assert not champion.knowledge.has_seen(*codes(champion, held, "validation")).any()
    assert held.digest == after.digest


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"split": "random", "seed": 7}, "it has learnt from .* of the .* test ratings"),
        ({"like_threshold": 3.0}, "it learnt likes as ratings of at least 4, now of at least 3"),
    ],
)
def test_what_would_measure_nothing_is_refused(tmp_path, champion, family, change, sentence):
    with pytest.raises(InputError, match=sentence):
        divide_anew(prepared(tmp_path, tastes(100), **change), champion, family)


def test_others_are_refused_too(tmp_path, datasets, champion, family):
    with pytest.raises(InputError, match=f"family bias does not go on from a version of family {family}"):
        divide_anew(datasets[1], champion, "bias")
    with pytest.raises(InputError, match="0 validation ratings, 0 of them likes, are new to it"):
        divide_anew(datasets[0], champion, family)
    with pytest.raises(InputError, match=r"more than 1\.5 times as many"):
        divide_anew(prepared(tmp_path / "large", tastes(200)), champion, family)
    with pytest.raises(InputError, match="it learnt ratings from 1 to 5, now 1 to 10"):
        divide_anew(prepared(tmp_path / "scale", grid(high=10), like_threshold=5), champion, family)


@pytest.fixture(autouse=True)
def folders(tmp_path):
    for name in ("large", "scale"):
        (tmp_path / name).mkdir()
