"""On the path of the demonstration's server: makes one version slow, as a bad release would be.

recsys has no switch for that. DEMO_SLOW is the version, the seconds that a list takes more, and of how
many lists one does.
"""

import itertools
import os
import time

from recsys.serving import service
from recsys.serving.engine import Engine

_version, _seconds, _every = os.environ.get("DEMO_SLOW", "::").split(":")


_lists = itertools.count(1)


class _Slow(Engine):
    def recommend(self, *arguments, **named):
        if next(_lists) % int(_every) == 0:
            time.sleep(float(_seconds))
        return super().recommend(*arguments, **named)


_load = service.load


def _load_slow(folder):
    found = _load(folder)
    if found.version == _version:
        found.engine.__class__ = _Slow
    return found


service.load = _load_slow
