"""The brake on wrong passwords, and a check of passwords that takes as long for unknown names as for known ones."""

import base64
import binascii
import hashlib
import hmac
import math
import secrets
import time
from collections.abc import Callable
from functools import cache
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.guard import answer

_HEADERS = (b"authorization", b"x-mlflow-authorization")
_FREE_OF_NAME = 10  # wrong passwords of one address for one name that are answered at once
_FREE_OF_ADDRESS = 30  # and for all names: of people behind one proxy
_LONGEST_SECONDS = 60.0
_FORGOTTEN_SECONDS = 15 * 60.0
_MOST_REMEMBERED = 10_000

Key = tuple[str, str]


class Accounts(Protocol):
    """What is used of MLflow's store of accounts."""

    def authenticate_user(self, username: str, password: str, *, use_primary: bool = ...) -> bool:
        """Whether the name is known and the password is its."""

    def has_user(self, username: str) -> bool:
        """Whether the name is known."""


class Brake:
    """Answers 429 to one who tries passwords: each wrong one after the free ones doubles the wait, up to a minute.

    Counts for one worker of the server, by address and name and by address alone. Credentials that were right pass,
    so that nobody who is at work is kept out by somebody who guesses.
    """

    def __init__(self, app: ASGIApp, clock: Callable[[], float] = time.monotonic) -> None:
        """Stand before an application that answers 401 to wrong credentials."""
        self.app, self.clock = app, clock
        self._wrong: dict[Key, tuple[int, float]] = {}  # how many, and when the last
        self._right: set[bytes] = set()
        self._secret = secrets.token_bytes(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and learn from the answer, or answer 429 with the seconds to wait."""
        given = b"\n".join(value for name, value in scope.get("headers", ()) if name in _HEADERS)
        if scope["type"] != "http" or not given:
            await self.app(scope, receive, send)
            return
        digest = hmac.new(self._secret, given, hashlib.sha256).digest()
        address = scope["client"][0] if scope.get("client") else ""
        keys = {(address, name_of(given)): _FREE_OF_NAME, (address, ""): _FREE_OF_ADDRESS}
        if digest not in self._right:
            if (seconds := max(self._wait(key, free) for key, free in keys.items())) > 0:
                after = (b"retry-after", str(math.ceil(seconds)).encode())
                await answer(send, 429, f"too many wrong passwords; try again in {math.ceil(seconds)} s", after)
                return
            for key in keys:  # before the answer: of many tries at once, only the free ones are looked at
                self._count(key)

        async def learn(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._learn(digest, keys, message["status"])
            await send(message)

        await self.app(scope, receive, learn)

    def _wait(self, key: Key, free: int) -> float:
        """Seconds until another try of a key is looked at."""
        count, last = self._wrong.get(key, (0, 0.0))
        if count < free:
            return 0.0
        return last + min(2.0 ** (count - free), _LONGEST_SECONDS) - self.clock()

    def _count(self, key: Key) -> None:
        now = self.clock()
        if len(self._wrong) >= _MOST_REMEMBERED:
            self._wrong = {k: found for k, found in self._wrong.items() if now - found[1] < _FORGOTTEN_SECONDS}
        count, last = self._wrong.get(key, (0, now))
        self._wrong[key] = (1 if now - last > _FORGOTTEN_SECONDS else count + 1, now)

    def _learn(self, digest: bytes, keys: dict[Key, int], status: int) -> None:
        if status == 401:
            self._right.discard(digest)  # a password that was changed
            return
        if digest in self._right:
            return
        if len(self._right) >= _MOST_REMEMBERED:
            self._right.clear()
        self._right.add(digest)
        name, everybody = keys
        self._wrong.pop(name, None)
        count, last = self._wrong.get(everybody, (1, 0.0))
        self._wrong[everybody] = (count - 1, last)


def name_of(header: bytes) -> str:
    """The name in an Authorization header; the whole header where it is none of Basic."""
    try:
        return base64.b64decode(header.split()[-1], validate=True).decode("utf-8").partition(":")[0]
    except (IndexError, ValueError, binascii.Error):
        return header.decode("latin-1")


def even_out(store: "Accounts") -> None:
    """Have an unknown name cost a check of a password too, so that the time of an answer tells nobody who is known."""
    from werkzeug.security import check_password_hash

    check = store.authenticate_user

    def authenticate_user(username: str, password: str, **options: bool) -> bool:
        if check(username, password, **options):
            return True
        if not store.has_user(username):
            check_password_hash(_nobody(), password)
        return False

    store.authenticate_user = authenticate_user  # type: ignore[method-assign]


@cache
def _nobody() -> str:
    """The hash of a password that nobody has, made as MLflow makes them."""
    from werkzeug.security import generate_password_hash

    return generate_password_hash(secrets.token_hex())
