"""How far a batch is, looked at again and again: counts, pace, documents in hand, and every file that has ended once.

What the terminal, the JSON lines and the server-sent events show is made from the same `Look`. Knows no wire and no
terminal, and nothing of the worker: all it knows is in the catalog.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rag.catalog import Catalog
from rag.records import Batch, BatchFile, State

#: Seconds over which the pace is measured, and for which it holds.
WINDOW, PACE_SECONDS = 60.0, 2.0
#: Files read from the catalog in one query, and most ended files in one look.
PAGE, MOST = 200, 1000
_ACTIVE = frozenset({State.QUEUED, State.PROCESSING})


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a batch goes: over the last minute, or over all its time once it has ended."""

    files_per_second: float
    bytes_per_second: float
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class Ended:
    """A file that has ended. Every file up to number ``all_up_to`` has been told of by then, itself included."""

    file: BatchFile
    all_up_to: int


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a batch. While ``more`` is true, other files have ended already: look again at once."""

    batch: Batch
    pace: Pace
    in_hand: tuple[BatchFile, ...]
    ended: tuple[Ended, ...]
    more: bool

    @property
    def is_over(self) -> bool:
        """Whether every file has ended and has been told of. A batch without files is not over: it is still empty."""
        return self.batch.files > 0 and self.batch.ended_at is not None and not self.more


def pace_of(catalog: Catalog, batch: Batch) -> Pace:
    """Return how fast a batch goes, and how long it will take if it goes on like that."""
    if batch.ended_at is not None:
        seconds = max((batch.ended_at - batch.created_at).total_seconds(), 1.0)
        return Pace(batch.ended / seconds, batch.size_ended / seconds, 0.0 if batch.files else None)
    now = datetime.now(UTC)
    seconds = max(min((now - batch.created_at).total_seconds(), WINDOW), 1.0)
    files, size = catalog.ended_since(batch.id, now - timedelta(seconds=seconds))
    return Pace(files / seconds, size / seconds, _seconds_left(batch, files / seconds, size / seconds))


def _seconds_left(batch: Batch, files_per_second: float, bytes_per_second: float) -> float | None:
    """The longer of what files and bytes say: rather too long than too short. None while nothing is known."""
    if not files_per_second:
        return None
    by_files = (batch.files - batch.ended) / files_per_second
    return max(by_files, (batch.size - batch.size_ended) / bytes_per_second if bytes_per_second else 0.0)


class Watch:
    """Looks at one batch; tells of each ended file once, from number ``first`` on. For one thread at a time.

    Files end roughly in their order, so that only the few pages of files are read in which something goes on.
    """

    def __init__(self, catalog: Catalog, batch_id: str, first: int = 0, page: int = PAGE) -> None:
        self._catalog, self._batch_id, self._page = catalog, batch_id, page
        self._next = first  # every file before this one has been told of
        self._told: set[int] = set()  # those after it
        self._pages = [first // page]
        self._last: Look | None = None
        self._paced_at = -math.inf

    def look(self) -> Look:
        """Look again. Raises `NotFound` if there is no such batch."""
        batch, pace = self._standing()  # first: what has ended by then is found below
        ended: list[Ended] = []
        in_hand: list[BatchFile] = []
        more = False
        for page in self._open_pages(in_hand):
            ended += self._tell(page)
            if more := len(ended) >= MOST:
                break
        self._last = Look(batch, pace, tuple(in_hand), tuple(ended), more)
        return self._last

    def _standing(self) -> tuple[Batch, Pace]:
        """Return the counts and the pace, neither more often than needed: of many files they take a while."""
        if self._last is not None and self._last.more:
            return self._last.batch, self._last.pace
        batch = self._catalog.batch(self._batch_id)
        if self._last is None or batch.ended_at is not None or time.monotonic() - self._paced_at > PACE_SECONDS:
            self._paced_at = time.monotonic()
            return batch, pace_of(self._catalog, batch)
        return batch, self._last.pace

    def _open_pages(self, in_hand: list[BatchFile]) -> Iterator[list[BatchFile]]:
        """Yield the files of each page with something to tell, up to the first in which nothing has begun."""
        position = 0
        while position < len(self._pages):
            page = self._pages[position]
            files = self._catalog.batch_files(self._batch_id, after=page * self._page - 1, limit=self._page)
            in_hand += [file for file in files if _state(file) is State.PROCESSING]
            yield files
            is_full, is_last = len(files) == self._page, position == len(self._pages) - 1
            if is_full and is_last and any(_state(file) is not State.QUEUED for file in files):
                self._pages.append(page + 1)
            if is_full and all(self._is_told(file.number) for file in files):
                self._pages.pop(position)
            else:
                position += 1

    def _tell(self, files: list[BatchFile]) -> Iterator[Ended]:
        for file in files:
            if _state(file) not in _ACTIVE and not self._is_told(file.number):
                self._told.add(file.number)
                while self._next in self._told:
                    self._told.remove(self._next)
                    self._next += 1
                yield Ended(file, self._next - 1)

    def _is_told(self, number: int) -> bool:
        return number < self._next or number in self._told


def _state(file: BatchFile) -> State | None:
    return None if file.version is None else file.version.state


def batch_facts(batch: Batch, pace: Pace) -> dict[str, Any]:
    """Return how far a batch is as plain values, under the names that the REST API gives them."""
    return {
        "id": batch.id,
        "created_at": batch.created_at,
        "ended_at": batch.ended_at if batch.files else None,
        "files": batch.files,
        "ended": batch.ended,
        "states": {str(state): count for state, count in batch.states.items()},
        "bytes": batch.size,
        "bytes_ended": batch.size_ended,
        "passages": batch.passages,
        "files_per_second": round(pace.files_per_second, 3),
        "bytes_per_second": round(pace.bytes_per_second, 1),
        "seconds_left": None if pace.seconds_left is None else round(pace.seconds_left, 1),
    }


def in_hand_facts(look: Look) -> list[dict[str, Any]]:
    """Return the documents that are being read, each with its stage and how much of it is done, as plain values."""
    versions = [file.version for file in look.in_hand if file.version]
    return [{"name": v.name, "stage": str(v.stage), "progress": round(v.progress, 4)} for v in versions]
