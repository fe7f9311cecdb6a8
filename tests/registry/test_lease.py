"""One retraining at a time, by a tag that a registry without locks keeps."""

import json
import time
from types import SimpleNamespace

import pytest

from registry import lease
from registry.lease import HeldError, Pace, held

PACE = Pace(beat=0.02, dead=600.0, settle=0.02)  # who beats is seen at once, whatever else the machine does
KEY = "retraining"


class Registry:
    """The tags of one registered model, as MLflow's client reads and writes them; `before` runs before each write."""

    def __init__(self) -> None:
        self.tags: dict[str, str] = {}
        self.fails = 0

    def __call__(self):
        return self

    def get_registered_model(self, name):
        return SimpleNamespace(tags=dict(self.tags))

    def set_registered_model_tag(self, name, key, value):
        if self.fails:
            self.fails -= 1
            raise ConnectionError("the registry is away")
        self.tags[key] = value

    def delete_registered_model_tag(self, name, key):
        self.tags.pop(key, None)


@pytest.fixture
def registry(monkeypatch):
    registry = Registry()
    monkeypatch.setattr(lease, "MlflowClient", registry)
    return registry


def holder(registry) -> str | None:
    return json.loads(registry.tags[KEY])[0] if KEY in registry.tags else None


def wait(happened) -> None:
    while not happened():
        time.sleep(0.005)


def test_it_is_held_while_the_block_runs_and_beats(registry):
    with held("m", "one", PACE) as mine:
        assert holder(registry) == "one"
        before = registry.tags[KEY]
        wait(lambda: registry.tags[KEY] != before)
        mine.check()
    assert registry.tags == {}


def test_it_is_given_back_where_the_block_fails(registry):
    with pytest.raises(KeyError), held("m", "one", PACE):
        raise KeyError
    assert registry.tags == {}


def test_who_finds_one_that_beats_is_told_who_is_at_it(registry):
    with held("m", "one", PACE), pytest.raises(HeldError, match="run one is at it"), held("m", "two", PACE):
        pytest.fail("two work at once")
    assert registry.tags == {}


def test_one_that_stands_still_is_taken_over_and_named(registry):
    registry.tags[KEY] = json.dumps(["dead", 7])
    with held("m", "two", Pace(beat=0.02, dead=0.1, settle=0.02)) as mine:
        assert mine.succeeded == "dead"
        assert holder(registry) == "two"


def test_of_two_that_begin_at_once_the_one_that_reads_its_own_name_goes_on(registry, monkeypatch):
    monkeypatch.setattr(lease.time, "sleep", lambda seconds: registry.tags.update({KEY: json.dumps(["other", 1])}))
    with pytest.raises(HeldError, match="run other began at the same moment"), held("m", "one", PACE):
        pytest.fail("two work at once")
    assert holder(registry) == "other", "the other's is not taken away"


def test_who_was_taken_over_from_learns_of_it(registry):
    with held("m", "slow", PACE) as mine:
        registry.tags[KEY] = json.dumps(["quick", 1])

        def lost() -> bool:
            try:
                mine.check()
            except HeldError as error:
                return "quick took over" in str(error)
            return False

        wait(lost)
    assert holder(registry) == "quick"


def test_a_registry_that_is_away_for_a_moment_ends_nothing(registry):
    with held("m", "one", PACE) as mine:
        registry.fails = 3
        before = registry.tags[KEY]
        wait(lambda: registry.tags[KEY] != before)
        mine.check()
    assert registry.tags == {}
