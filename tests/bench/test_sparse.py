"""Behind by the rule of one standard error, on rows whose errors can be worked by hand."""

import math

import numpy as np
import pytest

from bench.sparse import Outcome, behind_best, draw_knobs, lines, main, make, seeds_line
from recsys.data.interactions import Interactions
from recsys.models.base.recommender import Predictions

RATINGS = np.array([1.0, 2.0, 3.0, 4.0])
LIKED = np.array([False, False, True, True])


def rows(users):
    return Interactions(np.array(users, np.int32), np.zeros(4, np.int32), RATINGS, None)


def predictions(errors, likes):
    return Predictions(RATINGS + np.array(errors), np.array(likes))


BEST = predictions([1, 0, 1, 0], [0.1, 0.4, 0.3, 0.9])  # mean squared error 0.5; three of four pairs in order


def test_the_unit_is_the_standard_error_of_the_best_ones_own_figure():
    """Squared errors 1, 0, 1, 0 of four users: the mean 0.5, its error 0.5 * sqrt(4) / 4 = 0.25."""
    other = predictions([1, 1, 1, 0], [0.4, 0.3, 0.2, 0.1])
    square, auc = behind_best({"simple": BEST, "ours": other}, other, rows([0, 1, 2, 3]), LIKED)
    assert square == pytest.approx((0.75 - 0.5) / 0.25)
    # Of the liked rows 0.5 and 1 of the others lie below, of the others 1 and 0.5 of the liked ones above.
    assert auc == pytest.approx((0.75 - 0) / math.sqrt(4 * (0.25 / 2) ** 2))


def test_ratings_of_one_user_count_together():
    """Two users with the errors 1, 1 and 0, 0: deviations of 1 and -1, so the error is sqrt(2) / 4."""
    best = predictions([1, 1, 0, 0], [0.1, 0.2, 0.3, 0.4])
    other = predictions([1, 1, 1, 1], [0.1, 0.2, 0.3, 0.4])
    square, auc = behind_best({"simple": best, "ours": other}, other, rows([0, 0, 1, 1]), LIKED)
    assert square == pytest.approx(0.5 / (math.sqrt(2) / 4))
    assert auc == 0


def test_the_best_one_is_not_behind_itself():
    other = predictions([2, 2, 2, 2], [0.4, 0.3, 0.2, 0.1])
    assert behind_best({"simple": other, "ours": BEST}, BEST, rows([0, 1, 2, 3]), LIKED) == (0, 0)


def test_without_a_row_of_each_class_there_is_no_auc():
    square, auc = behind_best({"ours": BEST}, BEST, rows([0, 1, 2, 3]), np.ones(4, bool))
    assert (square, auc) == (0, 0)


def outcome(paired, behind):
    ahead = {"bias": (paired, 0.0), "matrix_factorization": (0.0, 0.0)}
    scores = dict.fromkeys([*ahead, "bayesian_mf"], (0.9, 0.7))
    of_family = {"bias": (0.0, 2.0), "matrix_factorization": (0.0, 0.0), "bayesian_mf": behind}
    return Outcome(scores, ahead, of_family, "sampled True, factors 0, constancy 0.0", 1.0)


def test_sets_that_fail_are_counted_by_each_rule():
    found = [outcome(-1.5, (0.2, 0.1)), outcome(-2.5, (0.3, 1.2)), outcome(3.0, (0.0, 0.0))]
    line = seeds_line("made up", found)
    assert line[0] == "made up"
    assert line[1] == "-1.5 -2.5 +3.0"
    assert line[5:] == ["0.20 1.20 0.00", "2 of 3", "1 of 3", "3 sampled biases"]
    assert lines("one", found[1])[-1][4:8] == ["", "", "0.30", "1.20"]
    assert found[0].fails("bias")
    assert not found[0].fails()


def test_a_drawn_set_of_too_few_ratings_is_left_out_and_told(capsys):
    """Seed 652 draws so few that no row is for validation."""
    main(["drawn", "--first", "652", "--seeds", "1"])
    said = capsys.readouterr().out
    assert "seed 652, is left out: " in said
    assert "by the rule 0 of 0" in said


def test_drawn_knobs_are_the_same_for_a_seed():
    assert draw_knobs(5) == draw_knobs(5)
    assert draw_knobs(5) != draw_knobs(6)


def test_a_set_of_the_two_highest_levels_alone_has_likes_and_others(tmp_path):
    data = make({"users": 20, "items": 30, "median": 5, "constant": 0.0, "top": 0.5, "levels": (4, 5)}, tmp_path, 0)
    likes = data.likes(data.train)
    assert likes.any()
    assert not likes.all()
