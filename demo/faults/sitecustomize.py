"""On the path of the demonstration's server: makes one version slow, as a bad release would be.

recsys has no switch for that. DEMO_SLOW is the version and the seconds that each of its lists takes more.
"""

import os
import time

from recsys.serving import service
from recsys.serving.engine import Engine

_version, _, _seconds = os.environ.get("DEMO_SLOW", "").partition(":")


class _Slow(Engine):
    def recommend(self, *arguments, **named):
        time.sleep(float(_seconds))
        return super().recommend(*arguments, **named)


_load = service.load


def _load_slow(folder):
    found = _load(folder)
    if found.version == _version:
        found.engine.__class__ = _Slow
    return found


service.load = _load_slow
