"""Every measurement can at least be begun: what it takes from the library is there."""

import importlib
import pkgutil

import pytest

import bench

NAMES = sorted(module.name for module in pkgutil.walk_packages(bench.__path__, "bench."))
# Of the other libraries' environments, and the program that runs them all.
LEFT_OUT = ("bench.__main__", "bench.peers.__main__", "bench.peers.models")


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith(LEFT_OUT)])
def test_it_imports(name):
    importlib.import_module(name)
