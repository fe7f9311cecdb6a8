"""What a saved model needs to be loaded elsewhere: which files of this package, and which packages beside it."""

import ast
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path

_PACKAGE = "recsys"


@dataclass(frozen=True)
class Dependencies:
    """Files by their path below the package's folder, and distributions by their names on the package index."""

    files: dict[Path, Path]
    distributions: frozenset[str]


def find_dependencies(modules: Sequence[str]) -> Dependencies:
    """Follow the imports that run when these modules of the package are imported.

    Imports within functions are what training needs, or another package that a method needs: of these, packages
    count and modules of ours do not. What is imported for type checks alone does not count.
    """
    found: dict[str, Path] = {}
    waiting, packages = list(modules), set[str]()
    while waiting:
        name = waiting.pop()
        if name in found or (path := _source(name)) is None:
            continue
        found[name] = path
        waiting += [name.rpartition(".")[0]] if "." in name else []
        tree = ast.parse(path.read_text(encoding="utf-8"))
        waiting += [target for target in _targets(_run_at_import(tree.body)) if target.split(".")[0] == _PACKAGE]
        used = (node for statement in _run_at_import(tree.body) for node in ast.walk(statement))
        packages |= {target.split(".")[0] for target in _targets(used)}
    owners = _owners()
    outside = packages - {_PACKAGE} - sys.stdlib_module_names
    named = frozenset(_name(owner) for package in outside for owner in owners.get(package, ()))
    return Dependencies({_place(name, path): path for name, path in found.items()}, named)


@cache
def _name(distribution: Distribution) -> str:
    """The name of a distribution, for which its whole description is read."""
    return distribution.metadata["Name"]


@cache
def _owners() -> dict[str, list[Distribution]]:
    """The distributions that hold each importable name: as `packages_distributions` says, which takes seconds."""
    owners: dict[str, list[Distribution]] = {}
    for found in distributions():
        names = set((found.read_text("top_level.txt") or "").split())
        if not names:
            lines = (found.read_text("RECORD") or "").splitlines()
            names = {line.partition("/")[0].partition(",")[0].removesuffix(".py") for line in lines}
        for name in names:
            owners.setdefault(name, []).append(found)
    return owners


def _source(name: str) -> Path | None:
    """The file of a module; None where the name is another thing in a module."""
    spec = importlib.util.find_spec(name) if _is_module(name) else None
    return Path(spec.origin) if spec and spec.origin else None


def _is_module(name: str) -> bool:
    parent = name.rpartition(".")[0]
    if not parent:
        return name == _PACKAGE
    spec = importlib.util.find_spec(parent) if _is_module(parent) else None
    return spec is not None and spec.submodule_search_locations is not None


def _place(name: str, path: Path) -> Path:
    below = Path(*name.split(".")[1:])
    return below / path.name if path.stem == "__init__" else below.with_suffix(".py")


def _run_at_import(body: Sequence[ast.stmt]) -> Iterator[ast.AST]:
    for statement in body:
        if not (isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test)):
            yield statement


def _targets(nodes: Iterator[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
