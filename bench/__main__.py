"""Run all measurements, each in a process of its own."""

import subprocess
import sys

_DATA = ("prepare", "streaming", "training", "scoring", "lists", "large")
_FAMILIES = ("bayesian", "forward", "folds", "sparse", "growth", "gpu", "scaling", "tuning")
_SERVICES = ("null_promotions", "promotion", "faults", "server", "serving", "recording", "kills", "monitoring")

_TRIALS = ("trials", "trial_races", "trial_kills", "trials_served")

for name in (*_DATA, *_FAMILIES, *_SERVICES, "diversity", *_TRIALS, "peers", "ranking"):
    subprocess.run([sys.executable, "-m", f"bench.{name}"], check=True)
