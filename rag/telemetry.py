"""What is told of the work while it is done: numbers for a monitoring system, and spans of a trace.

    with clock.stage("dense"):      its seconds are on the clock, in a histogram, and a span of the trace

A stage is measured here, once, whoever wants to know. Who collects the numbers (`Meters`) and who sends the spans
(`Tracer`) is chosen by the door; without them nothing is told and nothing is spent. What is told are names of stages,
ids, counts and seconds: no text of questions or documents. Knows neither Prometheus nor OpenTelemetry, and no stage.

Where a trace stands is passed on as W3C's ``traceparent``, a plain string: by a context variable from caller to callee,
by a clock where the work goes on in another thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from rag.answers import Answer
from rag.protocols import Role

#: What may be told of a span: a name, an id, a count.
Fact = str | int | float | bool
_here: ContextVar[str | None] = ContextVar("traceparent", default=None)


class Meters(Protocol):
    """What collects numbers. Every method is cheap, may be called from any thread, and does not raise."""

    def requested(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """A request has ended; ``route`` is the template of its address, ``status`` 0 if its client left before."""
        ...

    def staged(self, journey: str, stage: str, seconds: float) -> None:
        """A stage of a journey has ended."""
        ...

    def answered(self, answer: Answer) -> None:
        """An answer is complete."""
        ...

    def looked_up(self, *, found: bool) -> None:
        """The log of answers was asked for one that can stand for a new one."""
        ...

    def fell_back(self, code: str) -> None:
        """The generator failed, and the built-in reader answers."""
        ...

    def embedded(self, role: Role, texts: int) -> None:
        """The embedder was called with so many texts."""
        ...

    def ingested(self, state: str, passages: int) -> None:
        """The work on a file has ended, in this state of its version."""
        ...


class Span(Protocol):
    """A stretch of a trace that has begun."""

    @property
    def place(self) -> str | None:
        """Its ``traceparent``, for what is done within it."""
        ...

    def rename(self, name: str) -> None:
        """Give it the name that is known only now."""
        ...

    def tell(self, **facts: Fact) -> None:
        """Add to what is known of it."""
        ...

    def end(self, failed: str | None = None, *, ago: float = 0.0) -> None:
        """End it, or note that it ended so many seconds ago; called again, it does nothing.

        ``failed`` is the kind of an error, never its message.
        """
        ...


class Tracer(Protocol):
    """What sends spans."""

    def begin(self, name: str, within: str | None, facts: Mapping[str, Fact], ago: float = 0.0) -> Span:
        """Begin a span within the one of a ``traceparent``, or a trace of its own; it began so many seconds ago."""
        ...


class _NoMeters:
    """Collects nothing."""

    def requested(self, method: str, route: str | None, status: int, seconds: float) -> None: ...

    def staged(self, journey: str, stage: str, seconds: float) -> None: ...

    def answered(self, answer: Answer) -> None: ...

    def looked_up(self, *, found: bool) -> None: ...

    def fell_back(self, code: str) -> None: ...

    def embedded(self, role: Role, texts: int) -> None: ...

    def ingested(self, state: str, passages: int) -> None: ...


class _NoSpan:
    """A span of no trace."""

    place = None

    def rename(self, name: str) -> None: ...

    def tell(self, **facts: Fact) -> None: ...

    def end(self, failed: str | None = None, *, ago: float = 0.0) -> None: ...


NO_METERS: Meters = _NoMeters()
NO_SPAN: Span = _NoSpan()


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Who is told: ``meters`` of numbers, ``tracer`` of spans, if there is one."""

    meters: Meters = NO_METERS
    tracer: Tracer | None = None

    def begin(self, name: str, within: str | None = None, *, ago: float = 0.0, **facts: Fact) -> Span:
        """Begin a span that whoever has it ends, from any thread; within the caller's one, or that of ``within``."""
        if self.tracer is None:
            return NO_SPAN
        return self.tracer.begin(name, within or _here.get(), facts, ago)

    @contextmanager
    def span(self, name: str, within: str | None = None, **facts: Fact) -> Iterator[Span]:
        """Let a span last as long as the body, and what the body calls begin within it.

        The body may be part of a generator that goes on in another task: so the place is put back by value, not by a
        token, which is good in one task alone.
        """
        if self.tracer is None:
            yield NO_SPAN
            return
        before = _here.get()
        span = self.tracer.begin(name, within or before, facts)
        _here.set(span.place)
        failed: str | None = None
        try:
            yield span
        except Exception as error:  # what else there is says that who listened has left, which is no failure
            failed = type(error).__name__
            raise
        finally:
            _here.set(before)
            span.end(failed)


SILENT = Telemetry()


def here() -> str | None:
    """Return the ``traceparent`` of what is being done, to pass it on; None without a trace."""
    return _here.get()


@dataclass(frozen=True, slots=True)
class Running:
    """A stage that has begun and ends elsewhere: it is told of, and on no clock."""

    journey: str
    name: str
    meters: Meters
    span: Span
    since: float = field(default_factory=time.perf_counter)

    def end(self) -> None:
        self.meters.staged(self.journey, self.name, time.perf_counter() - self.since)
        self.span.end()


class Clock:
    """Adds up the seconds of the named stages of a journey, and tells of each. Thread-safe.

    Its spans are within the one that its maker was in, whichever thread a stage is in.
    """

    def __init__(self, journey: str = "", telemetry: Telemetry = SILENT) -> None:
        self.seconds: dict[str, float] = {}
        self._journey = journey
        self._telemetry = telemetry
        self._within = here()
        self._lock = threading.Lock()

    def add(self, name: str, seconds: float, *, told: bool = True) -> None:
        """Add to a stage what was measured elsewhere; ``told`` is not what is no stage of one question or file."""
        with self._lock:
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        if told:
            self._telemetry.meters.staged(self._journey, name, seconds)

    def begin(self, name: str, within: str | None = None) -> Running:
        """Begin a stage that ends in another place; ``within`` as in `stage`."""
        span = self._telemetry.begin(f"{self._journey} {name}", within or self._within)
        return Running(self._journey, name, self._telemetry.meters, span)

    @contextmanager
    def stage(self, name: str, within: str | None = None, *, kept: bool = True) -> Iterator[None]:
        """Measure the body; ``within`` is where its span belongs, if not to the others.

        A stage that holds others is told of and not ``kept``: the seconds of a clock are those of a whole.
        """
        start = time.perf_counter()
        try:
            if self._telemetry.tracer is None:
                yield
            else:
                with self._telemetry.span(f"{self._journey} {name}", within or self._within):
                    yield
        finally:
            seconds = time.perf_counter() - start
            if kept:
                self.add(name, seconds)
            else:
                self._telemetry.meters.staged(self._journey, name, seconds)
