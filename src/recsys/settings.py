"""Parameters as frozen, strict objects: their names, ranges and meaning stand beside the code they configure."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from recsys.errors import InputError


class Settings(BaseModel):
    """A group of parameters. Every field has a default and a description; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


def _or_none(value: object) -> object:
    return None if isinstance(value, str) and value.strip().lower() in ("", "none") else value


OptionalInt = Annotated[int | None, BeforeValidator(_or_none)]
OptionalFloat = Annotated[float | None, BeforeValidator(_or_none)]

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def _seconds(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = value.strip()
    unit = _UNITS.get(text[-1:])
    try:
        return float(text[:-1] if unit else text) * (unit or 1)
    except ValueError:
        raise ValueError("expected a time such as 90s, 10m, 1h or 7d") from None


Seconds = Annotated[float, Field(gt=0), BeforeValidator(_seconds)]
"""A time in seconds, written as 90s, 10m, 1h or 7d."""
OptionalSeconds = Annotated[Seconds | None, BeforeValidator(_or_none)]

SettingsT = TypeVar("SettingsT", bound=Settings)


def parse_settings(settings: type[SettingsT], values: Mapping[str, object]) -> SettingsT:
    """Build settings from text or typed values.

    Raises:
        InputError: naming each parameter at fault, its rule, the value and what the parameter means.
    """
    try:
        return settings.model_validate(dict(values))
    except ValidationError as error:
        # A parameter that may be one of several kinds is told once, with what each kind expects.
        problems: dict[Any, list[dict[str, Any]]] = {}
        for problem in error.errors():
            problems.setdefault(problem["loc"][:1], []).append(dict(problem))
        unknown = [str(loc[0]) for loc, same in problems.items() if same[0]["type"] == "extra_forbidden"]
        told = [_explain(settings, same) for same in problems.values() if same[0]["type"] != "extra_forbidden"]
        raise InputError("; ".join(told + _refuse(settings, unknown))) from None


def to_text(value: object) -> str:
    """A value as it is typed on a command line."""
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question behind a name that is not known, empty where none of the known ones is like it."""
    close = get_close_matches(name.lower(), list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _explain(settings: type[Settings], problems: Sequence[dict[str, Any]]) -> str:
    problem = problems[0]
    name = str(problem["loc"][0]) if problem["loc"] else settings.__name__
    rules = [_rule(problem) for problem in problems]
    rule = " or ".join([rules[0], *(other.removeprefix("expected ") for other in rules[1:])])
    if name not in settings.model_fields:
        return rule
    return f"parameter {name!r}: {rule}, got {problem['input']!r} ({settings.model_fields[name].description})"


def _refuse(settings: type[Settings], unknown: Sequence[str]) -> list[str]:
    """What is said of unknown names: the known ones once, however many there are."""
    known = settings.model_fields
    names = ", ".join(f"{name!r}{did_you_mean(name, known)}" for name in unknown)
    several = "s" if len(unknown) > 1 else ""
    return [f"unknown parameter{several} {names}; known are: {', '.join(known)}"] if unknown else []


def _rule(problem: dict[str, Any]) -> str:
    rule = str(problem["msg"]).removeprefix("Value error, ")
    rule = rule.replace("Input should be", "expected").replace("String should have", "expected")
    return rule.split(", unable to ")[0]
