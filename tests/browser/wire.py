"""A wire between the browser and the server that can be cut in the middle of an answer, and mended."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Self

_RESET = struct.pack("ii", 1, 0)


@dataclass
class Wire:
    """Passes bytes on between a port of its own and the port of a server."""

    target: int
    port: int = 0
    _ends: list[socket.socket] = field(default_factory=list)
    _whole: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def cut(self) -> None:
        """Reset every connection; whoever comes now is reset too."""
        self._whole.clear()
        with self._lock:
            ends, self._ends = self._ends, []
        for end in ends:
            _reset(end)

    def mend(self) -> None:
        """Pass bytes on again, for connections that come from now on."""
        self._whole.set()

    def serve(self, listener: socket.socket) -> None:
        """Take connections until the listener is closed."""
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            if not self._whole.is_set():
                _reset(near)
                continue
            far = socket.create_connection(("127.0.0.1", self.target))
            with self._lock:
                self._ends += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=_pass, args=(one, other), daemon=True).start()

    @classmethod
    @contextmanager
    def to(cls, target: int) -> Iterator[Self]:
        """Lay a wire to a port."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            wire = cls(target, listener.getsockname()[1])
            wire.mend()
            thread = threading.Thread(target=wire.serve, args=(listener,))
            thread.start()
            try:
                yield wire
            finally:
                listener.shutdown(socket.SHUT_RDWR)
                wire.cut()
                thread.join(10)


def _pass(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):  # either end may go at any time
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def _reset(end: socket.socket) -> None:
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        end.shutdown(socket.SHUT_RDWR)
    end.close()
