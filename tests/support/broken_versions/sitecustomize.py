"""On the path of a server under test: versions that fail, are slow, list nothing or only what is popular.

RECSYS_TEST_BROKEN says how often: {"2": {"errors": 0.01, "slow": 0.01, "seconds": 0.02, "empty": 0.0}}.
"""

import json
import os
import random
import time
from typing import ClassVar

from recsys.serving import service
from recsys.serving.engine import Engine

_BROKEN = json.loads(os.environ.get("RECSYS_TEST_BROKEN", "{}"))
_chance = random.Random(os.getpid())


class _Broken(Engine):
    """An engine that does wrong with some probability."""

    how: ClassVar[dict[str, float]] = {}

    def recommend(self, *arguments, **named):
        if _chance.random() < self.how.get("errors", 0):
            raise ArithmeticError("as the test wants it")
        if _chance.random() < self.how.get("slow", 0):
            time.sleep(self.how["seconds"])
        return super().recommend(*arguments, **named)


_load = service.load


def _load_broken(folder):
    found = _load(folder)
    if found.version in _BROKEN:
        found.engine.__class__ = _Broken
        found.engine.how = _BROKEN[found.version]
    return found


service.load = _load_broken
