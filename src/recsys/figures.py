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


def lay_out(figure: Figure, dpi: float) -> None:
    """Place what is in a figure, once and for all, as it will be drawn with so many dots per inch.

    To be called before a figure is saved: matplotlib would draw it twice, the first time only to place what is in it.
    """
    engine = figure.get_layout_engine()
    if engine is not None:
        figure.set_dpi(dpi)
        engine.execute(figure)
        figure.set_layout_engine(None)
