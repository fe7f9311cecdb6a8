"""Run the demonstration: `make demo`, or to watch it at the page, `make demo SPEED=1`.

Exits with 1 where a claim does not hold, and leaves the folder for looking then.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from demo.site import PROJECT, Site

sys.path[:0] = [str(PROJECT / "src")]

from demo.people import People  # noqa: E402
from demo.visits import halves  # noqa: E402
from recsys.data.movielens import obtain  # noqa: E402
from steps.support.entrypoint import data_folder  # noqa: E402

_WATCHED = 20.0  # visits a second at SPEED=1


def main() -> int:
    """Tell the story, then check what it claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speed", type=float, default=0.0, help="times the speed for watching; 0: as fast as it goes")
    parser.add_argument("--port", type=int, default=0, help="of the server; 0: any that is free")
    parser.add_argument("--keep", action="store_true", help="leave the folder and the server's last state")
    parser.add_argument("--picture", type=Path, help="write a picture of it there, as SVG")
    given = parser.parse_args()
    started, picture = time.monotonic(), given.picture and given.picture.absolute()
    ratings = obtain("movielens-100k", data_folder() / "downloads")
    folder = Path(tempfile.mkdtemp(prefix="recsys-demo-"))
    site = Site(folder, given.port)
    site.enter()

    from demo.claims import check
    from demo.picture import draw
    from demo.story import Story
    from recsys.tracking import connection

    connection.connect(f"sqlite:///{folder / 'mlflow.db'}")
    rows = np.loadtxt(ratings, np.int64, delimiter=",", skiprows=1)
    older, visits = halves(rows)
    people = People(site.port, _WATCHED * given.speed if given.speed else None)
    story = Story(site, older, visits, people)
    print(f"everything is in {folder}; the page of the server: {site.address}/status\n")
    try:
        story.tell()
        time.sleep(1.0)  # the record is written a moment later
        claims = check(story)
        if picture:
            picture.write_text(draw(story), encoding="utf-8")
    finally:
        site.stop()
    print(f"\n{'':<3}{'claim':<66}on record")
    for claim in claims:
        print(f"{'ok' if claim.holds else 'NO':<3}{claim.sentence:<66}{claim.evidence}")
    failed = sum(not claim.holds for claim in claims)
    took = f"{time.monotonic() - started:.0f} s, {_cpu():.0f} s of the processor"
    print(f"\n{len(claims) - failed} of {len(claims)} claims hold, after {took}")
    if given.keep or failed:
        print(f"to look: mlflow ui --backend-store-uri sqlite:///{folder / 'mlflow.db'}; logs are in {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if failed else 0


def _cpu() -> float:
    """Processor seconds of this process and of those that it started and that have ended."""
    found = os.times()
    return found.user + found.system + found.children_user + found.children_system


if __name__ == "__main__":
    sys.exit(main())
