"""Compare, or search for settings first; prints a Markdown table a protocol and keeps them in bench/results/."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.measure import PROJECT, heading, table
from bench.peers.environments import CACHE, UnavailableError
from bench.ranking.contest import Scores, find_settings, fit, keep_settings, search
from bench.ranking.contestants import MODELS, PEERS, Contestant
from bench.ranking.problems import PROTOCOLS
from recsys.arrays import Floats

RESULTS = PROJECT / "bench" / "results"
_HALF_WIDTH_95 = 1.96


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and do what it says."""
    given = _parse(arguments)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for protocol in given.protocols.split(","):
        if given.search:
            with tempfile.TemporaryDirectory() as folder:
                look_for_settings(protocol, given, Path(folder))
        if given.no_table:
            continue
        text = compare(protocol, given)
        (RESULTS / f"ranking-{protocol}.md").write_text(text, encoding="utf-8")
        print(text, flush=True)


def look_for_settings(protocol: str, given: argparse.Namespace, folder: Path) -> None:
    """Search for each peer, from where its last search ended, and keep what is found; who fails is named."""
    problem = PROTOCOLS[protocol].problems(CACHE)[0]
    for contestant in _peers(given):
        begun = None if given.again else find_settings(protocol, contestant)
        if begun and begun.trials >= len(contestant.draws(given.trials, seed=0)):
            continue
        try:
            budget = {"trials": given.trials, "seconds": given.seconds, "limit": given.limit}
            kept = search(contestant, problem, folder, **budget, begun=begun)
        except UnavailableError as error:
            print(f"{protocol}: {contestant.name} has no settings: {error}", file=sys.stderr, flush=True)
            continue
        keep_settings(protocol, contestant, kept)
        print(f"{protocol}: {contestant.name}: {kept}", file=sys.stderr, flush=True)


def _peers(given: argparse.Namespace) -> list[Contestant]:
    return [one for one in PEERS if not given.only or one.name in given.only.split(",")]


def compare(protocol: str, given: argparse.Namespace) -> str:
    """A table; who cannot run is named with the reason."""
    own = [
        Contestant(f"recsys {family}", MODELS / "ours.py", first={"family": family})
        for family in given.families.split(",")
    ]
    ours = own[0]
    line_up = [*own, *_peers(given)]
    found = PROTOCOLS[protocol].problems(CACHE)
    done: dict[str, list[Scores]] = {}
    notes, tried = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for contestant in line_up:
            try:
                settings = contestant.first
                if not contestant.ours:
                    kept = find_settings(protocol, contestant)
                    settings = kept.settings if kept else contestant.draws(1, seed=0)[0]
                    tried[contestant.name] = kept.trials if kept else 0
                done[contestant.name] = [
                    fit(contestant, settings, problem, Path(folder) / "fit", given.limit, final=True)
                    for problem in found
                ]
            except UnavailableError as error:
                notes.append(f"{contestant.name} did not run: {error}")
    rows = [[name, tried.get(name, "-"), *_row(scores, done.get(ours.name))] for name, scores in done.items()]
    columns = ["", "settings tried", "nDCG@10", "recall@20", "P@10", "HR@10", "ours ahead in nDCG@10", "processor s"]
    text = heading(PROTOCOLS[protocol].title, ["numpy", "scipy"]) + "\n" + table(columns, rows)
    return text + "".join(f"\n{note}\n" for note in notes)


def _row(scores: list[Scores], ours: list[Scores] | None) -> list[str]:
    """Means over users of what each has on average over the problems, and the paired interval of the difference."""
    ndcg = _by_user(scores, "ndcg")
    error = ndcg.std() / np.sqrt(len(ndcg) - 1)
    shown = [f"{ndcg.mean():.4f} ({error:.4f})"]
    shown += [f"{_by_user(scores, name).mean():.4f}" for name in ("recall", "precision", "hit")]
    ahead = "-"
    if ours is not None and ours is not scores:
        gain = _by_user(ours, "ndcg") - ndcg
        half = _HALF_WIDTH_95 * gain.std() / np.sqrt(len(gain) - 1)
        ahead = f"{gain.mean():+.4f} ({gain.mean() - half:+.4f} to {gain.mean() + half:+.4f})"
    return [*shown, ahead, f"{np.mean([one.seconds for one in scores]):.0f}"]


def _by_user(scores: list[Scores], name: str) -> Floats:
    users = np.concatenate([one.users for one in scores])
    values = np.concatenate([getattr(one, name) for one in scores])
    times = np.bincount(users)
    present = times > 0
    return np.asarray(np.bincount(users, values)[present] / times[present])


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.ranking", description=__doc__)
    parser.add_argument("--protocols", default=",".join(PROTOCOLS), help=f"of {', '.join(PROTOCOLS)}")
    parser.add_argument("--families", default="bayesian_mf", help="ours, by commas; intervals are to the first")
    parser.add_argument("--only", default="", help="names of peers, by commas")
    parser.add_argument("--limit", type=float, default=3600, help="seconds after which a process is ended")
    parser.add_argument("--search", action="store_true", help="look for settings, from where the last search ended")
    parser.add_argument("--trials", type=int, default=14, help="settings tried for each peer: as many as ours tries")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="of processor time; then no further trial starts"
    )
    parser.add_argument("--again", action="store_true", help="with --search: from the beginning")
    parser.add_argument("--no-table", action="store_true", help="with --search: look for settings, and no more")
    given = parser.parse_args(arguments)
    unknown = set(given.protocols.split(",")) - set(PROTOCOLS)
    if unknown:
        parser.error(f"--protocols: known are {', '.join(PROTOCOLS)}; got {', '.join(sorted(unknown))}")
    return given


if __name__ == "__main__":
    main()
