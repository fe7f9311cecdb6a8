"""All contestants on all problems of a set, turn by turn; then how short a fit of ours is as good as each other."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from bench.peers.contest import Arena, Curve, Fit, score
from bench.peers.contestants import Contestant
from bench.peers.data import Problem, problems
from bench.peers.environments import UnavailableError
from bench.peers.search import Found, Settings

REPEATED_BELOW = 20.0  # seconds of a fit
MOST_ROUNDS = 64  # epochs, or draws, of a fit that is to be as good as another library


@dataclass(frozen=True)
class Line:
    """One contestant: the settings it ran with, what a search found, and how it did or why it did not."""

    contestant: Contestant
    settings: Mapping[str, Any]
    found: Found | None
    fit: Fit | None = None
    reason: str = ""
    curve: Curve | None = None
    as_good: Mapping[str, "AsGood"] = field(default_factory=dict)  # by the name of the other


@dataclass(frozen=True)
class AsGood:
    """A fit of ours to all training rows that is as good on the test rows as another library's."""

    rounds: int  # epochs, or draws: the fewest
    fit: Fit


@dataclass(frozen=True)
class Comparison:
    """A set's lines, in the order they ran; times and scores of several problems are means, memory the most."""

    name: str
    problems: Sequence[Problem]
    lines: Sequence[Line]
    truth: Mapping[str, float] | None

    @property
    def reference(self) -> Line | None:
        """Our first line that ran, which the ratios are of."""
        return next((line for line in self.lines if line.contestant.ours and line.fit), None)


def compare(
    name: str,
    line_up: Sequence[Contestant],
    kept: Settings,
    folder: Path,
    cache: Path,
    rounds: int,
    limit: float,
    seed: int,
) -> Comparison:
    """Fit everyone on the same rows; who fails is told and the rest goes on."""
    found = problems(name, cache)
    arenas = [Arena(problem, folder / f"problem-{number}", limit) for number, problem in enumerate(found)]
    lines = [_line(name, contestant, kept) for contestant in line_up]
    for turn in range(rounds):
        # Turn by turn, so that a busy minute of the machine meets all.
        lines = [_fit(line, arenas, seed) if turn == 0 or _repeats(line) else line for line in lines]
    if len(arenas) == 1:
        lines = [_watch(line, arenas[0], seed) if line.contestant.ours and line.fit else line for line in lines]
        others = {line.contestant.name: line.fit for line in lines if line.fit and not line.contestant.ours}
        lines = [_match(line, others, arenas[0], rounds, seed) if line.curve else line for line in lines]
    truth = found[0].truth
    best = score(found[0], truth.rating, truth.like) if truth else None
    return Comparison(name, found, lines, best)


def _line(name: str, contestant: Contestant, kept: Settings) -> Line:
    found = kept.find(name, contestant)
    return Line(contestant, found.settings if found else contestant.first, found)


def _repeats(line: Line) -> bool:
    return line.fit is not None and line.fit.fit_seconds < REPEATED_BELOW


def _fit(line: Line, arenas: Sequence[Arena], seed: int) -> Line:
    try:
        fit = mean_of([arena.fit(line.contestant, line.settings, seed) for arena in arenas])
    except UnavailableError as error:
        print(f"{line.contestant.name}: {error}", file=sys.stderr)
        # A line that has run before keeps what it reached then.
        return line if line.fit else replace(line, reason=str(error))
    return replace(line, fit=fastest(line.fit, fit) if line.fit else fit)


def fastest(one: Fit, other: Fit) -> Fit:
    """The first one's scores with the shorter of both times, and the larger of both peaks."""
    return replace(
        one,
        fit_seconds=min(one.fit_seconds, other.fit_seconds),
        predict_seconds=min(one.predict_seconds, other.predict_seconds),
        load_seconds=min(one.load_seconds, other.load_seconds),
        peak_gb=max(one.peak_gb, other.peak_gb),
    )


def mean_of(fits: Sequence[Fit]) -> Fit:
    """Means of times and scores over several problems, the largest memory, all filled rows."""
    return Fit(
        fit_seconds=fmean(fit.fit_seconds for fit in fits),
        predict_seconds=fmean(fit.predict_seconds for fit in fits),
        load_seconds=fmean(fit.load_seconds for fit in fits),
        imported_gb=max(fit.imported_gb for fit in fits),
        peak_gb=max(fit.peak_gb for fit in fits),
        filled=sum(fit.filled for fit in fits),
        scores={name: fmean(fit.scores[name] for fit in fits) for name in fits[0].scores},
    )


def _watch(line: Line, arena: Arena, seed: int) -> Line:
    try:
        return replace(line, curve=arena.watch(line.contestant, line.settings, seed) or None)
    except UnavailableError as error:
        print(f"{line.contestant.name}: no curve: {error}", file=sys.stderr)
        return line


def _match(line: Line, others: Mapping[str, Fit], arena: Arena, turns: int, seed: int) -> Line:
    """With the shortest fit of ours that is as good as each of the others, timed as theirs."""
    fits: dict[int, Fit] = {}

    def fit(rounds: int) -> Fit:
        if rounds not in fits:
            fits[rounds] = arena.fit(line.contestant, line.settings, seed, rounds)
        return fits[rounds]

    as_good = {}
    try:
        for name, other in others.items():
            rounds = fewest_rounds(lambda rounds: fit(rounds).scores["rmse"], other.scores["rmse"], MOST_ROUNDS)
            if rounds is not None:
                as_good[name] = rounds
        for rounds in sorted(set(as_good.values())):
            for _ in range(turns - 1):
                fits[rounds] = fastest(fits[rounds], arena.fit(line.contestant, line.settings, seed, rounds))
    except UnavailableError as error:
        print(f"{line.contestant.name}: no shortest fit: {error}", file=sys.stderr)
        return line
    return replace(line, as_good={name: AsGood(rounds, fits[rounds]) for name, rounds in as_good.items()})


def fewest_rounds(rmse: Callable[[int], float], goal: float, most: int) -> int | None:
    """The fewest rounds, up to `most`, whose RMSE is at most the goal; None if there are none.

    Twice as many are tried until they are enough, then the number is bracketed: more rounds are taken to be better.
    """
    low, high = 0, 1
    while rmse(high) > goal:
        low, high = high, 2 * high
        if high > most:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if rmse(middle) <= goal else (middle, high)
    return high
