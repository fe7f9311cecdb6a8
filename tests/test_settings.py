import pytest
from pydantic import Field, ValidationError

from recsys.errors import InputError
from recsys.settings import OptionalFloat, OptionalInt, Settings, parse_settings, to_text


class Example(Settings):
    count: int = Field(3, ge=1, description="how many")
    rate: float = Field(0.5, gt=0, lt=1, description="how fast")
    exact: bool = Field(True, description="whether to the last digit")
    depth: OptionalInt = Field(None, ge=1, description="how deep, or none")
    timeout: OptionalFloat = Field(2.5, gt=0, description="seconds, or none")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("count", "7", 7),
        ("count", "7.0", 7),  # MLflow's number type
        ("rate", "1e-3", 0.001),
        ("exact", "false", False),
        ("exact", "True", True),
        ("depth", "4", 4),
        ("depth", "none", None),
        ("depth", " None ", None),
        ("timeout", "", None),
    ],
)
def test_text_is_parsed(name, text, value):
    parsed = getattr(parse_settings(Example, {name: text}), name)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("count", "0", "greater than or equal to 1"),
        ("count", "2.5", "a valid integer"),
        ("count", "", "a valid integer"),
        ("count", "none", "a valid integer"),
        ("rate", "1", "less than 1"),
        ("rate", "nan", "finite"),
        ("rate", "inf", "finite"),
        ("exact", "maybe", "a valid boolean"),
        ("depth", "0", "greater than or equal to 1"),
        ("timeout", "soon", "a valid number"),
    ],
)
def test_an_error_names_parameter_rule_value_and_meaning(name, value, rule):
    with pytest.raises(InputError) as caught:
        parse_settings(Example, {name: value})
    message = str(caught.value)
    meaning = Example.model_fields[name].description
    assert message.startswith(f"parameter {name!r}: expected ")
    assert rule in message
    assert message.endswith(f"got {value!r} ({meaning})")


def test_every_error_is_told():
    with pytest.raises(InputError, match=r"'count'.*'rate'"):
        parse_settings(Example, {"count": "x", "rate": "y"})


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(
        InputError,
        match=r"unknown parameter 'counts' \(did you mean 'count'\?\); known are: count, rate, exact, depth, timeout",
    ):
        parse_settings(Example, {"counts": "1"})


def test_the_known_names_are_listed_once_behind_several_unknown_ones():
    with pytest.raises(InputError) as caught:
        parse_settings(Example, {"counts": "1", "rate": "2", "other": "3"})
    known = "count, rate, exact, depth, timeout"
    assert str(caught.value).endswith(
        f"; unknown parameters 'counts' (did you mean 'count'?), 'other'; known are: {known}"
    )
    assert "parameter 'rate': expected" in str(caught.value)


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        Example().count = 4


@pytest.mark.parametrize(
    ("value", "text"), [(None, "none"), (True, "true"), (False, "false"), (0.5, "0.5"), (3, "3"), ("a b", "a b")]
)
def test_to_text_writes_what_is_typed(value, text):
    assert to_text(value) == text


def test_to_text_and_parse_settings_are_inverse():
    settings = Example(count=9, rate=0.1, exact=False, depth=None, timeout=1e-7)
    assert parse_settings(Example, {name: to_text(value) for name, value in settings.model_dump().items()}) == settings
