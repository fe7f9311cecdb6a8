"""A connection that sends the head of a reply together with its body: each time something is sent costs a wake."""

import asyncio
from typing import Any

_HEAD = b"HTTP/1.1 "
_GO_ON = b"HTTP/1.1 100 "  # a head on which the client sends its body


class Replies:
    """Stands before the connection's transport, for a protocol that writes each head whole, and then the body."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Keep a head, or send what follows it together with it."""
        if not self._head and data.startswith(_HEAD) and not data.startswith(_GO_ON):
            self._head = data
        else:
            self._transport.write(self._head + data)
            self._head = b""

    def write_whole(self, data: bytes) -> None:
        """Send a head and its body that are one already."""
        self._transport.write(self._head + data)
        self._head = b""

    def is_closing(self) -> bool:
        """Whether the connection is closed, or about to be."""
        return self._transport.is_closing()

    def flush(self) -> None:
        """Send a head that nothing follows."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """Send what is kept, and close."""
        self.flush()
        self._transport.close()
