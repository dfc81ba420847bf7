"""The data folder: the catalog, the originals beside it, and where the indexes lie.

Enough to list, upload and delete; opens no model and no index, so that commands that need none start at once.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from rag.catalog import Catalog
from rag.errors import Misconfigured, Unavailable
from rag.lifecycle import sweep_parts
from rag.log_lines import keep_lines_safe
from rag.originals import Originals
from rag.records import Collection
from rag.settings import Settings

log = structlog.get_logger(__name__)

#: The folder of the data folder with scores of answers by content (`eval.scored`); they quote documents.
SCORES = "scores"


@dataclass(frozen=True, slots=True)
class Store:
    """What lies in a data folder, without any model."""

    settings: Settings
    catalog: Catalog
    originals: Originals

    @property
    def index_folder(self) -> Path:
        return self.settings.data / "indexes"

    @property
    def tuning_folder(self) -> Path:
        """Where runs of `citewell tune` keep their state, in a folder for each collection."""
        return self.settings.data / "tuning"

    @property
    def scores_folder(self) -> Path:
        """Where scores of answers are kept."""
        return self.settings.data / SCORES

    def delete_collection(self, name: str) -> Collection:
        """Remove a collection: its rows in one transaction, then the files that nothing needs any more."""
        collection = self.catalog.collection(name)
        self.remove_originals(self.catalog.delete_collection(collection.id))
        self._remove_indexes(collection.id)
        self.remove_tuning(collection.id)
        self.remove_scores()
        return collection

    def remove_tuning(self, collection_id: str) -> None:
        """Remove what a stopped run has kept: questions about passages that may be gone."""
        shutil.rmtree(self.tuning_folder / collection_id, ignore_errors=True)

    def remove_scores(self) -> None:
        """Remove all scores that were kept: they do not say which documents they quote, and can be made again."""
        shutil.rmtree(self.scores_folder, ignore_errors=True)

    def remove_originals(self, shas: Sequence[str]) -> tuple[int, int]:
        """Remove those of some originals that no version has; return how many there were, and their bytes."""
        if not shas:
            return 0, 0
        with self.originals.clearing():
            sizes = [self.originals.remove(sha) for sha in sorted(self.catalog.unneeded(shas))]
        return sum(size > 0 for size in sizes), sum(sizes)

    def sweep(self) -> int:
        """Remove what work that came to nothing has left: rows, originals, half-written files, stray indexes.

        Answers, reports and lines of the audit log go as well whose time is over. Returns how many things that were.
        Does nothing to originals and rows while anything waits or is being read.
        """
        swept = self.originals.sweep_incoming() + self._sweep_indexes() + self.forget_answers()
        swept += self.forget_reports() + self.forget_audit()
        if self.catalog.queue_length():
            return swept
        return swept + self.catalog.sweep() + self.remove_originals(self.originals.list())[0]

    def forget_answers(self) -> int:
        """Remove the answers and events that the settings keep no longer; return how many."""
        answers = self.settings.answers
        oldest = datetime.now(UTC) - timedelta(days=answers.retention_days)
        return self.catalog.forget_answers(oldest, answers.most_kept) + self.catalog.forget_events(
            answers.resume_seconds
        )

    def forget_reports(self) -> int:
        """Remove the reports that the settings keep no longer; return how many."""
        return self.catalog.forget_reports(datetime.now(UTC) - timedelta(days=self.settings.report.keep_days))

    def forget_audit(self) -> int:
        """Remove the lines of the audit log that the settings keep no longer; return how many."""
        return self.catalog.forget_audit(datetime.now(UTC) - timedelta(days=self.settings.access.audit_days))

    def _sweep_indexes(self) -> int:
        if not self.index_folder.is_dir():
            return 0
        there = {
            folder.name for folder in self.index_folder.iterdir()
        }  # before the question: a new one is in its answer
        gone = there - {collection.id for collection in self.catalog.list_collections(counted=False)}
        removed = sum([self._remove_indexes(name) for name in gone])
        kept = ((name, self.index_folder / name) for name in there - gone)
        return removed + sum(sweep_parts(self.catalog, name, folder) for name, folder in kept)

    def _remove_indexes(self, collection_id: str) -> bool:
        """Remove the indexes of a deleted collection; while Milvus is away its folder stays, for the next sweep."""
        folder = self.index_folder / collection_id
        if folder.is_dir() and self.settings.index.engine == "milvus":
            from rag.milvus_indexes import drop_collections

            try:
                drop_collections(self.settings.index, collection_id)
            except Unavailable as error:
                log.warning("indexes of a deleted collection stay", collection=collection_id, reason=error.message)
                return False
        shutil.rmtree(folder, ignore_errors=True)
        return True


@contextmanager
def open_store(settings: Settings) -> Iterator[Store]:
    """Open the data folder, making it if it is not there; raises `Misconfigured` if it can not be used."""
    keep_lines_safe()
    try:
        settings.data.mkdir(parents=True, exist_ok=True)
        originals = Originals(settings.data / "originals")
    except OSError as error:
        raise Misconfigured(f"The data folder {settings.data} can not be used: {error.strerror}.") from error
    catalog = Catalog(settings.database.get_secret_value()) if settings.database else Catalog.in_folder(settings.data)
    try:
        yield Store(settings, catalog, originals)
    finally:
        catalog.close()
