"""Follows the registry: who is champion, its form on this machine's disk, and the pointer that workers read."""

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from recsys.errors import InputError, in_one_line
from recsys.runtime.files import write_atomically
from recsys.serving.engine import Engine
from recsys.serving.form import open_form
from recsys.serving.service import CALL, POINTER

_FORMS = "forms"
_FIRST_PAUSE, _LONGEST_PAUSE = 10.0, 600.0  # seconds before a version that failed is tried again
_TICK_SECONDS = 0.1
_KEPT = 3  # forms on the disk: the current one and those that a rollback goes to
_log = logging.getLogger("recsys.serving")


class Champion(NamedTuple):
    """A version to serve. `key` differs for any two versions of any two registries, and is a file's name."""

    version: str
    key: str


class Challenger(NamedTuple):
    """A trial as the registry has it: who is shown which version. `share` None: nobody, it answers beside."""

    trial: str
    share: float | None
    version: Champion


class Follower:
    """Brings what the registry says to the pointer. Nothing it does touches what is served until the pointer moves."""

    def __init__(
        self,
        folder: Path,
        find: Callable[[], Champion | None],
        make: Callable[[Champion, Path], object],
        find_trial: Callable[[], Challenger | None] = lambda: None,
    ) -> None:
        """Take what asks the registry, and what makes a form.

        Args:
            folder: the server's; forms are kept in it.
            find: the champion, None where there is none; may raise anything where the registry does not answer.
            make: makes the form of a version in a folder, which is not there yet; may raise anything.
            find_trial: the trial that runs, None where none does; asked right after `find`, and may raise as it does.
        """
        self.folder = folder
        self._find = find
        self._find_trial = find_trial
        self._make = make
        self._pointer = self._read()
        trial = self._pointer.get("trial") or {}
        self._suspended = str(trial["id"]) if trial.get("suspended") else ""
        self._writing = threading.RLock()  # the judge of a trial suspends it from a thread of its own
        self._refused: dict[str, str] = {}
        self._pause: dict[str, float] = {}  # seconds, by key
        self._attempts: dict[str, int] = {}  # that failed, by key
        self._again: dict[str, float] = {}  # when, by key

    def run(self, stop: threading.Event, seconds: float) -> None:
        """Look every so many seconds, and at once where a worker was told to, until told to stop."""
        while not stop.is_set():
            called = self._called()
            try:
                self.look()
            except OSError as error:  # the pointer cannot be written: what is served goes on
                _log.warning("the registry is not followed: %s", error)
            limit = time.monotonic() + seconds
            while time.monotonic() < limit and self._called() == called and not stop.wait(min(_TICK_SECONDS, seconds)):
                pass

    def _called(self) -> int:
        """When a worker was told last that the registry has changed."""
        try:
            return (self.folder / CALL).stat().st_mtime_ns
        except OSError:
            return 0

    def look(self) -> None:
        """Look once. A registry that does not answer changes nothing but what health and metrics say."""
        try:
            champion, trial = self._find(), self._find_trial()
        except Exception as error:  # whatever a client of a registry raises
            return self._say(registry_problem=f"it does not answer ({in_one_line(error)})")
        self._look_at(champion)
        self._follow_trial(trial if champion is not None else None)
        return None

    def suspend(self, trial: str) -> None:
        """Show nobody the challenger of this trial from now on, whether or not the registry answers."""
        self._suspended = trial
        with self._writing:
            if (self._pointer.get("trial") or {}).get("id") == trial:
                self._say(trial={**self._pointer["trial"], "suspended": True})

    def _follow_trial(self, trial: Challenger | None) -> None:
        place = Path(_FORMS) / trial.version.key if trial else Path()
        if trial is None or not self._is_brought(trial.version, place):
            if self._pointer.get("trial"):
                self._say(trial=None)
            return
        said: dict[str, Any] = {
            "id": trial.trial,
            "share": trial.share,
            "version": trial.version.version,
            "form": str(place),
        }
        if self._suspended == trial.trial:
            said["suspended"] = True
        if said != self._pointer.get("trial"):
            self._say(trial=said)

    def _is_brought(self, version: Champion, place: Path) -> bool:
        """Whether a challenger's form is on the disk; tried again after a while where it fails, as a champion's is."""
        if (self._pointer.get("trial") or {}).get("form") == str(place) and _is_whole(self.folder / place):
            return True
        if time.monotonic() < self._again.get(version.key, 0.0):
            return False
        return self._try(version, place)

    def _look_at(self, champion: Champion | None) -> None:
        if champion is None:
            return self._say(registry_problem="")
        place = Path(_FORMS) / champion.key
        if champion.key == self._pointer.get("key"):
            if _is_whole(self.folder / place):
                return self._say(registry_problem="")
            del self._pointer["key"]  # so that workers are told to look again once the form is made anew
        if time.monotonic() < self._again.get(champion.key, 0.0):
            return self._say(registry_problem="")
        if not self._try(champion, place):
            return self._say(registry_problem="")
        self._say(registry_problem="", form=str(place), key=champion.key, version=champion.version)
        self._clear()
        return None

    def _try(self, version: Champion, place: Path) -> bool:
        """Bring a version's form; whether that went well."""
        try:
            self._bring(version, self.folder / place)
        except Exception as error:  # a version may be broken in any way
            self._refused[version.key] = f"version {version.version} is refused: {in_one_line(error)}"
            _log.warning("%s", self._refused[version.key])
            pause = min(_LONGEST_PAUSE, 2 * self._pause.get(version.key, _FIRST_PAUSE / 2))
            self._pause[version.key], self._again[version.key] = pause, time.monotonic() + pause
            self._attempts[version.key] = self._attempts.get(version.key, 0) + 1
            return False
        self._refused.pop(version.key, None)
        return True

    def refusal(self, version: str) -> tuple[str, int]:
        """Why this version's form cannot be had, and how often that was tried; empty and 0 where it can."""
        said = next((text for text in self._refused.values() if text.startswith(f"version {version} is ")), "")
        key = next((key for key, text in self._refused.items() if text == said), "")
        return said, self._attempts.get(key, 0)

    def _bring(self, champion: Champion, place: Path) -> None:
        """Have the form on the disk, whole, and answering as it did where it was made."""
        place.parent.mkdir(parents=True, exist_ok=True)
        if not _is_whole(place):
            shutil.rmtree(place, ignore_errors=True)  # an earlier release made it, or a file of it was lost or cut off
            self._make(champion, place)
        try:
            form = open_form(place, verify=True)
            if wrong := Engine.of_form(form).differs_from(form.about["probe"]):
                raise InputError(f"it does not answer as it did where it was made ({wrong})")
        except InputError:
            shutil.rmtree(place, ignore_errors=True)  # the next start makes it anew
            raise

    def _say(self, **changes: Any) -> None:
        """Write the pointer where it changes."""
        with self._writing:
            said = {**self._pointer, **changes, "refused": self._refused}
            if said == self._pointer:
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            with write_atomically(self.folder / POINTER) as path:
                path.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
            self._pointer = json.loads(json.dumps(said))

    def _read(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.folder / POINTER).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if not _is_whole(self.folder / str(found.get("form"))):
            return {}
        return found

    def _clear(self) -> None:
        """Remove the oldest forms; a worker that still maps one keeps its content."""
        forms = [path for path in (self.folder / _FORMS).iterdir() if path.is_dir() and not path.name.startswith(".")]
        for path in sorted(forms, key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT:]:
            on_trial = str((self._pointer.get("trial") or {}).get("form", ""))
            if path.name not in (self._pointer["key"], Path(on_trial).name):
                shutil.rmtree(path, ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    """Whether a form of this release's format is there, with all its files in their sizes."""
    try:
        open_form(folder)
    except InputError:
        return False
    return True
