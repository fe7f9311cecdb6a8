"""Where the machines meet: who of them is the host, by which address and interface this one speaks."""

import errno
import fcntl
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from recsys.errors import InputError
from recsys.training.launch.settings import split_address

HOST_WAIT_SECONDS = 10.0  # that a machine waits for the host
JOIN_SECONDS = 300  # that the host waits for the other machines
_TRY_SECONDS = 2.0
_SIOCGIFADDR = 0x8915  # of Linux: the address of an interface


@dataclass(frozen=True)
class Rendezvous:
    """Where the machines meet, and how this one takes part."""

    endpoint: str
    is_host: bool
    address: str  # by which the others reach this machine
    interface: str  # that has the address; empty where it cannot be told


def find_rendezvous(rendezvous: str, say: Callable[[str], None]) -> Rendezvous:
    """Find out whether the rendezvous is on this machine; else wait a little until it is there.

    Raises:
        InputError: if the host's name is not known, or nothing answers there.
    """
    host, port = split_address(rendezvous)
    try:
        found = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        raise InputError(
            f"parameter 'rendezvous': the name of a host that can be reached is needed, got {host!r} ({error}); pass "
            "its name or its address as the other machines see it"
        ) from None
    address = str(found[0][4][0])
    is_host = _is_here(address) and _is_free(address, port)
    if is_host:
        say(f"waiting at {rendezvous} for the other machines, for up to {JOIN_SECONDS} s")
    else:
        _wait_for_host(host, address, port, say)
    own = _own_address(address, port)
    return Rendezvous(rendezvous, is_host, own, interface_of(own))


def interface_of(address: str) -> str:
    """The name of the network interface with this address, "" where it cannot be told."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
            except OSError:  # an interface without an address, or another system than Linux
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return ""


def _is_here(address: str) -> bool:
    """Whether it is an address of this machine: only then a socket can be bound to it."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _is_free(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EACCES:
                raise InputError(
                    f"parameter 'rendezvous': a port that may be opened is needed, got {port}; pass one from 1024 on"
                ) from None
            return False
    return True


def _wait_for_host(host: str, address: str, port: int, say: Callable[[str], None]) -> None:
    limit = time.monotonic() + HOST_WAIT_SECONDS
    told = False
    while True:
        try:
            socket.create_connection((address, port), _TRY_SECONDS).close()
            return
        except OSError as error:
            if time.monotonic() > limit:
                raise InputError(
                    f"parameter 'rendezvous': {host}:{port} does not answer after {HOST_WAIT_SECONDS:g} s ({error}); "
                    f"start the same line on {host} first, and see that its port {port} can be reached from here"
                ) from None
        if not told:
            say(f"waiting for {host}:{port}, for up to {HOST_WAIT_SECONDS:g} s")
            told = True
        time.sleep(0.2)


def _own_address(address: str, port: int) -> str:
    """The address by which this machine speaks to another; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, port))
        return str(probe.getsockname()[0])
