"""What a worker holds: leases that are prolonged while the work goes on, and a watch over work that does not.

One thread beats for all versions in hand. Knows the queue, and nothing of what is done with a version.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog

from rag.catalog import Catalog
from rag.errors import Unavailable
from rag.meanwhile import meanwhile
from rag.records import Stage, Version
from rag.telemetry import NO_SPAN, Span

log = structlog.get_logger(__name__)

#: Where the stages lie on the way from 0 to 1, for progress bars.
PROGRESS = {Stage.PARSE: 0.0, Stage.CHUNK: 0.25, Stage.EMBED: 0.3, Stage.COMMIT: 0.95}
_ENDS = [*PROGRESS.values(), 1.0]
#: Seconds between two looks at what is in hand; what has not moved is written once in a third of its lease.
BEAT_SECONDS = 1.0
#: Exit status of a worker that got no step further.
STALLED = 70


class LeaseLost(Exception):
    """Another worker has this file now, or the document was deleted; this work is dropped."""


@dataclass(eq=False)
class Lease:
    """A hold on one version, prolonged by `Leases` until it is let go; ``span`` is the work on it, in a trace."""

    version: Version
    stage: Stage = Stage.PARSE
    progress: float = 0.0
    lost: bool = False
    span: Span = NO_SPAN

    def at(self, stage: Stage, share: float = 0.0) -> None:
        """Say which stage has begun and how much of it is done; raises `LeaseLost` if the work is not ours any more."""
        self.show(stage, share)
        if self.lost:
            raise LeaseLost(self.version.id)

    def show(self, stage: Stage, share: float) -> None:
        """Say how far the work is, and no more."""
        begin = PROGRESS[stage]
        self.progress = begin + share * (_ENDS[_ENDS.index(begin) + 1] - begin)
        self.stage = stage


@dataclass
class Leases:
    """All versions that ``owner`` has in hand."""

    catalog: Catalog
    owner: str
    seconds: float
    stall_seconds: float
    _held: dict[str, Lease] = field(default_factory=dict)
    _shown: dict[str, tuple[Stage, float]] = field(default_factory=dict)
    _steps: dict[str, tuple[float, str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _written: float = 0.0

    def __len__(self) -> int:
        return len(self._held)

    def add(self, version: Version) -> Lease:
        """Begin to prolong the lease of a version that was just claimed."""
        lease = Lease(version)
        with self._lock:
            self._held[version.id] = lease
        return lease

    def let_go(self, lease: Lease) -> None:
        """Stop prolonging a lease."""
        with self._lock:
            self._held.pop(lease.version.id, None)
            self._shown.pop(lease.version.id, None)
        lease.span.end()

    def held(self) -> list[Lease]:
        """Return all leases."""
        with self._lock:
            return list(self._held.values())

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Watch one step of the work that has no limit of its own: it may take ``stall_seconds`` at most."""
        key = f"{name} {threading.get_ident()}"
        self._steps[key] = (time.monotonic(), name)
        try:
            yield
        finally:
            self._steps.pop(key, None)

    def beating(self) -> AbstractContextManager[None]:
        """Prolong the leases in a thread while the body runs."""
        return meanwhile(self._look, min(BEAT_SECONDS, self.seconds / 3), "leases")

    def _look(self) -> None:
        self._watch()
        try:
            self.beat()
        except Unavailable as error:  # the leases run out if it lasts; what is lost then is time
            log.error("leases can not be prolonged", reason=error.message)

    def beat(self) -> None:
        """Write what has moved since the last time, or everything when a third of the lease has passed."""
        with self._lock:
            now = {key: (lease.stage, round(lease.progress, 3)) for key, lease in self._held.items()}
            due = time.monotonic() - self._written >= self.seconds / 3
            moved = now if due else {key: at for key, at in now.items() if self._shown.get(key) != at}
        if not moved:
            return
        kept = self.catalog.heartbeat(self.owner, self.seconds, moved)
        with self._lock:
            if due:
                self._written = time.monotonic()
            self._shown = {key: at for key, at in (self._shown | moved).items() if key in self._held}
            for key in set(moved) - kept:
                if lease := self._held.get(key):
                    lease.lost = True

    def _watch(self) -> None:
        """End this process if a step hangs: another one takes over, and whoever started this one starts it again."""
        for since, name in list(self._steps.values()):
            if time.monotonic() - since > self.stall_seconds:
                facts: dict[str, Any] = {"step": name, "seconds": self.stall_seconds}
                log.critical("the worker hangs and ends itself", **facts)
                os._exit(STALLED)
