"""A request process: the application under uvicorn, on a door that the server has opened.

It is told on its standard input what to serve and where, says on its standard output that it is ready or why it can
not be, and later that it takes nothing new, and ends with the server that started it. SIGTERM: running answers are
finished within ``server.grace_seconds``. SIGUSR1: another process has taken its place; it takes no new connection,
answers what comes on those it has, asking their clients to connect anew, and ends when the last one is gone. Knows no
route.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType
from typing import cast

import uvicorn
from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.app import create_app
from api.logs import configure_logging, log_ends_of_threads
from api.observing import open_observed
from api.stopping import told_to_stop
from rag.assembly import Citewell
from rag.errors import CitewellError
from rag.settings import read_told

#: What starts a request process.
COMMAND = [sys.executable, "-m", "api.serving"]
#: The line by which it says that it answers.
READY = b"ready\n"
#: The line by which it says that it takes no new connection.
LEFT = b"left\n"
#: Seconds after which a connection without a request is closed.
KEEP_ALIVE = 5
#: Seconds between two looks at whether the last connection is gone.
LOOK = 0.05


def main() -> int:
    """Serve what standard input tells, until SIGTERM, SIGUSR1, or the end of the process that wrote it."""
    settings, descriptor = read_told(sys.stdin.buffer.readline())
    configure_logging(settings, default="info")
    log_ends_of_threads()
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    try:
        with (
            told_to_stop(signal.SIGTERM, signal.SIGINT, signal.SIGUSR1) as signals,
            socket.socket(fileno=descriptor) as listener,
            open_observed(settings, "server") as citewell,
        ):
            if not signals:
                Server(citewell).run(sockets=[listener])
    except CitewellError as error:
        _say(json.dumps({"code": error.code, "message": error.message}).encode() + b"\n")
        return 1
    return 0


def _say(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def _end_with_parent() -> None:
    while os.read(0, 4096):  # the lock of `sys.stdin` would be held when this process ends
        pass
    os.kill(os.getpid(), signal.SIGKILL)  # as its parent: the port is free at once for the next server


class Server(uvicorn.Server):
    """Says when it is ready, and ends in one of two ways: at once when it is told to stop, by and by when replaced."""

    def __init__(self, citewell: Citewell) -> None:
        settings = citewell.store.settings
        self._app = create_app(citewell)
        self._leaving = threading.Event()
        self._replaced = False
        self._patience = max(settings.server.grace_seconds, settings.generator.total_timeout) + KEEP_ALIVE
        config = uvicorn.Config(
            cast("type[ASGIApp]", LastAnswers(self._app, self._leaving)),
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=cast(int, settings.server.grace_seconds),
        )
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        signal.signal(signal.SIGUSR1, self._replace)
        if self.started:
            _say(READY)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._leave()
        super().handle_exit(sig, frame)

    def _replace(self, *_: object) -> None:
        self._replaced = self.should_exit = True
        self._leave()

    def _leave(self) -> None:
        self._leaving.set()
        self._app.state.stopping.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._replaced:
            await self._see_off(sockets or [])
        await super().shutdown(sockets)

    async def _see_off(self, sockets: list[socket.socket]) -> None:
        """Take no new connection, and wait until the last one is gone, or until patience or SIGTERM ends the wait."""
        for server in self.servers:
            server.close()
        for listener in sockets:
            listener.close()
        _say(LEFT)
        end = time.monotonic() + self._patience
        while self._in_use() and time.monotonic() < end and not self._captured_signals:  # noqa: ASYNC110  no event tells
            await asyncio.sleep(LOOK)

    def _in_use(self) -> bool:
        return bool(self.server_state.connections or self._app.state.tellings)


class LastAnswers:
    """Asks the client of each response for a new connection once this process is leaving.

    A client that finds its connection closed at the moment at which it sends something on it would have to guess
    whether it was heard; so every connection ends with an answer that says so, or after a time without any request.
    """

    def __init__(self, app: FastAPI, leaving: threading.Event) -> None:
        self._app = app
        self._leaving = leaving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start" and self._leaving.is_set():
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self._app(scope, receive, sent if scope["type"] == "http" else send)


if __name__ == "__main__":
    sys.exit(main())
