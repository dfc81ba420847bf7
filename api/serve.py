"""`serve`: the application under uvicorn on this machine, with one ingest worker as a child process beside it.

One server a data folder, held by a lock that the kernel gives back whatever happens. The worker is started again when
it dies, and is stopped with the server. Knows no route; log lines go where the caller has sent them.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Self, cast

import structlog
import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.guard import is_loopback
from rag.assembly import open_citewell
from rag.errors import Conflict, Misconfigured
from rag.settings import Settings, environment_for

log = structlog.get_logger(__name__)

LOCK_FILE = "serve.lock"
#: How long running requests may take to finish after the server was told to stop, in seconds.
GRACE = 20
#: How long the worker may take to finish the document in hand before it is killed; another takes that one up later.
WORKER_GRACE = 30
#: Seconds before a dead worker is started again: doubled each time, from the first to the last.
FIRST_DELAY, LAST_DELAY = 1.0, 60.0


class _Stop(BaseException):
    """The process was told to end; unwinds everything that is open."""


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit status, which is 0 then.

    Call it from the main thread. Raises `Misconfigured` for an address or data folder that can not be used, and
    `Conflict` if another server has the data folder or the port.
    """
    _check_host(settings.server.host)
    try:
        with _stoppable(), hold(settings.data) as lock, _listening(settings) as listener:
            lock.name_owner(_url(listener))
            _run(settings, listener)
    except _Stop:
        log.info("stopped")
    return 0


def _run(settings: Settings, listener: socket.socket) -> None:
    with open_citewell(settings) as citewell, Worker(worker_command(settings), environment_for(settings)):
        config = uvicorn.Config(
            create_app(citewell),
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=GRACE,
        )
        _Server(config, lambda: _announce(_url(listener))).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Tells when it is ready, and tells the application when it is to stop."""

    def __init__(self, config: uvicorn.Config, when_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._when_ready = when_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._when_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        cast(FastAPI, self.config.app).state.stopping.set()
        super().handle_exit(sig, frame)


def _announce(url: str) -> None:
    sys.stdout.write(f"Citewell serves at {url}\nThe REST API is described at {url}/docs\n")
    sys.stdout.flush()


# -- signals -------------------------------------------------------------------------------------------------------


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let the first SIGTERM or SIGINT unwind the body with `_Stop`, and let later ones not disturb that.

    While uvicorn runs it has handlers of its own, ends its requests first, and then raises the signal again for these.
    """
    came: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        came.append(number)
        if len(came) == 1:
            raise _Stop

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# -- the data folder -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lock:
    """A hold on a data folder."""

    file: IO[str]

    def name_owner(self, url: str) -> None:
        """Write down who holds it, for the sentence that a second server is refused with."""
        self.file.seek(0)
        self.file.truncate()
        json.dump({"pid": os.getpid(), "url": url}, self.file)
        self.file.flush()


@contextmanager
def hold(data: Path) -> Iterator[Lock]:
    """Hold the data folder for this server, making it if it is not there; the kernel lets go when the process ends.

    Raises `Conflict` naming the server that has it, and `Misconfigured` if the folder can not be used.
    """
    try:
        data.mkdir(parents=True, exist_ok=True)
        file = (data / LOCK_FILE).open("a+", encoding="utf-8")
    except OSError as error:
        raise Misconfigured(f"The data folder {data} can not be used: {error.strerror}.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(f"The data folder {data} {_owner(file)}; stop that one or use another --data.") from error
        file.truncate(0)  # what an earlier server wrote
        yield Lock(file)


def _owner(file: IO[str]) -> str:
    file.seek(0)
    try:
        owner = json.load(file)
        return f"is in use by the server at {owner['url']} (process {owner['pid']})"
    except (ValueError, KeyError, TypeError):
        return "is in use by a server that is starting"


# -- the address ---------------------------------------------------------------------------------------------------


def _check_host(host: str) -> None:
    if not is_loopback(host):
        raise Misconfigured(
            f"server.host is {host!r}, but there are no access keys as yet, so that only this machine may be served: "
            "use --host 127.0.0.1, and an SSH tunnel or a proxy with a login of its own to reach it from elsewhere."
        )


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """Take the port before anything heavy is loaded; raises `Conflict` or `Misconfigured` if it can not be had."""
    host, port = settings.server.host, settings.server.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(2048)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise Conflict(f"Port {port} is in use by another program; choose another one with --port.") from error
            raise Misconfigured(f"Can not listen on {host} port {port}: {error.strerror}; try --port 8321.") from error
        yield listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


# -- the worker ----------------------------------------------------------------------------------------------------


def worker_command(settings: Settings) -> list[str]:
    """Return the command line of the worker beside this server."""
    return [sys.executable, "-m", "api.cli", "worker", "--parent", str(os.getpid()), "--data", str(settings.data)]


@dataclass
class Worker:
    """A child process that is started again when it ends by itself, and is stopped on leaving the ``with`` block."""

    command: list[str]
    environment: Mapping[str, str]
    _process: subprocess.Popen[bytes] | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch, name="worker", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._stop.set()
            process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(WORKER_GRACE)
            except subprocess.TimeoutExpired:
                log.warning("worker did not stop and is killed; its document is taken up at the next start")
                process.kill()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        """Start the worker, wait for its end, and start it again, later each time that it did not live long."""
        delay = FIRST_DELAY
        while (process := self._start()) is not None:
            started = time.monotonic()
            status = process.wait()
            if self._stop.is_set():
                return
            delay = FIRST_DELAY if time.monotonic() - started > LAST_DELAY else delay
            log.error("worker ended, it is started again", status=status, seconds=delay)
            self._stop.wait(delay)
            delay = min(2 * delay, LAST_DELAY)

    def _start(self) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._stop.is_set():
                return None
            self._process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=2,  # standard output is for the two lines that say where the server is
                process_group=0,  # Ctrl-C in a terminal is for the server, which then stops the worker
            )
            return self._process
