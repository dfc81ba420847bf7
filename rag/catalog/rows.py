"""Chunks in the catalog, as the indexes and a search ask for them: rows by sequence number.

Knows no queue. A row is live until a commit retires it; what the indexes need of it is its text and its vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from rag.catalog.part import LIVE, Part, move_clock, now
from rag.catalog.queue import METADATA_KEY
from rag.errors import BadInput, NotFound
from rag.protocols import Rows as Numbers
from rag.protocols import Vectors
from rag.records import Kind, Passage
from rag.schema import chunks, collections, documents, seals, texts, vectors, versions


@dataclass(frozen=True, slots=True)
class Seal:
    """A sealed part in force: its ``folder`` below the index folder covers all rows up to ``last_seq``."""

    folder: str
    last_seq: int


@dataclass(frozen=True, slots=True)
class Pulse:
    """What a reader compares to notice a change: equal ``commits``, nothing new."""

    commits: int
    last_seq: int


@dataclass(frozen=True, slots=True)
class TextRow:
    """What the lexical index needs of a chunk."""

    seq: int
    text: str


class Rows(Part):
    """The part of the catalog that knows rows."""

    # -- what the indexes are made from ------------------------------------------------------------------------------

    def pulse(self, collection_id: str) -> Pulse:
        """Return the collection's counters, with one look-up by primary key; raises `NotFound` if it is gone."""
        query = sa.select(collections.c.commits, collections.c.last_seq).where(collections.c.id == collection_id)
        with self._read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFound("The collection was deleted.")
        return Pulse(row.commits, row.last_seq)

    def vector_rows(self, collection_id: str, embedder: str, after: int, last: int) -> tuple[Numbers, Vectors]:
        """Return sequence numbers (n,) and vectors (n, dimension) of the live rows in (after, last], in order."""
        query = (
            sa.select(chunks.c.seq, vectors.c.vector)
            .join(vectors, vectors.c.text_id == chunks.c.text_id)
            .where((chunks.c.collection_id == collection_id) & (vectors.c.embedder == embedder) & LIVE)
            .where((chunks.c.seq > after) & (chunks.c.seq <= last))
            .order_by(chunks.c.seq)
        )
        with self._read() as connection:
            rows = connection.execute(query).all()
        seqs = np.fromiter((row.seq for row in rows), dtype=np.int64, count=len(rows))
        width = len(rows[0].vector) // 4 if rows else 0
        matrix = np.frombuffer(b"".join(row.vector for row in rows), dtype="<f4").reshape(len(rows), width)
        return seqs, matrix.astype(np.float32)

    def text_rows(self, collection_id: str, after: int, last: int) -> list[TextRow]:
        """Return the texts, context first, of the live rows in (after, last], in order."""
        query = (
            sa.select(chunks.c.seq, texts.c.context, texts.c.text)
            .join(texts, texts.c.id == chunks.c.text_id)
            .where((chunks.c.collection_id == collection_id) & LIVE & (chunks.c.seq > after) & (chunks.c.seq <= last))
            .order_by(chunks.c.seq)
        )
        with self._read() as connection:
            rows = connection.execute(query).all()
        return [TextRow(r.seq, f"{r.context}\n{r.text}" if r.context else r.text) for r in rows]

    def retired_rows(self, collection_id: str, after: int, last: int) -> Numbers:
        """Return the sequence numbers of rows retired by the commits in (after, last], in order."""
        query = (
            sa.select(chunks.c.seq)
            .where((chunks.c.collection_id == collection_id) & (chunks.c.retired_commit > after))
            .where(chunks.c.retired_commit <= last)
            .order_by(chunks.c.seq)
        )
        with self._read() as connection:
            return np.array(connection.scalars(query).all(), dtype=np.int64)

    def seal(self, collection_id: str, kind: str, space: str) -> Seal | None:
        """Return the sealed part in force, if there is one."""
        with self._read() as connection:
            row = connection.execute(sa.select(seals).where(_seal_key(collection_id, kind, space))).one_or_none()
        return None if row is None else Seal(row.folder, row.last_seq)

    def seal_folders(self, collection_id: str) -> set[str]:
        """Return the folders of all sealed parts in force in a collection."""
        with self._read() as connection:
            return set(connection.scalars(sa.select(seals.c.folder).where(seals.c.collection_id == collection_id)))

    def record_seal(self, collection_id: str, kind: str, space: str, seal: Seal) -> None:
        """Put a finished sealed part in force; readers notice it by the moved ``commits`` counter."""
        key = {"collection_id": collection_id, "kind": kind, "space": space}
        with self._write() as connection:
            move_clock(connection, collection_id, 0)
            connection.execute(seals.delete().where(_seal_key(collection_id, kind, space)))
            row = {"folder": seal.folder, "last_seq": seal.last_seq, "created_at": now()}
            connection.execute(seals.insert(), key | row)

    def drop_seal(self, collection_id: str, kind: str, space: str, folder: str) -> None:
        """Take a damaged sealed part out of force, unless another has taken its place meanwhile."""
        with self._write() as connection:
            connection.execute(seals.delete().where(_seal_key(collection_id, kind, space) & (seals.c.folder == folder)))

    def drop_foreign_seals(self, collection_id: str, kind: str, space: str) -> None:
        """Take the sealed parts of one kind out of force that were made in any other space."""
        foreign = (seals.c.collection_id == collection_id) & (seals.c.kind == kind) & (seals.c.space != space)
        with self._write() as connection:
            connection.execute(seals.delete().where(foreign))

    # -- what a search returns ---------------------------------------------------------------------------------------

    def chunk_ids(self, collection_id: str, seqs: Sequence[int]) -> dict[int, str]:
        """Return the ids of the live chunks among ``seqs``, by sequence number."""
        here = (chunks.c.collection_id == collection_id) & chunks.c.seq.in_([int(seq) for seq in seqs]) & LIVE
        with self._read() as connection:
            rows = connection.execute(sa.select(chunks.c.seq, chunks.c.id).where(here)).all()
        return {row.seq: row.id for row in rows}

    def passages(self, collection_id: str, seqs: Sequence[int]) -> dict[int, Passage]:
        """Return the live chunks among ``seqs`` as passages without scores, by sequence number."""
        query = (
            sa.select(chunks, documents.c.name, versions.c.title, versions.c.number, versions.c.document_id)
            .add_columns(texts.c.context, texts.c.text, texts.c.like_id)
            .join(texts, texts.c.id == chunks.c.text_id)
            .join(versions, versions.c.id == chunks.c.version_id)
            .join(documents, documents.c.id == versions.c.document_id)
            .where((chunks.c.collection_id == collection_id) & chunks.c.seq.in_([int(seq) for seq in seqs]) & LIVE)
        )
        with self._read() as connection:
            rows = connection.execute(query).all()
        return {row.seq: _passage(row) for row in rows}

    def allowed_rows(self, collection_id: str, filters: Mapping[str, str | int | float | bool]) -> Numbers | None:
        """Return the live rows whose document has all these metadata values, in order; None if nothing is filtered.

        ``document`` and ``document_id`` are the document's name and id; any other key is looked up in the metadata
        given at upload or found by the parser, where a list has each of its values, and ``title``, ``language`` and
        ``media_type`` also in what the parser says of the whole. Raises `BadInput` for a key or value that can not be
        filtered on.
        """
        if not filters:
            return None
        query = (
            sa.select(chunks.c.seq)
            .join(versions, versions.c.id == chunks.c.version_id)
            .join(documents, documents.c.id == versions.c.document_id)
            .where((chunks.c.collection_id == collection_id) & LIVE)
            .order_by(chunks.c.seq)
        )
        for key, value in filters.items():
            query = query.where(_condition(key, value, self._database.dialect))
        with self._read() as connection:
            return np.array(connection.scalars(query).all(), dtype=np.int64)


#: Columns of a version that can be filtered on like metadata.
_COLUMNS = {"title": versions.c.title, "language": versions.c.language, "media_type": versions.c.media_type}
#: No database compares whole numbers beyond this one.
LARGEST = 2**63 - 1
#: How SQLite calls the types of JSON values: of a bool, a number, a string.
_TRUTH, _NUMBERS, _STRINGS = ("true", "false"), ("integer", "real"), ("text",)


def _condition(key: str, value: object, dialect: str) -> sa.ColumnElement[bool]:
    if key == "document":
        return documents.c.name == str(value)
    if key == "document_id":
        return documents.c.id == str(value)
    if not METADATA_KEY.fullmatch(key):
        raise BadInput(f"{key[:100]!r} is no metadata key; use letters, digits, dots, dashes and underscores.")
    if not isinstance(value, str | bool | int | float):
        raise BadInput(f"The filter on {key!r} must be a string, a number, true or false.")
    if isinstance(value, int) and not -LARGEST <= value <= LARGEST:
        raise BadInput(f"The filter on {key!r} is too large a number.")
    found = _in_sqlite(key, value) if dialect == "sqlite" else _in_postgresql(key, value)
    return found | (_COLUMNS[key] == value) if key in _COLUMNS and isinstance(value, str) else found


def _in_sqlite(key: str, value: str | float | bool) -> sa.ColumnElement[bool]:
    """The value itself, or one of a list; ``json_each`` also gives the values of an object, which do not count."""
    path = f'$."{key}"'
    item = sa.func.json_each(versions.c.metadata, path).table_valued("value", "type", name="item")
    types = _TRUTH if isinstance(value, bool) else _STRINGS if isinstance(value, str) else _NUMBERS
    equal = item.c.value == (int(value) if isinstance(value, bool) else value)
    some = sa.exists(sa.select(1).select_from(item).where(equal & item.c.type.in_(types)))
    return sa.and_(sa.func.json_type(versions.c.metadata, path) != "object", some)


def _in_postgresql(key: str, value: str | float | bool) -> sa.ColumnElement[bool]:
    """``@>`` is true of equal values, and of a list that has the value."""
    from sqlalchemy.dialects.postgresql import JSONB

    found = sa.cast(versions.c.metadata, JSONB)[key]
    return found.op("@>")(sa.cast(sa.literal(value, sa.JSON), JSONB))


def _seal_key(collection_id: str, kind: str, space: str) -> sa.ColumnElement[bool]:
    return (seals.c.collection_id == collection_id) & (seals.c.kind == kind) & (seals.c.space == space)


def _passage(row: sa.Row[Any]) -> Passage:
    return Passage(
        row.id, row.seq, row.collection_id, row.document_id, row.name, row.title, row.version_id, row.number, row.text,
        row.context, row.start, row.end, Kind(row.kind), row.page, tuple(row.section),
        like_id=row.like_id or row.text_id,
    )  # fmt: skip
