"""Feedback, lists and record while workers and whole servers are killed, in turns: what is lost, and what counts twice.

python -m bench.kills [kills]
"""

import sys
import tempfile
from pathlib import Path

from bench.measure import heading, table
from tests.support.killing import Victim, kill_under_load
from tests.support.serving_site import Server, form

KILLS = 60


def run(kills: int) -> None:
    """Print what clients were told and what was there afterwards."""
    victims: list[Victim] = ["worker" if number % 2 else "server" for number in range(kills)]
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "serving", feedback_seconds=60)
        server.point_at(form(Path(folder) / "one"))
        try:
            found = kill_under_load(server.start(), victims)
        finally:
            server.stop()
    print(heading("SIGKILL of workers and servers under load", ["uvicorn", "uvloop"]))
    restarts = sorted(found.restarts)
    rows = [
        *((f"kills of a {name}", count) for name, count in found.kills.items()),
        ("events acknowledged", f"{len(found.acknowledged):,}"),
        ("requests without an answer, sent again", f"{found.unanswered:,}"),
        ("acknowledged events that are lost", found.lost),
        ("events or lists that count twice", found.twice),
        ("lists answered, and of those on record", f"{len(found.lists):,}, {len(found.lists & set(found.recorded)):,}"),
        ("start after a kill, seconds: median, longest", f"{restarts[len(restarts) // 2]:.1f}, {restarts[-1]:.1f}"),
    ]
    print(table(("what", "seen"), rows))


if __name__ == "__main__":
    run(int(sys.argv[1]) if len(sys.argv) > 1 else KILLS)
