"""The same searches against a real MariaDB or MySQL."""

import socket
import threading
import time
from dataclasses import replace

import pytest
import sqlalchemy

from recsys.errors import InputError
from recsys.testing.datasets import rated
from recsys.tuning import search as searches
from recsys.tuning import storage as storages
from recsys.tuning.search import Search
from recsys.tuning.study import SearchConfig
from recsys.tuning.trials import DONE
from tests.support.services import free_port

CONFIG = SearchConfig("bias", trials=3, heartbeat=1)


@pytest.fixture
def dataset(prepare_rows):
    return prepare_rows(rated(20, 20, 1, 5, step=1))


def account(mariadb, name, *grants):
    """The address of the server for an account whose password is s3cr%t@x."""
    user = f"'{name}'@'%'"
    mariadb.execute(f"drop user if exists {user}", f"create user {user} identified by 's3cr%t@x'")
    mariadb.execute(*(grant.format(user) for grant in grants)) if grants else None
    scheme, _, place = mariadb.address.partition("://")
    return f"{scheme}://{name}:s3cr%25t%40x@{place.rpartition('@')[2]}"


def opened(dataset, url, **changes):
    found = Search(replace(CONFIG, **changes), dataset, url, "study", "host")
    found.join()
    return found


def test_a_database_that_is_not_there_is_made_where_the_account_may(mariadb, dataset):
    mariadb.execute("drop database if exists `new one`")
    url = account(mariadb, "maker", "grant all on *.* to {}") + "/new%20one"
    found = opened(dataset, url)
    with found.at_work():
        found.run(lambda trial, curves: None)
    assert len(opened(dataset, url).trials()) == 3


@pytest.mark.parametrize("grant", [(), ("grant select on mysql.* to {}",)])
def test_an_account_that_may_not_make_it_is_told_what_to_have_done(grant, mariadb, dataset):
    url = account(mariadb, "reader", *grant) + "/not_there"
    with pytest.raises(InputError, match="has no database 'not_there' that the account 'reader' may use") as caught:
        opened(dataset, url)
    assert "CREATE DATABASE `not_there`" in str(caught.value)
    assert "s3cr" not in str(caught.value)


def test_a_wrong_password_is_told_without_it(mariadb, dataset):
    url = account(mariadb, "anna").replace("s3cr", "wr0ng") + "/optuna"
    with pytest.raises(InputError, match=r"127.0.0.1:\d+ refuses the account 'anna': wrong user or password") as caught:
        opened(dataset, url)
    assert "wr0ng" not in str(caught.value)


@pytest.mark.service
def test_a_server_that_is_not_there_is_told_within_ten_seconds(dataset):
    port = free_port()
    began = time.monotonic()
    with pytest.raises(InputError, match=f"no database answers at 127.0.0.1:{port}") as caught:
        opened(dataset, f"mysql+pymysql://anna:s3cret@127.0.0.1:{port}/optuna")
    assert time.monotonic() - began < 10
    assert "s3cret" not in str(caught.value)


def test_a_server_that_is_just_starting_is_waited_for(mariadb, dataset, monkeypatch):
    url = mariadb.new_database("starting")
    connect, refusals = socket.create_connection, [ConnectionRefusedError()] * 3

    def starting(*arguments, **options):
        if refusals:
            raise refusals.pop()
        return connect(*arguments, **options)

    monkeypatch.setattr(socket, "create_connection", starting)
    assert len(opened(dataset, url).trials()) == 1
    assert not refusals


@pytest.mark.service
def test_a_server_that_says_nothing_is_told_within_ten_seconds(dataset):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(InputError, match=f"127.0.0.1:{port}") as caught:
            opened(dataset, f"mysql+pymysql://anna:s3cret@127.0.0.1:{port}/optuna")
        assert time.monotonic() - began < 10
        assert "s3cret" not in str(caught.value)


def test_a_host_of_no_such_name_is_told(dataset):
    with pytest.raises(InputError, match=r"there is no host of the name in no.such.host.invalid:3306"):
        opened(dataset, "mysql+pymysql://anna:s3cret@no.such.host.invalid/optuna")


def test_two_may_record_the_first_heartbeat_of_a_trial(mariadb, dataset, monkeypatch):
    """Its worker, and one that sees it under the lock before the worker got so far."""
    found = opened(dataset, mariadb.new_database("first"))
    trial_id = found.study.ask()._trial_id
    real = storages._add_missing

    def overtaken(connection, *arguments):
        monkeypatch.setattr(storages, "_add_missing", real)
        found.storage.record_heartbeat(trial_id)
        connection.execute(sqlalchemy.insert(storages.models.TrialHeartbeatModel), [{"trial_id": trial_id}])

    monkeypatch.setattr(storages, "_add_missing", overtaken)
    assert found.storage.begin(trial_id) == 0


@pytest.mark.parametrize("restart", [False, True])
def test_workers_that_start_together_run_exactly_the_trials_asked_for(restart, mariadb, dataset, monkeypatch):
    """On a new database, whose tables they make at the same time; the server is restarted under them."""
    if restart and not mariadb.is_private:
        pytest.skip("the server is somebody else's")
    url = mariadb.new_database(f"together_{restart}".lower())

    def measure(self, config, report, into):
        for step in range(1, 4):
            report(step, 0.5)
        time.sleep(0.1)
        into.value, into.metrics = 0.5, {"auc": 0.5}
        return into

    monkeypatch.setattr(searches.TrialObjective, "measure", measure)
    ended, answers = [], []
    start = threading.Barrier(4)

    def work():
        start.wait()
        worker = opened(dataset, url, trials=24, heartbeat=2)
        with worker.at_work():
            worker.run(lambda trial, curves: ended.append(trial.number))
            while (answer := worker.contend()) == "wait":
                time.sleep(0.05)
            if answer == "finish":
                worker.close({"trial": 0})
            answers.append(answer)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    if restart:
        limit = time.monotonic() + 60
        while len(ended) < 6:
            assert time.monotonic() < limit
            time.sleep(0.05)
        mariadb.restart()
    for thread in threads:
        thread.join(120)
    found = opened(dataset, url).trials()
    assert sum(trial.state in DONE for trial in found) == 24
    assert len(ended) == len(set(ended)) == len(found) - sum(trial.state not in DONE for trial in found)
    assert sorted(answers) == ["finish", "over", "over", "over"]
