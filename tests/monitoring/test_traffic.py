import json

import numpy as np

from recsys.monitoring.attribution import attribute, event_times, newest_of_each
from recsys.monitoring.traffic import Names, parse_moments, read_feedback, read_traffic

DAY = 86_400.0


def shown(request, moment, user, items, version="1", first=0):
    likes = np.linspace(0.9, 0.1, len(items)).astype("<f4").tobytes()
    return request, moment, user, version, "champion", "personal", first, json.dumps(items), likes, None


def event(user, item, received, *, moment="", request=None, kind="rating", value=4.0):
    return f"{user}{item}{received}", user, item, kind, value, moment, received, request


def joined(lists, events, within=7 * DAY):
    names = Names.empty()
    traffic, feedback = read_traffic([lists] if lists else [], names), read_feedback([events], names)
    places = attribute(feedback, traffic, within, event_times(feedback))
    return [None if at < 0 else str(traffic.requests[traffic.lists[at]]) for at in places]


LISTS = [shown("r1", 100.0, "u", ["a", "b"]), shown("r2", 200.0, "u", ["b", "c"]), shown("r3", 300.0, "v", ["a", "b"])]


def test_an_event_answers_the_request_that_it_names_however_late():
    assert joined(LISTS, [event("u", "b", 90 * DAY, request="r1")]) == ["r1"]


def test_an_item_that_the_named_request_did_not_show_is_looked_for_elsewhere():
    assert joined(LISTS, [event("u", "c", 250.0, request="r1"), event("u", "never", 250.0, request="r1")]) == [
        "r2",
        None,
    ]


def test_else_it_answers_the_last_list_that_showed_its_user_the_item():
    events = [event("u", "b", 10_000.0), event("u", "a", 10_000.0), event("v", "c", 10_000.0)]
    assert joined(LISTS, events) == ["r2", "r1", None]


def test_not_after_the_time_within_which_it_may_come():
    assert joined(LISTS, [event("u", "a", 100 + DAY), event("u", "a", 1000 + 8 * DAY)]) == ["r1", None]


def test_late_feedback_belongs_to_the_list_before_its_moment():
    lists = [shown("r1", 1000.0, "u", ["b"]), shown("r2", 9000.0, "u", ["b"])]
    assert joined(lists, [event("u", "b", 5 * DAY, moment="5000")], within=6000) == ["r1"]


def test_events_without_lists_and_lists_without_events():
    assert joined([], [event("u", "b", 5.0)]) == [None]
    assert joined(LISTS, []) == []


def test_the_last_of_a_kind_counts():
    names = Names.empty()
    feedback = read_feedback([[event("u", "a", 1.0), event("u", "a", 2.0, kind="click"), event("u", "a", 3.0)]], names)
    assert newest_of_each(feedback).tolist() == [1, 2]


def test_an_event_is_repeated_if_all_of_it_is():
    names = Names.empty()
    events = [
        event("u", "a", 1.0, moment="1"),
        event("u", "a", 2.0, moment="1"),
        event("u", "a", 3.0, moment="2"),
        event("u", "a", 4.0, moment="2", value=5.0),
        event("u", "a", 5.0, kind="click"),
        event("u", "a", 6.0, kind="click"),
    ]
    assert read_feedback([events], names).repeated.tolist() == [False, True, False, False, False, False]


def test_moments_are_read_as_clients_write_them():
    texts = [
        "2026-11-29T12:00:00Z",
        "2026-11-29 13:00:00+01:00",
        "1796000000",
        "1796000000000",
        "",
        "soon",
        "2026-11-29",
    ]
    found = parse_moments(texts)
    assert found[0] == found[1] == 1795953600.0
    assert found[2] == found[3] == 1796000000.0
    assert np.isnan(found[4:6]).all()
    assert found[6] == 1795953600.0 - 12 * 3600


def test_positions_count_from_the_offset_and_pages_are_put_together():
    names = Names.empty()
    traffic = read_traffic([LISTS[:1], [shown("r9", 400.0, "u", ["c", "d"], first=10)]], names)
    assert traffic.positions.tolist() == [0, 1, 10, 11]
    assert traffic.sizes.tolist() == [2, 2]
    assert np.allclose(traffic.likes, [0.9, 0.1, 0.9, 0.1])
    assert traffic.select(np.array([1])).items.tolist() == [names.items["c"], names.items["d"]]
