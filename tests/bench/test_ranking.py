"""The harness of lists: splits, the search's budget, and what a process is given and gives back; no network."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from bench.peers.environments import OURS, UnavailableError
from bench.ranking import contest, worker
from bench.ranking.__main__ import _by_user, _row
from bench.ranking.contest import Scores, find_settings, fit, keep_settings, search
from bench.ranking.contestants import PEERS, Contestant
from bench.ranking.problems import Problem, hash_split, leave_one_out, within_users
from recsys.data.interactions import Interactions
from recsys.testing.datasets import prepared

FEWEST = """
import numpy as np
def fit(rows, settings, seed):
    counts = np.bincount(rows.items, rows.values, minlength=rows.shape[1]) * settings.get("sign", 1)
    return lambda users: np.tile(counts, (len(users), 1))
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user:02}", f"i{item:02}", int(rng.integers(1, 6)), int(rng.integers(0, 1000)))
        for user in range(20)
        for item in rng.permutation(30)[:16]
    ]
    return prepared(tmp_path_factory.mktemp("rows"), rows, test_size=0.2, validation_size=0.1)


def pairs(*parts: Interactions) -> list[tuple[int, int]]:
    return [pair for part in parts for pair in zip(part.users.tolist(), part.items.tolist(), strict=True)]


@pytest.mark.parametrize("split", [hash_split, within_users, leave_one_out])
def test_no_row_is_lost_or_twice_and_all_are_known(dataset, split):
    every = sorted(pairs(dataset.train, dataset.validation, dataset.test))
    for problem in split(dataset, 4.0):
        assert sorted(pairs(problem.train, problem.validation, problem.test)) == every
        assert problem.shape == (20, 30)


def test_a_quarter_of_each_user_is_drawn_anew_for_every_seed(dataset):
    problems = list(within_users(dataset, 1.0))
    assert len({tuple(pairs(problem.test)) for problem in problems}) == 5
    assert all((np.bincount(problem.test.users) == 4).all() for problem in problems)


def test_the_newest_rating_is_left_out(dataset):
    (problem,) = leave_one_out(dataset, 1.0)
    for user in range(20):
        newest = problem.test.timestamps[problem.test.users == user]
        before = problem.validation.timestamps[problem.validation.users == user]
        assert len(newest) == len(before) == 1
        assert newest[0] >= before[0] >= problem.train.timestamps[problem.train.users == user].max()


def problem_of(ratings=(5, 4, 1, 5)):
    def rows(*pairs_, rating=5.0):
        users, items = np.array(pairs_).T
        return Interactions(users, items, np.full(len(users), rating))

    test = Interactions(np.array([0, 1, 1, 2]), np.array([2, 2, 3, 0]), np.array(ratings, float))
    return Problem("toy", rows((0, 0), (0, 1), (1, 0), (1, 1), (2, 1), (2, 2)), rows((2, 3)), test, (3, 4), 4.0)


class Peer(Contestant):
    """Of another library by name, and run in this interpreter."""

    ours = False

    def environment(self):
        return OURS


def contestant(tmp_path) -> Peer:
    model = tmp_path / "fewest.py"
    model.write_text(FEWEST)
    return Peer("toy", model)


@pytest.mark.process
def test_lists_leave_out_what_was_learnt_from_and_only_likes_count(tmp_path):
    found = fit(contestant(tmp_path), {"input": "all"}, problem_of(), tmp_path / "run", 60, final=True)
    # Popularity: item 1 of 3 raters, 0 of 2, 2 and 3 of 1. Users 0 and 1 get 2 before 3, user 2 gets item 0 first.
    assert found.users.tolist() == [0, 1, 2]
    assert found.hit.tolist() == [1, 1, 1]
    assert found.ndcg == pytest.approx([1, 1, 1])
    last = fit(contestant(tmp_path), {"input": "all", "sign": -1}, problem_of(), tmp_path / "run", 60, final=True)
    assert last.ndcg[2] == pytest.approx(1)  # user 2 has rated all others
    job = json.loads((tmp_path / "run" / "job.json").read_text())
    with np.load(job["train"]) as given:
        assert len(given["users"]) == 7  # with the validation rows


@pytest.mark.process
def test_the_search_keeps_the_best_and_ends_with_the_time(tmp_path, monkeypatch):
    class Signed(Peer):
        def draws(self, trials, seed):
            return [{"input": "all", "sign": sign} for sign in (-1, 1, -1)]

    toy = Signed("toy", contestant(tmp_path).model)
    problem = problem_of()
    held = Interactions(np.array([0]), np.array([2]), np.array([5.0]))
    problem = Problem("toy", problem.train, held, problem.test, problem.shape, 4.0)
    found = search(toy, problem, tmp_path / "search", trials=3, seconds=1e9, limit=60)
    assert (found.settings["sign"], found.validation_ndcg, found.trials) == (1, 1.0, 3)
    assert search(toy, problem, tmp_path / "search", trials=3, seconds=0, limit=60).trials == 1
    monkeypatch.setattr(contest, "SETTINGS", tmp_path / "settings.json")
    assert find_settings("set", toy) is None
    keep_settings("set", toy, found)
    assert find_settings("set", toy) == found


@pytest.mark.process
def test_who_fails_is_unavailable_with_the_reason(tmp_path):
    broken = contestant(tmp_path)
    broken.model.write_text("def fit(*given):\n    raise RuntimeError('the library broke')\n")
    with pytest.raises(UnavailableError, match="the library broke"):
        search(broken, problem_of(), tmp_path / "search", trials=2, seconds=10, limit=60)


def test_draws_are_the_same_for_one_seed_and_begin_with_what_is_known_to_do_well():
    for peer in PEERS:
        drawn = peer.draws(14, seed=0)
        assert drawn == peer.draws(14, seed=0)
        assert [{key: one[key] for key in peer.first} for one in drawn[:3]] == [dict(peer.first)] * 3
        for name, (low, high) in peer.space.items():
            assert all(low <= one[name] <= high for one in drawn)


@pytest.mark.parametrize(("kind", "items", "values"), [("all", [0, 1], [1, 1]), ("ratings", [0, 1], [1, 0.4])])
def test_what_is_learnt_from_is_a_setting(kind, items, values):
    rows = SimpleNamespace(
        users=np.array([0, 0]), items=np.array([0, 1]), ratings=np.array([5.0, 2]), shape=(1, 2), relevant=4.0
    )
    found = worker.as_input(rows, kind)
    assert found.items.tolist() == items
    assert found.values.tolist() == pytest.approx(values)
    assert worker.as_input(rows, "likes").items.tolist() == [0]


def test_equal_scores_are_ordered_by_item_and_what_may_not_be_listed_is_left_out():
    found = worker.best(np.array([[1.0, 2, 2, -np.inf], [0, 0, 0, 0]]), 4)
    assert found.tolist() == [[1, 2, 0, -1], [0, 1, 2, 3]]


def scores(users, ndcg):
    values = np.array(ndcg, float)
    return Scores(np.array(users), values, values, values, values, 1.0)


def test_a_user_of_several_draws_counts_once():
    several = [scores([0, 1], [0.2, 1.0]), scores([1, 3], [0.5, 0.4])]
    assert _by_user(several, "ndcg") == pytest.approx([0.2, 0.75, 0.4])


def test_the_difference_is_paired():
    peer, ours = [scores([0, 1, 2], [0.1, 0.5, 0.9])], [scores([0, 1, 2], [0.2, 0.6, 1.0])]
    assert _row(peer, ours)[4] == "+0.1000 (+0.1000 to +0.1000)"
    assert _row(ours, ours)[4] == "-"
