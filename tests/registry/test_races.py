"""Promotions of several processes at once, some of them killed, on every kind of store.

A shorter form of `python -m bench.promotion`, where the numbers are. Each seed has four racers in every round and
kills in the last.
"""

import threading
import time

import pytest

from bench import races, trial_races
from recsys.tracking import connection
from tests.support.pipeline import serving


@pytest.fixture(scope="module")
def mariadb_store(mariadb):
    """The URL of a database with MLflow's tables."""
    uri = mariadb.new_database("races")
    connection.connect(uri)
    return uri


def check(outcome, rounds):
    assert outcome.rounds == rounds
    assert outcome.failures == []
    assert outcome.unrest == []
    assert outcome.wrong_production == []
    assert outcome.wrong_champion == []
    assert outcome.without_champion == 0
    assert outcome.observations > 10 * rounds
    assert outcome.killed > 0


def test_on_sqlite_one_champion_is_left_the_right_one(registry):
    check(races.race(registry.uri, registry.uri, rounds=2, seed=5), 2)


def test_on_mariadb_one_champion_is_left_the_right_one(mariadb_store):
    check(races.race(mariadb_store, mariadb_store, rounds=2, seed=5), 2)


def test_over_a_server_on_mariadb_one_champion_is_left_the_right_one(mariadb_store, registry):
    with serving(registry, "server", uri=mariadb_store) as address:
        check(races.race(address, mariadb_store, rounds=1, seed=17), 1)


@pytest.mark.stops_database
def test_a_database_that_restarts_in_a_promotion_leaves_the_next_one_right(mariadb, mariadb_store):
    with races.workers(mariadb_store) as pool:
        worker = pool[0]
        worker.order(races.register, "restart", [0.7, 0.8])
        assert worker.answer() == 2
        for auc in (0.81, 0.82, 0.83):
            worker.order(races.take_part, races.promote, "restart", auc)
            restart = threading.Timer(0.1, mariadb.restart)
            restart.start()
            answer = worker.answer()
            restart.join()
            assert answer == "" or "MlflowException" in answer
            worker.order(races.promote, "restart", None)
            assert worker.answer() == ""
            production, champion, best = races.look("restart", mariadb_store)
            assert production == champion == best
            time.sleep(0.1)


def test_trials_begun_and_ended_at_once_leave_one_champion_and_no_challenger(registry):
    outcome = trial_races.race(registry.uri, registry.uri, rounds=2, seed=3)
    assert outcome.wrong == []
    assert outcome.without_champion == 0
    assert outcome.killed > 0
