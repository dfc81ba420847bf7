"""Child processes of the server: started again when they end by themselves, and stopped with it.

Knows processes and no more: what they do is in their command lines.
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

import structlog

log = structlog.get_logger(__name__)

#: How long a child may take to finish what it has in hand before it is killed, in seconds.
CHILD_GRACE = 30.0
#: Seconds before a dead child is started again: doubled each time, from the first to the last.
FIRST_DELAY, LAST_DELAY = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class Handed:
    """What a child gets: bytes on its standard input, and an open descriptor under the same number as here."""

    told: bytes
    descriptor: int


@dataclass
class Child:
    """A child process that is started again when it ends by itself, and is stopped on leaving the ``with`` block.

    ``name`` is what the log calls it; without an ``environment`` it has that of this process. With ``hand``, it gets
    what that returns at each start, on a standard input that stays open as long as this process lives, and says in a
    line on its standard output how it has started: ``said`` is that line, empty if it ended without a word, and the
    event ``ready`` is set then; a second line, or its end, says that it takes nothing new, and sets ``left``.
    ``when_dead`` is called as soon as it has ended by itself. It has ``grace`` seconds to end from the first SIGTERM
    on.
    """

    name: str
    command: list[str]
    environment: Mapping[str, str] | None = None
    hand: Callable[[], Handed] | None = None
    when_dead: Callable[[], None] | None = None
    grace: float = CHILD_GRACE
    said: bytes = b""
    ready: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)
    _process: subprocess.Popen[bytes] | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None
    _deadline: float | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch, name=self.name, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        if (process := self._process) is not None:
            try:
                process.wait(max(0.0, (self._deadline or 0.0) - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("%s did not stop and is killed; its work is taken up at the next start", self.name)
                process.kill()
        if self._thread is not None:
            self._thread.join()

    def end(self, number: int = signal.SIGTERM) -> None:
        """Send the process a signal that ends it, and do not start it again; does not wait, and may be called again."""
        with self._lock:
            self._stop.set()
            if number == signal.SIGTERM and self._deadline is None:
                self._deadline = time.monotonic() + self.grace
            if self._process is not None:
                self._process.send_signal(number)

    def ended(self) -> bool:
        """Say whether the process has ended after it was told to."""
        return self._thread is None or not self._thread.is_alive()

    def _watch(self) -> None:
        """Start the process, wait for its end, and start it again, later each time that it did not live long."""
        delay = FIRST_DELAY
        while (process := self._start()) is not None:
            started = time.monotonic()
            with process:
                if process.stdout is not None:
                    self.said = process.stdout.readline()
                    self.ready.set()
                    process.stdout.readline()
                    self.left.set()
                status = process.wait()
            if self._stop.is_set():
                return
            if self.when_dead is not None:
                self.when_dead()
            delay = FIRST_DELAY if time.monotonic() - started > LAST_DELAY else delay
            log.error("%s ended, it is started again", self.name, status=status, seconds=delay)
            self._stop.wait(delay)
            delay = min(2 * delay, LAST_DELAY)

    def _start(self) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._stop.is_set():
                return None
            handed = self.hand() if self.hand is not None else None
            self.left.clear()
            self._process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL if handed is None else subprocess.PIPE,
                stdout=2 if handed is None else subprocess.PIPE,  # ours is for the two lines that say where we are
                pass_fds=() if handed is None else (handed.descriptor,),
                process_group=0,  # Ctrl-C in a terminal is for the server, which then stops its children
            )
        if self._process.stdin is not None and handed is not None:
            with suppress(BrokenPipeError):  # it has ended already, which is noticed next
                self._process.stdin.write(handed.told)
                self._process.stdin.flush()
        return self._process
