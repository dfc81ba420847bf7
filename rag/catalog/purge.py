"""What leaves the catalog for good: purged documents and versions, and rows that nobody needs.

Deleting and replacing retire rows and keep their text, so that an old answer can be proved; purging removes it. A
purged row leaves its number behind until no index can hold it. Knows no file: originals and index parts are removed by
the store and the indexes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from rag.catalog.answers import drop_texts_of
from rag.catalog.collections import needed, remove_unused_parses, unused_parse
from rag.catalog.golden import drop_quotes_of
from rag.catalog.locks import own_collections
from rag.catalog.part import ACTIVE, Part, slices
from rag.schema import bands, batch_files, chunks, documents, parses, texts, vectors, versions

#: Stands in a batch for a file whose version was purged.
PURGED = "purged"


@dataclass(frozen=True, slots=True)
class Purged:
    """What was removed. ``originals`` are the digests of files that no document needs any more.

    ``files`` and ``bytes`` count those of them that were removed from the disk.
    """

    documents: int = 0
    versions: int = 0
    passages: int = 0
    texts: int = 0
    vectors: int = 0
    parses: int = 0
    originals: tuple[str, ...] = ()
    files: int = 0
    bytes: int = 0


class Purge(Part):
    """The part of the catalog that removes."""

    def purge(self, collection_id: str, document_ids: Sequence[str] | None = None) -> Purged:
        """Remove what is deleted or replaced in a collection, of all its documents or of some, in one transaction.

        What is searched now, and what waits to be, stays. Answers that saw what goes lose their texts, and golden
        questions what they quote of it. The rows are gone from the database's file too (SQLite overwrites them); the
        caller removes the originals, seals both indexes, and then calls `forget_rows`.
        """
        with self._database.erasing() as connection:
            own_collections(connection, collection_id)
            subjects: Sequence[str | None] = document_ids or [None]
            for subject in subjects:
                self._note(connection, "document.purge", subject, collection_id)
            gone = _gone(connection, collection_id, document_ids)
            ids = [row.id for row in gone]
            versions_gone = {(row.document_id, row.number) for row in gone}
            drop_texts_of(connection, collection_id, versions_gone)
            drop_quotes_of(connection, versions_gone)
            passages, text_ids = _blank_chunks(connection, ids)
            found_texts, found_vectors = _remove_texts(connection, text_ids)
            for some in slices(ids):
                purged = {"version_id": None, "name": "(purged)", "outcome": PURGED}
                connection.execute(batch_files.update().where(batch_files.c.version_id.in_(some)).values(purged))
                connection.execute(versions.delete().where(versions.c.id.in_(some)))
            found_parses = remove_unused_parses(connection)
            empty = ~sa.exists().where(versions.c.document_id == documents.c.id)
            here = (documents.c.collection_id == collection_id) & documents.c.deleted_at.is_not(None)
            found_documents = connection.execute(documents.delete().where(here & empty)).rowcount
            shas = sorted({row.sha256 for row in gone})
            unneeded = [sha for some in slices(shas) for sha in sorted(set(some) - needed(connection, some))]
        return Purged(found_documents, len(ids), passages, found_texts, found_vectors, found_parses, tuple(unneeded))

    def forget_rows(self, collection_id: str) -> None:
        """Remove the numbers of purged rows; only after both indexes were sealed without them."""
        with self._write() as connection:
            blank = (chunks.c.collection_id == collection_id) & chunks.c.version_id.is_(None)
            connection.execute(chunks.delete().where(blank))

    def sweep(self) -> int:
        """Remove texts and parses that were kept for work which came to nothing; return how many.

        Texts of a collection in which anything waits or is being read are left alone.
        """
        busy = sa.select(documents.c.collection_id).join(versions).where(versions.c.state.in_(ACTIVE))
        unused = ~sa.exists().where(chunks.c.text_id == texts.c.id) & texts.c.collection_id.not_in(busy)
        with self._read() as connection:
            any_text = connection.scalar(sa.select(texts.c.id).where(unused).limit(1))
            any_parse = connection.scalar(sa.select(parses.c.id).where(unused_parse()).limit(1))
        if any_text is None and any_parse is None:
            return 0
        with self._database.erasing() as connection:
            own_collections(connection)
            found, _ = _remove_texts(connection, connection.scalars(sa.select(texts.c.id).where(unused)).all())
            return found + remove_unused_parses(connection)

    def unneeded(self, shas: Sequence[str]) -> set[str]:
        """Return those of these digests of originals that no version has."""
        with self._read() as connection:
            return {sha for some in slices(shas) for sha in set(some) - needed(connection, some)}


def _gone(connection: sa.Connection, collection_id: str, document_ids: Sequence[str] | None) -> Sequence[Any]:
    """Return the versions that are deleted or replaced."""
    newer = versions.alias()
    replaced = sa.exists().where((newer.c.document_id == versions.c.document_id) & (newer.c.number > versions.c.number))
    searched = documents.c.live_version_id.is_not(None) & (documents.c.live_version_id == versions.c.id)
    over = documents.c.deleted_at.is_not(None) | (replaced & ~searched & versions.c.state.not_in(ACTIVE))
    query = sa.select(versions.c.id, versions.c.sha256, versions.c.document_id, versions.c.number).join(documents)
    query = query.where((documents.c.collection_id == collection_id) & over)
    if document_ids is None:
        return connection.execute(query).all()
    return [row for ids in slices(document_ids) for row in connection.execute(query.where(documents.c.id.in_(ids)))]


def _blank_chunks(connection: sa.Connection, version_ids: Sequence[str]) -> tuple[int, list[int]]:
    """Take everything from the chunks of some versions but their numbers; return how many, and what texts they had."""
    count, text_ids = 0, set[int]()
    blank: dict[str, Any] = {
        "id": "",
        "version_id": None,
        "text_id": None,
        "start": 0,
        "end": 0,
        "page": None,
        "section": [],
    }
    for ids in slices(version_ids):
        theirs = chunks.c.version_id.in_(ids)
        text_ids |= set(connection.scalars(sa.select(chunks.c.text_id).where(theirs).distinct()))
        count += connection.execute(chunks.update().where(theirs).values(blank)).rowcount
    return count, sorted(text_ids)


def _remove_texts(connection: sa.Connection, text_ids: Sequence[int]) -> tuple[int, int]:
    """Remove those of some texts that no chunk has any more; return how many texts and vectors."""
    removed = [0, 0]
    for ids in slices(text_ids):
        used = set(connection.scalars(sa.select(chunks.c.text_id).where(chunks.c.text_id.in_(ids))))
        unused = sorted(set(ids) - used)
        removed[1] += connection.execute(vectors.delete().where(vectors.c.text_id.in_(unused))).rowcount
        connection.execute(bands.delete().where(bands.c.text_id.in_(unused)))
        removed[0] += connection.execute(texts.delete().where(texts.c.id.in_(unused))).rowcount
    return removed[0], removed[1]
