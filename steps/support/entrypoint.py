"""What every step does around its work: read the command line, connect, fail with one message, stop when told."""

import argparse
import atexit
import errno
import gc
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from platformdirs import user_cache_path, user_data_path

from recsys.errors import InputError, JoinedError, RankError
from recsys.models.base.capabilities import family_names
from recsys.models.base.family import family_module
from recsys.settings import Settings, did_you_mean, parse_settings, to_text
from recsys.tuning.database_url import check_options, masked
from registry import signing
from steps import PROJECT
from steps.support.parameter_groups import AUTO, DEFAULT_MODEL
from steps.support.parameters import STEPS, StepName
from steps.support.signals import StopSignals

_NOT_PROMOTED = 3  # exit status
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # whichever library wrote, and it may not say where
_CLOSED = (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EPERM)
_LONGEST_FILE = 1 << 24  # bytes of a file of parameters
LAUNCHER = "RECSYS_LAUNCHER"  # number of the process that started this one, from before Python was there
TICKET = "RECSYS_SEARCH"  # set by `tune` for the workers it starts
_ORPHAN_POLL_SECONDS = 1.0
# Python looks for rubbish after so many new objects, by default 700. Imports make a million that stay: looking among
# them was a fifth of the time that they take.
_OBJECTS_UNSEEN = 50_000


class NotPromotedError(Exception):
    """A decision that left things as they are, where the caller asked for another."""


def run_step(
    name: StepName, step: Callable[..., Any], arguments: Sequence[str] | None = None, *, connected: bool = True
) -> None:
    """Run a step as a program: parse, connect to MLflow, call, and turn what goes wrong into one message.

    Args:
        connected: False for a step that calls `connect` itself, or finds out itself whether MLflow can be reached.
    """
    gc.set_threshold(_OBJECTS_UNSEEN)
    atexit.register(gc.freeze)  # Python looks through all of them once more as it ends, which takes a second
    stop = StopSignals()
    try:
        with stop:
            _watch_launcher()  # in here, since it may be gone already
            parameters, config = parse(name, sys.argv[1:] if arguments is None else arguments)
            _set_environment(Path(parameters.folder))  # type: ignore[attr-defined]
            if connected:
                connect(parameters)
            step(parameters) if config is None else step(parameters, config)
    except (InputError, RankError) as error:
        _fail(f"{name}: {error}")
    except JoinedError as told:
        print(told)
    except NotPromotedError as error:
        _tell(f"{name}: nobody was promoted: {error}")
        sys.exit(_NOT_PROMOTED)
    except OSError as error:  # a full disk, a folder that may not be written, a server that went away
        _fail(f"{name}: {type(error).__name__}: {error}{_remedy(error)}")
    except Exception as error:
        if not _is_refusal(error):
            raise
        # Behind that, SQLAlchemy repeats the statement with all its values.
        text = " ".join(str(error).partition("[SQL:")[0].split())
        _fail(f"{name}: MLflow: {text[:1000]}; `make doctor` looks for the cause")
    except KeyboardInterrupt:
        number = stop.number or signal.SIGINT
        if TICKET not in os.environ:  # a worker's stop is told by the one that started it
            _tell(f"{name}: stopped by {signal.Signals(number).name}")
        sys.exit(128 + number)


def parse(name: StepName, arguments: Sequence[str]) -> tuple[Settings, Settings | None]:
    """The step's parameters and, for `train`, those of its family; raises InputError."""
    model = STEPS[name]
    values = _read(name, model, arguments)
    if name != "train":
        parameters = parse_settings(model, values)
        if name == "tune":
            family_module(parameters.family)  # type: ignore[attr-defined]
        return parameters, None
    own = {key: value for key, value in values.items() if key in model.model_fields}
    parameters = parse_settings(model, own)
    family: str = parameters.family  # type: ignore[attr-defined]
    config = family_module(family).Config
    for key in values:
        if key not in own and key not in config.model_fields:
            raise InputError(_unknown(key, family, [*model.model_fields, *config.model_fields]))
    rest = {key: value for key, value in values.items() if key not in own}
    return parameters, parse_settings(config, {**read_params(parameters), **rest})


def read_params(parameters: Any) -> dict[str, Any]:
    """The settings behind the parameter `params`, JSON or a file of it; raises InputError."""
    text = parameters.params.strip()
    if not text:
        return {}
    if parameters.from_run:
        raise InputError("parameters 'params' and 'from_run': one of them, got both")
    try:
        if not text.startswith("{"):
            text = _read_file(given_path(parameters.folder, text, "params"))
        found = json.loads(text)
    except (OSError, ValueError) as error:
        raise InputError(
            f"parameter 'params': JSON such as {{\"epochs\": 20}} or a file of it is needed, got {parameters.params!r} "
            f"({error})"
        ) from None
    if not isinstance(found, dict):
        raise InputError(f"parameter 'params': a JSON object is needed, got {text[:100]!r}")
    return found


def _remedy(error: OSError) -> str:
    if error.errno in _FULL:
        return "; make room on the disk, `make doctor` says how much each has"
    with suppress(InputError):  # of a RECSYS_DATA that names no place
        if error.errno in _CLOSED and error.filename and Path(str(error.filename)).is_relative_to(data_folder()):
            chosen = "RECSYS_DATA_CACHE" if object_store_address() else "RECSYS_DATA"
            return f"; data is kept there: set {chosen} to a folder that can be written"
    return ""


def data_folder() -> Path:
    """Where downloaded ratings and prepared datasets live: one place a user, outside any clone of the project.

    Where RECSYS_DATA names an object store, this machine's copies of what is in it.
    """
    chosen = os.environ.get("RECSYS_DATA")
    if address := object_store_address():
        from recsys.data.object_store import copies_folder

        cache = os.environ.get("RECSYS_DATA_CACHE")
        place = given_path(".", cache, "RECSYS_DATA_CACHE").absolute() if cache else user_cache_path("recsys", False)
        return copies_folder(*address, place)
    return given_path(".", chosen, "RECSYS_DATA").absolute() if chosen else user_data_path("recsys", appauthor=False)


def object_store_address() -> tuple[str, str | None] | None:
    """The address of the object store that RECSYS_DATA names and that of its server, None for Amazon's; or None."""
    uri = os.environ.get("RECSYS_DATA", "")
    if not uri.startswith("s3://"):
        return None
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL")
    return uri, next((os.environ[name] for name in names if os.environ.get(name)), None)


def given_path(folder: str, text: str, name: str) -> Path:
    """A path that a user gave, relative ones from `folder` on; raises InputError where ~ names no user.

    Args:
        name: what gave it, for the message.
    """
    try:
        return Path(folder) / Path(text).expanduser()
    except RuntimeError:
        raise InputError(
            f"parameter {name!r}: this machine has no user of the name behind ~ in {text!r}; write the path in full"
        ) from None


def given_folder(folder: str, text: str, name: str) -> Path:
    """As `given_path`, of a folder that is there or can be made; raises InputError where a file is in its way too."""
    path = given_path(folder, text, name).absolute()
    there = next(place for place in (path, *path.parents) if place.exists())
    if not there.is_dir():
        raise InputError(f"parameter {name!r}: a folder is needed, got {text!r}, but {there} is a file; name another")
    return path


def _read_file(path: Path) -> str:
    """The text of a file that is one and not endless; raises OSError or ValueError."""
    if path.exists() and not path.is_file():
        raise ValueError("it is no regular file")
    with path.open("rb") as file:
        content = file.read(_LONGEST_FILE + 1)
    if len(content) > _LONGEST_FILE:
        raise ValueError(f"it has more than {_LONGEST_FILE >> 20} MB")
    return content.decode()


def _read(name: StepName, model: type[Settings], arguments: Sequence[str]) -> dict[str, str]:
    """`--name value` and `--name=value`; any name is taken, so that an unknown one can be explained."""
    if any(argument in ("-h", "--help") for argument in arguments):
        _help(name, model)
    values: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        key, given, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not key:
            raise InputError(f"parameters are written --name=value, got {masked(argument)!r}; see --help")
        if not given:
            if not rest:
                raise InputError(f"parameter {key!r}: a value is needed behind its name; write --{key}=value")
            value = rest.pop(0)
        if key in values:
            both = f"{masked(values[key])!r} and {masked(value)!r}"
            raise InputError(f"parameter {key!r}: given twice, {both}; give it once")
        values[key] = value
    return values


def _help(name: StepName, model: type[Settings]) -> NoReturn:
    parser = argparse.ArgumentParser(
        prog=f"python -m steps.{name}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for key, field in model.model_fields.items():
        description = f"{field.description} (default: {to_text(field.get_default()) or 'empty'})"
        parser.add_argument(f"--{key}", metavar="VALUE", help=description.replace("%", "%%"))
    parser.print_help()
    for family in family_names() if name == "train" else ():
        # A parser each: two families may have a parameter of the same name.
        own = argparse.ArgumentParser(add_help=False, usage=argparse.SUPPRESS)
        group = own.add_argument_group(f"parameters of family {family}")
        for key, field in family_module(family).Config.model_fields.items():
            description = f"{field.description} (default: {to_text(field.get_default())})"
            group.add_argument(f"--{key}", metavar="VALUE", help=description.replace("%", "%%"))
        print("\n" + own.format_help().strip())
    sys.exit(0)


def _unknown(key: str, family: str, known: Sequence[str]) -> str:
    owners = [other for other in family_names() if other != family and key in family_module(other).Config.model_fields]
    hint = f" ({key} belongs to family {' and '.join(owners)})" if owners else did_you_mean(key, known)
    return f"unknown parameter {key!r} for family {family}{hint}; known are: {', '.join(known)}"


def tracking_uri(folder: Path) -> str:
    """Where runs and versions are kept; a relative sqlite path means the caller's folder."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{PROJECT / 'mlflow.db'}"
    prefix = "sqlite:///"
    if uri.startswith(prefix):  # MLflow would take this process's
        uri = prefix + str((folder / uri.removeprefix(prefix)).absolute())
    return uri


def connect(parameters: Any) -> None:
    """Send everything from here on to where runs and versions are kept, and into the experiment; may be repeated."""
    from recsys.tracking import connection  # MLflow takes seconds to import: a wrong parameter has been told by now

    connection.connect(os.environ["MLFLOW_TRACKING_URI"])
    _enter_experiment(parameters)


def _set_environment(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"parameter 'folder': an existing folder is needed, got {str(folder)!r}")
    uri = tracking_uri(folder)
    check_options(uri, "MLFLOW_TRACKING_URI")
    _check_threads(os.environ.get("NUMBA_NUM_THREADS", "1"))
    os.environ["MLFLOW_TRACKING_URI"] = uri
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"  # a pickle runs the code of whoever logged it
    # Artifacts go through the server: the S3 store behind it, which MLflow would turn to, may be hidden from us.
    os.environ.setdefault("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "false")
    os.environ.setdefault("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "false")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    signing.use_keys(os.environ.get(signing.SIGNING_KEY, ""), os.environ.get(signing.VERIFY_KEY, ""))


def _check_threads(given: str) -> None:
    """Numba takes this variable as it is imported, and would end the step there, or warn of text and use all cores."""
    with suppress(ValueError):
        if int(given) >= 1:
            return
    raise InputError(
        f"NUMBA_NUM_THREADS: a number of threads from 1 on is needed, got {given!r}; unset it to use all cores"
    )


def _enter_experiment(parameters: Any) -> None:
    """The experiment given, else one that the caller has chosen for MLflow, else one named after the model."""
    from recsys.tracking import experiments

    given = getattr(parameters, "experiment", AUTO)
    named = getattr(parameters, "model_name", DEFAULT_MODEL)
    experiments.enter(named if given == AUTO else given, given=given != AUTO)


def _is_refusal(error: Exception) -> bool:
    """Whether MLflow's server refuses or does not answer, found without MLflow, which takes seconds to import."""
    kinds = {(kind.__module__, kind.__name__) for kind in type(error).__mro__}
    return ("mlflow.exceptions", "MlflowException") in kinds


def _watch_launcher() -> None:
    """Stop this process when the one that started it for a run or a search is gone."""
    if "MLFLOW_RUN_ID" in os.environ or TICKET in os.environ:
        launcher = os.environ.get(LAUNCHER, "")
        parent = int(launcher) if launcher.isdigit() else os.getppid()
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()


def _watch_parent(parent: int) -> None:
    """Stop this process once it is another's child than that of `parent`, which may be so at the first look."""
    while os.getppid() == parent:
        time.sleep(_ORPHAN_POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def _fail(message: str) -> NoReturn:
    _tell(f"error: {message}")
    sys.exit(1)


def _tell(message: str) -> None:
    sys.stdout.flush()  # what was said before comes before, in a file too
    print(message, file=sys.stderr)
