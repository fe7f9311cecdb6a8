"""The steps of the pipeline: one verb a file, each an entry point of MLproject and a function.

The library lies in src/ and is found from here, so that a clone runs without being installed.
"""

import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent

for _folder in (PROJECT, PROJECT / "src"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

if (_loaded := sys.modules.get("recsys")) and not Path(str(_loaded.__file__)).is_relative_to(PROJECT / "src"):
    raise ImportError(
        f"recsys is already imported from {Path(str(_loaded.__file__)).parent}, which holds the few modules that a "
        "model carries; import the steps before you load a model, or in another process"
    )
