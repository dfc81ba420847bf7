"""Files into a collection, and what became of each: what `citewell ingest` and the demo do.

Every file is accepted first, which is safe against anything that happens afterwards; then exactly those are worked
off, together with whatever other worker takes some of them. Knows no option and no output but the report's lines.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from api.commands.terminal import clean, counted, wrapped
from ingest.sources import SourceFile, SourceProblem
from ingest.worker import Worker, accept_file
from rag.assembly import Citewell
from rag.catalog import Accepted
from rag.errors import BadInput, DocumentTooLarge, Misconfigured
from rag.records import Collection, State, Version
from rag.store import Store

FINAL = frozenset({State.READY, State.FAILED, State.RETIRED})
#: Versions asked for in one query.
BATCH = 200
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_OVERTAKEN = "It was deleted, or replaced by a newer content, while it waited or was being read."


class Outcome(StrEnum):
    """What became of a file. ``RESUMED``: it was accepted by an earlier run that did not finish it."""

    ADDED = "added"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"
    RETRIED = "retried"
    RESUMED = "resumed"
    FAILED = "failed"


@dataclass(slots=True)
class Item:
    """One file on its way. ``version`` is None if it was not accepted; ``error`` says why it failed."""

    path: Path
    name: str
    outcome: Outcome
    version: Version | None = None
    error: str | None = None

    @property
    def pending(self) -> bool:
        return self.version is not None and self.version.state not in FINAL

    def settle(self, version: Version) -> None:
        """Note how the work on it ended."""
        self.version = version
        if version.state is not State.READY:
            self.outcome = Outcome.FAILED
            self.error = version.error if version.state is State.FAILED else _OVERTAKEN

    def line(self) -> str:
        """Say in one line what became of it."""
        if self.outcome is Outcome.FAILED or self.version is None:
            return f"{self.outcome} {self.name}: {self.error}"
        return f"{self.outcome} {self.name} (version {self.version.number}, {passages(self.version.passages)})"

    def as_json(self) -> dict[str, Any]:
        """Return it as an object whose fields are named as those of `rag.records.Version`."""
        found: dict[str, Any] = {
            "name": self.name,
            "path": str(self.path),
            "outcome": self.outcome,
            "error": self.error,
        }
        if version := self.version:
            found |= {"document_id": version.document_id, "version_id": version.id, "version": version.number}
            found |= {"state": version.state, "passages": version.passages, "error_code": version.error_code}
        return found


@dataclass(slots=True)
class Report:
    """What became of all files. ``stages`` adds up the seconds of this process by stage of the work."""

    collection: str
    created: bool
    items: list[Item]
    seconds: float = 0.0
    stages: Mapping[str, float] = field(default_factory=dict)

    def count(self, outcome: Outcome) -> int:
        return sum(item.outcome is outcome for item in self.items)

    @property
    def passages(self) -> int:
        """How many passages became searchable."""
        fresh = (i.version for i in self.items if i.outcome not in {Outcome.UNCHANGED, Outcome.FAILED})
        return sum(version.passages for version in fresh if version)

    def lines(self) -> list[str]:
        """Return the summary: a count for each outcome, and a line for each file that failed."""
        shown = [outcome for outcome in Outcome if outcome is not Outcome.RESUMED or self.count(outcome)]
        counts = [f"  {outcome:<10}{self.count(outcome):>7,}" for outcome in shown]
        failed = [item for item in self.items if item.outcome is Outcome.FAILED]
        return [
            f"{counted(len(self.items), 'file')} for the collection {self.collection}:",
            *counts,
            f"{passages(self.passages)} made searchable in {self.seconds:.1f} seconds.",
            *(["", "Failed:"] if failed else []),
            *(line for item in failed for line in _failure(item)),
        ]

    def as_json(self) -> dict[str, Any]:
        """Return the counts, and the files one by one."""
        return {
            "collection": self.collection,
            "created": self.created,
            **{outcome.value: self.count(outcome) for outcome in Outcome},
            "passages": self.passages,
            "seconds": round(self.seconds, 3),
            "stages": {name: round(seconds, 3) for name, seconds in self.stages.items()},
            "files": [item.as_json() for item in self.items],
        }


def passages(number: int) -> str:
    return counted(number, "passage")


def _failure(item: Item) -> list[str]:
    return [f"  {clean(item.name)}", *wrapped(clean(item.error or ""), indent=4)]


def take_in(
    store: Store, collection: Collection, files: Iterable[SourceFile], metadata: dict[str, Any] | None
) -> list[Item]:
    """Accept files: when this returns, those without an error are in the queue for good."""
    return [_accepted(store, collection, file, metadata) for file in files]


def refused(problems: Iterable[SourceProblem]) -> list[Item]:
    """Return what could not be found or opened as items that failed."""
    return [Item(problem.path, str(problem.path), Outcome.FAILED, error=problem.reason) for problem in problems]


def _accepted(store: Store, collection: Collection, file: SourceFile, metadata: dict[str, Any] | None) -> Item:
    try:
        version, accepted = accept_file(store, collection, file.name, file.path, metadata)
    except (BadInput, DocumentTooLarge) as error:
        return Item(file.path, file.name, Outcome.FAILED, error=error.message)
    except OSError as error:
        if error.errno in _DISK:
            raise Misconfigured(f"The data folder {store.settings.data} takes no more: {error.strerror}.") from error
        return Item(file.path, file.name, Outcome.FAILED, error=f"It can not be read: {error.strerror}.")
    item = Item(file.path, file.name, Outcome(accepted.value), version)
    if accepted is Accepted.UNCHANGED and item.pending:
        item.outcome = Outcome.RESUMED
    return item


def work_off(
    citewell: Citewell, items: Sequence[Item], done: Callable[[Item], None], waiting: Callable[[int], None]
) -> Worker:
    """Work until every item is final, here or by other workers; return the worker that did its share.

    ``done`` is told of each item, ``waiting`` once in a while of how many are left with others.
    When interrupted, the file in hand goes back to the queue.
    """
    worker = Worker(citewell)
    pending = {item.version.id: item for item in items if item.version and item.pending}
    try:
        for start in range(0, len(pending), BATCH):
            _work_off(worker, dict(list(pending.items())[start : start + BATCH]), done, waiting)
    except KeyboardInterrupt:
        citewell.store.catalog.release(worker.owner)
        raise
    return worker


def _work_off(
    worker: Worker, pending: dict[str, Item], done: Callable[[Item], None], waiting: Callable[[int], None]
) -> None:
    catalog, settings = worker.citewell.store.catalog, worker.citewell.store.settings.ingest

    def settle(version: Version) -> None:
        if version.state in FINAL and (item := pending.pop(version.id, None)):
            item.settle(version)
            done(item)

    while True:
        worker.drain(list(pending), settle)
        for version_id in list(pending):
            settle(catalog.version(version_id))
        if not pending:
            return
        waiting(len(pending))
        time.sleep(settings.poll_seconds)
