"""Optuna's own tests of a storage over ours, and what ours adds."""

import subprocess
import sys

import optuna
import pytest
from optuna.testing.pytest_storages import StorageTestCase
from sqlalchemy import event

from recsys.tuning.storage import id_of, open_storage

pytestmark = pytest.mark.store


@pytest.fixture
def storage(tmp_path):
    return open_storage(f"sqlite:///{tmp_path}/studies.db", heartbeat=1, grace=6)


class TestRetryingStorage(StorageTestCase):
    @pytest.fixture
    def storage(self, storage):
        return storage


def test_a_trial_is_started_without_a_query_and_is_not_remembered(storage):
    study = optuna.create_study(storage=storage)
    made = storage.make_trial(study)
    statements = []
    event.listen(storage.engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    trial = storage.start(study, made, [])
    assert statements == []
    assert (trial.number, trial.user_attrs, trial.params) == (0, {}, {})
    storage.set_trial_user_attr(id_of(made), "key", "value")
    assert storage.get_trial(id_of(made)).user_attrs == {"key": "value"}


def test_parameters_are_written_together_and_read_back(storage):
    study = optuna.create_study(storage=storage)
    trial = storage.start(study, storage.make_trial(study), [])
    statements = []
    event.listen(storage.engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    with storage.params_together(id_of(trial)):
        values = {name: trial.suggest_float(name, 0, 1) for name in ("a", "b", "c")}
        assert statements == []
    assert len([text for text in statements if text.lower().startswith("insert")]) == 1
    assert storage.get_trial(id_of(trial)).params == pytest.approx(values)


ENDS = """
import atexit, gc, sys
import optuna
from recsys.tuning.storage import open_storage
atexit.register(gc.freeze)  # as a step does
storage = open_storage(sys.argv[1], heartbeat=1, grace=6)
study = optuna.create_study(storage=storage)
study.ask()
storage.kept = [storage, study]  # what only the collector would find
"""


@pytest.mark.process
def test_the_file_of_a_study_is_whole_when_a_process_has_ended(tmp_path):
    subprocess.run([sys.executable, "-c", ENDS, f"sqlite:///{tmp_path}/studies.db"], check=True)
    assert {path.name for path in tmp_path.iterdir()} == {"studies.db", "studies.db.lock"}
