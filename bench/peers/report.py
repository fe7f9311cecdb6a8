"""A comparison as Markdown and as a plot."""

from bench.peers.compare import Comparison, Line
from matplotlib.figure import Figure


def report(done: Comparison) -> str:
    """Todo."""
    return ""


def plot(done: Comparison) -> Figure:
    """Todo."""
    return Figure()
