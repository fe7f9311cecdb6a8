"""Other libraries and this one on the same rows: fit time, memory and accuracy side by side.

`python -m bench.peers` compares with the settings of settings.json, `--search` looks for them first. Every library
runs in a process and, but for ours, an environment of its own: files in, predictions out (worker.py).
"""

import steps as _steps  # noqa: F401  # puts src/ on the path
