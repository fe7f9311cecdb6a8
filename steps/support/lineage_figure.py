"""The way from a ratings file to what was decided on a version, as a text and as a picture."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {
    "ratings": "#dce9f5",
    "dataset": "#dce9f5",
    "search": "#e8e8e8",
    "run": "#e8e8e8",
    "version": "#fde3c8",
    "decision": "#dff0d8",
    "trial": "#dff0d8",
}
_LETTERS = 88  # a line in a box
_LABEL = 10  # letters of the longest kind, and two
_HEIGHT, _GAP = 0.22, 0.35  # inches of a line, and between two boxes


@dataclass(frozen=True)
class Station:
    """One station of the way: its kind, what it is, and what is known of it."""

    kind: str
    title: str
    facts: tuple[str, ...] = ()


def page(stations: Sequence[Station]) -> str:
    """The way as lines of text, the ratings first."""
    lines = []
    for station in stations:
        lines.append(f"{station.kind:<{_LABEL}}{station.title}")
        lines += [f"{'':<{_LABEL}}  {fact}" for fact in station.facts]
    return "\n".join(lines)


def picture(stations: Sequence[Station]) -> "Figure":
    """The way as boxes, one below the other, with arrows from each to the next."""
    from matplotlib.figure import Figure

    boxes = [_wrapped(station) for station in stations]
    heights = [(len(lines) + 1) * _HEIGHT for lines in boxes]
    total = sum(heights) + _GAP * (len(boxes) + 1)
    figure = Figure(figsize=(9, total), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlim=(0, 1), ylim=(total, 0))
    axes.axis("off")
    top, last = _GAP, None
    for station, lines, height in zip(stations, boxes, heights, strict=True):
        middle = top + height / 2
        style = {"boxstyle": "round,pad=0.5", "facecolor": _COLOURS[station.kind], "edgecolor": "#888888"}
        box = axes.text(0.5, middle, "\n".join(lines), ha="center", va="center", fontsize=9, bbox=style)
        if last is not None:
            arrow = {"arrowstyle": "->", "color": "#555555", "patchA": last.get_bbox_patch()}
            arrow["patchB"] = box.get_bbox_patch()
            axes.annotate("", xy=(0.5, middle), xytext=last.get_position(), arrowprops=arrow)
        top, last = top + height + _GAP, box
    return figure


def _wrapped(station: Station) -> list[str]:
    lines = [f"{station.kind}: {station.title}", *station.facts]
    return [part for line in lines for part in textwrap.wrap(line, _LETTERS)[:4]]
