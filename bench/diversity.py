"""What diversity costs: nDCG@10 of lists, and how different and how rare their items are, from diversity 0 to 1."""

import argparse
from collections.abc import Sequence

import steps as _steps  # noqa: F401  # puts src/ on the path
from bench.measure import heading, table
from bench.peers.environments import CACHE
from recsys.data import builder
from recsys.data.movielens import obtain
from recsys.data.preparation import Preparation
from recsys.evaluation.lists import ListEvaluation, evaluate_lists
from recsys.models.base.family import family_module
from recsys.training.trainer import train

LEVELS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
_SHOWN = ("ndcg_at_10", "recall_at_20", "diversity_at_10", "novelty_at_10", "coverage_at_10", "gini_at_10")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, train, and print a table and a curve a data set."""
    parser = argparse.ArgumentParser(prog="python -m bench.diversity", description=__doc__)
    parser.add_argument("--sets", default="movielens-100k", help="movielens-100k, movielens-1m or both, by a comma")
    parser.add_argument("--family", default="bayesian_mf")
    given = parser.parse_args(arguments)
    for ratings in given.sets.split(","):
        source = obtain(ratings, CACHE / "downloads")
        dataset = builder.prepare(source, Preparation(ratings=ratings), CACHE / "prepared")
        model = train(given.family, dataset, family_module(given.family).Config(), seed=42).final
        found = [evaluate_lists(model, dataset, "test", seed=42, diversity=level) for level in LEVELS]
        print(heading(f"Diversity, {ratings}, {given.family}", ["numpy"]))
        print(_table(found))
        print(_curve(found))


def _table(found: Sequence[ListEvaluation]) -> str:
    rows = []
    for level, one in zip(LEVELS, found, strict=True):
        gain = one.ndcg - found[0].ndcg
        error = gain.std() / (len(gain) - 1) ** 0.5
        cost = "-" if level == 0 else f"{gain.mean():+.4f} ({error:.4f})"
        rows.append([f"{level:g}", *(f"{one.metrics[name]:.4f}" for name in _SHOWN), cost])
    return table(["diversity", *_SHOWN, "nDCG@10 to 0 (standard error)"], rows)


def _curve(found: Sequence[ListEvaluation]) -> str:
    """The same as a chart, in the language in which Markdown shows charts."""
    places = ", ".join(f"{level:g}" for level in LEVELS)
    lines = (", ".join(f"{one.metrics[name]:.3f}" for one in found) for name in ("ndcg_at_10", "diversity_at_10"))
    drawn = "\n".join(f"    line [{line}]" for line in lines)
    return (
        f'```mermaid\nxychart-beta\n    title "nDCG@10 (lower line) and diversity of a list, by the parameter"\n'
        f'    x-axis "diversity" [{places}]\n    y-axis "measure" 0 --> 1\n{drawn}\n```\n'
    )


if __name__ == "__main__":
    main()
