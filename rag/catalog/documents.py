"""Documents in the catalog: looked up, listed, their parsed text read; queued anew, and deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from rag.catalog.locks import lock_family, lock_versions_of, share_collection
from rag.catalog.part import Part, elements_of, move_clock, now, parsed_of, retire, slices, unpacked_text, version_of
from rag.errors import Conflict, NotFound
from rag.records import Document, Element, ParsedDocument, Stage, State, Version
from rag.schema import documents, parses, versions

QUEUED_ANEW: Mapping[str, Any] = {
    "state": State.QUEUED.value, "stage": Stage.ACCEPT.value, "progress": 0.0, "attempts": 0, "deaths": 0,
    "not_before": None, "ended_at": None, "error": None, "error_code": None,
}  # fmt: skip


class Documents(Part):
    """The part of the catalog that knows documents and what was parsed of them."""

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
            .add_columns(documents.c.created_at.label("document_created_at"), documents.c.parent_id)
            .select_from(
                versions.join(documents, (versions.c.document_id == documents.c.id) & (versions.c.number == last))
            )
            .where(documents.c.deleted_at.is_(None) & condition & self._sees(documents.c.collection_id))
            .order_by(documents.c.name)
            .limit(limit)
        )
        with self._read() as connection:
            rows = connection.execute(query).all()
        return [
            Document(
                r.document_id, r.collection_id, r.name, r.document_created_at, version_of(r), r.live_version_id,
                r.parent_id,
            )
            for r in rows
        ]  # fmt: skip

    def version(self, version_id: str) -> Version:
        """Return a version by its id, retired or not; raises `NotFound`."""
        found = self.versions([version_id])
        if not found:
            raise NotFound(f"There is no document version with the id {version_id[:64]!r}.")
        return found[0]

    def versions(self, version_ids: Sequence[str]) -> list[Version]:
        """Return those of ``version_ids`` that there are, retired or not, in no order."""
        query = sa.select(versions, documents.c.collection_id, documents.c.name).join(documents)
        query = query.where(self._sees(documents.c.collection_id))
        with self._read() as connection:
            return [
                version_of(row)
                for ids in slices(version_ids)
                for row in connection.execute(query.where(versions.c.id.in_(ids)))
            ]

    def sources(self, collection_id: str) -> dict[str, str | None]:
        """Return the names of all documents that are no part of another one, each with its ``source`` mark."""
        here = (documents.c.collection_id == collection_id) & documents.c.deleted_at.is_(None)
        query = sa.select(documents.c.name, documents.c.source).where(here & documents.c.parent_id.is_(None))
        with self._read() as connection:
            return {row.name: row.source for row in connection.execute(query)}

    def retry(self, document_id: str) -> Document:
        """Queue the newest version of a document anew, all its attempts before it, and return the document.

        Raises `NotFound`, and `Conflict` if that version has not failed.
        """
        document = self.document(document_id)
        failed = (versions.c.id == document.newest.id) & (versions.c.state == State.FAILED.value)
        with self._write() as connection:
            if connection.execute(versions.update().where(failed).values(QUEUED_ANEW)).rowcount == 0:
                raise Conflict(
                    f"{document.name[:200]!r} is {document.newest.state}; only what has failed can be tried again."
                )
            self._note(connection, "document.retry", document_id, document.collection_id)
        return self.document(document_id)

    def delete_document(self, document_id: str) -> None:
        """Retire all that a search could find of a document and what was in it, in one transaction; raises `NotFound`.

        Text and original stay for those who must prove what an answer was made from, until the document is purged.
        """
        with self._write() as connection:
            mine = (documents.c.id == document_id) & self._sees(documents.c.collection_id)
            home = connection.scalar(sa.select(documents.c.collection_id).where(mine))
            family = lock_family(connection, document_id) if home and share_collection(connection, home) else []
            if not family:
                raise NotFound(f"There is no document with the id {document_id[:64]!r}.")
            lock_versions_of(connection, family)
            commit, _ = move_clock(connection, str(home), 0)
            delete_all(connection, [document_id], commit)
            self._note(connection, "document.delete", document_id, home)

    def source_text(self, version_id: str) -> str:
        """Return the parsed text of a version, the one that all source offsets refer to; raises `NotFound`."""
        return unpacked_text(self._parse(version_id).text)

    def elements(self, version_id: str) -> tuple[Element, ...]:
        """Return the elements of a version at their places in its parsed text; raises `NotFound`."""
        return elements_of(self._parse(version_id))

    def _parse(self, version_id: str) -> sa.Row[Any]:
        query = sa.select(parses).join(versions, versions.c.parse_id == parses.c.id)
        with self._read() as connection:
            row = connection.execute(query.where(versions.c.id == version_id)).one_or_none()
        if row is None:
            raise NotFound("There is no parsed text for this version.")
        return row

    def parsed(self, parse_id: str) -> ParsedDocument | None:
        """Return what was kept of reading some content, if it was."""
        with self._read() as connection:
            row = connection.execute(sa.select(parses).where(parses.c.id == parse_id)).one_or_none()
        return None if row is None else parsed_of(row)

    def depth(self, document_id: str) -> int:
        """Return how many documents a document is inside of."""
        depth, parent = -1, document_id
        with self._read() as connection:
            while parent:
                parent = connection.scalar(sa.select(documents.c.parent_id).where(documents.c.id == parent)) or ""
                depth += 1
        return depth


def delete_all(connection: sa.Connection, document_ids: Sequence[str], commit: int) -> None:
    """Retire documents and, level by level, what was taken out of them."""
    while document_ids:
        for document_id in document_ids:
            retire(connection, document_id, commit)
        inside: list[str] = []
        for ids in slices(document_ids):
            gone = documents.update().where(documents.c.id.in_(ids))
            connection.execute(gone.values(deleted_at=now(), live_version_id=None, source=None))
            alive = documents.c.parent_id.in_(ids) & documents.c.deleted_at.is_(None)
            inside += connection.scalars(sa.select(documents.c.id).where(alive))
        document_ids = inside
