"""The address of a server: taken once, and listened on by its request processes through a door each.

The kernel spreads connections over all doors of an address (SO_REUSEPORT, socket(7)). A door is held open by who made
it, so that one process can hand it over to the next and no connection that waits in it is lost. Knows no process.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from rag.errors import Conflict, Misconfigured

log = structlog.get_logger(__name__)

#: Connections that wait to be accepted.
BACKLOG = 2048
#: Seconds between two tries to get an address that is about to be free.
TRY_AGAIN = 0.05


@dataclass(slots=True)
class Door:
    """One listening socket of an address, for one request process after the other."""

    listener: socket.socket

    def renew(self) -> None:
        """Take another socket in its place, in which no connection waits until a process listens.

        What waits in the one before is broken off, and what comes now goes to the other doors.
        """
        host, port = self.listener.getsockname()[:2]
        with self.listener:
            self.listener = _bound(host, port, shared=True)

    def again(self) -> Door:
        """Return the same door for another process, which takes it over while the first one still stands in it."""
        return Door(self.listener.dup())

    def close(self) -> None:
        """Let go of it here; who got it keeps it."""
        self.listener.close()


@contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """Yield a socket that has an address of its own and does not listen yet.

    Raises `Conflict` or `Misconfigured` if it can not be had.
    """
    with _bound(host, port) as listener:
        yield listener


@contextmanager
def doors(host: str, port: int, count: int, patience: float = 0.0) -> Iterator[list[Door]]:
    """Take an address and yield so many doors of it; in the first one connections wait from now on.

    ``patience`` is for how many seconds it may still be in use. Raises `Conflict` or `Misconfigured` if the address can
    not be had.
    """
    first = _free_in(host, port, patience)
    made = [Door(first)]
    try:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # only now: nobody else shall share the address
        first.listen(BACKLOG)
        made += [Door(_bound(*first.getsockname()[:2], shared=True)) for _ in range(count - 1)]
        yield made
    finally:
        for door in made:
            door.close()


def url_of(door: Door) -> str:
    """Return where its server can be reached."""
    host, port = door.listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _free_in(host: str, port: int, seconds: float) -> socket.socket:
    end, told = time.monotonic() + seconds, False
    while True:
        try:
            return _bound(host, port)
        except Conflict:
            if time.monotonic() >= end:
                raise
        if not told:
            log.info("the port is still in use; it is waited for", port=port, seconds=seconds)
            told = True
        time.sleep(TRY_AGAIN)


def _bound(host: str, port: int, *, shared: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise Conflict(f"Port {port} is in use by another program; choose another one with --port.") from error
        raise Misconfigured(f"Can not listen on {host} port {port}: {error.strerror}; try --port 8321.") from error
    return listener
