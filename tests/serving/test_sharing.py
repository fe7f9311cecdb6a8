"""Feedback in the team's database: several servers, and a database that goes away."""

import asyncio
import sqlite3
import threading
from contextlib import contextmanager

import pytest

from recsys.errors import InputError
from recsys.monitoring.archive import Archive
from recsys.retraining.feedback import collect
from recsys.serving.feedback import Event, FeedbackStore
from recsys.serving.outbox import Outbox
from recsys.serving.sharing import Sharing, remove_person
from tests.support.waiting import wait


def shared(happened, what, *sites):
    """Wait for what is shared, while nothing may be wrong with that."""

    def no_problem():
        assert [site.store.sharing()[1] for site in sites] == [""] * len(sites)
        return happened()

    wait(no_problem, what)


def event(key, value=4.0, user="u", item="i1"):
    return Event(key.rjust(32, "0"), user, item, "rating", value, "", 1.0, None)


def add(store, *events, **arguments):
    return asyncio.run(store.add(events, **arguments))


class Site:
    """One server's file, its copying, and what the team's database has."""

    def __init__(self, path, url):
        self.path = path
        self.url = url
        self.store = FeedbackStore(path)

    @contextmanager
    def sharing(self):
        stop = threading.Event()
        running = Sharing(self.path, self.url)
        thread = threading.Thread(target=running.run, args=(stop,))
        thread.start()
        try:
            yield running
        finally:
            stop.set()
            thread.join()

    def waits(self):
        return self.store.sharing()[0]


@pytest.fixture
def sites(tmp_path, mariadb):
    url = mariadb.new_database("feedback")
    found = [Site(tmp_path / name / "feedback.db", url) for name in ("one", "two")]
    yield found
    for site in found:
        site.store.close()


def kept(mariadb):
    there = "select 1 from information_schema.tables where table_schema = 'feedback' and table_name = 'recsys_feedback'"
    if not mariadb.execute(there):  # the first who sends makes it
        return []
    return mariadb.execute("select `key`, value, server from feedback.recsys_feedback order by id")


def test_a_retraining_elsewhere_reads_what_all_servers_have_sent(sites, mariadb):
    one, two = sites
    assert list(Archive.of_team(one.url).feedback(0, 1e10)) == [], "nothing was ever sent"
    add(one.store, event("1"), event("2", user="v"))
    add(two.store, event("3", value=2.0))
    with one.sharing(), two.sharing():
        shared(lambda: len(kept(mariadb)) == 3, "all three events", one, two)
    archive = Archive.of_team(one.url)
    given = collect(archive, 0.0, 1e10, 1.0, kinds=(), implicit=False)
    assert sorted(zip(given.users, given.items, given.requests, strict=True)) == [("u", "i1", ""), ("v", "i1", "")]
    assert given.repeated == 1


def test_what_one_server_accepts_counts_on_the_other_even_what_came_before(sites, mariadb):
    one, two = sites
    add(one.store, event("1"), event("2", user="ü 日本", item="'; drop table x; --"))
    with one.sharing(), two.sharing():
        shared(lambda: two.store.of_user("u") == [("i1", 4.0)], "the event from before", one, two)
        add(two.store, event("3", 2.0, item="i2"))
        assert add(two.store, event("1", 1.0)) == 0  # it counts once wherever it is sent
        shared(lambda: len(one.store.of_user("u")) == 2, "the other's event", one, two)
        add(two.store, event("1", 5.0), replace=True)
        shared(lambda: one.store.of_user("u")[0] == ("i1", 5.0), "the new value", one, two)
        shared(lambda: not one.waits() and not two.waits(), "the sending", one, two)
    assert two.store.of_user("ü 日本") == [("'; drop table x; --", 4.0)]
    assert [row[1] for row in kept(mariadb)] == [5.0, 4.0, 2.0]
    assert one.waits() == two.waits() == 0  # what came from others is not sent back


def test_a_new_value_that_waits_is_not_undone_by_the_old_one_read_again(tmp_path):
    store, other = FeedbackStore(tmp_path / "feedback.db"), ["a" * 16]
    outbox = Outbox(store.path, "b" * 16)
    outbox.receive([event("1")], other)
    add(store, event("1", 5.0), replace=True)
    outbox.receive([event("1"), event("2", item="i2")], 2 * other)  # the last seconds are read again
    assert store.of_user("u") == [("i1", 5.0), ("i2", 4.0)]
    waiting = outbox.waiting(10)
    assert [one.value for one in waiting.events] == [5.0]
    outbox.sent(waiting.last)
    outbox.receive([event("1", 2.0)], other)  # a newer one of theirs
    assert store.of_user("u") == [("i1", 2.0), ("i2", 4.0)]
    outbox.close()
    store.close()


def test_more_than_one_transaction_takes_arrives_once(sites, mariadb):
    one, two = sites
    events = [event(f"{number:x}", item=f"i{number}") for number in range(2500)]
    add(one.store, *events)
    with one.sharing(), two.sharing():
        shared(lambda: len(two.store.of_user("u")) == 2500, "all of them", one, two)
    assert len(kept(mariadb)) == 2500
    assert two.store.of_user("u") == one.store.of_user("u")


@pytest.mark.stops_database
def test_while_the_database_is_away_feedback_waits_in_the_file_and_is_counted(sites, mariadb):
    one, _ = sites
    with one.sharing():
        add(one.store, event("1"))
        shared(lambda: not one.waits(), "the sending", one)
        mariadb.stop(9)
        assert add(one.store, event("2"), event("3")) == 2
        wait(lambda: one.store.sharing()[1], "word of the absence")
        assert one.waits() == 2
        assert one.store.of_user("u") == [("i1", 4.0)] * 3
    with one.sharing():  # another start, still without the database
        assert one.waits() == 2
        mariadb.start()
        wait(lambda: one.store.sharing() == (0, ""), "the sending")
    assert len(kept(mariadb)) == 3


@pytest.mark.stops_database
def test_a_person_is_forgotten_here_and_in_the_team_s_database(sites, mariadb):
    one, two = sites
    add(one.store, event("1", user="alice"), event("2", user="bob"))
    with one.sharing(), two.sharing():
        shared(lambda: not one.waits() and two.store.of_user("bob"), "the sending", one, two)
    add(one.store, event("3", user="alice", item="i2"))  # which has not been sent
    for url in (one.url, mariadb.new_database("empty")):
        assert remove_person(url, "alice", dry_run=True) == (url == one.url)
    assert Archive.of_folder(one.path.parent).forget("alice") == {"feedback": 2}
    assert one.waits() == 0
    assert remove_person(one.url, "alice") == 1
    assert remove_person(one.url, "alice") == 0
    with one.sharing(), two.sharing():
        add(two.store, event("4", user="bob", item="i2"))
        shared(lambda: len(one.store.of_user("bob")) == 2, "the other's event", one, two)
    assert one.store.of_user("alice") == []
    assert [row[0].strip("0") for row in kept(mariadb)] == ["2", "4"]
    mariadb.stop(9)
    try:
        with pytest.raises(InputError, match="run forget again when it answers"):
            remove_person(one.url, "alice")
    finally:
        mariadb.start()


def test_what_was_sent_and_not_let_go_of_is_sent_again_to_no_effect(sites, mariadb):
    one, _ = sites
    add(one.store, event("1"))
    with one.sharing():
        shared(lambda: not one.waits(), "the sending", one)
    with sqlite3.connect(one.path) as database:  # as if killed between the two commits
        database.execute("insert into outbox (key, replaces) select key, 0 from feedback")
    with one.sharing():
        shared(lambda: not one.waits(), "the sending", one)
    assert len(kept(mariadb)) == 1


def test_an_event_waits_from_the_commit_that_keeps_it(tmp_path):
    outbox = Outbox(tmp_path / "feedback.db", "me")
    store = FeedbackStore(tmp_path / "feedback.db")
    assert add(store, event("1"), event("2")) == 2  # triggers do not count
    assert add(store, event("1", 5.0), replace=True) == 1
    found = outbox.waiting(10)
    assert [(row.key[-1], row.value) for row in found.events] == [("1", 5.0), ("2", 4.0), ("1", 5.0)]
    assert found.replaces == [False, False, True]
    outbox.sent(found.last)
    assert store.sharing() == (0, "")
    outbox.tell("gone")
    assert store.sharing() == (0, "gone")
    store.close()
    outbox.close()


def test_a_file_of_an_earlier_release_goes_on(tmp_path):
    with sqlite3.connect(tmp_path / "feedback.db") as database:
        database.execute(
            "create table feedback (id integer primary key, key text not null unique, user text not null, "
            "item text not null, kind text not null, value real, moment text not null, received real not null, "
            "request text)"
        )
        database.execute("insert into feedback values (1, 'k', 'u', 'i1', 'rating', 3, '', 1, null)")
    store = FeedbackStore(tmp_path / "feedback.db")
    assert store.of_user("u") == [("i1", 3.0)]
    assert add(store, event("9", item="i2")) == 1
    store.close()
