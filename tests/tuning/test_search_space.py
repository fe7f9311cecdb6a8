import re

import optuna
import pytest

from recsys.errors import InputError
from recsys.models.base.capabilities import family_names
from recsys.models.base.family import family_module
from recsys.tuning.search_space import Ranged, digest, dimensions, read_ranges


def space(family, text=""):
    return dimensions(family_module(family).suggest, read_ranges(text, family))


def test_the_forest_s_space_is_the_one_that_was_asked_for():
    found = {name: (dimension.kind, dimension.range) for name, dimension in space("random_forest").items()}
    assert found == {
        "n_estimators": ("int", (50, 500)),
        "max_depth": ("int", (2, 32)),
        "min_samples_split": ("int", (2, 20)),
        "min_samples_leaf": ("int", (1, 50)),
        "max_features": ("choice", ("sqrt", "log2", "none")),
        "bootstrap": ("choice", (True, False)),
    }


@pytest.mark.parametrize("family", family_names())
def test_what_is_written_down_is_what_optuna_is_asked_for(family):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    asked = {}
    for _ in range(10):
        trial = study.ask()
        family_module(family).suggest(trial)
        asked |= trial.distributions
    assert asked.keys() == space(family).keys()


def test_a_user_s_range_takes_the_place_of_the_family_s():
    text = '{"embedding_size": [200, 300], "implicit": ["true"]}'
    found = space("bayesian_mf", text)
    assert found["embedding_size"].range == (200, 300)
    assert found["embedding_size"].log
    assert found["implicit"].range == ("true",)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    ranges = read_ranges(text, "bayesian_mf")
    for _ in range(20):
        config = family_module("bayesian_mf").suggest(Ranged(study.ask(), ranges))
        assert 200 <= config.embedding_size <= 300
        assert config.implicit == "true"


def test_a_digest_names_a_space():
    assert digest(space("bias")) == digest(space("bias", '{"damping": [0.5, 50]}'))
    assert digest(space("bias")) != digest(space("bias", '{"damping": [0.5, 49]}'))


@pytest.mark.parametrize(
    ("family", "text", "message"),
    [
        ("bias", "damping", "JSON such as"),
        ("bias", "[1, 2]", "JSON such as"),
        ("bias", '{"damping": 3}', "got 3 for 'damping'"),
        ("bias", '{"dampin": [1, 2]}', "'dampin' is not searched for family bias; known are: damping"),
        ("bias", '{"damping": [5, 1]}', "'damping': the low is above the high, got [5, 1]"),
        ("bias", '{"damping": [1, 2, 3]}', "two numbers are needed for 'damping'"),
        ("bias", '{"damping": ["a", "b"]}', "two numbers are needed"),
        ("bias", '{"damping": [0, 1]}', "searched by its logarithm"),
        ("bias", '{"damping": [1, Infinity]}', "the low is above the high"),
        ("random_forest", '{"max_depth": [1.5, 3]}', "two whole numbers are needed for 'max_depth'"),
        ("random_forest", '{"min_samples_split": [1, 3]}', "parameter 'min_samples_split': expected greater than"),
        ("random_forest", '{"max_features": ["sqrt", "half"]}', "parameter 'max_features': expected 'sqrt'"),
        ("random_forest", '{"max_features": ["sqrt", "sqrt"]}', "every choice of 'max_features' once"),
        ("random_forest", '{"max_features": []}', "got [] for 'max_features'"),
    ],
)
def test_a_wrong_space_is_refused(family, text, message):
    with pytest.raises(InputError, match=f"^parameter 'space': .*{re.escape(message)}"):
        read_ranges(text, family)
