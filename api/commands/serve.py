"""``citewell serve`` and ``citewell worker``: the two that run until they are told to stop.

Knows signals and the log; what is served and how files are worked off is known elsewhere.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.commands.options import Data, Interrupted, read_settings

if TYPE_CHECKING:
    from rag.assembly import Citewell
    from rag.settings import Settings


def serve(
    ctx: typer.Context,
    host: Annotated[str | None, typer.Option("--host", metavar="ADDRESS", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", metavar="N", help="Port to listen on.")] = None,
    data: Data = None,
) -> None:
    """Serve the REST API, with a worker beside it.

    The worker takes up uploaded documents in a process of its own. Stop it with Ctrl-C: running requests are finished,
    and what is in the queue stays there for the next start. SIGHUP puts new processes in the place of those that run,
    which read the settings again, and no request is lost by it.
    """
    server: dict[str, Any] = {name: value for name, value in (("host", host), ("port", port)) if value is not None}

    def settings() -> Settings:
        chosen = read_settings(ctx, data, log_default="info", server=server)
        _check_report(chosen)
        return chosen

    from api.serve import serve as run

    raise typer.Exit(run(settings(), settings))


def _check_report(settings: Settings) -> None:
    """Raise here what is wrong with the schedule or the gates of reports, not in a worker that can not start."""
    from eval.gates import read_gates
    from eval.schedule import read_cron

    if settings.report.schedule:
        read_cron(settings.report.schedule, settings.report.timezone)
    if settings.report.gates:
        read_gates(settings.report.gates)


def worker(
    ctx: typer.Context,
    parent: Annotated[
        int | None, typer.Option("--parent", metavar="PID", help="Stop when this process, the parent, is gone.")
    ] = None,
    data: Data = None,
) -> None:
    """Work off the queue until told to stop.

    Reads the documents that wait and makes them searchable, and makes the reports that wait or are due. Any number of
    workers may run on one data folder. Ctrl-C and SIGTERM let it finish the document in hand; a second Ctrl-C gives
    that one back to the queue. Writes one log line for each document.
    """
    settings = read_settings(ctx, data, log_default="info")
    from api.logs import log_ends_of_threads
    from api.observing import open_observed

    log_ends_of_threads()
    stop = threading.Event()
    with _stopped_by_signals(stop) as received, open_observed(settings, "worker") as citewell:
        if parent is not None:
            threading.Thread(target=_follow, args=(parent, stop), name="parent", daemon=True).start()
        _work(citewell, stop)
    if signal.SIGINT in received:
        raise Interrupted("The worker has stopped; nothing was left half done.")


def _work(citewell: Citewell, stop: threading.Event) -> None:
    import structlog

    from eval.nightly import beside
    from ingest.worker import Worker

    log = structlog.get_logger(__name__)
    worker = Worker(citewell)
    log.info("worker started", data=str(citewell.store.settings.data), engine=citewell.embedder.engine)
    try:
        with beside(citewell, stop):
            worker.run(stop)
    except KeyboardInterrupt:
        citewell.store.catalog.release(worker.owner)
    log.info("worker stopped")


def _follow(parent: int, stop: threading.Event) -> None:
    """Set ``stop`` when the parent process is another one than at the start: the first one is gone then."""
    while not stop.wait(1):
        if os.getppid() != parent:
            stop.set()


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[list[int]]:
    """Let SIGTERM and SIGINT set ``stop``; a second SIGINT is a `KeyboardInterrupt`. Yields the signals received."""
    received: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and number in received:
            raise KeyboardInterrupt
        received.append(number)
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
