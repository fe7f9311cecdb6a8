"""The demonstration as a picture: who answered when, what the judge saw of each trial, and what happened."""

import html
from typing import Any

import numpy as np

from demo.site import MODEL
from demo.story import Story

_WIDTH, _LEFT, _RIGHT = 920, 88, 16
_TOP, _LISTS, _GAP, _TRIALS, _LINE = 84, 120, 40, 110, 19  # heights
_BINS = 120
_COLOURS = ("#9aa7b4", "#1f77b4", "#ff7f0e", "#d62728", "#2ca02c", "#9467bd")  # of versions 1, 2, …
_TEXT, _FAINT = "#1c2733", "#5d6b79"


def draw(story: Story) -> str:
    """The picture as SVG, from the record of the server and what its judge wrote of the trials."""
    rows = np.array([(moment, int(version)) for moment, version in story.site.lists()])
    moments, versions = rows[:, 0] - story.began_at, rows[:, 1].astype(int)
    marks = story.marks
    start, end = 0.0, max(moments.max(), marks[-1][0]) + 1
    scale = (_WIDTH - _LEFT - _RIGHT) / (end - start)
    height = _TOP + _LISTS + _GAP + _TRIALS + 34 + _LINE * ((len(marks) + 1) // 2) + 12

    def x(seconds: float) -> float:
        return _LEFT + (seconds - start) * scale

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        'font-family="system-ui, Segoe UI, Helvetica, Arial, sans-serif" font-size="12" '
        'aria-label="One run of make demo: lists by version, the trials of three versions, and what happened">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(_LEFT, 22, f"One run of make demo: {end:.0f} seconds, {len(rows):,} lists", size=15, weight=600),
        *_lists(moments, versions, end, x),
        *_sequences(story, x),
        *_marks(marks, x),
        "</svg>\n",
    ]
    return "\n".join(parts)


def _lists(moments: Any, versions: Any, end: float, x: Any) -> list[str]:
    """How many lists each version made, over time, one above the other."""
    edges = np.linspace(0, end, _BINS + 1)
    names = sorted(set(versions.tolist()))
    counts = np.array([np.histogram(moments[versions == name], edges)[0] for name in names])
    per = _LISTS / max(counts.sum(0).max(), 1)
    parts, bottom = [], _TOP + _LISTS
    for number, name in enumerate(names):
        below = counts[:number].sum(0)
        for at in np.flatnonzero(counts[number]):
            y = bottom - (below[at] + counts[number, at]) * per
            shape = f'x="{x(edges[at]):.1f}" y="{y:.1f}" width="{x(edges[1]) - x(0):.1f}"'
            parts.append(f'<rect {shape} height="{counts[number, at] * per:.1f}" fill="{_colour(name)}"/>')
        left = _LEFT + 90 * number
        parts.append(f'<rect x="{left}" y="32" width="11" height="11" fill="{_colour(name)}"/>')
        parts.append(_text(left + 16, 42, f"version {name}"))
    parts.append(_axis(bottom))
    return [*parts, _text(_LEFT - 8, _TOP + 12, "lists", anchor="end", fill=_FAINT)]


def _sequences(story: Story, x: Any) -> list[str]:
    """The confidence sequence of each trial: the challenger's reward less the champion's."""
    from recsys.tracking import runs  # brings MLflow

    top = _TOP + _LISTS + _GAP
    middle = top + _TRIALS / 2
    found = [runs.read_json(run, "trial.json") for run, _ in runs.find_runs({"trial_ending": MODEL})]
    pages = [page for page in found if page is not None]
    points = {page["version"]: [one for one in page["course"] if one["low"] is not None] for page in pages}
    widest = max((abs(course[-1]["difference"]) for course in points.values() if course), default=0.1)
    most = 2 * max(widest, 0.05)

    def y(value: float) -> float:
        return middle - float(np.clip(value / most, -1, 1)) * _TRIALS / 2

    parts = [_axis(middle)]
    for version, course in sorted(points.items()):
        if not course:  # a guard was quicker
            continue
        course = course * 2 if len(course) == 1 else course
        at = [x(one["at"] - story.began_at) for one in course]
        at = [at[0] - 2, at[0] + 2] if at[0] == at[-1] else at  # one look is drawn as a bar
        upper = [f"{here:.1f},{y(one['high']):.1f}" for here, one in zip(at, course, strict=True)]
        lower = [f"{here:.1f},{y(one['low']):.1f}" for here, one in zip(at, course, strict=True)]
        line = " ".join(f"{here:.1f},{y(one['difference']):.1f}" for here, one in zip(at, course, strict=True))
        colour = _colour(version)
        parts.append(f'<polygon points="{" ".join(upper + lower[::-1])}" fill="{colour}" fill-opacity="0.22"/>')
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
    words = ("challenger", "less", "champion")
    parts += [_text(_LEFT - 8, middle - 14 + 14 * at, word, anchor="end", fill=_FAINT) for at, word in enumerate(words)]
    return [*parts, _text(_LEFT, top - 8, "difference in what users took of a list, with its confidence sequence",
                          fill=_FAINT)]  # fmt: skip


def _marks(marks: list[tuple[float, str]], x: Any) -> list[str]:
    """Numbers over the picture, and what they stand for below it."""
    parts, bottom = [], _TOP + _LISTS + _GAP + _TRIALS
    half, last = (len(marks) + 1) // 2, -100.0
    for number, (seconds, sentence) in enumerate(marks, 1):
        here = x(seconds)
        row = 64 if here - last >= 18 else 78
        last = here if row == 64 else last
        parts.append(f'<path d="M{here:.1f} {row + 4}V{bottom}" stroke="{_FAINT}" stroke-width="0.8" opacity="0.6"/>')
        parts.append(_text(here, row, str(number), anchor="middle", weight=600))
        column, line = divmod(number - 1, half)
        left, y = 30 + column * 455, bottom + 30 + _LINE * line
        parts.append(_text(left, y, str(number), anchor="end", weight=600))
        parts.append(_text(left + 44, y, f"{seconds:.0f} s", anchor="end", fill=_FAINT))
        parts.append(_text(left + 52, y, sentence))
    return parts


def _axis(y: float) -> str:
    return f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="{_FAINT}" stroke-width="1"/>'


def _colour(version: int) -> str:
    return _COLOURS[(version - 1) % len(_COLOURS)]


def _text(
    x: float, y: float, words: str, *, anchor: str = "start", fill: str = _TEXT, size: int = 12, weight: int = 400
) -> str:
    shape = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}" font-size="{size}" font-weight="{weight}"'
    return f"<text {shape}>{html.escape(words)}</text>"
