"""A family's search space: what its `suggest` asks for, and the ranges a user puts in the place of its own."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from recsys.errors import InputError
from recsys.models.base.family import family_module
from recsys.settings import parse_settings

_PROBES = 8  # a space may ask for more where a choice fell one way: every choice among so many is tried
Ranges = Mapping[str, Sequence[Any]]
"""By name: lowest and highest value, or, where there is no order, the choices."""


@dataclass(frozen=True)
class Dimension:
    """One setting that is searched: a range, or a list of choices."""

    kind: Literal["int", "float", "choice"]
    range: tuple[Any, ...]
    log: bool = False


class Ranged:
    """Passes a trial on to `suggest`, with a user's ranges in the place of the family's."""

    def __init__(self, trial: Any, ranges: Ranges) -> None:
        self._trial = trial
        self._ranges = ranges

    def suggest_int(self, name: str, low: int, high: int, **options: Any) -> Any:
        """As the trial's."""
        return self._trial.suggest_int(name, *self._ranges.get(name, (low, high)), **options)

    def suggest_float(self, name: str, low: float, high: float, **options: Any) -> Any:
        """As the trial's."""
        return self._trial.suggest_float(name, *self._ranges.get(name, (low, high)), **options)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """As the trial's."""
        return self._trial.suggest_categorical(name, list(self._ranges.get(name, choices)))


class _Probe:
    """Stands in for a trial and writes down what it is asked for."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.found: dict[str, Dimension] = {}

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> Any:
        self.found[name] = Dimension("int", (low, high), log)
        return (low, high)[self._number % 2]

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> Any:
        self.found[name] = Dimension("float", (low, high), log)
        return (low, high)[self._number % 2]

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self.found[name] = Dimension("choice", tuple(choices))
        return choices[self._number % len(choices)]


def dimensions(suggest: Callable[[Any], object], ranges: Ranges) -> dict[str, Dimension]:
    """What a space holds, by name."""
    found: dict[str, Dimension] = {}
    for number in range(_PROBES):
        probe = _Probe(number)
        suggest(Ranged(probe, ranges))
        found |= probe.found
    return found


def digest(space: Mapping[str, Dimension]) -> str:
    """Names a search space: two workers of one study need the same."""
    text = json.dumps({name: asdict(dimension) for name, dimension in sorted(space.items())})
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def digest_ranges(ranges: Ranges) -> str:
    """Names a user's ranges."""
    return hashlib.blake2b(json.dumps(dict(sorted(ranges.items()))).encode(), digest_size=3).hexdigest()


def read_ranges(text: str, family: str) -> dict[str, list[Any]]:
    """A user's ranges for a family's space, from JSON; empty text for none.

    Raises:
        InputError: for a name that is not searched, a low above its high, or a value the family refuses.
    """
    if not text.strip():
        return {}
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{_RULE}, got {text!r} ({error})") from None
    if not isinstance(given, dict):
        raise InputError(f"{_RULE}, got {text!r}")
    known = dimensions(family_module(family).suggest, {})
    ranges = {}
    for name, values in given.items():
        if name not in known:
            raise InputError(
                f"parameter 'space': {name!r} is not searched for family {family}; known are: {', '.join(known)}"
            )
        ranges[name] = _checked(name, values, known[name], family)
    return ranges


_RULE = "parameter 'space': JSON such as {\"embedding_size\": [8, 64]} is needed, a list for every name"


def _checked(name: str, values: object, dimension: Dimension, family: str) -> list[Any]:
    if not isinstance(values, list) or not values:
        raise InputError(f"{_RULE}, got {values!r} for {name!r}")
    if dimension.kind == "choice":
        if len({json.dumps(value) for value in values}) < len(values):
            raise InputError(f"parameter 'space': every choice of {name!r} once, got {values!r}")
    else:
        numbers = int if dimension.kind == "int" else (int, float)
        if len(values) != 2 or not all(isinstance(v, numbers) and not isinstance(v, bool) for v in values):
            kind = "two whole numbers" if dimension.kind == "int" else "two numbers"
            raise InputError(f"parameter 'space': {kind} are needed for {name!r}, lowest and highest, got {values!r}")
        low, high = values
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise InputError(f"parameter 'space': {name!r}: the low is above the high, got {values!r}")
        if dimension.log and low <= 0:
            raise InputError(f"parameter 'space': {name!r} is searched by its logarithm and above 0, got {values!r}")
    for value in values:
        try:
            parse_settings(family_module(family).Config, {name: value})
        except InputError as error:
            raise InputError(f"parameter 'space': {error}") from None
    return values
