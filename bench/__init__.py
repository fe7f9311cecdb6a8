"""Measurements, each as a ratio against a baseline in the same run on the same data.

`python -m bench` runs all of them; docs/benchmarks.md holds the results.
"""

import steps  # noqa: F401  # puts src on the path
