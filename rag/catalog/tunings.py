"""Tunings in the catalog: kept, put in force, taken back.

Which one is in force is said by the collection's own row, so that a search learns it with the name of the collection,
and a change of it is one transaction. Knows nothing of how a tuning was learnt.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np
import sqlalchemy as sa

from rag.catalog.part import Part, move_clock, now
from rag.errors import Conflict, NotFound
from rag.protocols import Vectors
from rag.schema import collections, promotions, tunings
from rag.tuning import Tuned, Tuning


class Tunings(Part):
    """The part of the catalog that knows tunings."""

    def add_tuning(self, collection_id: str, embedder: str, tuned: Tuned, report: Mapping[str, Any]) -> Tuning:
        """Keep a tuning, which is not in force by that; raises `NotFound` if the collection is gone."""
        row = {
            "id": secrets.token_hex(16), "collection_id": collection_id, "created_at": now(), "embedder": embedder,
            "dense_weight": tuned.dense_weight, "late_weight": tuned.late_weight, "adapter": _packed(tuned.adapter),
            "projection": _packed(tuned.projection), "report": dict(report),
            "reader_weight": tuned.reader_weight,
        }  # fmt: skip
        with self._write() as connection:
            move_clock(connection, collection_id, 0)
            connection.execute(tunings.insert(), row)
        return self.tuning(str(row["id"]))

    def tuning(self, tuning_id: str) -> Tuning:
        """Return a tuning; raises `NotFound`."""
        found = self._tunings(tunings.c.id == tuning_id)
        if not found:
            raise NotFound(f"There is no tuning {tuning_id[:100]!r}; `citewell tunings list` shows them.")
        return found[0]

    def list_tunings(self, collection_id: str) -> list[Tuning]:
        """Return the tunings of a collection, the newest first."""
        return self._tunings(tunings.c.collection_id == collection_id)

    def tuned(self, tuning_id: str) -> Tuned:
        """Return what a tuning does to a search; raises `NotFound`."""
        query = sa.select(tunings).where(tunings.c.id == tuning_id)
        with self._read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFound("The tuning was deleted.")
        maps = _unpacked(row.adapter), _unpacked(row.projection)
        return Tuned(row.dense_weight, row.late_weight, *maps, row.reader_weight)

    def promote(self, tuning_id: str) -> Tuning:
        """Put a tuning in force in place of the one that is, in one transaction; the next search goes by it.

        Raises `NotFound`, `Conflict` if it is in force already, and for vectors of another embedder than its own.
        """
        found = self.tuning(tuning_id)
        with self._write() as connection:
            move_clock(connection, found.collection_id, 0)  # locks the collection
            mine = collections.c.id == found.collection_id
            owner = connection.execute(sa.select(collections).where(mine)).one()
            if owner.tuning_id == tuning_id:
                raise Conflict("The tuning is in force already.")
            if owner.embedder not in {None, found.embedder}:
                raise Conflict("The tuning was learnt for the vectors of another embedder; run `citewell tune` again.")
            last = connection.scalar(_last(found.collection_id))
            row = {
                "collection_id": found.collection_id, "number": 1 if last is None else last + 1,
                "tuning_id": tuning_id, "promoted_at": now(),
            }  # fmt: skip
            connection.execute(promotions.insert(), row)
            connection.execute(collections.update().where(mine).values(tuning_id=tuning_id))
        return self.tuning(tuning_id)

    def roll_back(self, collection_id: str) -> Tuning | None:
        """Take the last promotion back; return the tuning that is in force then, None if there is none.

        Raises `NotFound` if the collection is gone, and `Conflict` if no tuning is in force.
        """
        with self._write() as connection:
            move_clock(connection, collection_id, 0)
            last = connection.scalar(_last(collection_id))
            if last is None:
                raise Conflict("No tuning of this collection is in force; there is nothing to take back.")
            mine = promotions.c.collection_id == collection_id
            connection.execute(promotions.delete().where(mine & (promotions.c.number == last)))
            before = connection.scalar(
                sa.select(promotions.c.tuning_id).where(mine).order_by(promotions.c.number.desc()).limit(1)
            )
            connection.execute(collections.update().where(collections.c.id == collection_id).values(tuning_id=before))
        return None if before is None else self.tuning(before)

    def _tunings(self, condition: sa.ColumnElement[bool]) -> list[Tuning]:
        """Return tunings without their maps, which are large."""
        columns = (
            tunings.c.id, tunings.c.collection_id, tunings.c.created_at, tunings.c.embedder, tunings.c.dense_weight,
            tunings.c.late_weight, tunings.c.adapter.is_not(None).label("adapted"),
            tunings.c.projection.is_not(None).label("projected"), tunings.c.report,
            tunings.c.reader_weight,
            sa.func.coalesce(collections.c.tuning_id == tunings.c.id, sa.false()).label("in_force"),
        )  # fmt: skip
        query = sa.select(*columns).join(collections, collections.c.id == tunings.c.collection_id).where(condition)
        with self._read() as connection:
            rows = connection.execute(query.order_by(tunings.c.created_at.desc(), tunings.c.id)).all()
        return [_tuning_of(row) for row in rows]


def _tuning_of(row: sa.Row[Any]) -> Tuning:
    return Tuning(
        row.id, row.collection_id, row.created_at, row.embedder, row.dense_weight, row.late_weight, bool(row.adapted),
        bool(row.projected), row.report, bool(row.in_force), row.reader_weight,
    )  # fmt: skip


def _last(collection_id: str) -> sa.Select[Any]:
    return sa.select(sa.func.max(promotions.c.number)).where(promotions.c.collection_id == collection_id)


def _packed(matrix: Vectors | None) -> bytes | None:
    return None if matrix is None else np.ascontiguousarray(matrix, dtype="<f4").tobytes()


def _unpacked(blob: bytes | None) -> Vectors | None:
    if blob is None:
        return None
    values = np.frombuffer(blob, dtype="<f4").astype(np.float32)
    dimension = round(len(values) ** 0.5)
    return values.reshape(dimension, dimension)
