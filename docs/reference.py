"""Write what follows from the code's parameters: MLproject and the tables of docs/steps.md.

Run by `make docs`; tests/test_reference.py holds the files to it.
"""

import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "src")]

from recsys.models.base.capabilities import family_names  # noqa: E402
from recsys.models.base.family import family_module  # noqa: E402
from recsys.settings import Settings, to_text  # noqa: E402
from steps.support.parameters import STEPS  # noqa: E402

BEGIN, END = "<!-- parameters of {} -->", "<!-- end -->"


def mlproject() -> str:
    """The text of MLproject."""
    lines = [
        "# Written by `make docs` from steps/parameters.py.",
        "name: recsys",
        "",
        "python_env: python_env.yaml",
        "",
        "entry_points:",
    ]
    for step, settings in STEPS.items():
        lines += [f"  {step}:", "    parameters:"]
        for name, field in settings.model_fields.items():
            default = field.get_default()
            number = isinstance(default, int | float) and not isinstance(default, bool)
            kind = "path" if name == "folder" else "float" if number else "string"
            lines.append(f'      {name}: {{type: {kind}, default: "{to_text(default)}"}}')
        arguments = " ".join(f"--{name}={{{name}}}" for name in settings.model_fields)
        lines.append(f'    command: "exec python -m steps.{step} {arguments}"')
    return "\n".join(lines) + "\n"


def table(settings: type[Settings]) -> str:
    """A Markdown table of parameters."""
    rows = ["| parameter | default | meaning |", "|---|---|---|"]
    for name, field in settings.model_fields.items():
        default = to_text(field.get_default())
        rows.append(f"| `{name}` | {f'`{default}`' if default else 'empty'} | {field.description} |")
    return "\n".join(rows)


def tables() -> dict[str, str]:
    """Every table by what it is of: a step or a family."""
    found = {step: table(settings) for step, settings in STEPS.items()}
    return found | {family: table(family_module(family).Config) for family in family_names()}


def filled(text: str) -> str:
    """A page with the tables between its marks written anew."""
    for name, content in tables().items():
        begin = BEGIN.format(name)
        before, mark, rest = text.partition(begin)
        if not mark:
            raise SystemExit(f"docs/steps.md has no line {begin}")
        text = f"{before}{begin}\n\n{content}\n\n{END}{rest.partition(END)[2]}"
    return text


if __name__ == "__main__":
    (PROJECT / "MLproject").write_text(mlproject(), encoding="utf-8")
    page = PROJECT / "docs" / "steps.md"
    page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
