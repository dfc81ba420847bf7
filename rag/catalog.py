"""The catalog: the one truth. Collections, documents and their versions, chunks with their vectors, the ingest queue.

The only file with SQL. Every change that a search can notice is one transaction that also moves the collection's
``commits`` counter; readers compare that counter (`Catalog.pulse`) and fetch what is new. Knows no model, no index
library and no file format; what it holds is enough to rebuild every index.
"""

from __future__ import annotations

import json
import re
import secrets
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from rag.database import Database
from rag.errors import BadInput, Conflict, Misconfigured, NotFound
from rag.protocols import Rows, Vectors
from rag.records import (
    Chunk,
    Collection,
    Document,
    Element,
    Kind,
    ParsedDocument,
    Passage,
    Stage,
    State,
    Version,
    digest,
)
from rag.schema import chunks, collections, documents, parses, seals, vectors, versions

COLLECTION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
METADATA_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")
NAME_CHARS = 1000
LIVE = chunks.c.retired_commit.is_(None)
_NO_LEASE: dict[str, Any] = {"lease_owner": None, "lease_until": None}


_QUEUED_ANEW: dict[str, Any] = {
    "state": State.QUEUED.value, "stage": Stage.ACCEPT.value, "progress": 0.0, "attempts": 0, "error": None,
    "error_code": None,
}  # fmt: skip


class Accepted(StrEnum):
    """What accepting a file meant for its document."""

    ADDED = "added"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"
    RETRIED = "retried"


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


def now() -> datetime:
    return datetime.now(UTC)


class Catalog:
    """The catalog at a SQLAlchemy ``url``; creates or migrates its tables when opened.

    Thread-safe. Raises `Misconfigured` if the database was written by a newer Citewell or is no catalog.
    """

    def __init__(self, url: str) -> None:
        self._database = Database(url)
        self._read, self._write = self._database.read, self._database.write

    @classmethod
    def in_folder(cls, folder: Path) -> Catalog:
        """Open the embedded default: one SQLite file in the data folder."""
        return cls(f"sqlite:///{folder / 'catalog.sqlite3'}")

    def close(self) -> None:
        self._database.close()

    # -- collections -------------------------------------------------------------------------------------------------

    def create_collection(self, name: str) -> Collection:
        """Create an empty collection. Raises `BadInput` for a bad name and `Conflict` if the name is taken."""
        if not COLLECTION_NAME.fullmatch(name):
            raise BadInput(
                f"{name[:100]!r} is no collection name; use 1 to 100 letters, digits, dots, dashes and underscores, "
                "a letter or digit first."
            )
        made = Collection(secrets.token_hex(16), name, now())
        row = {"id": made.id, "name": name, "created_at": made.created_at, "commits": 0, "last_seq": 0}
        try:
            with self._write() as connection:
                connection.execute(collections.insert(), row)
        except sa.exc.IntegrityError as error:
            raise Conflict(f"There is a collection named {name!r} already.") from error
        return made

    def collection(self, name: str, *, counted: bool = True) -> Collection:
        """Return the collection of this name; raises `NotFound`. Counting takes time that a question need not pay."""
        found = self._collections(collections.c.name == name, counted=counted)
        if not found:
            raise NotFound(f"There is no collection named {name[:100]!r}; `citewell collections list` shows them.")
        return found[0]

    def collection_name(self, collection_id: str) -> str:
        """Return the name of the collection with this id; raises `NotFound` if it was deleted."""
        with self._read() as connection:
            name = connection.scalar(sa.select(collections.c.name).where(collections.c.id == collection_id))
        if name is None:
            raise NotFound("The collection was deleted.")
        return str(name)

    def ensure_collection(self, name: str) -> Collection:
        """Return the collection of this name, creating it if it is not there."""
        try:
            return self.collection(name)
        except NotFound:
            return self.create_collection(name)

    def list_collections(self, *, counted: bool = True) -> list[Collection]:
        """Return all collections in the order of their names, see `collection` for ``counted``."""
        return self._collections(sa.true(), counted=counted)

    def _collections(self, condition: sa.ColumnElement[bool], *, counted: bool = True) -> list[Collection]:
        if not counted:
            with self._read() as connection:
                bare = connection.execute(sa.select(collections).where(condition).order_by(collections.c.name)).all()
            return [Collection(r.id, r.name, r.created_at, r.embedder) for r in bare]
        live = documents.c.live_version_id.is_not(None) & (documents.c.collection_id == collections.c.id)
        count = sa.select(sa.func.count()).select_from(documents).where(live).scalar_subquery()
        passages = (
            sa.select(sa.func.coalesce(sa.func.sum(versions.c.passages), 0))
            .select_from(versions.join(documents, documents.c.live_version_id == versions.c.id))
            .where(documents.c.collection_id == collections.c.id)
            .scalar_subquery()
        )
        query = (
            sa.select(collections, count.label("n"), passages.label("p")).where(condition).order_by(collections.c.name)
        )
        with self._read() as connection:
            rows = connection.execute(query).all()
        return [Collection(r.id, r.name, r.created_at, r.embedder, int(r.n), int(r.p)) for r in rows]

    def delete_collection(self, collection_id: str) -> list[str]:
        """Remove a collection with all its rows in one transaction; return the digests that no document needs now."""
        of_documents = sa.select(documents.c.id).where(documents.c.collection_id == collection_id)
        of_versions = sa.select(versions.c.id).where(versions.c.document_id.in_(of_documents))
        with self._write() as connection:
            shas = set(connection.scalars(sa.select(versions.c.sha256).where(versions.c.document_id.in_(of_documents))))
            for table in (seals, vectors, chunks):
                connection.execute(table.delete().where(table.c.collection_id == collection_id))
            connection.execute(parses.delete().where(parses.c.version_id.in_(of_versions)))
            connection.execute(versions.delete().where(versions.c.document_id.in_(of_documents)))
            connection.execute(documents.delete().where(documents.c.collection_id == collection_id))
            connection.execute(collections.delete().where(collections.c.id == collection_id))
            kept = set(connection.scalars(sa.select(versions.c.sha256).where(versions.c.sha256.in_(shas))))
        return sorted(shas - kept)

    # -- documents ---------------------------------------------------------------------------------------------------

    def accept(
        self, collection_id: str, name: str, sha256: str, size: int, metadata: Mapping[str, Any] | None = None
    ) -> tuple[Version, Accepted]:
        """Note that ``name`` shall have this content from now on; the worker does the rest.

        One transaction: when it returns, the file is in the queue for good. The same bytes again change nothing, unless
        the last attempt failed: then it is queued anew. Raises `BadInput` for a bad name or metadata.
        """
        _check_name(name)
        _check_metadata(metadata)
        document_id = digest(collection_id, name)
        with self._write() as connection:
            document = connection.execute(sa.select(documents).where(documents.c.id == document_id)).one_or_none()
            if document is None:
                row = {"id": document_id, "collection_id": collection_id, "name": name, "created_at": now()}
                connection.execute(documents.insert(), row)
            newest = _newest(connection, document_id)
            present = newest is not None and document is not None and document.deleted_at is None
            connection.execute(documents.update().where(documents.c.id == document_id).values(deleted_at=None))
            if present and newest is not None and newest.sha256 == sha256:
                outcome = _accept_again(connection, newest, metadata)
            else:
                number = newest.number + 1 if newest is not None else 1
                _insert_version(connection, document_id, number, sha256, size, metadata or {})
                outcome = Accepted.REPLACED if present else Accepted.ADDED
        return self.document(document_id).newest, outcome

    def document(self, document_id: str) -> Document:
        """Return a document with its newest version; raises `NotFound`, also when it was deleted."""
        found = self._documents(documents.c.id == document_id, limit=1)
        if not found:
            raise NotFound(f"There is no document with the id {document_id[:64]!r}.")
        return found[0]

    def find_document(self, collection_id: str, name_or_id: str) -> Document:
        """Return the document of this name or id in a collection; raises `NotFound`."""
        here = documents.c.collection_id == collection_id
        named = (documents.c.name == name_or_id) | (documents.c.id == name_or_id)
        found = self._documents(here & named, limit=1)
        if not found:
            raise NotFound(f"There is no document {name_or_id[:200]!r} in this collection.")
        return found[0]

    def list_documents(
        self, collection_id: str, *, state: State | None = None, after: str = "", limit: int = 100
    ) -> list[Document]:
        """Return up to ``limit`` documents in the order of their names, those after the name ``after``."""
        condition = (documents.c.collection_id == collection_id) & (documents.c.name > after)
        if state is not None:
            condition &= versions.c.state == state.value
        return self._documents(condition, limit)

    def _documents(self, condition: sa.ColumnElement[bool], limit: int) -> list[Document]:
        other = versions.alias()
        last = sa.select(sa.func.max(other.c.number)).where(other.c.document_id == documents.c.id).scalar_subquery()
        query = (
            sa.select(versions, documents.c.collection_id, documents.c.name, documents.c.live_version_id)
            .add_columns(documents.c.created_at.label("document_created_at"))
            .select_from(
                versions.join(documents, (versions.c.document_id == documents.c.id) & (versions.c.number == last))
            )
            .where(documents.c.deleted_at.is_(None) & condition)
            .order_by(documents.c.name)
            .limit(limit)
        )
        with self._read() as connection:
            rows = connection.execute(query).all()
        return [
            Document(r.document_id, r.collection_id, r.name, r.document_created_at, _version(r), r.live_version_id)
            for r in rows
        ]

    def retry(self, document_id: str) -> Document:
        """Queue the newest version of a document anew, all its attempts before it, and return the document.

        Raises `NotFound`, and `Conflict` if that version has not failed.
        """
        document = self.document(document_id)
        failed = (versions.c.id == document.newest.id) & (versions.c.state == State.FAILED.value)
        with self._write() as connection:
            if connection.execute(versions.update().where(failed).values(_QUEUED_ANEW)).rowcount == 0:
                raise Conflict(
                    f"{document.name[:200]!r} is {document.newest.state}; only what has failed can be tried again."
                )
        return self.document(document_id)

    def delete_document(self, document_id: str) -> None:
        """Retire all that a search could find of a document, in one transaction; raises `NotFound`.

        Text and original stay for those who must prove what an answer was made from, until the document is purged.
        """
        with self._write() as connection:
            row = connection.execute(
                sa.select(documents).where((documents.c.id == document_id) & documents.c.deleted_at.is_(None))
            ).one_or_none()
            if row is None:
                raise NotFound(f"There is no document with the id {document_id[:64]!r}.")
            commit, _ = _move_clock(connection, row.collection_id, 0)
            _retire(connection, document_id, commit)
            gone = {"deleted_at": now(), "live_version_id": None}
            connection.execute(documents.update().where(documents.c.id == document_id).values(gone))

    def source_text(self, version_id: str) -> str:
        """Return the parsed text of a version, the one that all source offsets refer to; raises `NotFound`."""
        with self._read() as connection:
            data = connection.scalar(sa.select(parses.c.text).where(parses.c.version_id == version_id))
        if data is None:
            raise NotFound("There is no parsed text for this version.")
        return zlib.decompress(data).decode()

    def elements(self, version_id: str) -> tuple[Element, ...]:
        """Return the elements of a version at their places in its parsed text; raises `NotFound`."""
        text = self.source_text(version_id)
        with self._read() as connection:
            data = connection.execute(
                sa.select(parses.c.elements).where(parses.c.version_id == version_id)
            ).scalar_one()
        return tuple(
            Element(Kind(kind), text[start:end], page, tuple(section), start)
            for kind, start, end, page, section in json.loads(zlib.decompress(data))
        )

    # -- the queue ---------------------------------------------------------------------------------------------------

    def claim(self, owner: str, lease_seconds: float, only: Sequence[str] | None = None) -> Version | None:
        """Lease the oldest waiting version to ``owner``; None if nothing waits.

        A version whose worker has been silent for longer than its lease is waiting again. ``only`` restricts the choice
        to these version ids.
        """
        at = now()
        stale = (versions.c.state == State.PROCESSING.value) & (versions.c.lease_until < at)
        waiting = (versions.c.state == State.QUEUED.value) | stale
        if only is not None:
            waiting &= versions.c.id.in_(only)
        order = (versions.c.created_at, versions.c.number)
        oldest = sa.select(versions.c.id).where(waiting).order_by(*order).limit(1).with_for_update(skip_locked=True)
        with self._read() as connection:  # an idle worker must not take the write lock
            if connection.scalar(sa.select(versions.c.id).where(waiting).limit(1)) is None:
                return None
        with self._write() as connection:
            version_id = connection.scalar(oldest)
            if version_id is None:
                return None
            lease = {
                "state": State.PROCESSING.value, "lease_owner": owner, "stage": Stage.PARSE.value, "progress": 0.0,
                "lease_until": at + timedelta(seconds=lease_seconds), "attempts": versions.c.attempts + 1,
            }  # fmt: skip
            connection.execute(versions.update().where(versions.c.id == version_id).values(lease))
        return self.version(version_id)

    def version(self, version_id: str) -> Version:
        """Return a version by its id, retired or not; raises `NotFound`."""
        query = sa.select(versions, documents.c.collection_id, documents.c.name).join(documents)
        with self._read() as connection:
            row = connection.execute(query.where(versions.c.id == version_id)).one_or_none()
        if row is None:
            raise NotFound(f"There is no document version with the id {version_id[:64]!r}.")
        return _version(row)

    def heartbeat(self, version_id: str, owner: str, lease_seconds: float, stage: Stage, progress: float) -> bool:
        """Prolong a lease and show how far the work is; False if the lease is lost and the work must be dropped."""
        values = {"stage": stage.value, "progress": progress, "lease_until": now() + timedelta(seconds=lease_seconds)}
        with self._write() as connection:
            changed = connection.execute(versions.update().where(_leased(version_id, owner)).values(values))
            return changed.rowcount == 1

    def release(self, owner: str) -> None:
        """Give back to the queue what a worker has in hand, as if it had never been claimed."""
        back: dict[str, Any] = {"state": State.QUEUED.value, "stage": Stage.ACCEPT.value, "progress": 0.0, **_NO_LEASE}
        back["attempts"] = versions.c.attempts - 1
        held = (versions.c.state == State.PROCESSING.value) & (versions.c.lease_owner == owner)
        with self._write() as connection:
            connection.execute(versions.update().where(held).values(back))

    def fail(self, version_id: str, owner: str, code: str, message: str) -> None:
        """End the work on a version with the sentence that says why. What was searchable before stays searchable."""
        values = {"state": State.FAILED.value, "error_code": code, "error": message, **_NO_LEASE}
        with self._write() as connection:
            connection.execute(versions.update().where(_leased(version_id, owner)).values(values))

    def commit(
        self,
        version_id: str,
        owner: str,
        parsed: ParsedDocument,
        pieces: Sequence[Chunk],
        embedded: Vectors,
        embedder: str,
    ) -> bool:
        """Make a version searchable and retire the one before it, in one transaction.

        ``embedded`` has shape (len(pieces), dimension) and unit rows. Returns False, and changes nothing a search could
        see, if the lease is lost, the document was deleted, or a newer version is live already.
        Raises `Misconfigured` if the collection's vectors come from another embedder.
        """
        with self._write() as connection:
            row = connection.execute(
                sa.select(versions, documents.c.collection_id, documents.c.deleted_at, documents.c.live_version_id)
                .join(documents)
                .where(_leased(version_id, owner))
            ).one_or_none()
            if row is None:
                return False
            current = _newest(connection, row.document_id, State.READY)
            if row.deleted_at is not None or (current is not None and current.number > row.number):
                done = {"state": State.RETIRED.value, **_NO_LEASE}
                connection.execute(versions.update().where(versions.c.id == version_id).values(done))
                return False
            self._check_embedder(connection, row.collection_id, embedder)
            commit, first = _move_clock(connection, row.collection_id, len(pieces))
            _retire(connection, row.document_id, commit, but=version_id)
            _insert_parse(connection, version_id, parsed)
            _insert_chunks(connection, row.collection_id, version_id, first, pieces, embedded, embedder)
            ready = {
                "state": State.READY.value, "stage": Stage.DONE.value, "progress": 1.0, "error": None,
                "error_code": None, **_NO_LEASE, "ready_at": now(), "media_type": parsed.media_type,
                "title": parsed.title, "pages": parsed.pages, "elements": len(parsed.elements), "passages": len(pieces),
                "metadata": {**parsed.metadata, **row.metadata},
            }  # fmt: skip
            connection.execute(versions.update().where(versions.c.id == version_id).values(ready))
            live = documents.update().where(documents.c.id == row.document_id).values(live_version_id=version_id)
            connection.execute(live)
        return True

    def _check_embedder(self, connection: sa.Connection, collection_id: str, embedder: str) -> None:
        found = connection.scalar(sa.select(collections.c.embedder).where(collections.c.id == collection_id))
        if found is None:
            connection.execute(collections.update().where(collections.c.id == collection_id).values(embedder=embedder))
        elif found != embedder:
            raise wrong_embedder(found, embedder)

    def queue_length(self) -> int:
        """Return how many versions wait or are being worked on."""
        busy = versions.c.state.in_([State.QUEUED.value, State.PROCESSING.value])
        with self._read() as connection:
            return int(connection.scalar(sa.select(sa.func.count()).select_from(versions).where(busy)) or 0)

    # -- what the indexes are made from ------------------------------------------------------------------------------

    def pulse(self, collection_id: str) -> Pulse:
        """Return the collection's counters, with one look-up by primary key; raises `NotFound` if it is gone."""
        query = sa.select(collections.c.commits, collections.c.last_seq).where(collections.c.id == collection_id)
        with self._read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFound("The collection was deleted.")
        return Pulse(row.commits, row.last_seq)

    def vector_rows(self, collection_id: str, embedder: str, after: int, last: int) -> tuple[Rows, Vectors]:
        """Return sequence numbers (n,) and vectors (n, dimension) of the live rows in (after, last], in order."""
        query = (
            sa.select(vectors.c.seq, vectors.c.vector)
            .join(chunks, (chunks.c.collection_id == vectors.c.collection_id) & (chunks.c.seq == vectors.c.seq))
            .where((vectors.c.collection_id == collection_id) & (vectors.c.embedder == embedder) & LIVE)
            .where((vectors.c.seq > after) & (vectors.c.seq <= last))
            .order_by(vectors.c.seq)
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
            sa.select(chunks.c.seq, chunks.c.context, chunks.c.text)
            .where((chunks.c.collection_id == collection_id) & LIVE & (chunks.c.seq > after) & (chunks.c.seq <= last))
            .order_by(chunks.c.seq)
        )
        with self._read() as connection:
            rows = connection.execute(query).all()
        return [TextRow(r.seq, f"{r.context}\n{r.text}" if r.context else r.text) for r in rows]

    def retired_rows(self, collection_id: str, after: int, last: int) -> Rows:
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
            _move_clock(connection, collection_id, 0)
            connection.execute(seals.delete().where(_seal_key(collection_id, kind, space)))
            row = {"folder": seal.folder, "last_seq": seal.last_seq, "created_at": now()}
            connection.execute(seals.insert(), key | row)

    def drop_seal(self, collection_id: str, kind: str, space: str, folder: str) -> None:
        """Take a damaged sealed part out of force, unless another has taken its place meanwhile."""
        with self._write() as connection:
            connection.execute(seals.delete().where(_seal_key(collection_id, kind, space) & (seals.c.folder == folder)))

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
            .join(versions, versions.c.id == chunks.c.version_id)
            .join(documents, documents.c.id == versions.c.document_id)
            .where((chunks.c.collection_id == collection_id) & chunks.c.seq.in_([int(seq) for seq in seqs]) & LIVE)
        )
        with self._read() as connection:
            rows = connection.execute(query).all()
        return {row.seq: _passage(row) for row in rows}

    def allowed_rows(self, collection_id: str, filters: Mapping[str, str | int | float | bool]) -> Rows | None:
        """Return the live rows whose document has all these metadata values, in order; None if nothing is filtered.

        ``document`` and ``document_id`` are the document's name and id; any other key is looked up in the metadata
        given at upload or found by the parser. Raises `BadInput` for a key or value that can not be filtered on.
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


def wrong_embedder(found: str, configured: str) -> Misconfigured:
    """The sentence for a collection whose vectors come from another embedder than the configured one."""
    return Misconfigured(
        f"The collection was embedded with {found!r}, but the settings choose {configured!r}; "
        "set embedder.model back, or ingest the documents into a new collection."
    )


def _check_name(name: str) -> None:
    if not name.strip() or len(name) > NAME_CHARS or any(ord(character) < 32 for character in name):
        raise BadInput(f"A document's name has 1 to {NAME_CHARS} characters, none of them a control character.")


def _check_metadata(metadata: Mapping[str, Any] | None) -> None:
    for key in metadata or {}:
        if not METADATA_KEY.fullmatch(key):
            raise BadInput(f"{key[:100]!r} is no metadata key; use letters, digits, dots, dashes and underscores.")


#: How the two databases call the types of JSON values: of a bool, a number, a string.
_JSON_TYPES: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "sqlite": (("true", "false"), ("integer", "real"), ("text",)),
    "postgresql": (("boolean",), ("number",), ("string",)),
}


def _condition(key: str, value: str | float | bool, dialect: str) -> sa.ColumnElement[bool]:
    if key == "document":
        return documents.c.name == str(value)
    if key == "document_id":
        return documents.c.id == str(value)
    if not METADATA_KEY.fullmatch(key):
        raise BadInput(f"{key[:100]!r} is no metadata key; use letters, digits, dots, dashes and underscores.")
    field: Any = versions.c.metadata[key]
    booleans, numbers, strings = _JSON_TYPES[dialect]
    if isinstance(value, bool):
        types, equal = booleans, field.as_boolean() == value
    elif isinstance(value, int | float):
        types, equal = numbers, field.as_float() == float(value)
    elif isinstance(value, str):
        types, equal = strings, field.as_string() == value
    else:
        raise BadInput(f"The filter on {key!r} must be a string, a number, true or false.")
    sqlite = dialect == "sqlite"
    found = sa.func.json_type(versions.c.metadata, f'$."{key}"') if sqlite else sa.func.json_typeof(field)
    return sa.and_(found.in_(types), equal)


def _seal_key(collection_id: str, kind: str, space: str) -> sa.ColumnElement[bool]:
    return (seals.c.collection_id == collection_id) & (seals.c.kind == kind) & (seals.c.space == space)


def _leased(version_id: str, owner: str) -> sa.ColumnElement[bool]:
    leased = (versions.c.state == State.PROCESSING.value) & (versions.c.lease_owner == owner)
    return (versions.c.id == version_id) & leased


def _newest(connection: sa.Connection, document_id: str, state: State | None = None) -> sa.Row[Any] | None:
    query = sa.select(versions).where(versions.c.document_id == document_id).order_by(versions.c.number.desc()).limit(1)
    if state is not None:
        query = query.where(versions.c.state == state.value)
    return connection.execute(query).one_or_none()


def _accept_again(connection: sa.Connection, newest: sa.Row[Any], metadata: Mapping[str, Any] | None) -> Accepted:
    values: dict[str, Any] = {}
    if metadata:
        values["metadata"] = {**newest.metadata, **metadata}
    failed = newest.state == State.FAILED.value
    if failed:
        values |= _QUEUED_ANEW
    if values:
        connection.execute(versions.update().where(versions.c.id == newest.id).values(values))
    return Accepted.RETRIED if failed else Accepted.UNCHANGED


def _insert_version(
    connection: sa.Connection, document_id: str, number: int, sha256: str, size: int, metadata: Mapping[str, Any]
) -> None:
    row = {
        "id": digest(document_id, str(number), sha256), "document_id": document_id, "number": number, "sha256": sha256,
        "size": size, "metadata": dict(metadata), "state": State.QUEUED.value, "stage": Stage.ACCEPT.value,
        "progress": 0.0, "attempts": 0, "created_at": now(), "elements": 0, "passages": 0,
    }  # fmt: skip
    connection.execute(versions.insert(), row)


def _move_clock(connection: sa.Connection, collection_id: str, rows: int) -> tuple[int, int]:
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


def _retire(connection: sa.Connection, document_id: str, commit: int, but: str = "") -> None:
    """Retire every live chunk of a document, and every version of it but one that waits or is searched."""
    of_document = sa.select(versions.c.id).where(versions.c.document_id == document_id)
    connection.execute(chunks.update().where(chunks.c.version_id.in_(of_document) & LIVE).values(retired_commit=commit))
    active = [State.READY.value] if but else [State.READY.value, State.QUEUED.value, State.PROCESSING.value]
    others = (versions.c.document_id == document_id) & (versions.c.id != but) & versions.c.state.in_(active)
    gone = {"state": State.RETIRED.value, **_NO_LEASE}
    connection.execute(versions.update().where(others).values(gone))


def _insert_parse(connection: sa.Connection, version_id: str, parsed: ParsedDocument) -> None:
    places = [(e.kind.value, e.start, e.end, e.page, e.section) for e in parsed.elements]
    row = {
        "version_id": version_id,
        "text": zlib.compress(parsed.text.encode()),
        "elements": zlib.compress(json.dumps(places, ensure_ascii=False).encode()),
    }
    connection.execute(parses.insert(), row)


def _insert_chunks(
    connection: sa.Connection,
    collection_id: str,
    version_id: str,
    first: int,
    pieces: Sequence[Chunk],
    embedded: Vectors,
    embedder: str,
) -> None:
    if not pieces:
        return
    rows = [
        {
            "collection_id": collection_id, "seq": seq, "id": digest(version_id, str(c.start), str(c.end)),
            "version_id": version_id, "start": c.start, "end": c.end, "kind": c.kind.value, "page": c.page,
            "section": list(c.section), "tokens": c.tokens, "context": c.context, "text": c.text,
        }
        for seq, c in enumerate(pieces, first)
    ]  # fmt: skip
    connection.execute(chunks.insert(), rows)
    blobs = [
        {"collection_id": collection_id, "embedder": embedder, "seq": seq, "vector": vector.astype("<f4").tobytes()}
        for seq, vector in enumerate(embedded, first)
    ]
    connection.execute(vectors.insert(), blobs)


def _version(row: sa.Row[Any]) -> Version:
    return Version(
        row.id, row.document_id, row.collection_id, row.name, row.number, row.sha256, row.size, State(row.state),
        Stage(row.stage), row.progress, row.attempts, row.created_at, row.metadata, row.error, row.error_code,
        row.media_type, row.title, row.pages, row.elements, row.passages,
    )  # fmt: skip


def _passage(row: sa.Row[Any]) -> Passage:
    return Passage(
        row.id, row.seq, row.collection_id, row.document_id, row.name, row.title, row.version_id, row.number, row.text,
        row.context, row.start, row.end, Kind(row.kind), row.page, tuple(row.section),
    )  # fmt: skip
