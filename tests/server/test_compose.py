"""docker-compose.yml and what it builds from, as far as they can be judged without a container engine."""

import json
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from recsys.models.base.capabilities import family_names
from server import make_env
from steps.support.parameters import STEPS
from tests.support.team_server import compose, secrets

PROJECT = Path(__file__).resolve().parent.parent.parent
TEXT = (PROJECT / "docker-compose.yml").read_text(encoding="utf-8")
EXAMPLE = (PROJECT / ".env.example").read_text(encoding="utf-8")
FILLED = compose(secrets())
SERVICES = FILLED["services"]
BIN = Path(sys.executable).parent


def run(program: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([BIN / program, *arguments], cwd=PROJECT, capture_output=True, text=True, check=False)


@pytest.mark.process
def test_the_file_is_valid_by_the_compose_specification(tmp_path):
    done = run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")
    assert done.returncode == 0, done.stdout
    (tmp_path / "filled.yml").write_text(yaml.safe_dump(FILLED))
    done = run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(tmp_path / "filled.yml"))
    assert done.returncode == 0, done.stdout


def test_there_are_the_services_and_profiles():
    assert {name: service.get("profiles") for name, service in SERVICES.items()} == {
        "mysql": None,
        "mlflow": ["open"],
        "mlflow-auth": ["auth"],
        "object-store": ["s3"],
        "pipeline": ["pipeline"],
        "serve": ["serve"],
        "monitor": ["monitoring"],
        "prometheus": ["monitoring"],
        "alertmanager": ["monitoring"],
        "grafana": ["monitoring"],
    }
    assert secrets()["COMPOSE_PROFILES"] == "open"  # what starts without further choice


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_safe_and_bounded(name):
    service = SERVICES[name]
    # What is built here has no digest; what comes from elsewhere does not change under its tag.
    digest = "" if service["image"].startswith("recsys-") else "@sha256:[0-9a-f]{64}"
    assert re.fullmatch(rf"[\w./-]+:v?\d+\.\d+(\.\d+)?{digest}", service["image"])
    for port in service.get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)
    assert service["healthcheck"]["test"][0] == "CMD"
    assert set(service["healthcheck"]) >= {"interval", "timeout", "retries"}
    assert service["restart"] == ("no" if name == "pipeline" else "unless-stopped")
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "5"}
    assert service["mem_limit"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert set(service.get("cap_add", ())) <= (
        {"CHOWN", "DAC_OVERRIDE", "SETGID", "SETUID"} if name in ("mysql", "object-store") else set()
    )
    assert not service.get("privileged")
    for needed, how in service.get("depends_on", {}).items():
        assert how["condition"] == "service_healthy"
        # Of those that another profile may leave out, and of no other
        assert (how.get("required") is False) == ("profiles" in SERVICES[needed])


def test_mysql_is_reached_by_encrypted_connections_alone():
    command = SERVICES["mysql"]["command"]
    assert "--require-secure-transport=ON" in command
    assert "--tls-version=TLSv1.2,TLSv1.3" in command
    clients = [name for name, service in SERVICES.items() if "@mysql:3306/" in str(service.get("environment"))]
    assert set(clients) == {"mlflow", "mlflow-auth", "pipeline"}
    for name in clients:
        assert (
            len(re.findall(r"@mysql:3306/\w+\?ssl_ca=/certificates/ca.pem'", str(SERVICES[name]["environment"]))) == 1
        )
        assert "./certificates/ca.pem:/certificates/ca.pem:ro" in SERVICES[name]["volumes"]


@pytest.mark.process
def test_the_certificate_is_for_mysql_and_made_once(tmp_path):
    folder = tmp_path / "certificates"
    make_env.make_certificates(folder)
    assert {path.name for path in folder.iterdir()} == {"ca.pem", "server.pem", "server-key.pem"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    openssl = shutil.which("openssl")
    assert openssl
    for name in ("mysql", "localhost"):
        line = [openssl, "verify", "-CAfile", "ca.pem", "-verify_hostname", name, "server.pem"]
        assert subprocess.run(line, cwd=folder, check=False, capture_output=True).returncode == 0, name
    line[-2] = "elsewhere"
    assert subprocess.run(line, cwd=folder, check=False, capture_output=True).returncode != 0
    before = (folder / "server.pem").read_bytes()
    make_env.make_certificates(folder)
    assert (folder / "server.pem").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["certificates"]


def test_what_must_last_is_on_named_volumes():
    kept = {
        (name, volume.split(":")[0], volume.split(":")[1])
        for name, service in SERVICES.items()
        for volume in service.get("volumes", [])
        if ":" in volume and not volume.startswith(".")
    }
    assert kept == {
        ("mysql", "mysql", "/var/lib/mysql"),
        ("mlflow", "artifacts", "/artifacts"),
        ("mlflow-auth", "artifacts", "/artifacts"),
        ("mlflow", "accounts", "/accounts"),
        ("mlflow-auth", "accounts", "/accounts"),
        ("object-store", "objects", "/data"),
        ("pipeline", "data", "/data"),
        ("serve", "serving", "/data"),
        ("monitor", "serving", "/serving"),
        ("monitor", "data", "/data"),
        ("prometheus", "prometheus", "/prometheus"),
        ("alertmanager", "alertmanager", "/alertmanager"),
        ("grafana", "grafana", "/var/lib/grafana"),
    }
    assert {volume for _, volume, _ in kept} == set(FILLED["volumes"])


def test_both_variants_of_the_server_run_the_one_command():
    assert SERVICES["mlflow"]["command"] == SERVICES["mlflow-auth"]["command"] == ["python", "server/start.py"]
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    assert "python server/start.py" in makefile
    assert 'CMD ["python", "server/start.py"]' in (PROJECT / "server" / "Dockerfile").read_text(encoding="utf-8")


def test_every_variable_is_in_the_example_and_every_one_of_the_example_is_used():
    used = set(re.findall(r"\$\{(\w+)", TEXT))
    listed = {line.split("=")[0] for line in EXAMPLE.splitlines() if "=" in line and not line.startswith("#")}
    assert used == listed - {"COMPOSE_PROFILES"}  # which docker compose reads itself
    assert "$" not in re.sub(r"\$\{\w+[^}]*\}", "", TEXT)


def test_no_secret_stands_in_the_file_or_has_a_default():
    example = dict(line.split("=", 1) for line in EXAMPLE.splitlines() if "=" in line and not line.startswith("#"))
    secret = {name for name in example if re.search(r"PASSWORD|SECRET", name)}
    assert len(secret) == 9
    assert {example[name] for name in secret} == {""}
    for name in secret:
        for default in re.findall(rf"\$\{{{name}:?-([^}}]*)\}}", TEXT):
            assert default == ""
    with pytest.raises(KeyError, match="run make up"):
        compose({})


def test_make_up_makes_env_once_with_random_secrets_for_its_owner_alone(tmp_path, monkeypatch, capsys):
    shutil.copy(PROJECT / ".env.example", tmp_path)
    monkeypatch.setattr(make_env, "PROJECT", tmp_path)
    make_env.main()
    made = tmp_path / ".env"
    first = made.read_text()
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert "random passwords" in capsys.readouterr().out
    values = dict(line.split("=", 1) for line in first.splitlines() if "=" in line and not line.startswith("#"))
    random = [value for name, value in values.items() if re.search(r"DB_|ROOT_|SECRET", name)]
    assert len(set(random)) == len(random) == 6
    assert all(re.fullmatch("[0-9a-f]{40}", value) for value in random)
    assert values["MLFLOW_AUTH_ADMIN_PASSWORD"] == ""  # an administrator chooses it
    make_env.main()
    assert made.read_text() == first
    assert capsys.readouterr().out == ""
    made.write_text(first.replace(f"MLFLOW_DB_PASSWORD={values['MLFLOW_DB_PASSWORD']}", "MLFLOW_DB_PASSWORD="))
    with pytest.raises(SystemExit, match="lacks MLFLOW_DB_PASSWORD"):
        make_env.main()


@pytest.mark.process
@pytest.mark.parametrize("docker", [None, "echo unknown flag >&2; exit 125"])
def test_without_docker_a_backup_says_what_is_missing(docker, tmp_path):
    if docker:
        (tmp_path / "docker").write_text(f"#!/bin/sh\n{docker}\n")
        (tmp_path / "docker").chmod(0o755)
    command = [sys.executable, str(PROJECT / "server" / "backup.py"), "save", str(tmp_path / "backups")]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "docker with its plugin compose (2.20 or newer) is needed" in done.stderr


@pytest.mark.process
def test_without_docker_make_up_says_what_is_missing_and_makes_nothing(tmp_path):
    make = shutil.which("make")
    assert make
    done = subprocess.run(
        [make, "--no-print-directory", "-f", str(PROJECT / "Makefile"), "up", "COMPOSE=no-such-program"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "docker with its plugin compose (2.20 or newer) is needed; without containers: make server" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.process
@pytest.mark.parametrize("name", ["Dockerfile", "pipeline.Dockerfile", "serve.Dockerfile"])
def test_a_dockerfile_passes_the_linter(name):
    done = run("hadolint", "--format", "json", f"server/{name}")
    assert json.loads(done.stdout) == []
    assert done.returncode == 0


@pytest.mark.process
def test_the_linter_would_notice(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM python:latest\nRUN apt-get install git\n")
    assert {
        found["code"] for found in json.loads(run("hadolint", "-f", "json", str(tmp_path / "Dockerfile")).stdout)
    } >= {
        "DL3007",
        "DL3008",
    }


def test_the_dockerfiles_start_from_one_image_named_by_its_digest():
    found = {re.search("^FROM (.*)", path.read_text(), re.MULTILINE)[1] for path in PROJECT.glob("server/*Dockerfile")}
    assert len(found) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", found.pop())


@pytest.mark.parametrize("name", ["Dockerfile", "pipeline.Dockerfile", "serve.Dockerfile"])
def test_what_a_dockerfile_copies_is_there_and_reaches_the_builder(name):
    text = (PROJECT / "server" / name).read_text(encoding="utf-8")
    copied = [source for line in re.findall(r"^COPY (.*)", text, re.MULTILINE) for source in line.split()[:-1]]
    allowed = (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert copied
    for source in copied:
        assert list(PROJECT.glob(source))
        assert any(
            line
            in (
                f"!{source}",
                f"!{source}/**",
                f"!{Path(source).parent}/*{Path(source).suffix}",
                f"!{Path(source).parts[0]}/**",
            )
            for line in allowed
        ), source


# Imports in a folder that holds what an image holds, as if nothing were installed but what the image installs.
IN_AN_IMAGE = """
import importlib, json, re, sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from packaging.requirements import Requirement

def named(name):
    return re.sub("[-_.]+", "-", name).lower()

listed, modules = json.loads(sys.argv[1])
installed, found = set(), [Requirement(line) for line in listed]
while found:
    wanted = found.pop()
    extras = {named(wanted.name)} | {f"{named(wanted.name)}[{extra}]" for extra in wanted.extras}
    if extras <= installed:
        continue
    installed |= extras
    try:
        needed = [Requirement(line) for line in requires(wanted.name) or []]
    except PackageNotFoundError:  # for another system or Python
        continue
    found += [
        one for one in needed
        if not one.marker or any(one.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras))
    ]
owners = {module: {named(owner) for owner in names} for module, names in packages_distributions().items()}
owners = {module: names for module, names in owners.items() if names != {"recsys"}}  # the image has these as files

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if "." not in name and name in owners and not owners[name] & installed:
            raise ModuleNotFoundError(f"the image does not install {sorted(owners[name])}", name=name)

sys.meta_path.insert(0, NotInstalled())
sys.path[:0] = ["", "src"]
for module in modules:
    importlib.import_module(module)
"""
IMPORTED = {
    # What server/start.py and the `mlflow server` that it becomes import, with a login and artifacts in S3
    "Dockerfile": (
        "server/requirements.lock",
        ["server.start", "server.guard", "server.brake", "mlflow.server.auth", "pymysql", "cryptography", "boto3"],
    ),
    "pipeline.Dockerfile": ("requirements.lock", [f"steps.{step}" for step in STEPS]),
    # What the process that follows the registry and the workers import, sooner or later
    "serve.Dockerfile": (
        "server/serve-requirements.lock -r src/recsys/serving/requirements.lock",
        [
            *("steps.serve", "recsys.serving.worker", "recsys.serving.sharing", "recsys.serving.compact"),
            *("recsys.tracking.connection", "registry.probe", "registry.transitions"),
            *(f"recsys.models.{family}" for family in family_names()),
        ],
    ),
}


@pytest.mark.process
@pytest.mark.parametrize("name", IMPORTED)
def test_an_image_holds_and_installs_what_its_program_imports(name, tmp_path):
    """Without a container engine and its registry: what is copied and installed is read from the Dockerfile."""
    text = (PROJECT / "server" / name).read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (.*)", text, re.MULTILINE):
        *sources, into = line.split()
        for path in [found for source in sources for found in PROJECT.glob(source)]:
            if path.is_dir():
                shutil.copytree(path, tmp_path / into, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
            else:
                (tmp_path / into).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, tmp_path / into)
    requirements, modules = IMPORTED[name]
    assert f"pip install --require-hashes -r {requirements}" in text
    texts = [(tmp_path / path).read_text() for path in requirements.split(" -r ")]
    lines = [line.split(" ")[0] for text in texts for line in text.splitlines() if "==" in line.split(" ")[0]]
    done = subprocess.run(
        [sys.executable, "-c", IN_AN_IMAGE, json.dumps([lines, modules])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.process
def test_what_an_image_installs_can_be_installed_together():
    """Every environment of ours, this one too, has both lists: pip found versions for them, and they still agree."""
    assert {"-r requirements.txt", "-r server/requirements.txt"} <= set(
        (PROJECT / "requirements-dev.txt").read_text(encoding="utf-8").splitlines()
    )
    done = run("python", "-m", "pip", "check")
    assert done.returncode == 0, done.stdout


LISTS = [path for path in PROJECT.rglob("*requirements.txt") if not {".venv", "mlruns"} & set(path.parts)]


def locked(path: Path) -> dict[str, str]:
    """The versions in the lock beside a list of packages, by name; each has the hash of at least one file."""
    text = path.with_suffix(".lock").read_text(encoding="utf-8")
    entries = re.findall(r"^([\w.-]+)==(\S+)[^\n]*((?:\n    --hash=sha256:[0-9a-f]{64}[^\n]*)+)", text, re.MULTILINE)
    assert len(entries) == len(re.findall(r"^\S", text, re.MULTILINE)), path
    assert "://" not in text  # where packages come from is the machine's affair
    return {re.sub("[-_.]+", "-", name).lower(): version for name, version, _ in entries}


@pytest.mark.parametrize("path", LISTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_every_list_of_packages_has_a_lock_that_is_up_to_date(path):
    found, pins = locked(path), locked(PROJECT / "requirements.txt")
    for line in path.read_text(encoding="utf-8").splitlines():
        if wanted := re.match(r"([\w.-]+)(?:\[\w+\])?(?:==(\S+))?", line.split("#")[0]):
            version = found[re.sub("[-_.]+", "-", wanted[1]).lower()]
            assert wanted[2] in (None, version), line
    assert {name: version for name, version in found.items() if pins.get(name, version) != version} == {}


def test_the_server_s_packages_have_one_pin():
    def names(path: str) -> dict[str, str]:
        lines = [line.split("#")[0].strip() for line in (PROJECT / path).read_text(encoding="utf-8").splitlines()]
        return {re.split(r"[=<]", line)[0].lower(): line for line in lines if line and not line.startswith("-")}

    ours, pinned = names("server/requirements.txt"), names("requirements.txt")
    for name, line in {**names("server/serve-requirements.txt"), **ours}.items():
        assert (name in pinned) != ("==" in line), line
    assert f"recsys-server:{pinned['mlflow'].split('==')[1]}" == SERVICES["mlflow"]["image"]
