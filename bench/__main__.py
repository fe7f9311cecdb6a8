"""Run all measurements, each in a process of its own."""

import subprocess
import sys

NAMES = ("prepare", "streaming", "training", "scoring", "bayesian", "gpu", "promotion", "tuning", "server", "peers")

for name in NAMES:
    subprocess.run([sys.executable, "-m", f"bench.{name}"], check=True)
