"""The ingest queue, which is the state of the versions themselves: accept, claim, prolong, give back, fail, commit.

A file is in the queue from the transaction that makes its version on, and out of it by the one that ends it, so that no
second book has to agree with the catalog. That is why there is no queue library: those that survive ``kill -9`` keep
books of their own, and none of them can refuse the commit of a worker that was frozen and has lost its file. A worker
holds a version by a *lease*; what its owner does not prolong in time goes back into the queue.

The order is start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) with batches as flows: the first file of a
new batch stands in line with the file that is next, the second one place behind it, so that a small upload does not
wait for the end of a large one.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from rag.catalog.batches import Batches, note_file
from rag.catalog.collections import Collections
from rag.catalog.documents import QUEUED_ANEW, Documents, delete_all
from rag.catalog.locks import lock_family, lock_versions, share_collection
from rag.catalog.part import ACTIVE, NO_LEASE, move_clock, newest, now, parse_row, retire, retired, slices
from rag.catalog.quotas import Quotas
from rag.catalog.texts import insert_chunks, keep_texts, known_vectors
from rag.errors import BadInput, DocumentTooLarge, NotFound
from rag.filters import METADATA_KEY
from rag.protocols import Codes, Vectors
from rag.records import REFUSED, Chunk, Member, ParsedDocument, Stage, State, Version, digest
from rag.schema import batch_files, batches, documents, parses, versions

NAME_CHARS = 1000
#: How far a pause between tries may be from its length, so that files do not come back all at once.
JITTER = 0.2


class Accepted(StrEnum):
    """What accepting a file meant for its document."""

    ADDED = "added"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"
    RETRIED = "retried"


@dataclass(frozen=True, slots=True)
class Retry:
    """When a version is tried again: the settings ``ingest.attempts``, ``deaths`` and ``retry_...``."""

    attempts: int = 3
    deaths: int = 10
    seconds: float = 5.0
    most_seconds: float = 600.0

    def pause(self, failures: int) -> timedelta:
        """Return the pause after so many failures: doubled each time, with some jitter; none after the 0th."""
        if failures < 1:
            return timedelta(0)
        seconds = min(self.seconds * 2.0 ** min(failures - 1, 60), self.most_seconds)
        return timedelta(seconds=seconds * random.uniform(1 - JITTER, 1 + JITTER))


@dataclass(frozen=True, slots=True)
class Arrival:
    """A file that comes: its name and content, what is said of it, and what it came with."""

    name: str
    sha256: str
    size: int
    metadata: Mapping[str, Any] = field(default_factory=dict)
    batch: str | None = None
    source: str | None = None
    parent: str | None = None


class Queue(Collections, Documents, Batches, Quotas):
    """The part of the catalog that is the queue."""

    # -- in ----------------------------------------------------------------------------------------------------------

    def accept(
        self,
        collection_id: str,
        name: str,
        sha256: str,
        size: int,
        metadata: Mapping[str, Any] | None = None,
        *,
        batch: str | None = None,
        source: str | None = None,
    ) -> tuple[Version, Accepted]:
        """Note that ``name`` shall have this content from now on; the worker does the rest.

        One transaction: when it returns, the file is in the queue for good. The same bytes again change nothing, unless
        the last attempt failed: then it is queued anew. ``source`` marks the file in a synchronised folder. Raises
        `BadInput` for a bad name or metadata and `NotFound` if the collection or the batch is gone.
        """
        check_name(name)
        check_metadata(metadata)
        arrival = Arrival(name, sha256, size, metadata or {}, batch, source)
        try:
            with self._write() as connection:
                if not share_collection(connection, collection_id):
                    raise NotFound("The collection was deleted.")
                version_id, outcome = self._take(connection, collection_id, arrival)
                if outcome in {Accepted.ADDED, Accepted.REPLACED}:
                    self._charge(connection, collection_id, size)
                self._note(connection, "document.accept", digest(collection_id, name), collection_id)
        except sa.exc.IntegrityError as error:
            raise NotFound("The collection was deleted.") from error
        return self.version(version_id), outcome

    def _take(self, connection: sa.Connection, collection_id: str, arrival: Arrival) -> tuple[str, Accepted]:
        document = self._locked_document(connection, collection_id, arrival.name)
        found = newest(connection, document.id)
        present = found is not None and document.deleted_at is None
        said = {"deleted_at": None, "parent_id": arrival.parent, "source": arrival.source}
        connection.execute(documents.update().where(documents.c.id == document.id).values(said))
        if present and found is not None and found.sha256 == arrival.sha256:
            version_id, outcome = found.id, _accept_again(connection, found, arrival)
        else:
            waiting = (versions.c.document_id == document.id) & (versions.c.state == State.QUEUED.value)
            connection.execute(versions.update().where(waiting).values(retired()))  # nobody needs it any more
            version_id = _insert_version(connection, document.id, found.number + 1 if found else 1, arrival)
            outcome = Accepted.REPLACED if present else Accepted.ADDED
        if arrival.batch is not None:
            note_file(connection, arrival.batch, arrival.name, outcome.value, version_id)
        return version_id, outcome

    def _locked_document(self, connection: sa.Connection, collection_id: str, name: str) -> sa.Row[Any]:
        """Return the row of a document, made if there is none, locked until the transaction ends."""
        document_id = digest(collection_id, name)
        row = {"id": document_id, "collection_id": collection_id, "name": name, "created_at": now()}
        query = sa.select(documents).where(documents.c.id == document_id).with_for_update()
        while (found := connection.execute(query).one_or_none()) is None:
            connection.execute(self._database.insert_new(documents), row)
        return found

    # -- leases ------------------------------------------------------------------------------------------------------

    def claim(
        self, owner: str, lease_seconds: float, *, batch: str | None = None, retry: Retry | None = None
    ) -> Version | None:
        """Lease the next waiting version to ``owner``, see `claim_some`; None if none may be tried now."""
        return next(iter(self.claim_some(owner, lease_seconds, 1, batch=batch, retry=retry)), None)

    def claim_some(
        self, owner: str, lease_seconds: float, most: int, *, batch: str | None = None, retry: Retry | None = None
    ) -> list[Version]:
        """Lease the next ``most`` waiting versions to ``owner``, in their order, or as many as may be tried now.

        A version whose worker has been silent for longer than its lease is waiting again, after a pause that grows with
        the number of its dead workers; ``retry.deaths`` of them end it. ``batch`` restricts the choice to its files.
        """
        with self._read() as connection:  # an idle worker must not take the write lock
            at = self._database.now(connection)
            eligible = _eligible(at, batch)
            waits = connection.scalar(sa.select(versions.c.id).where(eligible).limit(1))
            if waits is None and connection.scalar(sa.select(versions.c.id).where(_silent(at)).limit(1)) is None:
                return []
        with self._write() as connection:
            at = self._database.now(connection)
            _recover(connection, at, retry or Retry())
            order = (versions.c.turn, versions.c.created_at, versions.c.number)
            first = sa.select(versions.c.id).where(_eligible(at, batch)).order_by(*order).limit(most)
            ids = connection.scalars(first.with_for_update(skip_locked=True, of=versions)).all()
            lease = {
                "state": State.PROCESSING.value, "lease_owner": owner, "stage": Stage.PARSE.value, "progress": 0.0,
                "lease_until": at + timedelta(seconds=lease_seconds), "attempts": versions.c.attempts + 1,
                "not_before": None,
            }  # fmt: skip
            connection.execute(versions.update().where(versions.c.id.in_(ids)).values(lease))
        found = {version.id: version for version in self.versions(ids)}
        return [found[version_id] for version_id in ids if version_id in found]

    def heartbeat(self, owner: str, lease_seconds: float, held: Mapping[str, tuple[Stage, float]]) -> set[str]:
        """Prolong the leases of ``owner`` and show how far the work is; return those that it still has.

        ``held`` maps a version id to its stage and progress. Work on a version that is not returned must be dropped.
        """
        if not held:
            return set()
        leased = sa.select(versions.c.id).where(versions.c.id.in_([*held]) & _owned(owner))
        with self._write() as connection:
            until = self._database.now(connection) + timedelta(seconds=lease_seconds)
            kept = set(connection.scalars(leased))
            # What another transaction holds, most likely our own commit, is not waited for: the others would run out.
            for version_id in connection.scalars(leased.with_for_update(skip_locked=True)).all():
                stage, progress = held[version_id]
                values = {"stage": stage.value, "progress": progress, "lease_until": until}
                connection.execute(versions.update().where(versions.c.id == version_id).values(values))
        return kept

    def release(self, owner: str, version_ids: Sequence[str] | None = None) -> None:
        """Give back to the queue what a worker has in hand, or some of it, as if it had never been claimed."""
        back: dict[str, Any] = {"state": State.QUEUED.value, "stage": Stage.ACCEPT.value, "progress": 0.0, **NO_LEASE}
        back["attempts"] = versions.c.attempts - 1
        held = _owned(owner) if version_ids is None else _owned(owner) & versions.c.id.in_(version_ids)
        with self._write() as connection:
            for ids in slices(lock_versions(connection, held)):
                connection.execute(versions.update().where(versions.c.id.in_(ids)).values(back))

    def fail(self, version_id: str, owner: str, code: str, message: str) -> None:
        """End the work on a version with the sentence that says why. What was searchable before stays searchable."""
        with self._write() as connection:
            ours = versions.update().where(_leased(version_id, owner))
            connection.execute(ours.values(_failed(code, message)))

    def defer(self, version_id: str, owner: str, code: str, message: str, retry: Retry) -> None:
        """Put a version whose work went wrong back into the queue, after a pause; end it at its last attempt."""
        with self._write() as connection:
            attempts = connection.scalar(sa.select(versions.c.attempts).where(_leased(version_id, owner)))
            if attempts is None:
                return
            again = {"state": State.QUEUED.value, "error_code": code, "error": message, **NO_LEASE}
            again["not_before"] = self._database.now(connection) + retry.pause(attempts)
            values = _failed(code, message) if attempts >= retry.attempts else again
            connection.execute(versions.update().where(_leased(version_id, owner)).values(values))

    def queue_length(self) -> int:
        """Return how many versions wait or are being worked on."""
        with self._read() as connection:
            busy = sa.select(sa.func.count()).select_from(versions).where(versions.c.state.in_(ACTIVE))
            return int(connection.scalar(busy) or 0)

    # -- work that was paid for --------------------------------------------------------------------------------------

    def keep_parse(self, version_id: str, owner: str, parse_id: str, parsed: ParsedDocument) -> bool:
        """Keep what was read of a version, for this version and all of equal content; False if the lease is lost."""
        with self._write() as connection:
            got_further = {"parse_id": parse_id, "stage": Stage.CHUNK.value, "deaths": 0}
            done = connection.execute(versions.update().where(_leased(version_id, owner)).values(got_further))
            if done.rowcount:
                self._keep_parse(connection, parse_id, parsed)
        return done.rowcount == 1

    def _keep_parse(self, connection: sa.Connection, parse_id: str, parsed: ParsedDocument) -> None:
        """Keep a parse, if it is not there, and keep it from being purged before this transaction's version stands."""
        there = sa.select(parses.c.id).where(parses.c.id == parse_id).with_for_update(read=True, key_share=True)
        while connection.scalar(there) is None:
            connection.execute(self._database.insert_new(parses), parse_row(parse_id, parsed))

    def known_vectors(
        self, collection_id: str, embedder: str, digests: Sequence[str]
    ) -> dict[str, tuple[Vectors, Codes]]:
        """Return vectors (dimension,) and codes that are kept for the texts with these digests (`Chunk.digest`)."""
        with self._read() as connection:
            return known_vectors(connection, collection_id, embedder, digests)

    def keep_vectors(
        self,
        collection_id: str,
        embedder: str,
        pieces: Sequence[Chunk],
        embedded: Vectors,
        codes: Sequence[Codes] = (),
    ) -> None:
        """Keep the vectors (len(pieces), dimension) and codes of chunks whose document is not committed yet.

        Nothing is kept for a collection that was deleted meanwhile.
        """
        with self._write() as connection:
            if share_collection(connection, collection_id):
                keep_texts(self._database, connection, collection_id, embedder, pieces, embedded, codes)

    # -- out ---------------------------------------------------------------------------------------------------------

    def commit(
        self,
        version_id: str,
        owner: str,
        parsed: ParsedDocument,
        pieces: Sequence[Chunk],
        embedded: Vectors,
        embedder: str,
        *,
        codes: Sequence[Codes] = (),
        most_members: int = 10_000,
    ) -> bool:
        """Make a version searchable and retire the one before it, in one transaction.

        ``embedded`` has shape (len(pieces), dimension) and unit rows; it is kept in float16. ``codes`` are those of the
        tokens of each chunk, or none at all. The files inside the document are taken in by the same transaction, and
        those that are not inside any more are deleted. Returns False, and changes nothing a search could see, if the
        lease is lost, the document was deleted, or a newer version is live already. Raises `Misconfigured` if the
        collection's vectors come from another embedder, and `DocumentTooLarge` for more than ``most_members`` files
        inside the document and all that it is inside of.
        """
        with self._write() as connection:
            row = _locked_work(connection, version_id, owner)
            if row is None:
                return False
            current = newest(connection, row.document_id, State.READY) if row.live_version_id is not None else None
            if row.deleted_at is not None or (current is not None and current.number > row.number):
                connection.execute(versions.update().where(versions.c.id == version_id).values(retired()))
                return False
            commit, first = move_clock(connection, row.collection_id, len(pieces))
            self.check_embedder(connection, row.collection_id, embedder)  # now that no other commit can choose one
            if current is not None:
                retire(connection, row.document_id, commit, but=version_id)
            parse_id = row.parse_id or version_id
            if row.parse_id is None:
                self._keep_parse(connection, parse_id, parsed)
            ids = keep_texts(self._database, connection, row.collection_id, embedder, pieces, embedded, codes)
            insert_chunks(connection, row.collection_id, version_id, first, pieces, ids)
            ready = {
                "state": State.READY.value, "stage": Stage.DONE.value, "progress": 1.0, "error": None,
                "error_code": None, **NO_LEASE, "ended_at": now(), "media_type": parsed.media_type,
                "title": parsed.title, "pages": parsed.pages, "elements": len(parsed.elements), "passages": len(pieces),
                "metadata": {**parsed.metadata, **row.metadata}, "language": parsed.language, "parse_id": parse_id,
            }  # fmt: skip
            connection.execute(versions.update().where(versions.c.id == version_id).values(ready))
            live = documents.update().where(documents.c.id == row.document_id).values(live_version_id=version_id)
            connection.execute(live)
            if parsed.members or row.number > 1:
                self._take_members(connection, row, parsed.members, commit, most_members)
        return True

    def _take_members(
        self, connection: sa.Connection, row: sa.Row[Any], members: Sequence[Member], commit: int, most: int
    ) -> None:
        """Make documents of the files inside a document, and delete those that are not inside it any more."""
        inside = documents.c.parent_id == row.document_id
        before = set(connection.scalars(sa.select(documents.c.id).where(inside & documents.c.deleted_at.is_(None))))
        if members:
            _check_family(connection, row, len(members) - len(before), most)
        taken = set()
        for member in members:
            arrival = Arrival(
                f"{row.name}/{member.name}", member.sha256, member.size, row.metadata, row.batch_id,
                parent=row.document_id,
            )  # fmt: skip
            taken.add(digest(row.collection_id, arrival.name))
            try:
                check_name(arrival.name)
            except BadInput as error:
                _note_refused(connection, arrival, "bad_input", error.message)
                continue
            if member.error is not None:
                _note_refused(connection, arrival, "member_refused", member.error)
            else:
                self._take(connection, row.collection_id, arrival)
        delete_all(connection, sorted(before - taken), commit)


def check_name(name: str) -> None:
    """Raise `BadInput` for what can not be the name of a document."""
    if not name.strip() or len(name) > NAME_CHARS or any(ord(character) < 32 for character in name):
        raise BadInput(f"A document's name has 1 to {NAME_CHARS} characters, none of them a control character.")


def check_metadata(metadata: Mapping[str, Any] | None) -> None:
    """Raise `BadInput` for a key that can not be filtered on."""
    for key in metadata or {}:
        if not METADATA_KEY.fullmatch(key):
            raise BadInput(f"{key[:100]!r} is no metadata key; use letters, digits, dots, dashes and underscores.")


def _note_refused(connection: sa.Connection, arrival: Arrival, code: str, message: str) -> None:
    if arrival.batch is not None:
        note_file(connection, arrival.batch, arrival.name[:NAME_CHARS], REFUSED, error_code=code, error=message)


def _check_family(connection: sa.Connection, row: sa.Row[Any], more: int, most: int) -> None:
    """Count all documents under the outermost one that this one is inside of."""
    root, parent = row.document_id, row.parent_id
    while parent:
        root, parent = parent, connection.scalar(sa.select(documents.c.parent_id).where(documents.c.id == parent))
    level, count = [root], more
    while level and count <= most:
        found: list[str] = []
        for ids in slices(level):
            alive = documents.c.parent_id.in_(ids) & documents.c.deleted_at.is_(None)
            found += connection.scalars(sa.select(documents.c.id).where(alive))
        level, count = found, count + len(found)
    if count > most:
        raise DocumentTooLarge(
            f"The outermost archive holds more than {most:,} files, archives inside it included, which is the limit: "
            "split it, or raise ingest.archive_members."
        )


def _eligible(at: datetime, batch: str | None) -> sa.ColumnElement[bool]:
    """The condition of a version that may be claimed now."""
    may = versions.c.not_before.is_(None) | (versions.c.not_before <= at)
    waiting = (versions.c.state == State.QUEUED.value) & may
    if batch is None:
        return waiting
    # Asked of one version after the other in the order of the queue, not of all files of the batch at once.
    mine = (batch_files.c.version_id == versions.c.id) & (batch_files.c.batch_id == batch)
    return waiting & sa.exists().where(mine)


def _silent(at: datetime) -> sa.ColumnElement[bool]:
    return (versions.c.state == State.PROCESSING.value) & (versions.c.lease_until < at)


def _recover(connection: sa.Connection, at: datetime, retry: Retry) -> None:
    """Put back into the queue what silent workers had in hand; end what too many of them fell silent over."""
    silent = sa.select(versions.c.id, versions.c.deaths).where(_silent(at)).with_for_update(skip_locked=True)
    for row in connection.execute(silent).all():
        deaths = row.deaths + 1
        if deaths > retry.deaths:
            message = (
                f"The worker that read this file ended or fell silent {deaths} times; it is not tried again by itself."
            )
            values = _failed("worker_died", message)
        else:
            values = {
                "state": State.QUEUED.value, "stage": Stage.ACCEPT.value, "progress": 0.0, "deaths": deaths,
                "not_before": at + retry.pause(deaths - 1), "attempts": versions.c.attempts - 1, **NO_LEASE,
            }  # fmt: skip
        connection.execute(versions.update().where(versions.c.id == row.id).values(values))


def _failed(code: str, message: str) -> dict[str, Any]:
    return {"state": State.FAILED.value, "error_code": code, "error": message, "ended_at": now(), **NO_LEASE}


def _owned(owner: str) -> sa.ColumnElement[bool]:
    return (versions.c.state == State.PROCESSING.value) & (versions.c.lease_owner == owner)


def _leased(version_id: str, owner: str) -> sa.ColumnElement[bool]:
    return (versions.c.id == version_id) & _owned(owner)


def _locked_work(connection: sa.Connection, version_id: str, owner: str) -> sa.Row[Any] | None:
    """Return a leased version with facts of its document, all locked for its commit; None if the lease is lost."""
    leased = sa.select(versions.c.document_id, documents.c.collection_id).join(documents)
    found = connection.execute(leased.where(_leased(version_id, owner))).one_or_none()
    if found is None:
        return None
    if connection.dialect.name != "sqlite":  # which has one writer at a time
        if not share_collection(connection, found.collection_id):
            return None
        lock_family(connection, found.document_id)
    return connection.execute(
        sa.select(versions)
        .add_columns(documents.c.collection_id, documents.c.deleted_at, documents.c.name, documents.c.parent_id)
        .add_columns(documents.c.live_version_id)
        .join(documents)
        .where(_leased(version_id, owner))
        .with_for_update(of=versions)
    ).one_or_none()


def _accept_again(connection: sa.Connection, found: sa.Row[Any], arrival: Arrival) -> Accepted:
    mine = versions.c.id == found.id
    if arrival.metadata:
        connection.execute(versions.update().where(mine).values(metadata={**found.metadata, **arrival.metadata}))
    if found.state != State.FAILED.value:
        return Accepted.UNCHANGED
    again = {**QUEUED_ANEW, "turn": _next_turn(connection, arrival.batch)}
    if arrival.batch is not None:  # what is inside it joins the batch in which it is read
        again["batch_id"] = arrival.batch
    failed = versions.update().where(mine & (versions.c.state == State.FAILED.value))
    return Accepted.RETRIED if connection.execute(failed.values(again)).rowcount else Accepted.UNCHANGED


def _insert_version(connection: sa.Connection, document_id: str, number: int, arrival: Arrival) -> str:
    version_id = digest(document_id, str(number), arrival.sha256)
    row = {
        "id": version_id, "document_id": document_id, "number": number, "sha256": arrival.sha256, "size": arrival.size,
        "metadata": dict(arrival.metadata), "state": State.QUEUED.value, "stage": Stage.ACCEPT.value, "progress": 0.0,
        "attempts": 0, "deaths": 0, "created_at": now(), "elements": 0, "passages": 0, "batch_id": arrival.batch,
        "turn": _next_turn(connection, arrival.batch),
    }  # fmt: skip
    connection.execute(versions.insert(), row)
    return version_id


def _next_turn(connection: sa.Connection, batch: str | None) -> int:
    """Return the place in line of a file that comes now, see the top of this module."""
    waiting = sa.select(sa.func.min(versions.c.turn)).where(versions.c.state == State.QUEUED.value)
    head = connection.scalar(waiting) or 0
    if batch is None:
        return int(head)
    mine = batches.c.id == batch
    last = connection.scalar(sa.select(batches.c.last_turn).where(mine).with_for_update(key_share=True))
    turn = max(int(head), -1 if last is None else int(last) + 1)
    connection.execute(batches.update().where(mine).values(last_turn=turn))
    return turn
