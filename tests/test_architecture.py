"""The rules of docs/decisions and of this tree that a test can hold."""

import ast
import functools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
CODE = sorted(
    path.relative_to(PROJECT)
    for folder in ("src/recsys", "registry", "steps", "pipelines")
    for path in (PROJECT / folder).rglob("*.py")
)
LIBRARY = [path for path in CODE if path.parts[0] in ("src", "registry")]

# The floors of the house, from the ground up. A room may use the floors below its own, and no other room of its floor.
FLOORS = (
    ("recsys.arrays",),
    ("recsys.errors",),
    ("recsys.settings", "recsys.metrics", "recsys.runtime", "recsys.figures"),
    ("recsys.data", "recsys.distributed", "recsys.experiments"),
    ("recsys.models",),
    ("recsys.feature_store",),
    ("recsys.families", "recsys.training", "recsys.serving"),
    ("recsys.evaluation", "recsys.tracking", "recsys.monitoring", "recsys.export"),
    ("registry", "recsys.tuning", "recsys.retraining", "recsys.testing"),
    ("recsys.diagnostics", "pipelines"),
    ("steps",),
)
FORBIDDEN = (("recsys.serving", "recsys.data.readers"), ("recsys.models", "recsys.data.readers"))
"""What a floor would allow and a room must not use."""

# Each tool has one room; a folder stands for all its files.
ROOMS = {
    "mlflow": ["src/recsys/tracking", "src/recsys/serving", "src/recsys/diagnostics/probes.py", "registry"],
    "optuna": ["src/recsys/tuning", "src/recsys/testing", "src/recsys/diagnostics/probes.py"],
    "torch": [
        "src/recsys/distributed",
        *(f"src/recsys/models/bayesian_mf/{name}.py" for name in ("distributed", "gram", "torch_backend")),
        "src/recsys/models/matrix_factorization",
        "src/recsys/runtime/device.py",
        "src/recsys/training/launch",
        "src/recsys/diagnostics/probes.py",
    ],
    "numba": ["src/recsys/runtime/compilation.py", "src/recsys/runtime/lines.py"],
    "torch.distributed": [
        "src/recsys/distributed",
        "src/recsys/training/launch",
        "src/recsys/models/bayesian_mf/distributed.py",
        *(
            f"src/recsys/models/matrix_factorization/{name}.py"
            for name in ("distributed", "batch_learner", "block_exchange", "data_parallel", "row_sharded", "sampler")
        ),
    ],
    "sqlalchemy": [
        "src/recsys/tuning/storage.py",
        "src/recsys/tuning/coordination.py",
        "src/recsys/tuning/database.py",
        "src/recsys/tuning/database_errors.py",
        "src/recsys/monitoring/archive.py",
        "src/recsys/monitoring/trial_rows.py",
        "src/recsys/serving/sharing.py",
        "src/recsys/tracking/connection.py",
    ],
    "model_signing": ["registry/signing.py"],
    "evidently": ["src/recsys/monitoring/evidently_page.py"],
    "onnx": ["src/recsys/export"],
    "onnxruntime": ["src/recsys/serving/graph_scores.py"],
    "kfp": ["pipelines"],
    "model_archiver": ["src/recsys/export/packages.py"],
    "pyarrow.fs": ["src/recsys/data/object_store.py"],
    "feast": ["src/recsys/feature_store"],
    "tenacity": ["src/recsys/runtime/retry.py"],
    "uvicorn": ["src/recsys/serving/worker.py"],
    "prometheus_client": ["src/recsys/serving/metrics.py", "src/recsys/serving/supervisor.py"],
    "sqlite3": [
        "src/recsys/tracking/connection.py",
        "src/recsys/serving/feedback.py",
        "src/recsys/serving/outbox.py",
        "src/recsys/serving/record_table.py",
        "src/recsys/feature_store/store.py",
    ],
    "argparse": ["steps/support/entrypoint.py"],
    "skops": ["src/recsys/models/random_forest.py"],
    "platformdirs": [
        "steps/support/entrypoint.py",
        "src/recsys/runtime/compilation.py",
        "src/recsys/tracking/connection.py",
    ],
}
# Programs of their own that stand in the library.
PROGRAMS = [
    "src/recsys/training/launch/agent.py",
    "src/recsys/training/launch/rank.py",
    "src/recsys/serving/record_writer.py",
    "src/recsys/serving/worker.py",
    "src/recsys/testing/dataset.py",
]
PACKAGE_OF = {
    "sklearn": "scikit-learn",
    "model_signing": "model-signing",
    "yaml": "pyyaml",
    "model_archiver": "torch-model-archiver",
    "google": "protobuf",
}


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse((PROJECT / path).read_text(encoding="utf-8"))


def nodes(path: Path) -> Iterator[ast.AST]:
    """Every node of a file, less the bodies of components: those are programs that run elsewhere, beside the steps."""
    waiting: list[ast.AST] = [tree(path)]
    while waiting:
        node = waiting.pop()
        yield node
        decorators = node.decorator_list if isinstance(node, ast.FunctionDef) else []
        if "component" not in {ast.unparse(decorator) for decorator in decorators}:
            waiting += ast.iter_child_nodes(node)


@functools.cache
def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it, by its full name."""
    found: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            found.add(str(node.module))
    return found


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def test_there_is_code_to_check():
    assert {path.parts[0] for path in CODE} == {"src", "registry", "steps", "pipelines"}
    assert len(CODE) > 20


def name_of(path: Path) -> str:
    parts = path.with_suffix("").parts[1 if path.parts[0] == "src" else 0 :]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in CODE}


@functools.cache
def ours(path: Path) -> set[str]:
    """The modules of ours that a file imports, wherever in it; a package counts where a name is taken from itself."""
    found: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in MODULES else str(node.module))
    return {name for name in found if name in MODULES and name != "recsys"}


def is_in(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def floor_of(module: str) -> tuple[int, str]:
    return next((floor, room) for floor, rooms in enumerate(FLOORS) for room in rooms if is_in(module, room))


def arrows(room: str) -> set[str]:
    """The other rooms that a room's modules import from."""
    used = {found for module in MODULES if is_in(module, room) for found in ours(MODULES[module])}
    return {floor_of(module)[1] for module in used} - {room}


@pytest.mark.parametrize("module", [name for name in MODULES if name != "recsys"])
def test_an_import_stays_in_its_room_or_goes_down(module):
    floor, room = floor_of(module)
    wrong = [other for other in ours(MODULES[module]) if floor_of(other)[1] != room and floor_of(other)[0] >= floor]
    assert wrong == []


@pytest.mark.parametrize(("room", "other"), FORBIDDEN)
def test_a_room_leaves_alone_what_it_must_not_use(room, other):
    wrong = [
        (module, found)
        for module in MODULES
        if is_in(module, room)
        for found in ours(MODULES[module])
        if is_in(found, other)
    ]
    assert wrong == []


def test_a_family_imports_no_other_family():
    wrong = []
    for module in MODULES:
        if is_in(module, "recsys.models") and module.count(".") > 1 and not is_in(module, "recsys.models.base"):
            family = ".".join(module.split(".")[:3])
            used = {other for other in ours(MODULES[module]) if is_in(other, "recsys.models")}
            wrong += [
                (module, other) for other in used if not any(is_in(other, at) for at in (family, "recsys.models.base"))
            ]
    assert wrong == []


def test_no_module_imports_itself_by_way_of_others():
    arrows = {module: ours(path) - {module} for module, path in MODULES.items()}
    while free := [module for module, targets in arrows.items() if not targets & arrows.keys()]:
        for module in free:
            del arrows[module]
    assert {module: sorted(targets & arrows.keys()) for module, targets in arrows.items()} == {}


@pytest.mark.parametrize("tool", ROOMS)
def test_a_tool_stays_in_its_room(tool):
    users = [path.as_posix() for path in CODE if any(f"{name}.".startswith(f"{tool}.") for name in imports(path))]
    assert [
        path for path in users if not any(path == room or path.startswith(f"{room}/") for room in ROOMS[tool])
    ] == []


def test_optuna_s_private_names_are_used_in_one_module():
    room = [path for path in CODE if path.parts[:3] == ("src", "recsys", "tuning") and path.name != "storage.py"]
    wrong = [f"{path}: {name}" for path in room for name in imports(path) if re.match(r"optuna\..*\b_", name)]
    for path in room:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute) and re.match("_[^_]", node.attr) and ast.unparse(node.value) != "self":
                wrong.append(f"{path}:{node.lineno}: {ast.unparse(node)}")
    assert wrong == []


@pytest.mark.parametrize("path", [path for path in LIBRARY if path.as_posix() not in PROGRAMS], ids=str)
def test_the_library_neither_reads_the_environment_nor_prints(path):
    wrong = []
    for node in ast.walk(tree(path)):
        name = ast.unparse(node) if isinstance(node, ast.Attribute | ast.Name) else ""
        if name in ("os.environ", "os.getenv", "os.environb", "sys.argv", "print", "input"):
            wrong.append(f"{path}:{node.lineno}: {name}")
        if isinstance(node, ast.ImportFrom) and node.module in ("os", "sys"):
            wrong.append(f"{path}:{node.lineno}: import the module {node.module}, so that this test sees what is used")
    assert wrong == []


@pytest.mark.parametrize("path", CODE, ids=str)
def test_a_module_does_nothing_when_imported(path):
    """Statements at the top define; one loop sets the path, and one call names the model to MLflow."""
    allowed = {"steps/__init__.py": ast.For, "src/recsys/serving/pyfunc_model.py": ast.Expr}
    definitions = (
        ast.Import,
        ast.ImportFrom,
        ast.FunctionDef,
        ast.AsyncFunctionDef,
        ast.ClassDef,
        ast.Assign,
        ast.AnnAssign,
        ast.If,
    )
    for node in tree(path).body:
        documents = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        exempt = isinstance(node, allowed.get(path.as_posix(), ()))
        assert documents or exempt or isinstance(node, definitions), f"{path}:{node.lineno}: {ast.unparse(node)}"


PARSES_WRONG_PARAMETERS = """
import importlib, json, pkgutil, sys
import steps
from recsys.errors import InputError
from recsys.models.base.capabilities import family_names
for module in pkgutil.iter_modules(steps.__path__):
    importlib.import_module(f"steps.{module.name}")
from steps.support.entrypoint import parse
refused = 0
steps = ("main", "prepare", "train", "tune", "evaluate", "promote", "doctor")
attempts = [(name, ["--no_such_parameter=1"]) for name in steps]
attempts += [("train", [f"--family={family}", "--no_such_parameter=1"]) for family in [*family_names(), "unknown"]]
attempts += [("tune", ["--family=unknown"]), ("train", ["--test_size=2"]), ("train", ["family"])]
for name, arguments in attempts:
    try:
        parse(name, arguments)
    except InputError:
        refused += 1
print(json.dumps([refused, len(attempts), sorted(sys.modules)]))
"""


@pytest.mark.process
def test_a_wrong_parameter_is_told_before_a_heavy_library_is_imported():
    done = subprocess.run(
        [sys.executable, "-c", PARSES_WRONG_PARAMETERS], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    refused, attempts, modules = json.loads(done.stdout)
    assert refused == attempts
    assert not {"torch", "mlflow", "sklearn", "optuna", "matplotlib", "skops", "sqlalchemy"} & set(modules)


@pytest.mark.parametrize(
    "folder", ["src", "registry", "steps", "pipelines", "server", "tests", "bench", "docs", "demo"]
)
def test_no_file_is_longer_than_400_lines(folder):
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (PROJECT / folder).rglob("*.py")}
    assert {str(path): length for path, length in lengths.items() if length > 400} == {}


def required(name: str = "requirements.txt") -> set[str]:
    lines = (PROJECT / name).read_text(encoding="utf-8").splitlines()
    found = [line.split("#")[0].strip() for line in lines]
    return {re.split(r"[=<>\[]", line)[0].lower() for line in found if line}


def test_every_package_that_is_imported_is_pinned_in_requirements():
    ours = {"recsys", "registry", "steps", "pipelines"} | sys.stdlib_module_names
    testing = [path for path in CODE if path.is_relative_to("src/recsys/testing")]
    exporting = [path for path in CODE if path.is_relative_to("src/recsys/export") or path.name == "graph_scores.py"]
    drawing = [path for path in CODE if path.is_relative_to("pipelines")]
    watching = [path for path in CODE if path.is_relative_to("src/recsys/monitoring")]
    storing = [path for path in CODE if path.is_relative_to("src/recsys/feature_store")]
    signing = [Path("registry/signing.py")]
    for paths, pinned in (
        (
            set(CODE) - set(testing) - set(exporting) - set(watching) - set(storing) - set(signing) - set(drawing),
            required(),
        ),
        (drawing, required() | required("pipelines/requirements.txt")),
        (signing, required() | required("registry/requirements.txt")),
        (storing, required() | required("src/recsys/feature_store/requirements.txt")),
        (watching, required() | required("src/recsys/monitoring/requirements.txt")),
        (testing, required() | required("requirements-dev.txt")),
        (
            exporting,
            required()
            | required("src/recsys/export/requirements.txt")
            | required("src/recsys/export/torchserve-requirements.txt"),
        ),
    ):
        assert {PACKAGE_OF.get(name, name) for path in paths for name in tops(path)} - ours <= pinned


def test_the_requirements_of_a_worker_are_pinned_as_everybodys():
    own, all_ = (
        {line.split("#")[0].strip() for line in (PROJECT / path).read_text(encoding="utf-8").splitlines()} - {""}
        for path in ("src/recsys/serving/requirements.txt", "requirements.txt")
    )
    assert own <= all_


WORKER_IMPORTS = """
import json, sys
import recsys.serving.worker
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@pytest.mark.process
def test_a_worker_imports_what_its_requirements_say():
    done = subprocess.run(
        [sys.executable, "-c", WORKER_IMPORTS], cwd=PROJECT / "src", capture_output=True, text=True, check=True
    )
    heavy = {"torch", "numba", "pandas", "mlflow", "sklearn", "scipy", "pyarrow", "sqlalchemy", "registry", "steps"}
    assert not heavy & set(json.loads(done.stdout))


def test_every_requirement_has_a_version():
    lines = (PROJECT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("#")[0].strip() for line in lines]
    assert [pin for pin in pins if pin and not re.search(r"==|<", pin)] == []
