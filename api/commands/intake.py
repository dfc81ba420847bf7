"""Files into a collection as one batch, and what became of each: what `citewell ingest`, `sync` and the demo do.

Every file is accepted before it is read, which is safe against anything that happens afterwards; exactly those of the
batch are worked off, together with whatever other worker takes some of them. Knows no option, and no output but the
summary's lines.
"""

from __future__ import annotations

import errno
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from api.batch_report import Outcome, each_file_of, error_of, file_facts, outcome_of
from api.commands.terminal import clean, counted, wrapped
from ingest.sources import SourceFile, SourceProblem, document_name
from ingest.worker import Worker, accept_file
from rag.assembly import Citewell
from rag.catalog.queue import NAME_CHARS
from rag.errors import BadInput, DocumentTooLarge, Misconfigured, NotFound
from rag.records import Batch, BatchFile, Collection
from rag.store import Store

#: What a file on disk is called by, and what could not be taken of it.
Found = SourceFile | SourceProblem
#: Most failures that are named in a summary; the report has all.
SHOWN = 50
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_ALWAYS = (Outcome.ADDED, Outcome.REPLACED, Outcome.UNCHANGED, Outcome.RETRIED, Outcome.FAILED)


@dataclass(slots=True)
class Taken:
    """How much has been accepted so far: files, their bytes, and how many of the files were refused."""

    files: int = 0
    size: int = 0
    refused: int = 0


@dataclass(slots=True)
class Summary:
    """What became of all files. ``stages`` adds up the seconds of this process by stage of the work."""

    collection: str
    created: bool = False
    batch: str | None = None
    counts: Counter[Outcome] = field(default_factory=Counter)
    passages: int = 0
    waiting: int = 0
    deleted: int | None = None
    failures: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0
    stages: Mapping[str, float] = field(default_factory=dict)

    def add(self, file: BatchFile, batch: Batch) -> None:
        """Count a file of the batch."""
        outcome = outcome_of(file, batch)
        self.counts[outcome] += 1
        if outcome is Outcome.FAILED:
            self.add_failure(file.name, error_of(file) or "")
        elif file.version is not None and file.version.ended_at is None:
            self.waiting += 1
        elif file.version is not None and outcome is not Outcome.UNCHANGED:
            self.passages += file.version.passages

    def add_failure(self, name: str, error: str) -> None:
        """Name a file that failed, while there are not too many; the caller counts it."""
        if len(self.failures) < SHOWN:
            self.failures.append((name, error))

    @property
    def files(self) -> int:
        return sum(self.counts.values())

    def lines(self) -> list[str]:
        """Return the summary: a count for each outcome, and the files that failed."""
        shown = [outcome for outcome in Outcome if outcome in _ALWAYS or self.counts[outcome]]
        lines = [f"{counted(self.files, 'file')} for the collection {self.collection}:"]
        lines += [f"  {outcome:<10}{self.counts[outcome]:>7,}" for outcome in shown]
        lines += [] if self.deleted is None else [f"  {'deleted':<10}{self.deleted:>7,}"]
        if self.waiting:
            lines.append(f"{counted(self.waiting, 'file')} in the queue, for `citewell worker` or `citewell serve`.")
        if self.passages or not self.waiting:
            lines.append(f"{passages(self.passages)} made searchable in {self.seconds:.1f} seconds.")
        lines += ["", "Failed:"] if self.failures else []
        for name, error in self.failures:
            lines += [f"  {clean(name)}", *wrapped(clean(error), indent=4)]
        if more := self.counts[Outcome.FAILED] - len(self.failures):
            lines.append(f"  and {more:,} more, which `citewell batches report` lists.")
        return [*lines, "", f"Batch {self.batch}"] if self.batch else lines

    def as_json(self) -> dict[str, Any]:
        """Return the counts."""
        facts: dict[str, Any] = {"collection": self.collection, "created": self.created, "batch": self.batch}
        facts |= {outcome.value: self.counts[outcome] for outcome in Outcome}
        facts |= {} if self.deleted is None else {"deleted": self.deleted}
        facts |= {"waiting": self.waiting, "passages": self.passages, "seconds": round(self.seconds, 3)}
        return facts | {"stages": {name: round(seconds, 3) for name, seconds in self.stages.items()}}


def passages(number: int) -> str:
    return counted(number, "passage")


def file_line(file: BatchFile, batch: Batch) -> str:
    """Say in one line what became of a file."""
    outcome = outcome_of(file, batch)
    if outcome is Outcome.FAILED or file.version is None:
        return f"{outcome} {file.name}: {error_of(file)}"
    return f"{outcome} {file.name} (version {file.version.number}, {passages(file.version.passages)})"


def open_collection(store: Store, name: str) -> tuple[Collection, bool]:
    """Return the collection of this name, and whether it had to be made."""
    try:
        return store.catalog.collection(name, counted=False), False
    except NotFound:
        return store.catalog.ensure_collection(name), True


def take_in(
    store: Store,
    collection: Collection,
    batch: str,
    found: Iterable[Found],
    metadata: dict[str, Any] | None,
    tell: Callable[[Taken], None] = lambda _: None,
    mark: Callable[[SourceFile], str | None] = lambda _: None,
) -> Taken:
    """Accept files into a batch: when this returns, all are in the queue for good, or in the batch with the reason.

    ``tell`` is called after each; ``mark`` says what is kept of a file so that it need not be read again.
    """
    taken = Taken()
    for file in found:
        taken.files += 1
        if isinstance(file, SourceProblem):
            store.catalog.refuse(batch, _named(file), "unreadable", file.reason)
            taken.refused += 1
        elif (size := _accept(store, collection, batch, file, metadata, mark(file))) is None:
            taken.refused += 1
        else:
            taken.size += size
        tell(taken)
    return taken


def _named(problem: SourceProblem) -> str:
    return document_name(str(problem.path))[:NAME_CHARS]


def _accept(
    store: Store,
    collection: Collection,
    batch: str,
    file: SourceFile,
    metadata: dict[str, Any] | None,
    mark: str | None,
) -> int | None:
    """Accept one file and return its size, or None if it was refused."""
    try:
        version, _ = accept_file(store, collection, file.name, file.path, metadata, batch=batch, source=mark)
    except (BadInput, DocumentTooLarge) as error:
        store.catalog.refuse(batch, file.name[:NAME_CHARS], error.code, error.message)
        return None
    except OSError as error:
        if error.errno in _DISK:
            raise Misconfigured(f"The data folder {store.settings.data} takes no more: {error.strerror}.") from error
        store.catalog.refuse(batch, file.name[:NAME_CHARS], "unreadable", f"It can not be read: {error.strerror}.")
        return None
    return version.size


def work_off(
    citewell: Citewell,
    batch: str,
    waiting: Callable[[int], None] = lambda _: None,
    arriving: Callable[[], bool] = lambda: False,
) -> Mapping[str, float]:
    """Work until every file of a batch has ended, here or in other workers; return the seconds of each stage here.

    ``waiting`` is told once in a while how many are with others or wait for another try; ``arriving`` says whether more
    files come. When interrupted, what is in hand goes back to the queue.
    """
    catalog, settings = citewell.store.catalog, citewell.store.settings.ingest
    with Worker(citewell) as worker:
        while True:
            more = arriving()
            worker.drain(batch)
            if more:
                continue
            found = catalog.batch(batch)
            if found.ended_at is not None:
                return worker.clock.seconds
            waiting(found.files - found.ended)
            time.sleep(settings.poll_seconds)


def sum_up(store: Store, summary: Summary) -> None:
    """Count every file of the batch of a summary."""
    if summary.batch is not None:
        batch = store.catalog.batch(summary.batch)
        for file in each_file_of(store.catalog, batch.id):
            summary.add(file, batch)


def files_as_json(store: Store, batch_id: str, paths: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the files of a batch as objects, each with its path where it has one."""
    batch = store.catalog.batch(batch_id)
    for file in each_file_of(store.catalog, batch_id):
        yield {"path": paths.get(file.name), **file_facts(file, batch)}
