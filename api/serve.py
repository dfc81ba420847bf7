"""`serve`: the application under uvicorn on this machine, with child processes beside it.

One server a data folder, held by a lock that the kernel gives back whatever happens. One child is the ingest worker.
The others are *siblings*: they serve the same application on the same port, so that every core answers requests; the
kernel spreads connections over all that listen (SO_REUSEPORT, socket(7)). A sibling shares the sealed indexes, which
are mapped files, and has a model and tails of its own. Children are started again when they die, and are stopped with
the server. Knows no route; log lines go where the caller has sent them.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, cast

import structlog
import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.children import Child
from api.guard import is_loopback
from api.logs import configure_logging
from rag.assembly import Citewell, open_citewell
from rag.errors import CitewellError, Conflict, Misconfigured
from rag.settings import Settings, environment_for, read_told, tell

log = structlog.get_logger(__name__)

LOCK_FILE = "serve.lock"
#: How long running requests may take to finish after the server was told to stop, in seconds.
GRACE = 20
#: Most processes that are chosen by the number of cores: each of them holds a model.
MOST_PROCESSES = 4
#: Seconds between two looks for a signal while a sibling is waited for.
LOOK = 0.2


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit status, which is 0 then.

    Call it from the main thread. Raises `Misconfigured` for an address or data folder that can not be used, and
    `Conflict` if another server has the data folder or the port.
    """
    _check_host(settings.server.host)
    with _told_to_stop() as signals, hold(settings.data) as lock, _listening(settings) as listener:
        lock.name_owner(_url(listener))
        _run(settings, listener, signals)
    log.info("stopped")
    return 0


def _run(settings: Settings, listener: socket.socket, signals: Sequence[int]) -> None:
    with ExitStack() as opened:
        told = tell(settings, port=listener.getsockname()[1])
        siblings = [
            opened.enter_context(Child("sibling", SIBLING, told=told)) for _ in range(process_count(settings) - 1)
        ]
        citewell = opened.enter_context(open_citewell(settings))
        if signals:
            return
        opened.enter_context(Child("worker", worker_command(settings), environment_for(settings)))
        while not (signals or all(sibling.ready.wait(LOOK) for sibling in siblings)):
            pass
        _Server(citewell, lambda: _announce(_url(listener)), signals, siblings).run(sockets=[listener])


def process_count(settings: Settings) -> int:
    """Return how many processes serve, this one included."""
    return settings.server.processes or min(len(os.sched_getaffinity(0)), MOST_PROCESSES)


def worker_command(settings: Settings) -> list[str]:
    """Return the command line of the worker beside this server."""
    return [sys.executable, "-m", "api.cli", "worker", "--parent", str(os.getpid()), "--data", str(settings.data)]


class _Server(uvicorn.Server):
    """Tells when it is ready, and tells the application and its siblings when it is to stop.

    ``signals`` are those that came before it had handlers of its own: with one of them it ends at once.
    """

    def __init__(
        self,
        citewell: Citewell,
        when_ready: Callable[[], None],
        signals: Sequence[int],
        siblings: Sequence[Child] = (),
    ) -> None:
        config = uvicorn.Config(
            create_app(citewell),
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=GRACE,
        )
        super().__init__(config)
        self._when_ready = when_ready
        self._signals = signals
        self._siblings = siblings

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._signals:
            self.should_exit = True
        elif self.started:
            self._when_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        for sibling in self._siblings:
            sibling.terminate()
        cast(FastAPI, self.config.app).state.stopping.set()
        super().handle_exit(sig, frame)


def _announce(url: str) -> None:
    sys.stdout.write(f"Citewell serves at {url}\nThe REST API is described at {url}/docs\n")
    sys.stdout.flush()


# -- siblings ------------------------------------------------------------------------------------------------------


#: The command line of a sibling, which is told on its standard input what to serve and where.
SIBLING = [sys.executable, "-m", "api.serve"]


def serve_beside() -> int:
    """Serve what standard input tells, until SIGTERM or until it ends with the process that wrote it."""
    settings, port = read_told(sys.stdin.buffer.readline())
    configure_logging(settings, default="info")
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    try:
        with (
            _told_to_stop() as signals,
            open_citewell(settings) as citewell,
            bound(settings.server.host, port, shared=True) as listener,
        ):
            _Server(citewell, _say_ready, signals).run(sockets=[listener])
    except CitewellError as error:
        log.error("can not serve beside the others", reason=error.message)
        return 1
    log.info("stopped")
    return 0


def _end_with_parent() -> None:
    while os.read(0, 4096):  # the lock of `sys.stdin` would be held when this process ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _say_ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


# -- signals -------------------------------------------------------------------------------------------------------


@contextmanager
def _told_to_stop() -> Iterator[Sequence[int]]:
    """Note SIGTERM and SIGINT in the list that is yielded, which is looked at when what is being opened is open.

    An exception in their place would come anywhere: in the middle of a statement of the database, or in a callback of
    a library in C, which loses it. While uvicorn runs it has handlers of its own, and ends its requests first.
    """
    came: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield came
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
    with bound(settings.server.host, settings.server.port) as listener:
        if process_count(settings) > 1:  # only now: nobody but our own siblings shall share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.listen(2048)
        yield listener


@contextmanager
def bound(host: str, port: int, *, shared: bool = False) -> Iterator[socket.socket]:
    """Yield a socket that has an address and does not listen yet; ``shared`` with others of this user, if they agree.

    Raises `Conflict` or `Misconfigured` if it can not be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise Conflict(f"Port {port} is in use by another program; choose another one with --port.") from error
            raise Misconfigured(f"Can not listen on {host} port {port}: {error.strerror}; try --port 8321.") from error
        yield listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


if __name__ == "__main__":
    sys.exit(serve_beside())
