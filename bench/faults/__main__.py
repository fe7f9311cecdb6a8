"""Run all faults and print what went wrong.

python -m bench.faults [share]      share of the full numbers, 1 by default: 0.25 for a quarter
"""

import os
import sys
import tempfile
from pathlib import Path

from bench import races
from bench.faults import backups, inputs, kills
from bench.measure import heading, table

_ROUNDS, _KILLS, _INPUTS, _BACKUPS = 200, 100, 400, 40


def main() -> None:
    """Print a table for each kind of fault."""
    share = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    print(heading("Faults", ["mlflow", "SQLAlchemy"]))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # Forks come first: they need a process without threads.
        (folder / "kills").mkdir()
        found = kills.run(folder / "kills", max(1, round(_KILLS * share)), seed=1)
        rows = [[step, one.writes, one.killed, len(one.wrong)] for step, one in found.items()]
        print(table(["step", "writes", "killed", "wrong afterwards"], rows))
        print(*(what for one in found.values() for what in one.wrong), sep="\n")
        _measure_rest(folder, share)


def _measure_rest(folder: Path, share: float) -> None:
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    os.environ |= {"MLFLOW_TRACKING_URI": uri, "RECSYS_DATA": str(folder / "data")}
    (folder / "inputs").mkdir()
    tried = inputs.run(folder / "inputs", round(_INPUTS * share), seed=1)
    print(table(["ratings files", "number", "refused", "wrong"], [[w, n, r, len(x)] for w, (n, r, x) in tried.items()]))
    print(*(what for _, _, wrong in tried.values() for what in wrong), sep="\n")
    (folder / "backups").mkdir()
    noticed, taken = backups.run(folder / "backups", max(4, round(_BACKUPS * share)), seed=1)
    print(table(["tampered backups", "wrong"], [[noticed + len(taken), len(taken)]]))
    print(*taken, sep="\n")
    outcome = races.race(uri, uri, rounds=max(1, round(_ROUNDS * share)), seed=1)
    absent = [f"{count} of {outcome.observations:,}" for count in (outcome.without_champion, outcome.without_stage)]
    wrong = len(outcome.wrong_champion) + len(outcome.wrong_production) + len(outcome.failures)
    columns = ["rounds of promotions, sqlite", "killed", "polls without alias", "polls without stage", "wrong"]
    print(table(columns, [[outcome.rounds, outcome.killed, *absent, wrong]]))


if __name__ == "__main__":
    main()
