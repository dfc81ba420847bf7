"""What a process of Citewell tells of its work, and to whom: numbers for /metrics, spans for a collector.

Chosen by the settings, opened before the whole that tells, and closed after it. Knows processes of two kinds, those
that answer requests and those that read documents.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from api.metrics import Kind, Numbers, open_numbers
from api.traces import opened_tracer
from rag.assembly import Citewell, open_citewell
from rag.settings import Settings
from rag.telemetry import Telemetry


@contextmanager
def opened_telemetry(settings: Settings, kind: Kind) -> Iterator[Telemetry]:
    """Yield whom a process of this kind tells; raises `Misconfigured` as `api.traces.opened_tracer` does."""
    with opened_tracer(settings, kind) as tracer:
        if not settings.observe.metrics:
            yield Telemetry(tracer=tracer)
            return
        with closing(open_numbers(settings, kind)) as numbers:
            yield Telemetry(numbers, tracer)


@contextmanager
def open_observed(settings: Settings, kind: Kind) -> Iterator[Citewell]:
    """Open everything, as `rag.assembly.open_citewell` does and raising what it raises, and tell of it."""
    with opened_telemetry(settings, kind) as telemetry, open_citewell(settings, telemetry=telemetry) as citewell:
        if not isinstance(telemetry.meters, Numbers) or kind == "worker":  # which searches nothing
            yield citewell
            return
        with telemetry.meters.looking(citewell):
            yield citewell
