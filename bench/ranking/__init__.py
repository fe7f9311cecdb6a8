"""Lists of this library and of others on the same rows: whole catalogue, what was rated before left out.

`python -m bench.ranking` compares with the settings of settings.json, `--search` looks for them first, by nDCG@10 of
the validation rows. Every library runs in a process and, but for ours, an environment of its own.
"""

import steps as _steps  # noqa: F401  # puts src/ on the path
