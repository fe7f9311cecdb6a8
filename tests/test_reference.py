"""What is written about the parameters is what the code has."""

import re
import runpy
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from recsys.settings import to_text
from steps.support.entrypoint import parse
from steps.support.parameters import STEPS

PROJECT = Path(__file__).resolve().parent.parent
REFERENCE = runpy.run_path(str(PROJECT / "docs" / "reference.py"))
MLPROJECT = yaml.safe_load((PROJECT / "MLproject").read_text(encoding="utf-8"))
README = PROJECT / "README.md"


def read(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def test_mlproject_is_what_make_docs_writes():
    assert read("MLproject") == REFERENCE["mlproject"](), "run `make docs`"


def test_the_tables_of_the_steps_are_what_make_docs_writes():
    assert read("docs/steps.md") == REFERENCE["filled"](read("docs/steps.md")), "run `make docs`"


def test_the_floors_are_what_make_docs_writes():
    page = read("docs/architecture.md")
    assert page == REFERENCE["with_floors"](page), "run `make docs`"


PAGES = ["README.md", *sorted(str(path.relative_to(PROJECT)) for path in PROJECT.glob("docs/**/*.md"))]
# A path below a folder of the project, or a module of ours with what is in it.
PATH = re.compile(r"(?<![\w/.])(?:src/recsys|steps|registry|server|tests|bench|docs)/[\w./*-]*[\w*/]")
MODULE = re.compile(r"(?<![\w/.])(?:recsys|registry|steps|bench)(?:\.[a-z_0-9]+)+(?!\w|\()")


@pytest.mark.parametrize("page", PAGES)
def test_every_file_and_module_that_a_page_names_is_there(page):
    text = read(page)
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    wrong = [link for link in links if not (PROJECT / page).parent.joinpath(link).exists()]
    made = ("bench/results/",)  # by running, and not kept
    wrong += [path for path in PATH.findall(text) if path not in made and not list(PROJECT.glob(path.rstrip("/")))]
    modules = [name for name in MODULE.findall(text) if not name.endswith((".md", ".py"))]
    wrong += [name for name in modules if not is_module(name)]
    assert wrong == []


def is_module(name: str) -> bool:
    """Whether there is a module of that name, or one that has such a name in it."""
    *parts, last = name.split(".")
    roots = [PROJECT / "src", PROJECT]
    whole = [root.joinpath(*parts, last) for root in roots]
    holder = [root.joinpath(*parts) for root in roots]
    if any(path.with_suffix(".py").exists() or path.is_dir() for path in whole):
        return True
    files = [path.with_suffix(".py") for path in holder] + [path / "__init__.py" for path in holder]
    return any(re.search(rf"^(?:def|class) {last}\b|^{last}\b", f.read_text(), re.M) for f in files if f.exists())


def test_the_readme_has_a_line_for_every_room():
    folders = [path.name for path in (PROJECT / "src" / "recsys").iterdir() if (path / "__init__.py").exists()]
    assert [name for name in folders if not re.search(rf"^ +{name}/ +\w", read("README.md"), re.M)] == []


def test_every_step_is_an_entry_point():
    assert list(MLPROJECT["entry_points"]) == list(STEPS)
    modules = {path.stem for path in (PROJECT / "steps").glob("*.py")}
    assert set(STEPS) <= modules


@pytest.mark.parametrize("step", STEPS)
def test_an_entry_point_declares_the_step_s_parameters_with_their_defaults(step):
    declared = MLPROJECT["entry_points"][step]["parameters"]
    settings = STEPS[step].model_fields
    assert {name: parameter["default"] for name, parameter in declared.items()} == {
        name: to_text(field.get_default()) for name, field in settings.items()
    }


@pytest.mark.parametrize("step", STEPS)
def test_an_entry_point_passes_every_parameter_on(step):
    entry = MLPROJECT["entry_points"][step]
    start, *arguments = entry["command"].split(" --")
    assert start == f"RECSYS_LAUNCHER=$PPID exec python -m steps.{step}"
    assert arguments == [f"{name}={{{name}}}" for name in entry["parameters"]]


@pytest.mark.parametrize("step", STEPS)
def test_the_declared_defaults_are_accepted(step):
    declared = MLPROJECT["entry_points"][step]["parameters"]
    parsed, _ = parse(step, [f"--{name}={parameter['default']}" for name, parameter in declared.items()])
    assert parsed == STEPS[step]()


def test_both_environments_name_one_python_and_the_one_list_of_pins():
    conda, env = yaml.safe_load(read("conda.yaml")), yaml.safe_load(read("python_env.yaml"))
    assert MLPROJECT["python_env"] == "python_env.yaml"
    assert conda["dependencies"] == [f"python={env['python']}", "pip", {"pip": ["-r requirements.txt"]}]
    assert env["dependencies"] == ["-r requirements.txt"]
    assert set(env["build_dependencies"]) <= {"pip", "setuptools", "wheel"}


def commands(page: Path) -> list[tuple[str, list[str]]]:
    """The step and the arguments of every `mlflow run` and `python -m steps.…` in a page's code blocks."""
    blocks = re.findall(r"^ *```[^\n]*\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = []
    for line in lines:
        if match := re.search(r"\bmlflow run (?P<rest>.*)", line):
            words = shlex.split(match["rest"], comments=True)
            values = [value for flag, value in pairwise(words) if flag == "-P"]
            step = words[words.index("-e") + 1] if "-e" in words else "main"
            found.append((step, [f"--{value}" for value in values]))
        elif match := re.search(r"\bpython -m steps\.(?P<step>\w+)(?P<rest>.*)", line):
            words = shlex.split(match["rest"], comments=True)
            if "--help" not in words:
                found.append((match["step"], words))
    return found


def test_the_readme_shows_how_to_run_the_project():
    assert "main" in [step for step, _ in commands(README)]


@pytest.mark.parametrize("page", ["README.md", *sorted(str(p.relative_to(PROJECT)) for p in PROJECT.glob("docs/*.md"))])
def test_every_command_of_a_page_is_accepted(page):
    for step, arguments in commands(PROJECT / page):
        assert step in STEPS, f"{page}: no entry point {step!r}"
        parse(step, arguments)  # an unknown parameter or a value out of range raises


def test_a_wrong_command_would_be_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("text\n```\n$ mlflow run . -e train \\\n    -P family=bias -P epochs=3 # three\n```\n")
    assert commands(page) == [("train", ["--family=bias", "--epochs=3"])]
    with pytest.raises(ValueError, match="unknown parameter 'epochs' for family bias"):
        parse(*commands(page)[0])
