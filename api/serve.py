"""`serve`: the processes of one server on this machine, started, watched, replaced and stopped.

One server a data folder, held by a lock that the kernel gives back whatever happens. This process answers nothing
itself and loads no model: *request processes* serve the application on one address, so that every core answers (they
share the sealed indexes, which are mapped files; each has a model of its own), and one worker reads documents. A child
that dies is started again. SIGHUP replaces all of them by new ones, which read settings and code anew, while every
request is answered; SIGTERM and SIGINT stop them, and what is running is finished first.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Self

import structlog

from api.children import CHILD_GRACE, Child, Handed
from api.listening import Door, doors, url_of
from api.opening import check_address
from api.shared_numbers import forget_the_dead
from api.stopping import told_to_stop
from rag.errors import CitewellError, Conflict, IndexDamaged, Misconfigured, Unavailable
from rag.settings import Settings, environment_for, tell

log = structlog.get_logger(__name__)

LOCK_FILE = "serve.lock"
#: Most processes that are chosen by the number of cores: each of them holds a model.
MOST_PROCESSES = 4
#: Seconds between two looks at signals and children.
LOOK = 0.1
#: Seconds that a request process has to close everything after its last answer.
CLOSING = 10.0
#: Seconds that the request processes of a server that was killed may take to end: until then its port is in use.
DYING = 10.0
#: The command line of a request process, and the line by which it says that it answers; see `api.serving`.
REQUEST_PROCESS, READY = [sys.executable, "-m", "api.serving"], b"ready\n"


def serve(settings: Settings, read_again: Callable[[], Settings] | None = None) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit status, which is 0 then.

    ``read_again`` returns the settings after SIGHUP; without it they stay the same. Call it from the main thread.
    Raises `Misconfigured` for an address or data folder that can not be used, `Conflict` if another server has the
    data folder or the port, and what the request processes raise when they open everything.
    """
    check_address(settings)
    with (
        told_to_stop(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals,
        hold(settings.data) as lock,
        _address(settings, lock) as address,
    ):
        url = url_of(address[0])
        lock.name_owner(url)
        forget_the_dead(settings.data)
        with _Server(settings, address, signals) as server:
            server.start()
            if not server.told_to_stop:
                _announce(url)
            server.watch(read_again or (lambda: settings))
    log.info("stopped")
    return 0


def process_count(settings: Settings) -> int:
    """Return how many processes answer requests."""
    return settings.server.processes or min(len(os.sched_getaffinity(0)), MOST_PROCESSES)


def _address(settings: Settings, lock: Lock) -> AbstractContextManager[list[Door]]:
    patience = DYING if lock.after_a_kill else 0.0
    return doors(settings.server.host, settings.server.port, process_count(settings), patience)


def worker_command(settings: Settings) -> list[str]:
    """Return the command line of the worker beside this server."""
    return [sys.executable, "-m", "api.cli", "worker", "--parent", str(os.getpid()), "--data", str(settings.data)]


def _announce(url: str) -> None:
    sys.stdout.write(f"Citewell serves at {url}\nThe REST API is described at {url}/docs\n")
    sys.stdout.flush()


# -- the processes -------------------------------------------------------------------------------------------------


@dataclass
class _Team:
    """The processes that serve the same settings, and the doors of those that answer requests."""

    settings: Settings
    doors: list[Door]
    grace: float = field(init=False)
    answering: list[Child] = field(init=False)
    others: list[Child] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.grace = max(self.settings.server.grace_seconds + CLOSING, CHILD_GRACE)
        self.answering = [self._request_process(door) for door in self.doors]

    def _request_process(self, door: Door) -> Child:
        """Return what answers at a door. Connections wait there for its next start, unless it can not start at all."""

        def hand() -> Handed:
            descriptor = door.listener.fileno()
            return Handed(tell(self.settings, descriptor=descriptor), descriptor)

        def when_dead() -> None:
            if child.said != READY:
                door.renew()

        child = Child("request process", REQUEST_PROCESS, hand=hand, when_dead=when_dead, grace=self.grace)
        return child

    def begin(self) -> None:
        """Start the processes that answer requests."""
        for child in self.answering:
            child.__enter__()

    def ready(self) -> bool:
        """Say whether all of them answer; raises the error of one that can not."""
        for child in self.answering:
            if child.ready.is_set() and child.said != READY:
                raise _error_of(child.said)
        return all(child.ready.is_set() for child in self.answering)

    def begin_others(self) -> None:
        """Start what works beside them."""
        if self.settings.server.worker:
            child = Child("worker", worker_command(self.settings), environment_for(self.settings))
            self.others.append(child.__enter__())

    def leave(self) -> None:
        """Let others take its place: running answers are finished, and files in hand go back to the queue."""
        for child in self.answering:
            child.end(signal.SIGUSR1)
        for child in self.others:
            child.end()
        for door in self.doors:
            door.close()

    def left(self) -> bool:
        """Say whether none of it takes new connections any more."""
        return all(child.left.is_set() for child in self.answering)

    def gone(self) -> bool:
        """Say whether all of it has ended after it was told to."""
        return all(child.ended() for child in (*self.answering, *self.others))

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Tell all of it to end; does not wait."""
        for child in (*self.answering, *self.others):
            child.end(number)

    def close(self) -> None:
        """Stop it, and return when all has ended."""
        self.stop()
        for child in (*self.answering, *self.others):
            child.__exit__()


class _Server:
    """The team that serves, those that it has replaced and that still finish something, and the signals that came."""

    def __init__(self, settings: Settings, address: list[Door], signals: list[int]) -> None:
        self._team = _Team(settings, address)
        self._leaving: list[_Team] = []
        self._signals = signals

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop all, and wait until they have ended; who asks a second time does not wait for running answers."""
        teams, asked = (self._team, *self._leaving), len(self._stops())
        for team in teams:
            team.stop()
        end = time.monotonic() + self._team.grace
        while not all(team.gone() for team in teams) and len(self._stops()) == asked and time.monotonic() < end:
            time.sleep(LOOK)
        with ExitStack() as closing:  # whatever happens in one of them
            for team in teams:
                if len(self._stops()) > asked:
                    team.stop(signal.SIGINT)
                closing.callback(team.close)

    def _stops(self) -> list[int]:
        return [number for number in self._signals if number != signal.SIGHUP]

    @property
    def told_to_stop(self) -> bool:
        return bool(self._stops())

    def start(self) -> None:
        """Return when everything runs, or when the server is told to stop; raises what a process says it can not do."""
        if self._started(self._team):
            self._team.begin_others()

    def _started(self, team: _Team) -> bool:
        team.begin()
        while not team.ready():
            if self.told_to_stop:
                return False
            time.sleep(LOOK)
        return True

    def watch(self, read_again: Callable[[], Settings]) -> None:
        """Replace the team at each SIGHUP, until told to stop."""
        while not self.told_to_stop:
            if signal.SIGHUP in self._signals:
                self._signals.remove(signal.SIGHUP)
                self._replace(read_again)
            for team in [team for team in self._leaving if team.gone()]:
                self._leaving.remove(team)
                team.close()
                log.info("the processes before have ended")
            time.sleep(LOOK)

    def _replace(self, read_again: Callable[[], Settings]) -> None:
        """Let new processes take the place of those that serve; if they can not, nothing changes."""
        began = time.monotonic()
        log.info("restarting")
        try:
            settings = read_again()
            _check_same_place(self._team.settings, settings)
        except CitewellError as error:
            log.error("not restarted: the processes go on as they were", reason=error.message)
            return
        team = _Team(settings, [door.again() for door in self._team.doors])
        try:
            if self._started(team):
                self._team.leave()
                self._leaving.append(self._team)
                self._team = team
                team.begin_others()
                self._see_left(self._leaving[-1])
                log.info("restarted", seconds=round(time.monotonic() - began, 2))
                return
        except CitewellError as error:
            log.error("not restarted: the processes go on as they were", reason=error.message)
        team.close()
        for door in team.doors:
            door.close()

    def _see_left(self, team: _Team) -> None:
        """Return when no new connection reaches a team that was told to leave; a frozen one is not waited for."""
        end = time.monotonic() + CHILD_GRACE
        while not team.left() and not self.told_to_stop:
            if time.monotonic() > end:
                log.warning("a process that was replaced still takes connections; it is waited for no longer")
                return
            time.sleep(LOOK)


def _error_of(said: bytes) -> CitewellError:
    """Return the error that a request process has written, see `api.serving`."""
    if not said:
        return Unavailable("A process that answers requests ended before it could; the lines above say why.")
    told = json.loads(said)
    kinds = {kind.code: kind for kind in (Misconfigured, Conflict, IndexDamaged)}
    return kinds.get(told["code"], Unavailable)(told["message"])


def _check_same_place(before: Settings, after: Settings) -> None:
    def place(settings: Settings) -> tuple[object, ...]:
        return settings.data, settings.server.host, settings.server.port, process_count(settings)

    if place(before) != place(after):
        raise Misconfigured("The data folder, the address and the number of processes change only by stop and start.")


# -- the data folder -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lock:
    """A hold on a data folder; ``after_a_kill`` says that the one before it was lost and not given back."""

    file: IO[str]
    after_a_kill: bool

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
        after_a_kill = os.fstat(file.fileno()).st_size > 0  # what an earlier server wrote
        file.truncate(0)
        try:
            yield Lock(file, after_a_kill)
        finally:
            file.truncate(0)


def _owner(file: IO[str]) -> str:
    file.seek(0)
    try:
        owner = json.load(file)
        return f"is in use by the server at {owner['url']} (process {owner['pid']})"
    except (ValueError, KeyError, TypeError):
        return "is in use by a server that is starting"
