"""Run all measurements, each in a process of its own."""

import subprocess
import sys

for name in ("prepare", "training", "scoring", "bayesian", "gpu", "promotion", "tuning", "server", "scaling", "peers"):
    subprocess.run([sys.executable, "-m", f"bench.{name}"], check=True)
