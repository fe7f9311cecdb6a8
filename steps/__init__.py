"""The steps of the pipeline: one verb a file, each an entry point of MLproject and a function.

The library lies in src/ and is found from here, so that a clone runs without being installed.
"""

import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent

for _folder in (PROJECT, PROJECT / "src"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

if _loaded := sys.modules.get("recsys"):
    _found = Path(str(_loaded.__file__)).resolve().parent
    if _found != PROJECT / "src" / "recsys":
        raise ImportError(
            f"recsys is already imported from {_found}, which holds the few modules that a model carries; "
            "import the steps before you load a model, or in another process"
        )
