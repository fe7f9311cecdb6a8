"""Requests, replies and refusals: what the handlers see of HTTP."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from json.encoder import encode_basestring
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

JSON = b"application/json"
_LONGEST_ID = 512  # characters


class ProblemError(Exception):
    """A request that is refused; the sentence names the rule, the value and the remedy."""

    def __init__(self, status: int, sentence: str, retry_after: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.retry_after = retry_after


class Reply(NamedTuple):
    """What is sent. `version`, `policy` and `arm` go into headers and metrics."""

    body: bytes
    kind: bytes = JSON
    status: int = 200
    version: str = ""
    family: str = ""
    policy: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    arm: str = "champion"  # of the user, while a version is on trial


class Request:
    """One request. The body is read only by a handler that needs it."""

    __slots__ = ("_headers", "_query", "body", "id", "method", "parts", "scope")

    def __init__(self, scope: Scope, identity: str) -> None:
        self.scope = scope
        self.id = identity
        self.method: str = scope["method"]
        self.parts: tuple[str, ...] = ()
        self.body = b""
        self._query: dict[str, str] | None = None
        self._headers: dict[bytes, bytes] | None = None

    def header(self, name: bytes) -> str:
        """A header by its name in small letters; empty where there is none."""
        if self._headers is None:
            self._headers = dict(self.scope["headers"])
        return self._headers.get(name, b"").decode("latin-1")

    def text(self, name: str) -> str:
        """A parameter of the query; empty where there is none."""
        if self._query is None:
            raw = self.scope["query_string"]
            try:
                self._query = (
                    dict(parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict")) if raw else {}
                )
            except UnicodeError:
                raise ProblemError(400, "the query is not UTF-8 in percent-encoding; encode it so") from None
        return self._query.get(name, "")

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number of the query within bounds."""
        found = self.text(name)
        if not found:
            return default
        try:
            value = int(found)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise ProblemError(
                400, f"parameter {name!r}: a whole number from {least} to {most} is needed, got {cut(found)}"
            )
        return value

    def flag(self, name: str) -> bool:
        """Whether a parameter says true or 1; refuses what says neither that nor false or 0."""
        found = self.text(name).lower()
        if found not in ("", "true", "1", "false", "0"):
            raise ProblemError(400, f"parameter {name!r}: true or false is needed, got {cut(found)}")
        return found in ("true", "1")

    def ids(self, name: str, most: int) -> list[str]:
        """Ids between commas; an empty list where the parameter is not there."""
        found = self.text(name)
        ids = [as_id(part, f"parameter {name!r}") for part in found.split(",")] if found else []
        if len(ids) > most:
            raise ProblemError(400, f"parameter {name!r}: at most {most} ids are taken, got {len(ids)}; send fewer")
        return ids

    def json(self) -> Any:
        """The body as JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise ProblemError(
                400, f"the body is not JSON in UTF-8 ({cut(str(error))}); send application/json"
            ) from None


def path_parts(scope: Scope) -> tuple[str, ...]:
    """The parts of the path between slashes, decoded one by one: a slash within an id is written %2F."""
    raw = scope.get("raw_path") or scope["path"].encode()
    if b"%" not in raw:
        return tuple(raw.decode("latin-1").strip("/").split("/")) if raw.isascii() else _decoded(raw)
    return _decoded(raw)


def _decoded(raw: bytes) -> tuple[str, ...]:
    try:
        return tuple(unquote_to_bytes(part).decode() for part in raw.strip(b"/").split(b"/"))
    except UnicodeDecodeError:
        raise ProblemError(400, "the path is not UTF-8 in percent-encoding; encode it so") from None


def as_id(value: object, where: str) -> str:
    """An id from JSON or a URL: text or a whole number, of bounded length."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ProblemError(400, f"{where}: an id (text or a whole number) is needed, got {cut(value)}")
    if isinstance(value, float):
        if not value.is_integer():
            raise ProblemError(400, f"{where}: an id (text or a whole number) is needed, got {cut(value)}")
        value = int(value)
    if isinstance(value, int):
        if abs(value) >= 10**_DIGITS:
            raise ProblemError(400, f"{where}: an id of at most {_DIGITS} digits is needed; send it as text")
        return str(value)
    text = value.strip()
    if not text or len(text) > _LONGEST_ID:
        raise ProblemError(400, f"{where}: an id of 1 to {_LONGEST_ID} characters is needed, got {len(text)}")
    if "\0" in text:  # no ratings file may have one, which feedback becomes
        raise ProblemError(400, f"{where}: an id without NUL characters is needed, got {cut(text)}; leave them out")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ProblemError(400, f"{where}: an id in UTF-8 is needed, got half of a surrogate pair") from None
    return text


_DIGITS = 300  # of an id that is sent as a number


def cut(value: object) -> str:
    """A value as a message shows it: never long."""
    text = repr(value) if not isinstance(value, str) else repr(value[:60])
    return text[:80]


def dump_ids(ids: Sequence[str]) -> str:
    """A list of ids as JSON, as `dump` writes it."""
    return f"[{','.join(map(encode_basestring, ids))}]"


def dump(content: Any) -> bytes:
    """JSON, short, in UTF-8."""
    return _encode(content).encode()


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode  # dumps makes one a call
