"""Child processes of the server: started again when they end by themselves, and stopped with it.

Knows processes and no more: what they do is in their command lines.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import structlog

log = structlog.get_logger(__name__)

#: How long a child may take to finish what it has in hand before it is killed, in seconds.
CHILD_GRACE = 30
#: Seconds before a dead child is started again: doubled each time, from the first to the last.
FIRST_DELAY, LAST_DELAY = 1.0, 60.0


@dataclass
class Child:
    """A child process that is started again when it ends by itself, and is stopped on leaving the ``with`` block.

    ``name`` is what the log calls it; without an ``environment`` it has that of this process. With ``told``, it gets
    these bytes on its standard input, which stays open as long as this process lives, and says by a line on its
    standard output that it is ``ready``; the event is set then, or when it has ended without a word.
    """

    name: str
    command: list[str]
    environment: Mapping[str, str] | None = None
    told: bytes | None = None
    ready: threading.Event = field(default_factory=threading.Event)
    _process: subprocess.Popen[bytes] | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch, name=self.name, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()
        if (process := self._process) is not None:
            try:
                process.wait(CHILD_GRACE)
            except subprocess.TimeoutExpired:
                log.warning("%s did not stop and is killed; its work is taken up at the next start", self.name)
                process.kill()
        if self._thread is not None:
            self._thread.join()

    def terminate(self) -> None:
        """Tell the process to finish, and do not start it again; may be called more than once, and does not wait."""
        with self._lock:
            self._stop.set()
            if self._process is not None:
                self._process.terminate()

    def _watch(self) -> None:
        """Start the process, wait for its end, and start it again, later each time that it did not live long."""
        delay = FIRST_DELAY
        while (process := self._start()) is not None:
            started = time.monotonic()
            with process:
                if process.stdout is not None:
                    process.stdout.readline()
                self.ready.set()
                status = process.wait()
            if self._stop.is_set():
                return
            delay = FIRST_DELAY if time.monotonic() - started > LAST_DELAY else delay
            log.error("%s ended, it is started again", self.name, status=status, seconds=delay)
            self._stop.wait(delay)
            delay = min(2 * delay, LAST_DELAY)

    def _start(self) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._stop.is_set():
                return None
            self._process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL if self.told is None else subprocess.PIPE,
                stdout=2 if self.told is None else subprocess.PIPE,  # ours is for the two lines that say where we are
                process_group=0,  # Ctrl-C in a terminal is for the server, which then stops its children
            )
        if self._process.stdin is not None and self.told is not None:
            try:
                self._process.stdin.write(self.told)
                self._process.stdin.flush()
            except BrokenPipeError:
                pass  # it has ended already, which is noticed next
        return self._process
