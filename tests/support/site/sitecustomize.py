"""On the path of the processes that the tests start: the families beside this folder are families there too."""

from pathlib import Path

from recsys import models

models.__path__.append(str(Path(__file__).resolve().parents[1] / "families"))
