"""Batches in the catalog: which files came together, and how far they are."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from rag.catalog.part import ACTIVE, Part, now, version_of
from rag.errors import NotFound
from rag.records import REFUSED, Batch, BatchFile, State
from rag.schema import batch_files, batches, documents, versions


class Batches(Part):
    """The part of the catalog that knows batches."""

    def open_batch(self, collection_id: str) -> str:
        """Make an empty batch and return its id. Raises `NotFound` if the collection was deleted."""
        row = {"id": secrets.token_hex(16), "collection_id": collection_id, "created_at": now(), "files": 0}
        try:
            with self._write() as connection:
                connection.execute(batches.insert(), row | {"last_turn": -1})
        except sa.exc.IntegrityError as error:
            raise NotFound("The collection was deleted.") from error
        return str(row["id"])

    def refuse(self, batch_id: str, name: str, code: str, message: str) -> None:
        """Note a file of a batch that was not taken in, and why."""
        with self._write() as connection:
            note_file(connection, batch_id, name, REFUSED, error_code=code, error=message)

    def batch(self, batch_id: str) -> Batch:
        """Return how far a batch is; raises `NotFound`."""
        found = self._batches((batches.c.id == batch_id) & self._sees(batches.c.collection_id), 1)
        if not found:
            raise NotFound(f"There is no batch with the id {batch_id[:64]!r}.")
        return found[0]

    def list_batches(self, collection_id: str, limit: int = 20) -> list[Batch]:
        """Return the last batches of a collection, the newest first."""
        return self._batches(batches.c.collection_id == collection_id, limit)

    def _batches(self, condition: sa.ColumnElement[bool], limit: int) -> list[Batch]:
        newest = sa.select(batches).where(condition).order_by(batches.c.created_at.desc(), batches.c.id).limit(limit)
        state = sa.func.coalesce(versions.c.state, batch_files.c.outcome).label("state")
        fresh = sa.case((batch_files.c.outcome == "unchanged", 0), else_=versions.c.passages)
        counts = (
            sa.select(
                state, sa.func.count().label("files"), sa.func.coalesce(sa.func.sum(versions.c.size), 0).label("size")
            )
            .add_columns(
                sa.func.coalesce(sa.func.sum(fresh), 0).label("passages"),
                sa.func.max(versions.c.ended_at).label("ended_at"),
            )
            .select_from(batch_files.outerjoin(versions, versions.c.id == batch_files.c.version_id))
            .group_by(state)
        )
        with self._read() as connection:
            return [
                _batch(row, connection.execute(counts.where(batch_files.c.batch_id == row.id)).all())
                for row in connection.execute(newest).all()
            ]

    def batch_files(self, batch_id: str, *, after: int = -1, limit: int = 1000) -> list[BatchFile]:
        """Return the files of a batch in the order in which they came, those after number ``after``."""
        home = sa.select(batches.c.collection_id).where(batches.c.id == batch_id).scalar_subquery()
        query = (
            sa.select(versions, documents.c.collection_id, documents.c.name)
            .add_columns(
                batch_files.c.number.label("file_number"), batch_files.c.name.label("file_name"),
                batch_files.c.outcome, batch_files.c.error.label("refusal"),
                batch_files.c.error_code.label("refusal_code"),
            )
            .select_from(
                batch_files.outerjoin(versions, versions.c.id == batch_files.c.version_id).outerjoin(
                    documents, documents.c.id == versions.c.document_id
                )
            )
            .where((batch_files.c.batch_id == batch_id) & (batch_files.c.number > after) & self._sees(home))
            .order_by(batch_files.c.number)
            .limit(limit)
        )  # fmt: skip
        with self._read() as connection:
            return [
                BatchFile(r.file_number, r.file_name, r.outcome, None, r.refusal, r.refusal_code)
                if r.id is None
                else BatchFile(r.file_number, r.file_name, r.outcome, version_of(r), r.error, r.error_code)
                for r in connection.execute(query)
            ]

    def ended_since(self, batch_id: str, moment: datetime) -> tuple[int, int]:
        """Return how many files of a batch, and how many of their bytes, have ended since a moment."""
        query = (
            sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(versions.c.size), 0))
            .select_from(batch_files.join(versions, versions.c.id == batch_files.c.version_id))
            .where((batch_files.c.batch_id == batch_id) & (versions.c.ended_at >= moment))
        )
        with self._read() as connection:
            files, size = connection.execute(query).one()
        return int(files), int(size)


def note_file(
    connection: sa.Connection, batch_id: str, name: str, outcome: str, version_id: str | None = None, **facts: Any
) -> None:
    """Add a file to a batch as its next one; raises `NotFound` if there is no such batch."""
    counted = batches.update().where(batches.c.id == batch_id).values(files=batches.c.files + 1)
    files = connection.scalar(counted.returning(batches.c.files))
    if files is None:
        raise NotFound(f"There is no batch with the id {batch_id[:64]!r}.")
    row = {"batch_id": batch_id, "number": files - 1, "name": name, "outcome": outcome, "version_id": version_id}
    connection.execute(batch_files.insert(), row | facts)


def _batch(row: sa.Row[Any], counts: Any) -> Batch:
    states = {count.state: int(count.files) for count in counts}
    waiting = sum(states.get(state, 0) for state in ACTIVE)
    ended = [count for count in counts if count.state not in ACTIVE]
    last = max((count.ended_at for count in ended if count.ended_at), default=row.created_at)
    return Batch(
        id=row.id,
        collection_id=row.collection_id,
        created_at=row.created_at,
        files=row.files,
        states=states,
        size=sum(int(count.size) for count in counts),
        size_ended=sum(int(count.size) for count in ended),
        passages=sum(int(count.passages) for count in counts if count.state == State.READY),
        ended_at=None if waiting else last,
    )
