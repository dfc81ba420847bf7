"""Documents that are read on the way to what a test looks at: by real workers, whose child processes are kept.

A child loads the parsers' libraries for two seconds, and a test whose subject is something else need not wait for that
again. It ends with the tests. A worker whose limits are not the usual ones gets children of its own.
"""

from __future__ import annotations

from ingest.sandbox import Sandbox
from ingest.worker import Worker
from rag.assembly import Citewell
from rag.settings import IngestSettings

#: Settings of a worker that its children do not know of.
PACE = {
    "parsers", "attempts", "deaths", "retry_seconds", "retry_most_seconds", "stall_seconds", "lease_seconds",
    "poll_seconds", "embed_batch",
}  # fmt: skip
#: Children with the usual limits that wait for a document, from one worker to the next.
KEPT: list[Sandbox] = []


def reading_worker(citewell: Citewell) -> Worker:
    """A worker that takes the children that are there. One that is closed, or told to stop, ends them."""
    chosen, usual = citewell.store.settings.ingest, IngestSettings()
    like = chosen.model_copy(update={name: getattr(usual, name) for name in PACE}) == usual
    return Worker(citewell, sandboxes=KEPT if like else [])


def read_waiting(citewell: Citewell) -> None:
    """Do the worker's work until nothing waits."""
    reading_worker(citewell).drain()
