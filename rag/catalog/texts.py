"""The texts of chunks with their vectors, each kept once in a collection; and which of them are near-copies.

Functions on an open transaction, for the queue's commits. Knows no version and no document.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa

from rag.catalog.part import slices
from rag.copies import alike, bands_of
from rag.database import Database
from rag.protocols import Vectors
from rag.records import Chunk, digest
from rag.schema import bands, chunks, texts, vectors

#: Most texts that a new one is compared with, of those that share a band with it.
RIVALS = 50


def known_vectors(
    connection: sa.Connection, collection_id: str, embedder: str, digests: Sequence[str]
) -> dict[str, Vectors]:
    """Return the vectors that are kept under ``embedder`` for texts of a collection, by digest."""
    query = sa.select(texts.c.digest, vectors.c.vector).join(vectors, vectors.c.text_id == texts.c.id)
    query = query.where((texts.c.collection_id == collection_id) & (vectors.c.embedder == embedder))
    return {
        row.digest: np.frombuffer(row.vector, dtype="<f4").astype(np.float32)
        for some in slices(digests)
        for row in connection.execute(query.where(texts.c.digest.in_(some)))
    }


def keep_texts(
    database: Database,
    connection: sa.Connection,
    collection_id: str,
    embedder: str,
    pieces: Sequence[Chunk],
    embedded: Vectors,
) -> dict[str, int]:
    """Keep the texts of ``pieces`` and their vectors (n, d), those that are not there; return all their ids by digest.

    A new text that is a near-copy of one in the collection is marked as such.
    """
    by_digest = {piece.digest: (piece, vector) for piece, vector in zip(pieces, embedded, strict=True)}
    there = _ids(connection, collection_id, list(by_digest))
    fresh = [(name, piece) for name, (piece, _) in by_digest.items() if name not in there]
    rows = [
        {"collection_id": collection_id, "digest": name, "context": p.context, "text": p.text, "tokens": p.tokens}
        for name, p in fresh
    ]
    if rows:  # all writers insert in one order, so that none waits for another that waits for it
        connection.execute(database.insert_new(texts), sorted(rows, key=lambda row: str(row["digest"])))
        names = [name for name, _ in fresh]
        there |= _ids(connection, collection_id, names)
        ours = _ids(connection, collection_id, names, unmarked=True)
        _mark_copies(database, connection, collection_id, {ours[n]: p.text for n, p in fresh if n in ours})
    blobs = [
        {"text_id": there[name], "embedder": embedder, "vector": by_digest[name][1].astype("<f4").tobytes()}
        for name in sorted(by_digest)
    ]
    if blobs:
        connection.execute(database.insert_new(vectors), blobs)
    return there


def _ids(
    connection: sa.Connection, collection_id: str, digests: Sequence[str], *, unmarked: bool = False
) -> dict[str, int]:
    here = texts.c.collection_id == collection_id
    if unmarked:
        here &= texts.c.like_id.is_(None)
    return {
        row.digest: row.id
        for some in slices(digests)
        for row in connection.execute(sa.select(texts.c.digest, texts.c.id).where(here & texts.c.digest.in_(some)))
    }


def _mark_copies(database: Database, connection: sa.Connection, collection_id: str, fresh: Mapping[int, str]) -> None:
    """Say of each of ``fresh``, texts by id, which older text it says the same as: itself, if none."""
    for text_id, text in fresh.items():
        numbers = bands_of(text)
        original = _original(connection, collection_id, numbers, text)
        marked = texts.update().where(texts.c.id == text_id)
        connection.execute(marked.values(like_id=text_id if original is None else original))
        rows = [{"collection_id": collection_id, "band": number, "text_id": text_id} for number in numbers]
        connection.execute(database.insert_new(bands), rows)


def _original(connection: sa.Connection, collection_id: str, numbers: Sequence[int], text: str) -> int | None:
    meeting = (bands.c.collection_id == collection_id) & bands.c.band.in_(numbers)
    query = (
        sa.select(texts.c.id, texts.c.text, texts.c.like_id)
        .where(texts.c.id.in_(sa.select(bands.c.text_id).where(meeting)))
        .order_by(texts.c.id)
        .limit(RIVALS)
    )
    for row in connection.execute(query).all():
        if alike(row.text, text):
            return int(row.like_id or row.id)
    return None


def insert_chunks(
    connection: sa.Connection,
    collection_id: str,
    version_id: str,
    first: int,
    pieces: Sequence[Chunk],
    ids: Mapping[str, int],
) -> None:
    """Add the chunks of a version from sequence number ``first`` on; ``ids`` are those of their texts by digest."""
    rows: list[dict[str, Any]] = [
        {
            "collection_id": collection_id, "seq": seq, "id": digest(version_id, str(c.start), str(c.end)),
            "version_id": version_id, "text_id": ids[c.digest], "start": c.start, "end": c.end, "kind": c.kind.value,
            "page": c.page, "section": list(c.section),
        }
        for seq, c in enumerate(pieces, first)
    ]  # fmt: skip
    if rows:
        connection.execute(chunks.insert(), rows)
