"""Figures are saved as matplotlib saves them, in half the work."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure

from recsys.figures import BLUE, lay_out, new_figure


def labelled() -> Figure:
    figure, axes = new_figure("Errors")
    axes.plot(np.arange(5), np.arange(5) ** 2, color=BLUE, label="square")
    axes.set(xlabel="what is known", ylabel="a long label\nof two lines")
    figure.legend(loc="outside lower center")
    return figure


def saved(figure: Figure, dpi: int) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


@pytest.mark.parametrize("layout", ["constrained", "tight", "none"])
@pytest.mark.parametrize("dpi", [80, 110])
def test_a_figure_that_was_laid_out_is_the_same_image(layout, dpi):
    figure, other = labelled(), labelled()
    for one in (figure, other):
        one.set_layout_engine(layout)
    lay_out(figure, dpi)
    assert saved(figure, dpi) == saved(other, dpi)


def test_it_is_drawn_once(monkeypatch):
    drawn = []
    real = Figure.draw
    monkeypatch.setattr(Figure, "draw", lambda figure, renderer: drawn.append(figure) or real(figure, renderer))
    figure = labelled()
    lay_out(figure, 110)
    saved(figure, 110)
    assert len(drawn) == 1
