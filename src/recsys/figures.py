"""A figure to draw in, and the colours of ours. No pyplot, so nothing global and no display."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREY, RED = "#1f77b4", "#ff7f0e", "#888888", "#a40e26"


def new_figure(title: str, width: float = 7, height: float = 4.2) -> tuple[Figure, Axes]:
    """A figure of this size in inches, with one field of axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    return figure, axes
