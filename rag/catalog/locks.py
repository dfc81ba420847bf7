"""Which rows a writing transaction locks, and in what order, so that on PostgreSQL no two wait for each other.

First the collection, shared by all that write in it, and alone by what deletes or purges. Then documents, an outer one
before those inside it and those of one level by id; then versions by id; texts by digest; the collection's clock (see
`rag.catalog.part.move_clock`), and a batch last. Answers are locked by id, and so are golden questions, behind their
collections or alone. Knows no change: these are the clauses that SQLite, which has one writer at a time, leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from rag.catalog.part import slices
from rag.schema import collections, documents, versions


def share_collection(connection: sa.Connection, collection_id: str) -> bool:
    """Keep a collection from being deleted or purged until the transaction ends; False if it is gone."""
    query = sa.select(collections.c.id).where(collections.c.id == collection_id)
    return connection.scalar(query.with_for_update(read=True, key_share=True)) is not None


def own_collections(connection: sa.Connection, collection_id: str | None = None) -> None:
    """Keep all others from writing in a collection, or in all of them, until the transaction ends."""
    query = sa.select(collections.c.id).order_by(collections.c.id).with_for_update()
    connection.execute(query if collection_id is None else query.where(collections.c.id == collection_id)).all()


def lock_family(connection: sa.Connection, document_id: str) -> list[str]:
    """Lock a document and what is inside it, level by level; return their ids: none, if it was deleted."""
    family: list[str] = []
    level = _locked(connection, documents.c.id == document_id)
    while level:
        family += level
        level = [found for ids in slices(level) for found in _locked(connection, documents.c.parent_id.in_(ids))]
    return family


def _locked(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> list[str]:
    alive = condition & documents.c.deleted_at.is_(None)
    return [*connection.scalars(sa.select(documents.c.id).where(alive).order_by(documents.c.id).with_for_update())]


def lock_versions(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> list[str]:
    """Lock the versions of a condition and return their ids."""
    query = sa.select(versions.c.id).where(condition).order_by(versions.c.id)
    return [*connection.scalars(query.with_for_update(of=versions))]


def lock_versions_of(connection: sa.Connection, document_ids: Sequence[str]) -> None:
    """Lock all versions of some documents."""
    for ids in slices(document_ids):
        lock_versions(connection, versions.c.document_id.in_(ids))
