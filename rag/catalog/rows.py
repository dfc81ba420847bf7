"""Chunks in the catalog, as the indexes and a search ask for them: rows by sequence number.

Knows no queue. A row is live until a commit retires it; what the indexes need of it is its text and its vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from rag.catalog.filtering import Searched, passing_rows
from rag.catalog.part import LIVE, Part, move_clock, now, slices
from rag.catalog.texts import codes_of, vectors_of
from rag.errors import NotFound
from rag.filters import parse_filter
from rag.protocols import Codes, Vectors
from rag.protocols import Rows as Numbers
from rag.records import Kind, Neighbour, Passage
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


# -- statements ------------------------------------------------------------------------------------------------------
# What each search asks, written once: SQLAlchemy takes longer to put such a statement together than to have it run.

_HERE: sa.BindParameter[str] = sa.bindparam("collection_id")
_SEQS: sa.BindParameter[Sequence[int]] = sa.bindparam("seqs", expanding=True)
_PULSE = sa.select(collections.c.commits, collections.c.last_seq).where(collections.c.id == _HERE)
_AMONG = (chunks.c.collection_id == _HERE) & chunks.c.seq.in_(_SEQS)
_IDS = sa.select(chunks.c.seq, chunks.c.id).where(_AMONG & LIVE)
_NAMES = (
    sa.select(chunks.c.seq, documents.c.name, versions.c.title, texts.c.context)
    .join(texts, texts.c.id == chunks.c.text_id)
    .join(versions, versions.c.id == chunks.c.version_id)
    .join(documents, documents.c.id == versions.c.document_id)
    .where(_AMONG)
)
_PASSAGES = (
    sa.select(chunks, documents.c.name, versions.c.title, versions.c.number, versions.c.document_id)
    .add_columns(texts.c.context, texts.c.text, texts.c.like_id)
    .join(texts, texts.c.id == chunks.c.text_id)
    .join(versions, versions.c.id == chunks.c.version_id)
    .join(documents, documents.c.id == versions.c.document_id)
    .where(_AMONG & LIVE)
)
_VECTORS, _CODES = (
    sa.select(chunks.c.seq, column)
    .join(vectors, vectors.c.text_id == chunks.c.text_id)
    .where(_AMONG & (vectors.c.embedder == sa.bindparam("embedder")))
    for column in (vectors.c.vector, vectors.c.codes)
)


class Rows(Part):
    """The part of the catalog that knows rows."""

    # -- what the indexes are made from ------------------------------------------------------------------------------

    def pulse(self, collection_id: str) -> Pulse:
        """Return the collection's counters, with one look-up by primary key; raises `NotFound` if it is gone.

        In one moment, see `one_moment`, they are looked up once.
        """
        return self.at_the_moment(("pulse", collection_id), lambda: self._pulse(collection_id))

    def _pulse(self, collection_id: str) -> Pulse:
        with self._read() as connection:
            row = connection.execute(_PULSE, {"collection_id": collection_id}).one_or_none()
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
        return seqs, vectors_of([row.vector for row in rows])

    def codes(self, collection_id: str, embedder: str, dimension: int, seqs: Sequence[int]) -> dict[int, Codes]:
        """Return the codes (n, dimension / 8) of the tokens of the rows ``seqs``; none of a row that was made without.

        A row that was purged is missing.
        """
        kept = self._embedded(_CODES, collection_id, embedder, seqs)
        return {seq: codes_of(blob, dimension) for seq, blob in kept.items()}

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
        return dict(self._among(_IDS, collection_id, seqs))

    def names(self, collection_id: str, seqs: Sequence[int]) -> dict[int, tuple[str, str | None, str]]:
        """Return of the rows ``seqs`` the name and the title of their document, and the context of their text."""
        found = self._among(_NAMES, collection_id, seqs)
        return {seq: (name, title, context) for seq, name, title, context in found}

    def neighbours(self, collection_id: str, version_id: str, seq: int, reach: int) -> list[Neighbour]:
        """Return the live chunks of a version up to ``reach`` before and after one of its rows, in order."""
        query = (
            sa.select(chunks, texts.c.context, texts.c.text)
            .join(texts, texts.c.id == chunks.c.text_id)
            .where((chunks.c.collection_id == collection_id) & (chunks.c.version_id == version_id) & LIVE)
            .where(chunks.c.seq.between(seq - reach, seq + reach) & (chunks.c.seq != seq))
            .order_by(chunks.c.seq)
        )
        with self._read() as connection:
            rows = connection.execute(query).all()
        return [
            Neighbour(r.id, r.seq, r.text, r.context, r.start, r.end, Kind(r.kind), r.page, tuple(r.section))
            for r in rows
        ]

    def vectors(self, collection_id: str, embedder: str, seqs: Sequence[int]) -> dict[int, Vectors]:
        """Return the vectors (dimension,) of the rows ``seqs`` by sequence number; a row that was purged is missing."""
        kept = self._embedded(_VECTORS, collection_id, embedder, seqs)
        return dict(zip(kept, vectors_of(list(kept.values())), strict=True))

    def _embedded(
        self, statement: sa.Select[Any], collection_id: str, embedder: str, seqs: Sequence[int]
    ) -> dict[int, Any]:
        """Return by sequence number what an embedder made of the rows ``seqs``: what the statement selects of it."""
        return dict(self._among(statement, collection_id, seqs, embedder=embedder))

    def passages(self, collection_id: str, seqs: Sequence[int]) -> dict[int, Passage]:
        """Return the live chunks among ``seqs`` as passages without scores, by sequence number."""
        return {row.seq: _passage(row) for row in self._among(_PASSAGES, collection_id, seqs)}

    def _among(
        self, statement: sa.Select[Any], collection_id: str, seqs: Sequence[int], *, embedder: str | None = None
    ) -> Sequence[Any]:
        """Return what one of the statements above finds of the rows ``seqs``, in no order."""
        values: dict[str, Any] = {"collection_id": collection_id}
        if embedder is not None:
            values["embedder"] = embedder
        with self._read() as connection:
            return [
                row
                for some in slices([int(seq) for seq in seqs])
                for row in connection.execute(statement, {**values, "seqs": some})
            ]

    def allowed_rows(self, collection_id: str, filters: Mapping[str, Any]) -> Numbers | None:
        """Return the live rows that pass a filter (see `rag.filters`), in order; None if nothing is filtered.

        Raises `BadInput` for what is no filter.
        """
        if not filters:
            return None
        asked = parse_filter(filters)
        name = sa.select(collections.c.name).where(collections.c.id == collection_id)
        with self._read() as connection:
            searched = Searched(collection_id, connection.scalar(name) or "")
            joined = connection.scalar(passing_rows(asked, searched, self._database.dialect))
        return np.sort(np.fromstring(joined, dtype=np.int64, sep=",")) if joined else np.zeros(0, dtype=np.int64)


def _seal_key(collection_id: str, kind: str, space: str) -> sa.ColumnElement[bool]:
    return (seals.c.collection_id == collection_id) & (seals.c.kind == kind) & (seals.c.space == space)


def _passage(row: sa.Row[Any]) -> Passage:
    return Passage(
        row.id, row.seq, row.collection_id, row.document_id, row.name, row.title, row.version_id, row.number, row.text,
        row.context, row.start, row.end, Kind(row.kind), row.page, tuple(row.section),
        like_id=row.like_id or row.text_id,
    )  # fmt: skip
