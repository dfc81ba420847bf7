"""Quotas of uploads: how many documents and bytes a key may bring, and a collection hold.

Each arrival is counted in the transaction that takes it in, which is taken back where it is one too many. Knows no
request and no file.
"""

from __future__ import annotations

import sqlalchemy as sa

from rag.catalog.part import Part
from rag.errors import QuotaExceeded
from rag.schema import documents, keys, versions


class Quotas(Part):
    """The part of the catalog that counts what is uploaded."""

    def check_quota(self, collection_id: str, documents: int, size: int) -> None:
        """Raise `QuotaExceeded` if so many more documents and bytes are too many for the caller or the collection.

        What comes at the same time is counted when it is taken in.
        """
        with self._read() as connection:
            self._check_quota(connection, collection_id, documents, size)

    def _charge(self, connection: sa.Connection, collection_id: str, size: int) -> None:
        """Count a version that this transaction has taken in; raises `QuotaExceeded`, which takes all of it back."""
        mine = keys.c.id == self._caller.key_id
        more = {"documents": keys.c.documents + 1, "bytes": keys.c.bytes + size}
        if self._caller.key_id is not None:
            connection.execute(keys.update().where(mine).values(more))
        self._check_quota(connection, collection_id, 0, 0)

    def _check_quota(self, connection: sa.Connection, collection_id: str, documents: int, size: int) -> None:
        mine = sa.select(keys).where(keys.c.id == self._caller.key_id)
        row = None if self._caller.key_id is None else connection.execute(mine).one_or_none()
        if row is not None:
            _check("this key", row.documents + documents, row.most_documents, "documents")
            _check("this key", row.bytes + size, row.most_bytes, "bytes")
        most = self._caller.held
        if most.documents is not None or most.bytes is not None:
            held, held_bytes = _held(connection, collection_id)
            _check("the collection", held + documents, most.documents, "documents")
            _check("the collection", held_bytes + size, most.bytes, "bytes")


def _held(connection: sa.Connection, collection_id: str) -> tuple[int, int]:
    """Return how many documents a collection holds, and the bytes of their newest versions."""
    other = versions.alias()
    last = sa.select(sa.func.max(other.c.number)).where(other.c.document_id == documents.c.id).scalar_subquery()
    newest = versions.join(documents, (versions.c.document_id == documents.c.id) & (versions.c.number == last))
    here = (documents.c.collection_id == collection_id) & documents.c.deleted_at.is_(None)
    total = sa.func.coalesce(sa.func.sum(versions.c.size), 0)
    count, size = connection.execute(sa.select(sa.func.count(), total).select_from(newest).where(here)).one()
    return int(count), int(size)


def _check(whose: str, wanted: int, most: int | None, what: str) -> None:
    if most is not None and wanted > most:
        raise QuotaExceeded(
            f"The quota of {whose} is {most:,} {what}, and with this upload it would be {wanted:,}; ask an admin for "
            "more."
        )
