"""Write what follows from the code: MLproject, the tables of docs/steps.md, and the floors of docs/architecture.md.

Run by `make docs`; tests/test_reference.py holds the files to it.
"""

import ast
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "src")]

from recsys.models.base.capabilities import family_names  # noqa: E402
from recsys.models.base.family import family_module  # noqa: E402
from recsys.settings import Settings, to_text  # noqa: E402
from steps.support.parameters import STEPS  # noqa: E402
from tests.test_architecture import FLOORS, FORBIDDEN, MODULES, arrows, tree  # noqa: E402

BEGIN, END = "<!-- parameters of {} -->", "<!-- end -->"
FLOORS_BEGIN = "<!-- floors -->"


def mlproject() -> str:
    """The text of MLproject."""
    lines = [
        "# Written by `make docs` from steps/support/parameters.py.",
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
        lines.append(f'    command: "RECSYS_LAUNCHER=$PPID exec python -m steps.{step} {arguments}"')
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


def section(family: str) -> str:
    """What a family that was added begins with on the page, until somebody writes more."""
    module = family_module(family)
    return f"## {family}\n\n{(module.__doc__ or module.Config.__doc__ or family).strip()}"


def filled(text: str) -> str:
    """A page with the tables between its marks written anew."""
    for name, content in tables().items():
        begin = BEGIN.format(name)
        if begin not in text:
            if name in STEPS:
                raise SystemExit(f"docs/steps.md has no line {begin}")
            text = f"{text.rstrip()}\n\n{section(name)}\n\n{begin}\n{END}\n"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n\n{content}\n\n{END}{rest.partition(END)[2]}"
    return text


def floors() -> str:
    """The rooms, the highest floor first, what each is for and which others it uses today."""
    width = max(len(room) for rooms in FLOORS for room in rooms)
    lines = ["```"]
    for number, rooms in reversed(list(enumerate(FLOORS))):
        for room in rooms:
            used = ", ".join(name.removeprefix("recsys.") for name in sorted(arrows(room)))
            lines.append(f"{number:>2}  {room:<{width}}  {f'→ {used}' if used else ''}".rstrip())
    lines += ["```", "", "| room | holds |", "|---|---|"]
    for rooms in reversed(FLOORS):
        for room in rooms:
            document = ast.get_docstring(tree(MODULES[room])) or ""
            forbidden = [f"`{other}`" for one, other in FORBIDDEN if one == room]
            lines.append(
                f"| `{room}` | {document.splitlines()[0]}{' Not ' + ', '.join(forbidden) + '.' if forbidden else ''} |"
            )
    return "\n".join(lines)


def with_floors(text: str) -> str:
    """The page of the architecture with its drawing made anew."""
    before, mark, rest = text.partition(FLOORS_BEGIN)
    if not mark:
        raise SystemExit(f"docs/architecture.md has no line {FLOORS_BEGIN}")
    return f"{before}{mark}\n\n{floors()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    (PROJECT / "MLproject").write_text(mlproject(), encoding="utf-8")
    page = PROJECT / "docs" / "steps.md"
    page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
    page = PROJECT / "docs" / "architecture.md"
    page.write_text(with_floors(page.read_text(encoding="utf-8")), encoding="utf-8")
