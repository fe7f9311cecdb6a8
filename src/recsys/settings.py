"""Parameters as frozen, strict objects: their names, ranges and meaning stand beside the code they configure."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from recsys.errors import InputError


class Settings(BaseModel):
    """A group of parameters. Every field has a default and a description; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


def _or_none(value: object) -> object:
    return None if isinstance(value, str) and value.strip().lower() in ("", "none") else value


OptionalInt = Annotated[int | None, BeforeValidator(_or_none)]
OptionalFloat = Annotated[float | None, BeforeValidator(_or_none)]

SettingsT = TypeVar("SettingsT", bound=Settings)


def parse_settings(settings: type[SettingsT], values: Mapping[str, object]) -> SettingsT:
    """Build settings from text or typed values.

    Raises:
        InputError: naming each parameter at fault, its rule, the value and what the parameter means.
    """
    try:
        return settings.model_validate(dict(values))
    except ValidationError as error:
        raise InputError("; ".join(_explain(settings, dict(problem)) for problem in error.errors())) from None


def to_text(value: object) -> str:
    """A value as it is typed on a command line."""
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _explain(settings: type[Settings], problem: dict[str, Any]) -> str:
    name = str(problem["loc"][0]) if problem["loc"] else settings.__name__
    if problem["type"] == "extra_forbidden":
        return f"unknown parameter {name!r}; known are: {', '.join(settings.model_fields)}"
    rule = str(problem["msg"]).removeprefix("Value error, ").replace("Input should be", "expected")
    rule = rule.split(", unable to parse")[0]
    if name not in settings.model_fields:
        return rule
    return f"parameter {name!r}: {rule}, got {problem['input']!r} ({settings.model_fields[name].description})"
