"""Checks of a set-up that need no other tool than HTTP: packages, disk, the server's answers. Each is one `Finding`."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import requests

_ANSWER_SECONDS = 5
_SKEW_SECONDS = 30
_FREE_GB = 2.0
_FOREIGN = "not-this-server.example"


@dataclass(frozen=True)
class Finding:
    """What a check found: `remedy` is empty where all is well."""

    text: str
    remedy: str = ""

    @property
    def is_ok(self) -> bool:
        """Whether nothing has to be done."""
        return not self.remedy


def check_python(found: tuple[int, int], requirements: Path) -> Finding:
    """Python 3.11 and the packages of a requirements.txt in their pinned versions."""
    python = f"{found[0]}.{found[1]}"
    if found != (3, 11):
        return Finding(f"Python {python}, 3.11 is needed", "make env PYTHON=path/to/python3.11")
    pins = dict(re.findall(r"^([\w-]+)==([\w.]+)", requirements.read_text(encoding="utf-8"), re.MULTILINE))
    wrong = []
    for name, wanted in pins.items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = "missing"
        if installed.partition("+")[0] != wanted:
            wrong.append(f"{name} {installed} instead of {wanted}")
    if wrong:
        return Finding(f"Python {python}, but {', '.join(wrong)}", "make env, or pip install -r requirements.txt")
    return Finding(f"Python {python} and all {len(pins)} pins of {requirements.name}")


def check_server(uri: str, ours: str, credentials: tuple[str, str] | None) -> Finding:
    """Whether a tracking server answers, with our MLflow's version, to us.

    A server may be newer than its clients; an older one lacks what a newer client asks for.
    """
    try:
        answer = requests.get(f"{uri}/version", timeout=_ANSWER_SECONDS)
        if answer.status_code != requests.codes.ok:
            return Finding(f"{uri} answers {answer.status_code} to /version: that is no MLflow server", _ADDRESS)
        theirs = answer.text.strip()
        entered = _ask(uri, credentials)
    except requests.RequestException as error:
        return Finding(
            f"{uri} does not answer ({type(error).__name__})", f"start it (make up, make server), or {_ADDRESS}"
        )
    if entered.status_code == requests.codes.unauthorized:
        return Finding(
            f"{uri} wants a login", "export MLFLOW_TRACKING_USERNAME=… MLFLOW_TRACKING_PASSWORD=… of your account"
        )
    if theirs != ours:
        older = _numbers(theirs) < _numbers(ours)
        what = "older: calls it does not know fail" if older else "newer: it may keep what this client cannot read"
        side = "the server (docs/server.md, Upgrading)" if older else "this clone: git pull, then make env"
        return Finding(f"{uri} is MLflow {theirs}, this is {ours}; the server is {what}", f"bring up to date {side}")
    return Finding(f"{uri} is MLflow {theirs}, as here")


def check_hosts(uri: str, credentials: tuple[str, str] | None) -> Finding:
    """Whether the server answers to the name we call it by, and to no foreign one."""
    ours = _ask(uri, credentials)
    if ours.status_code == requests.codes.forbidden and "Host" in ours.text:
        name = uri.partition("://")[2].partition("/")[0]
        return Finding(f"the server refuses its name {name!r}", f"add {name} to ALLOWED_HOSTS in its .env, and make up")
    if _ask(uri, credentials, {"Host": _FOREIGN}).status_code != requests.codes.forbidden:
        return Finding(
            "the server answers to any Host header, so any web page can read it through a visitor's browser",
            "start it with make up or make server, or with --allowed-hosts",
        )
    return Finding("the server answers to the name it is called by, and to no foreign one")


def check_clock(uri: str, now: datetime) -> Finding:
    """The difference between the server's clock and ours, by which runs are ordered and logins signed."""
    answer = requests.get(f"{uri}/health", timeout=_ANSWER_SECONDS)
    if "Date" not in answer.headers:
        return Finding("the server does not tell its time")
    skew = (parsedate_to_datetime(answer.headers["Date"]).astimezone(UTC) - now.astimezone(UTC)).total_seconds()
    text = f"the server's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} ours"
    return (
        Finding(text, "let both machines take their time from the network: timedatectl set-ntp true")
        if (abs(skew) > _SKEW_SECONDS)
        else Finding(text)
    )


def check_disk(folders: Mapping[str, Path]) -> Finding:
    """Room where data, temporary files and results go."""
    free = {}
    for name, folder in folders.items():
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        free[name] = shutil.disk_usage(existing).free / 1e9
    shown = ", ".join(f"{gigabytes:.0f} GB free for {name}" for name, gigabytes in free.items())
    if short := [str(folders[name]) for name, gigabytes in free.items() if gigabytes < _FREE_GB]:
        return Finding(f"{shown}; {_FREE_GB:.0f} are needed", f"make room on the disk of {', '.join(short)}")
    return Finding(shown)


def check_git(tags: Mapping[str, str]) -> Finding:
    """Whether versions will say which code made them; takes the tags of `provenance`. Never wrong, but good to know."""
    if tags["git_commit"] == "unknown":
        return Finding("no git checkout: versions will not say which code made them")
    if tags["git_dirty"] == "true":
        return Finding(f"commit {tags['git_commit'][:12]} with uncommitted changes: versions will say so")
    return Finding(f"commit {tags['git_commit'][:12]}, nothing uncommitted")


def _ask(uri: str, credentials: tuple[str, str] | None, headers: Mapping[str, str] | None = None) -> requests.Response:
    address = f"{uri}/api/2.0/mlflow/experiments/search?max_results=1"
    return requests.get(address, auth=credentials, headers=headers, timeout=_ANSWER_SECONDS)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text))


_ADDRESS = "correct or unset MLFLOW_TRACKING_URI"
