"""Compare, or search for settings first; prints Markdown and keeps it with the plots in bench/results/."""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.measure import PROJECT
from bench.peers.compare import Comparison, compare
from bench.peers.contest import Arena
from bench.peers.contestants import FAMILIES, PEERS, Contestant, ours
from bench.peers.data import SETS, problems
from bench.peers.environments import CACHE, UnavailableError
from bench.peers.report import plot, report
from bench.peers.search import Settings, search
from recsys.errors import InputError

RESULTS = PROJECT / "bench" / "results"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and do what it says."""
    given = _parse(arguments)
    line_up = [ours(family) for family in given.families.split(",")] + list(PEERS)
    if given.only:
        line_up = named(line_up, given.only.split(","))
    if not line_up:
        raise InputError(f"--only: words of contestants' names, such as {PEERS[0].name}; got {given.only!r}")
    kept = Settings()
    RESULTS.mkdir(parents=True, exist_ok=True)
    sections = []
    for name in given.sets.split(","):
        with tempfile.TemporaryDirectory() as folder:
            if given.search and not name.endswith("-folds"):
                _search(name, line_up, kept, given, Path(folder))
            done = compare(name, line_up, kept, Path(folder), CACHE, given.rounds, given.limit, given.seed)
        sections.append(_keep(done))
    print("\n".join(sections))


def named(line_up: Sequence[Contestant], words: Sequence[str]) -> list[Contestant]:
    """Those whose names hold one of the words; of a word that is a whole name, its bearer only."""
    names = {one.name.lower() for one in line_up}
    words = [word.strip().lower() for word in words]

    def is_meant(name: str) -> bool:
        return any(word == name if word in names else word in name for word in words)

    return [one for one in line_up if is_meant(one.name.lower())]


def _search(name: str, line_up: Sequence[Contestant], kept: Settings, given: argparse.Namespace, folder: Path) -> None:
    arena = Arena(problems(name, CACHE)[0].halves(), folder / "search", given.limit)
    for contestant in line_up:
        try:
            found = search(contestant, arena, trials=given.trials, seconds=given.seconds, seed=given.seed)
        except UnavailableError as error:
            print(f"{name}: {contestant.name}: {error}", file=sys.stderr)
            continue
        kept.keep(name, contestant, found)
        print(
            f"{name}: {contestant.name}: validation RMSE {found.validation_rmse} after {found.trials} trials in "
            f"{found.seconds} s: {found.settings}",
            file=sys.stderr,
        )
    shutil.rmtree(folder / "search")


def _keep(done: Comparison) -> str:
    text = report(done)
    (RESULTS / f"peers-{done.name}.md").write_text(text, encoding="utf-8")
    plot(done).savefig(RESULTS / f"peers-{done.name}.png", dpi=120)
    return text


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--sets", default="movielens-100k,synthetic,movielens-1m", help=f"of {', '.join(SETS)}")
    parser.add_argument(
        "--families", default=",".join(FAMILIES), help="ours, perhaps with settings; ratios are of the first that runs"
    )
    parser.add_argument("--only", help="contestants of these names, or whose names hold one of these words")
    parser.add_argument("--rounds", type=int, default=2, help="fits below 20 s are repeated; the fastest counts")
    parser.add_argument("--limit", type=float, default=1800, help="seconds after which a process is ended")
    parser.add_argument("--seed", type=int, default=0, help="of the fits; the rows never change")
    parser.add_argument("--search", action="store_true", help="look for settings first and keep them")
    parser.add_argument("--trials", type=int, default=10, help="of a search, for each contestant")
    parser.add_argument("--seconds", type=float, default=300, help="after which a search starts no further trial")
    given = parser.parse_args(arguments)
    unknown = set(given.sets.split(",")) - set(SETS)
    if unknown:
        parser.error(f"--sets: known are {', '.join(SETS)}; got {', '.join(sorted(unknown))}")
    return given


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
