"""What the parts of the catalog share: the database, and how its rows become records.

Knows the tables, and no question that is asked of them.
"""

from __future__ import annotations

import copy
import json
import threading
import zlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import sqlalchemy as sa

from rag.access import LOCAL, Caller
from rag.database import Database
from rag.errors import NotFound
from rag.records import Element, Kind, Member, ParsedDocument, Stage, State, Version
from rag.schema import audit, chunks, collections, versions

T = TypeVar("T")

LIVE = chunks.c.retired_commit.is_(None)
NO_LEASE: dict[str, Any] = {"lease_owner": None, "lease_until": None}
#: States in which a version still needs something done.
ACTIVE = (State.QUEUED.value, State.PROCESSING.value)
#: Most values that go into one query.
SLICE = 2000


class Part:
    """The open database at a SQLAlchemy ``url``. Thread-safe."""

    def __init__(self, url: str) -> None:
        self._database = Database(url)
        self._read, self._write = self._database.read, self._database.write
        self._moment = threading.local()
        self._caller = LOCAL

    @classmethod
    def in_folder(cls, folder: Path) -> Self:
        """Open the embedded default: one SQLite file in the data folder."""
        return cls(f"sqlite:///{folder / 'catalog.sqlite3'}")

    def close(self) -> None:
        self._database.close()

    def seen_by(self, caller: Caller) -> Self:
        """Return this catalog as a caller sees it: collections that are not the caller's are not there.

        That holds for all that is looked up by a name or an id, or listed: collections, documents, batches, answers,
        conversations, golden questions and reports. What is written through it is noted as the caller's.
        """
        seen = copy.copy(self)
        seen._caller = caller  # noqa: SLF001 -- the same class
        return seen

    @property
    def caller(self) -> Caller:
        """Who this catalog is seen by."""
        return self._caller

    def _sees(self, collection_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
        """The condition that a row belongs to a collection which the caller sees, by the column with its id."""
        names = self._caller.collections
        if names is None:
            return sa.true()
        return collection_id.in_(sa.select(collections.c.id).where(collections.c.name.in_(sorted(names))))

    def _note(
        self, connection: sa.Connection, action: str, subject: str | None = None, collection_id: str | None = None
    ) -> None:
        """Write into the audit log, within the transaction that it is about, what the caller does."""
        name = sa.select(collections.c.name).where(collections.c.id == collection_id).scalar_subquery()
        row = {
            "at": now(), "who": self._caller.name, "key_id": self._caller.key_id, "action": action, "subject": subject,
            "request_id": self._caller.request_id, "collection": name if collection_id is not None else None,
        }  # fmt: skip
        connection.execute(audit.insert().values(row))

    @contextmanager
    def one_moment(self) -> Iterator[None]:
        """While this lasts, this thread is told the names and counters of collections as they were when it first asked.

        For searches that begin together: each of them still sees every commit made before this began. See also
        `at_the_moment`.
        """
        if getattr(self._moment, "told", None) is not None:
            yield
            return
        self._moment.told = {}
        try:
            yield
        finally:
            self._moment.told = None

    def at_the_moment(self, key: tuple[Hashable, ...], look_up: Callable[[], T]) -> T:
        """Return what ``look_up`` returns, or what it returned for the same key since this thread's moment began."""
        told: dict[tuple[Hashable, ...], Any] | None = getattr(self._moment, "told", None)
        if told is None:
            return look_up()
        if key not in told:
            told[key] = look_up()
        found: T = told[key]
        return found


def now() -> datetime:
    return datetime.now(UTC)


def slices(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield ``values`` in runs that fit into one query."""
    for start in range(0, len(values), SLICE):
        yield values[start : start + SLICE]


def move_clock(connection: sa.Connection, collection_id: str, rows: int) -> tuple[int, int]:
    """Lock the collection, count one commit and ``rows`` more chunks; return the commit and the first new number."""
    moved = (
        collections.update()
        .where(collections.c.id == collection_id)
        .values(commits=collections.c.commits + 1, last_seq=collections.c.last_seq + rows)
        .returning(collections.c.commits, collections.c.last_seq)
    )
    row = connection.execute(moved).one_or_none()
    if row is None:
        raise NotFound("The collection was deleted.")
    return row.commits, row.last_seq - rows + 1


def newest(connection: sa.Connection, document_id: str, state: State | None = None) -> sa.Row[Any] | None:
    """Return the row of a document's newest version, or of its newest in ``state``."""
    query = sa.select(versions).where(versions.c.document_id == document_id).order_by(versions.c.number.desc()).limit(1)
    if state is not None:
        query = query.where(versions.c.state == state.value)
    return connection.execute(query).one_or_none()


def retire(connection: sa.Connection, document_id: str, commit: int, but: str = "") -> None:
    """Retire every live chunk of a document, and every version of it but one that waits or is searched."""
    of_document = sa.select(versions.c.id).where(versions.c.document_id == document_id)
    connection.execute(chunks.update().where(chunks.c.version_id.in_(of_document) & LIVE).values(retired_commit=commit))
    active = [State.READY.value] if but else [State.READY.value, *ACTIVE]
    others = (versions.c.document_id == document_id) & (versions.c.id != but) & versions.c.state.in_(active)
    connection.execute(versions.update().where(others).values(retired()))


def retired() -> dict[str, Any]:
    """What a version is told that is no longer wanted."""
    return {"state": State.RETIRED.value, "ended_at": now(), **NO_LEASE}


def version_of(row: sa.Row[Any]) -> Version:
    """Make the record of a row of ``versions`` with the name and the collection of its document."""
    return Version(
        row.id, row.document_id, row.collection_id, row.name, row.number, row.sha256, row.size, State(row.state),
        Stage(row.stage), row.progress, row.attempts, row.created_at, row.metadata, row.error, row.error_code,
        row.media_type, row.title, row.pages, row.elements, row.passages, row.language, row.deaths, row.not_before,
        row.ended_at, row.parse_id, row.batch_id,
    )  # fmt: skip


def packed_text(text: str) -> bytes:
    return zlib.compress(text.encode(), 6)


def unpacked_text(data: bytes) -> str:
    return zlib.decompress(data).decode()


def parse_row(parse_id: str, parsed: ParsedDocument) -> dict[str, Any]:
    """Return the row of ``parses`` that `parsed_of` makes ``parsed`` from again."""
    places = [(e.kind.value, e.start, e.end, e.page, e.section) for e in parsed.elements]
    return {
        "id": parse_id, "text": packed_text(parsed.text), "elements": packed_text(json.dumps(places)),
        "media_type": parsed.media_type, "title": parsed.title, "pages": parsed.pages, "language": parsed.language,
        "metadata": dict(parsed.metadata), "members": [[m.name, m.sha256, m.size, m.error] for m in parsed.members],
    }  # fmt: skip


def elements_of(row: sa.Row[Any]) -> tuple[Element, ...]:
    text = unpacked_text(row.text)
    return tuple(
        Element(Kind(kind), text[start:end], page, tuple(section), start)
        for kind, start, end, page, section in json.loads(unpacked_text(row.elements))
    )


def parsed_of(row: sa.Row[Any]) -> ParsedDocument:
    """Make the record of a row of ``parses``."""
    elements = elements_of(row)
    members = tuple(Member(*member) for member in row.members)
    return ParsedDocument(elements, row.media_type, row.title, row.pages, row.metadata, row.language, members)
