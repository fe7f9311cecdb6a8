import shutil
import threading
import time
from dataclasses import replace

import pytest
from optuna import Study
from optuna.trial import TrialState
from sqlalchemy import event

from recsys.errors import DivergedError, InputError
from recsys.models import bias
from recsys.testing.datasets import rated
from recsys.tuning import search as searches
from recsys.tuning import storage as storages
from recsys.tuning.database_errors import retry_database
from recsys.tuning.search import Search
from recsys.tuning.study import SearchConfig
from recsys.tuning.trials import STOPPED, counts, note_of, share_saved

pytestmark = pytest.mark.store

CONFIG = SearchConfig("bias", trials=3, heartbeat=1)


@pytest.fixture
def dataset(prepare_rows):
    return prepare_rows(rated(20, 20, 1, 5, step=1))


@pytest.fixture(scope="session")
def empty(tmp_path_factory):
    """A file with Optuna's tables, which take half a second to make."""
    path = tmp_path_factory.mktemp("empty") / "studies.db"
    storages.open_storage(f"sqlite:///{path}", heartbeat=1, grace=6).engine.dispose()
    return path


@pytest.fixture
def storage(tmp_path, empty):
    return new_storage(tmp_path, empty)


def new_storage(folder, empty, name="studies"):
    shutil.copy(empty, folder / f"{name}.db")
    return f"sqlite:///{folder / name}.db"


def opened(dataset, storage, config=CONFIG, name="study"):
    found = Search(config, dataset, storage, name, "host")
    found.join()
    return found


def run(dataset, storage, config=CONFIG, on_trial=lambda trial, curves: None, **named):
    """A worker's search, finished as a step would."""
    found = opened(dataset, storage, config)
    with found.at_work():
        found.run(on_trial, **named)
        assert found.contend() == "finish"
        found.close({"trial": 0})
    return found


def measuring(monkeypatch, measure):
    """Have `measure(number of the call, report)` stand for the training; it returns the value."""
    calls = []

    def measured(self, config, report, into):
        calls.append(1)
        into.value = measure(len(calls), report)
        into.metrics = {"auc": into.value}
        return into

    monkeypatch.setattr(searches.TrialObjective, "measure", measured)


def states(found):
    return [trial.state for trial in found.trials()]


def test_the_best_trial_is_found_and_trial_0_is_the_default(dataset, storage):
    told = []
    found = run(dataset, storage, on_trial=lambda trial, curves: told.append((trial.value, trial.user_attrs["config"])))
    assert len(told) == 3
    assert told[0][1] == bias.Config().model_dump()
    best, config = found.best()
    expected = max(range(3), key=lambda number: told[number][0])
    assert (best.number, best.value, config.model_dump()) == (expected, *told[expected])
    assert counts(found.trials()) == {"trials_complete": 3, "trials_pruned": 0, "trials_fail": 0}


def test_the_default_is_a_point_of_the_space_where_it_lies_in_it(dataset, storage):
    run(dataset, storage)
    assert opened(dataset, storage).trials()[0].params == {"damping": 5.0}
    outside = replace(CONFIG, ranges={"damping": [6, 7]})
    found = opened(dataset, storage, outside, "other")
    with found.at_work():
        found.run(lambda trial, curves: None)
    assert (found.trials()[0].params, found.trials()[0].user_attrs["config"]) == ({}, {"damping": 5.0})


def test_the_lowest_is_best_where_less_is_better(dataset, storage):
    found = run(dataset, storage, replace(CONFIG, metric="rmse", direction="minimize"))
    assert found.best()[0].value == min(trial.value for trial in found.trials())


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_same_seed_tries_the_same_and_the_next_search_something_else(sampler, dataset, tmp_path, empty):
    config = replace(CONFIG, sampler=sampler)

    def tried(name):
        storage = new_storage(tmp_path, empty, name)
        run(dataset, storage, config)
        return [trial.user_attrs["config"]["damping"] for trial in run(dataset, storage, config).trials()]

    first = tried("one")
    assert first == tried("other")
    assert len(set(first)) == 6


def test_a_search_that_is_over_is_followed_by_as_many_trials_again(dataset, storage):
    run(dataset, storage)
    found = run(dataset, storage, replace(CONFIG, trials=2))
    assert (found.number, len(found.trials())) == (2, 5)
    assert [bool(trial.user_attrs.get("default")) for trial in found.trials()] == [True, False, False, False, False]


def test_a_search_that_was_left_is_gone_on_with(dataset, storage):
    ended = []
    first = opened(dataset, storage)
    with first.at_work():
        first.run(lambda trial, curves: ended.append(trial.number), lambda: len(ended) == 1)
    assert len(first.trials()) == 1
    again = run(dataset, storage)
    assert (again.number, len(again.trials())) == (1, 3)


def test_who_joins_and_wants_more_gets_more(dataset, storage):
    opened(dataset, storage)
    joined = opened(dataset, storage, replace(CONFIG, trials=5))
    assert (joined.number, joined.target) == (1, 5)
    assert opened(dataset, storage, replace(CONFIG, trials=4)).target == 5
    endless = opened(dataset, storage, replace(CONFIG, trials=0, timeout=60))
    assert (endless.number, endless.target) == (1, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "random_forest"}, "study 'study' belongs to family bias, got random_forest; pass another"),
        ({"metric": "rmse", "direction": "minimize"}, "belongs to metric auc, got rmse"),
        ({"direction": "minimize"}, "belongs to direction maximize, got minimize"),
        ({"ranges": {"damping": [1, 2]}}, "belongs to space "),
    ],
)
def test_a_study_of_something_else_is_refused(changes, message, dataset, storage):
    run(dataset, storage)
    with pytest.raises(InputError, match=message):
        opened(dataset, storage, replace(CONFIG, **changes))


def test_a_study_whose_trials_were_asked_with_timestamps_is_refused(dataset, storage, monkeypatch):
    """Those of an earlier release, which did not say how it measured: the values cannot be compared."""
    keep = Study.set_user_attr
    with monkeypatch.context() as earlier:
        earlier.setattr(Study, "set_user_attr", lambda self, *pair: "protocol" in pair or keep(self, *pair))
        run(dataset, storage)
    with pytest.raises(InputError, match="belongs to protocol timed, got as-served; pass another -P study=…"):
        opened(dataset, storage)


def test_a_study_of_other_data_is_refused_with_both_digests(dataset, storage, prepare_rows):
    run(dataset, storage)
    other = prepare_rows(rated(20, 20, 1, 5, step=1, seed=1))
    with pytest.raises(InputError, match=f"belongs to data_version {dataset.digest}, got {other.digest}"):
        opened(other, storage)


def test_time_ends_a_search(dataset, storage):
    with pytest.raises(InputError, match="study 'study': no trial completed; pass more trials or a longer timeout"):
        run(dataset, storage, replace(CONFIG, timeout=1e-9)).best()
    found = run(dataset, storage, replace(CONFIG, trials=0, timeout=0.5))
    assert found.trials()[0].user_attrs["config"] == bias.Config().model_dump()


def test_a_training_that_diverges_is_made_up_for(dataset, storage, monkeypatch, capfd):
    def measure(call, report):
        if call == 2:
            raise DivergedError("loss is not finite")
        return call / 10

    measuring(monkeypatch, measure)
    found = run(dataset, storage)
    assert states(found) == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    assert note_of(found.trials()[1])["error"] == "DivergedError: loss is not finite"
    assert "Traceback" not in capfd.readouterr().err


def test_trials_that_all_fail_end_the_search(dataset, storage, monkeypatch):
    def measure(call, report):
        raise DivergedError(f"loss {call}")

    measuring(monkeypatch, measure)
    with pytest.raises(InputError, match="the last 10 trials failed, the newest with DivergedError: loss 10; narrow"):
        run(dataset, storage)


@pytest.mark.parametrize("spared", [2, 3])
def test_hopeless_trials_are_pruned_but_none_of_the_first_five(dataset, storage, monkeypatch, spared):
    def measure(call, report):
        for step in range(1, 5):
            report(step, -float(call))
        return -float(call)

    measuring(monkeypatch, measure)
    monkeypatch.setattr(bias, "CAPABILITIES", bias.Capabilities(spared_reports=spared))
    found = run(dataset, storage, replace(CONFIG, trials=7))
    assert states(found) == [TrialState.COMPLETE] * 5 + [TrialState.PRUNED] * 2
    assert found.trials()[6].intermediate_values == dict.fromkeys(range(1, spared + 1), -7.0)
    assert 0 < share_saved(found.trials()) < 1


def test_an_error_fails_its_trial_and_ends_the_worker(dataset, storage, monkeypatch):
    def measure(call, report):
        raise RuntimeError("broken")

    measuring(monkeypatch, measure)
    with pytest.raises(RuntimeError, match="broken"):
        run(dataset, storage)
    found = opened(dataset, storage)
    assert states(found) == [TrialState.FAIL]
    assert note_of(found.trials()[0])["error"] == "RuntimeError: broken"


def test_a_trial_that_was_stopped_is_tried_again(dataset, storage, monkeypatch):
    def measure(call, report):
        if call == 2:
            raise KeyboardInterrupt
        return call / 10

    measuring(monkeypatch, measure)
    with pytest.raises(KeyboardInterrupt):
        run(dataset, storage)
    found = run(dataset, storage)
    assert states(found) == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    assert note_of(found.trials()[1])["error"] == STOPPED
    assert found.trials()[2].params == found.trials()[1].params


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
@pytest.mark.parametrize("beats", [True, False])
def test_a_trial_whose_worker_died_is_tried_again_by_another(beats, dataset, storage, monkeypatch):
    monkeypatch.setattr(searches, "_GRACE", 1)
    dead = opened(dataset, storage)
    trial = dead.study.ask()
    bias.Config(damping=trial.suggest_float("damping", 0.5, 50, log=True))
    if beats:  # else it died before its first heartbeat
        dead.storage.record_heartbeat(trial._trial_id)
    found = run(dataset, storage)
    assert states(found) == [TrialState.FAIL] + [TrialState.COMPLETE] * 3
    assert found.trials()[0].params == trial.params
    assert any(other.params == trial.params for other in found.trials()[1:])
    assert [bool(other.user_attrs.get("default")) for other in found.trials()].count(True) == 2


def test_a_worker_that_was_taken_for_dead_has_no_say(dataset, storage, monkeypatch):
    found = opened(dataset, storage)

    def measure(call, report):
        if call == 1:
            found.storage.set_trial_state_values(found.trials()[0]._trial_id, TrialState.FAIL)
        return 0.5

    measuring(monkeypatch, measure)
    told = []
    with found.at_work():
        found.run(lambda trial, curves: told.append(trial.number))
    assert states(found) == [TrialState.FAIL] + [TrialState.COMPLETE] * 3
    assert told == [1, 2, 3]


def test_two_workers_share_the_trials_and_one_finishes(dataset, storage, monkeypatch):
    measuring(monkeypatch, lambda call, report: time.sleep(0.05) or call / 100)
    config = replace(CONFIG, trials=10)
    workers = [opened(dataset, storage, config) for _ in range(2)]
    answers, told = [], []

    def work(worker):
        with worker.at_work():
            worker.run(lambda trial, curves: told.append(trial.number))
            while (answer := worker.contend()) == "wait":
                time.sleep(0.05)
            if answer == "finish":
                time.sleep(0.3)
                worker.close({"trial": 3})
            answers.append(answer)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == ["finish", "over"]
    assert sorted(told) == list(range(10))
    assert {worker.number for worker in workers} == {1}
    assert workers[0].outcome() == workers[1].outcome() == {"trial": 3}


def test_the_finishing_passes_on_when_its_worker_dies(dataset, storage, monkeypatch):
    monkeypatch.setattr(searches, "_GRACE", 2)
    first, second = opened(dataset, storage), opened(dataset, storage)
    first.coordinator.record_heartbeat(first.worker, None)
    second.coordinator.record_heartbeat(second.worker, None)
    assert [first.contend(), second.contend(), first.contend()] == ["finish", "wait", "finish"]
    limit = time.monotonic() + 20
    while second.contend() == "wait":  # the first has no more heartbeats
        assert time.monotonic() < limit
        time.sleep(0.2)
    first.close({"trial": 1})  # too late
    assert second.outcome() is None
    second.close({"trial": 2})
    assert second.outcome() == {"trial": 2}


def test_a_worker_for_a_search_that_is_over_is_not_let_in(dataset, storage):
    run(dataset, storage)
    late = Search(CONFIG, dataset, storage, "study", "host")
    assert not late.join(1)
    assert late.join(None)


def test_a_full_disk_is_told(dataset, storage):
    found = opened(dataset, storage, replace(CONFIG, trials=50))

    def limit(connection, _record):
        connection.execute(f"pragma max_page_count = {connection.execute('pragma page_count').fetchone()[0]}")

    event.listen(found.storage.engine, "connect", limit)
    found.storage.engine.dispose()
    with pytest.raises(InputError, match=r"^parameter 'storage': the disk of .*studies.db is full"), found.at_work():
        found.run(lambda trial, curves: None)


@pytest.mark.parametrize("place", ["/no/such/folder/studies.db", "/dev/null/studies.db"])
def test_a_folder_that_is_not_there_is_told(place, dataset):
    with pytest.raises(InputError, match="parameter 'storage': the folder of an sqlite file must exist"):
        opened(dataset, f"sqlite:///{place}")


def test_a_file_that_is_no_database_is_told(dataset, tmp_path):
    (tmp_path / "studies.db").write_text("something else " * 500)
    with pytest.raises(InputError, match="parameter 'storage': a database that Optuna can use is needed, but "):
        opened(dataset, f"sqlite:///{tmp_path}/studies.db")


def test_an_unknown_kind_of_database_is_told_without_the_password(dataset):
    with pytest.raises(InputError, match=r"no database answers at|no driver for nosuchdb is installed") as caught:
        opened(dataset, "nosuchdb://me:s3cret@127.0.0.1:9/db")
    assert "s3cret" not in str(caught.value)


def test_what_may_pass_is_tried_again_and_what_may_not_is_raised():
    from sqlalchemy.exc import OperationalError

    calls = []

    def deadlocked():
        calls.append(1)
        if len(calls) < 3:
            raise OperationalError("update", {}, Exception(1213, "Deadlock found"))
        return "done"

    assert retry_database(deadlocked)() == "done"
    calls.clear()

    def denied():
        calls.append(1)
        raise OperationalError("update", {}, Exception(1045, "Access denied"))

    with pytest.raises(OperationalError):
        retry_database(denied)()
    assert len(calls) == 1
