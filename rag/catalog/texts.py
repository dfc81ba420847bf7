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
from rag.protocols import Codes, Vectors
from rag.records import Chunk, digest
from rag.schema import bands, chunks, texts, vectors

#: Most texts that a new one is compared with, of those that share a band with it.
RIVALS = 50


def vectors_of(blobs: Sequence[bytes]) -> Vectors:
    """Return the vectors (n, dimension) that are kept in ``blobs``, all of one length."""
    width = len(blobs[0]) // 2 if blobs else 0
    return np.frombuffer(b"".join(blobs), dtype="<f2").reshape(len(blobs), width).astype(np.float32)


def codes_of(blob: bytes | None, dimension: int) -> Codes:
    """Return the codes (n, dimension / 8) that are kept in ``blob``: none where nothing is."""
    return np.frombuffer(blob or b"", dtype=np.uint8).reshape(-1, -(-dimension // 8))


def known_vectors(
    connection: sa.Connection, collection_id: str, embedder: str, digests: Sequence[str]
) -> dict[str, tuple[Vectors, Codes]]:
    """Return the vectors and codes that are kept under ``embedder`` for texts of a collection, by digest."""
    query = sa.select(texts.c.digest, vectors.c.vector, vectors.c.codes)
    query = query.join(vectors, vectors.c.text_id == texts.c.id)
    query = query.where((texts.c.collection_id == collection_id) & (vectors.c.embedder == embedder))
    return {
        row.digest: (vectors_of([row.vector])[0], codes_of(row.codes, len(row.vector) // 2))
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
    codes: Sequence[Codes] = (),
) -> dict[str, int]:
    """Keep the texts of ``pieces`` and their vectors (n, d), those that are not there; return all their ids by digest.

    ``codes`` are kept beside the vectors if there are any. A new text that is a near-copy of one in the collection is
    marked as such.
    """
    packed: list[bytes | None] = [code.tobytes() for code in codes] or [None] * len(pieces)
    halved = embedded.astype("<f2")
    by_digest = {
        piece.digest: (piece, vector.tobytes(), code)
        for piece, vector, code in zip(pieces, halved, packed, strict=True)
    }
    there = _ids(connection, collection_id, list(by_digest))
    fresh = [(name, piece) for name, (piece, _, _) in by_digest.items() if name not in there]
    rows = [
        {"collection_id": collection_id, "digest": name, "context": p.context, "text": p.text, "tokens": p.tokens}
        for name, p in fresh
    ]
    if rows:  # all writers insert in one order, so that none waits for another that waits for it
        connection.execute(database.insert_new(texts), sorted(rows, key=lambda row: str(row["digest"])))
        names = [name for name, _ in fresh]
        there |= _ids(connection, collection_id, names)
        # On PostgreSQL another transaction may have been faster with some of them, and has marked those.
        alone = connection.dialect.name == "sqlite"
        ours = there if alone else _ids(connection, collection_id, names, unmarked=True)
        _mark_copies(database, connection, collection_id, {ours[n]: p.text for n, p in fresh if n in ours})
    blobs = [
        {"text_id": there[name], "embedder": embedder, "vector": by_digest[name][1], "codes": by_digest[name][2]}
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
    """Say of each of ``fresh``, texts by id, which text before it says the same: itself, if none."""
    numbers = {text_id: bands_of(text) for text_id, text in fresh.items()}
    meeting = _meeting(connection, collection_id, sorted({n for some in numbers.values() for n in some}), fresh)
    known = _known_texts(connection, sorted({text_id for ids in meeting.values() for text_id in ids}))
    marks: list[dict[str, int]] = []
    for text_id, text in fresh.items():
        rivals = sorted({rival for number in numbers[text_id] for rival in meeting[number]})[:RIVALS]
        like_id = next((known[rival][1] for rival in rivals if alike(known[rival][0], text)), text_id)
        known[text_id] = text, like_id
        marks.append({"marked": text_id, "like_id": like_id})
        for number in numbers[text_id]:
            meeting[number].add(text_id)
    if marks:
        mine = texts.c.id == sa.bindparam("marked")
        connection.execute(texts.update().where(mine).values(like_id=sa.bindparam("like_id")), marks)
        rows = [
            {"collection_id": collection_id, "band": number, "text_id": text_id}
            for text_id, some in numbers.items()
            for number in some
        ]
        connection.execute(database.insert_new(bands), rows)


def _meeting(
    connection: sa.Connection, collection_id: str, numbers: Sequence[int], but: Mapping[int, str]
) -> dict[int, set[int]]:
    """Return which texts of a collection stand under each of ``numbers``."""
    found: dict[int, set[int]] = {number: set() for number in numbers}
    for some in slices(numbers):
        here = (bands.c.collection_id == collection_id) & bands.c.band.in_(some)
        for row in connection.execute(sa.select(bands.c.band, bands.c.text_id).where(here)):
            if row.text_id not in but:
                found[row.band].add(row.text_id)
    return found


def _known_texts(connection: sa.Connection, text_ids: Sequence[int]) -> dict[int, tuple[str, int]]:
    """Return texts with the ids of what they are like, by id."""
    query = sa.select(texts.c.id, texts.c.text, texts.c.like_id)
    return {
        row.id: (row.text, row.like_id or row.id)
        for some in slices(text_ids)
        for row in connection.execute(query.where(texts.c.id.in_(some)))
    }


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
