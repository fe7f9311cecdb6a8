"""The harness's own logic, on a handful of rows and with models that need no library; no network."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bench.peers import compare as comparing
from bench.peers import environments
from bench.peers.__main__ import named
from bench.peers.compare import compare, fewest_rounds
from bench.peers.contest import Arena, fill, run, score
from bench.peers.contestants import PEERS, Contestant, ours
from bench.peers.data import Problem, Rows, Truth, folds, synthetic, tenths
from bench.peers.environments import UnavailableError
from bench.peers.report import plot, report
from bench.peers.search import Found, Settings, search
from recsys.errors import InputError

TRAIN = Rows(np.array(["a", "a", "b", "c"]), np.array(["x", "y", "x", "y"]), np.array([5.0, 3.0, 4.0, 2.0]))
TEST = Rows(np.array(["a", "b", "new", "b"]), np.array(["x", "y", "x", "new"]), np.array([4.0, 2.0, 5.0, 4.0]))
PROBLEM = Problem("toy", TRAIN, TEST, (1.0, 5.0))

# Writes down what it was given; predicts settings["says"] for all rows.
TELLS = """
import json, numpy as np
def load(rows):
    return {name: getattr(rows, name) for name in ("users", "items", "ratings")}
def fit(data, settings, seed):
    def predict(rows):
        seen = {name: values.tolist() for name, values in data.items()}
        seen |= {"test": [rows.users.tolist(), rows.items.tolist(), rows.ratings], "seed": seed}
        with open(settings["log"], "a") as log:
            log.write(json.dumps(seen) + "\\n")
        return np.array(settings["says"], float)
    return predict
"""
FAILS = "def load(rows):\n    raise RuntimeError('the library broke')\n"


@pytest.fixture
def contestant(tmp_path):
    """Makes a contestant of a model's code; it runs in this interpreter."""

    def contestant(code: str, name: str = "peer", **options) -> Contestant:
        model = tmp_path / f"{name}.py"
        model.write_text(code)
        return Contestant(name, model, **options)

    return contestant


@pytest.fixture
def arena(tmp_path):
    return Arena(PROBLEM, tmp_path / "arena", limit=60)


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """Compares contestants on the toy problem."""
    monkeypatch.setattr(comparing, "problems", lambda name, cache: [PROBLEM])

    def toy(*line_up, rounds=1, kept=None):
        kept = kept or Settings(tmp_path / "none.json")
        return compare("toy", line_up, kept, tmp_path / "toy", tmp_path, rounds, 60, 0)

    return toy


@pytest.mark.process
def test_all_get_the_same_rows_and_none_the_ratings_of_the_test(contestant, toy, tmp_path):
    logs = [tmp_path / name for name in ("one.log", "other.log")]
    toy(*(contestant(TELLS, log.stem, first={"says": [3, 3, 3, 3], "log": str(log)}) for log in logs))
    one, other = (json.loads(log.read_text()) for log in logs)
    assert one == other
    assert one["users"] == ["a", "a", "b", "c"]
    assert one["ratings"] == [5.0, 3.0, 4.0, 2.0]
    assert one["test"] == [["a", "b", "new", "b"], ["x", "y", "x", "new"], None]


@pytest.mark.process
def test_predictions_are_clipped_and_the_missing_filled_and_counted(contestant, arena, tmp_path):
    peer = contestant(TELLS, first={"says": [9, -9, None, None], "log": str(tmp_path / "log")})
    fit = arena.fit(peer, peer.first, 0)
    assert fit.filled == 2
    mean = np.mean(TRAIN.ratings)
    filled, _ = fill(PROBLEM, np.array([9.0, -9.0, np.nan, np.inf]))
    assert filled[:2].tolist() == [5.0, 1.0]
    # a new user leaves the mean and the bias of x, rated above it; a new item those of b, who rates above it too
    assert mean < filled[2] < 5
    assert mean < filled[3] < 5
    assert fit.scores["rmse"] == pytest.approx(np.sqrt(np.mean((filled - TEST.ratings) ** 2)))


def test_too_few_predictions_are_a_failure():
    with pytest.raises(UnavailableError, match=r"4 predictions are needed, got an array of shape \(3,\)"):
        fill(PROBLEM, np.zeros(3))


def test_scores_worked_by_hand():
    # All rows but the second are likes; it scores above the first only, so 2 of 3 pairs are in order. Only b has both.
    scores = score(PROBLEM, np.array([1.0, 2.0, 4.0, 3.0]))
    assert scores == pytest.approx({"rmse": np.sqrt(11 / 4), "mae": 5 / 4, "auc": 2 / 3, "auc_per_user": 1.0})
    with_likes = score(PROBLEM, np.array([1.0, 2.0, 4.0, 3.0]), np.array([0.9, 0.5, 0.8, 0.1]))
    assert with_likes["auc"] == pytest.approx(2 / 3)
    assert with_likes["auc_per_user"] == 0.0
    assert with_likes["auc_per_user_of_rating"] == 1.0


@pytest.mark.process
def test_who_fails_is_reported_and_the_rest_goes_on(contestant, toy, tmp_path):
    fine = {"says": [4, 2, 5, 4], "log": str(tmp_path / "log")}
    absent = contestant(TELLS, "absent", pins=("no-such-package==0",), first=fine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environments, "_PIP", ("-c", "import sys; sys.exit('ERROR: no such package')"))
        patch.setattr(environments, "_VENV", ("-m", "venv", "--without-pip"))
        patch.setattr(environments.environment, "__defaults__", (tmp_path / "cache",))
        done = toy(contestant(FAILS, "broken"), absent, contestant(TELLS, "works", first=fine))
    broken, absent_line, works = done.lines
    assert broken.reason == "RuntimeError: the library broke"
    assert absent_line.reason == "not installed: ERROR: no such package"
    assert works.fit
    assert works.fit.scores["rmse"] == 0.0
    text = report(done)
    assert "broken did not run: RuntimeError: the library broke" in text
    assert "absent did not run: not installed: ERROR: no such package" in text
    assert "| works |" in text


@pytest.mark.process
def test_an_environment_whose_making_failed_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "_VENV", ("-m", "venv", "--without-pip"))
    monkeypatch.setattr(environments, "_PIP", ("-c", "import sys; sys.exit('no network')"))
    with pytest.raises(UnavailableError, match="not installed: no network"):
        environments.environment(["toy==1"], tmp_path)
    monkeypatch.setattr(environments, "_PIP", ("-c", "pass"))
    made = environments.environment(["toy==1"], tmp_path)
    assert made == environments.environment(["toy==1"], tmp_path)
    assert Path(made.python).exists()
    assert "PYTHONPATH" not in made.all_variables()
    assert environments.environment(["toy==2"], tmp_path) != made


@pytest.mark.process
def test_a_process_that_takes_too_long_is_ended_with_what_it_started(tmp_path):
    child = "import time, pathlib; time.sleep(1.5); pathlib.Path('alive').touch()"
    parent = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    start = time.monotonic()
    with pytest.raises(UnavailableError, match=r"ended after 0\.7 s"):
        run([sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r}); {parent}"], {}, tmp_path / "log", 0.7)
    assert time.monotonic() - start < 5
    time.sleep(2)
    assert not (tmp_path / "alive").exists()


@pytest.mark.process
def test_a_search_chooses_by_the_held_out_rows_and_starts_from_what_is_named_first(contestant, tmp_path):
    """The model predicts a constant, its setting; the best one is the mean of the held-out ratings."""
    code = "def load(rows):\n    pass\ndef fit(data, settings, seed):\n"
    code += "    if settings['level'] > 4:\n        raise ValueError(settings)\n"
    code += "    return lambda rows: [settings['level']] * len(rows.users)\n"
    peer = contestant(code, first={"level": 1.5}, space={"level": (1.0, 5.0)})
    arena = Arena(PROBLEM, tmp_path / "rows", 60)

    def tried(trials, seconds=60):
        return search(peer, arena, trials=trials, seconds=seconds, seed=0)

    first, best = tried(1), tried(8)
    assert first.settings == {"level": 1.5}
    assert first.validation_rmse == pytest.approx(np.sqrt(np.mean((TEST.ratings - 1.5) ** 2)), abs=1e-4)
    assert abs(best.settings["level"] - TEST.ratings.mean()) < 2
    assert best.validation_rmse < first.validation_rmse
    assert (best.trials, tried(8, seconds=0).trials) == (8, 1)


@pytest.mark.process
def test_a_search_in_which_nothing_ran_says_why(contestant, arena):
    with pytest.raises(UnavailableError, match="the library broke"):
        search(contestant(FAILS), arena, trials=2, seconds=60, seed=0)


@pytest.mark.process
def test_settings_are_kept_read_and_used(contestant, toy, tmp_path):
    peer = contestant(TELLS, first={"says": [1, 1, 1, 1], "log": str(tmp_path / "log")})
    found = Found({"says": [4, 2, 5, 4], "log": str(tmp_path / "log")}, 0.25, 7, 0, 1.0, "2026-01-01")
    Settings(tmp_path / "settings.json").keep("toy", peer, found)
    kept = Settings(tmp_path / "settings.json")
    assert kept.find("toy", peer) == kept.find("toy-folds", peer) == found
    assert kept.find("other", peer) is None
    line = toy(peer, kept=kept).lines[0]
    assert line.fit
    assert line.fit.scores["rmse"] == 0.0
    assert "best of 7 trials" in report(toy_of(line))


def toy_of(*lines):
    return comparing.Comparison("toy", [PROBLEM], lines, None)


def test_a_settings_file_that_is_no_json_is_told(tmp_path):
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(InputError, match=r"settings\.json: JSON is expected"):
        Settings(tmp_path / "settings.json")


def test_the_kept_settings_are_within_what_the_contestants_search():
    kept = Settings()
    found = [
        (peer, kept.find(name, peer)) for peer in PEERS for name in ("movielens-100k", "synthetic", "movielens-1m")
    ]
    assert any(one for _, one in found)
    for peer, one in found:
        assert one is None or set(one.settings) == set(peer.space)


def test_a_whole_name_means_its_bearer_and_a_word_all_that_hold_it():
    def chosen(*words):
        return [one.name for one in named([ours("bias"), *PEERS], words)]

    assert chosen("Surprise SVD", "cornac mf") == ["Surprise SVD", "cornac MF"]
    assert chosen("surprise") == ["Surprise SVD", "Surprise SVD++"]
    assert chosen("recsys", " SVD++ ") == [
        "recsys bias",
        "Surprise SVD++",
        "myFM, SVD++ terms",
        "myFM, SVD++ terms and sessions",
    ]
    assert chosen("nobody") == []


@pytest.mark.process
def test_fast_fits_are_repeated(contestant, toy, tmp_path):
    log = tmp_path / "log"
    peer = contestant(TELLS, first={"says": [3, 3, 3, 3], "log": str(log)})
    toy(peer, rounds=3)
    assert len(log.read_text().splitlines()) == 3


@pytest.mark.process
def test_slow_fits_are_not_repeated(contestant, toy, tmp_path, monkeypatch):
    monkeypatch.setattr(comparing, "REPEATED_BELOW", 0.0)
    log = tmp_path / "log"
    toy(contestant(TELLS, first={"says": [3, 3, 3, 3], "log": str(log)}), rounds=3)
    assert len(log.read_text().splitlines()) == 1


def test_the_shortest_fit_is_found_with_few_tries():
    tried = []

    def rmse(rounds):
        tried.append(rounds)
        return 1 / rounds

    for rounds in (1, 2, 3, 13, 64):
        assert fewest_rounds(rmse, 1 / rounds, 64) == rounds
    assert fewest_rounds(rmse, 1 / 65, 64) is None
    assert max(tried) == 64
    tried.clear()
    fewest_rounds(rmse, 1 / 13, 64)
    assert tried == [1, 2, 4, 8, 16, 12, 14, 13]


@pytest.mark.process
def test_how_short_a_fit_of_ours_is_as_good_is_measured_by_itself(contestant, tmp_path, monkeypatch):
    """Of all training rows, with nothing held back to choose by; the RMSE is the one of its own predictions."""
    small = synthetic(n_users=60, n_items=40, drawn=1500)
    monkeypatch.setattr(comparing, "problems", lambda name, cache: [small])
    monkeypatch.setattr(comparing, "MOST_ROUNDS", 2)
    peers = [
        contestant(TELLS, name, first={"says": says, "log": str(tmp_path / name)})
        for name, says in (("poor", np.full(len(small.test), 2.0).tolist()), ("perfect", small.test.ratings.tolist()))
    ]
    kept = Settings(tmp_path / "none.json")
    done = compare(
        "synthetic", [ours("bayesian_mf embedding_size=2"), *peers], kept, tmp_path / "rows", tmp_path, 1, 120, 0
    )
    assert set(done.lines[0].as_good) == {"poor"}
    found = done.lines[0].as_good["poor"]
    assert found.rounds == 1
    assert found.fit.scores["rmse"] <= done.lines[1].fit.scores["rmse"]
    text = report(done)
    assert "| as good as | RMSE | its fit s | samples | its RMSE | s | ratio |" in text
    assert "| perfect | 0.0000 |" in text
    assert "| never |" in text


@pytest.mark.process
def test_ours_goes_through_the_same_door(tmp_path, monkeypatch):
    """Text ids, ids that only the test has, a probability beside the rating, and a curve."""
    small = synthetic(n_users=60, n_items=40, drawn=1500)
    monkeypatch.setattr(comparing, "problems", lambda name, cache: [small])
    family = ours("matrix_factorization")
    kept = Settings(tmp_path / "settings.json")
    kept.keep("synthetic", family, Found({"epochs": 3, "embedding_size": 2}, 1.0, 1, 0, 1.0, "2026-01-01"))
    done = compare("synthetic", [family], kept, tmp_path / "rows", tmp_path, 1, 120, 0)
    first = done.lines[0]
    assert first.fit
    assert first.curve
    assert len(first.curve) == 3
    assert [seconds for seconds, _ in first.curve] == sorted(seconds for seconds, _ in first.curve)
    assert done.truth
    assert done.truth["rmse"] < first.fit.scores["rmse"]
    assert done.reference is first
    text = report(done)
    assert "ranks by its probability of a like" in text
    assert "| the truth |" in text
    plot(done).savefig(tmp_path / "plot.png")


@pytest.mark.process
def test_settings_that_are_part_of_a_line_are_not_searched(contestant, arena, tmp_path):
    assert dict(ours("bias damping=1").fixed) == {"family": "bias", "damping": "1"}
    peer = contestant(TELLS, fixed={"says": [4, 2, 5, 4], "log": str(tmp_path / "log")})
    assert arena.fit(peer, {"says": [1, 1, 1, 1]}, 0).scores["rmse"] == 0.0


def test_folds_are_consecutive_fifths():
    parts = folds(10)
    assert [test.tolist() for _, test in parts] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert all(sorted([*train, *test]) == list(range(10)) for train, test in parts)


def test_tenths_test_every_row_once_and_learn_from_all_others():
    parts = tenths(20)
    assert [len(test) for _, test in parts] == [2] * 10
    assert sorted(np.concatenate([test for _, test in parts])) == list(range(20))
    assert all(sorted([*train, *test]) == list(range(20)) for train, test in parts)


def test_the_synthetic_set_knows_its_truth():
    problem = synthetic(n_users=400, n_items=200, drawn=40_000)
    truth, ratings = problem.truth, problem.test.ratings
    assert isinstance(truth, Truth)
    assert set(np.unique(ratings)) <= set(np.arange(0.5, 5.1, 0.5))
    pairs = set(zip(problem.train.users, problem.train.items, strict=True))
    assert not pairs & set(zip(problem.test.users, problem.test.items, strict=True))
    # What it says is expected is what is seen, on average and where it says so, within four standard errors.
    error = ratings - truth.rating
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(len(error))
    assert abs(np.corrcoef(error, truth.rating)[0, 1]) < 4 / np.sqrt(len(error))
    assert abs(np.mean((ratings >= 4) - truth.like)) < 4 * 0.5 / np.sqrt(len(error))
    assert synthetic(n_users=400, n_items=200, drawn=40_000).digest() == problem.digest()


def test_the_held_out_rows_of_a_search_come_from_the_training_rows():
    problem = synthetic(n_users=40, n_items=30, drawn=800)
    halves = problem.halves()

    def pairs(rows):
        return set(zip(rows.users, rows.items, strict=True))

    assert pairs(halves.train) | pairs(halves.test) == pairs(problem.train)
    assert not pairs(halves.train) & pairs(halves.test)
    assert len(halves.test) == round(len(problem.train) / 10)
