"""Batches: which files came together and how far each is, also those that were refused, retried or purged."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from rag.catalog import Catalog
from rag.errors import NotFound
from rag.records import Member, ParsedDocument, State
from tests.contracts.strategies import EMBEDDER, chunks_of, parsed_of, vectors_for


def finish(catalog: Catalog, batch: str, members: tuple[Member, ...] = (), texts: tuple[str, ...] = ("storm",)) -> str:
    """Claim the next file of a batch and commit it; return its name."""
    version = catalog.claim("w", 60, batch=batch)
    assert version is not None
    parsed = parsed_of(texts)
    parsed = ParsedDocument(parsed.elements, "text/plain", members=members)
    assert catalog.commit(version.id, "w", parsed, chunks_of(parsed), vectors_for(texts), EMBEDDER)
    return version.name


def test_a_batch_counts_every_file_with_its_bytes(catalog, collection):
    """One ready, one failed, one that waits, one refused, one that came again: all are counted, each once."""
    batch = catalog.open_batch(collection)
    assert catalog.batch(batch).ended_at == catalog.batch(batch).created_at
    for name, size in (("a", 10), ("b", 20), ("c", 40)):
        catalog.accept(collection, name, name * 64, size, batch=batch)
    catalog.refuse(batch, "huge.bin", "document_too_large", "It is too large.")
    assert finish(catalog, batch, texts=("storm", "tide")) == "a"
    failed = catalog.claim("w", 60, batch=batch)
    catalog.fail(failed.id, "w", "document_damaged", "It is damaged.")
    found = catalog.batch(batch)
    assert dict(found.states) == {State.READY: 1, State.FAILED: 1, State.QUEUED: 1, "refused": 1}
    assert (found.files, found.ended, found.size, found.size_ended, found.passages) == (4, 3, 70, 30, 2)
    assert found.ended_at is None
    finish(catalog, batch)
    assert catalog.batch(batch).ended_at >= found.created_at
    assert [(f.number, f.name, f.outcome, f.error) for f in catalog.batch_files(batch)] == [
        (0, "a", "added", None), (1, "b", "added", "It is damaged."), (2, "c", "added", None),
        (3, "huge.bin", "refused", "It is too large."),
    ]  # fmt: skip
    assert [f.number for f in catalog.batch_files(batch, after=0, limit=2)] == [1, 2]
    past, later = found.created_at - timedelta(seconds=1), datetime.now(UTC) + timedelta(minutes=1)
    assert catalog.ended_since(batch, past) == (3, 70)
    assert catalog.ended_since(batch, later) == (0, 0)


def test_a_file_that_is_unchanged_has_ended_and_adds_no_passage(catalog, collection):
    first = catalog.open_batch(collection)
    catalog.accept(collection, "a", "a" * 64, 10, batch=first)
    finish(catalog, first)
    second = catalog.open_batch(collection)
    catalog.accept(collection, "a", "a" * 64, 10, batch=second)
    found = catalog.batch(second)
    assert (dict(found.states), found.passages, found.size_ended) == ({State.READY: 1}, 0, 10)
    assert found.ended_at is not None
    assert catalog.batch(first).passages == 1


def test_what_is_inside_a_file_joins_its_batch(catalog, collection):
    """Members are queued in it, those that could not be taken out are named in it, and an unknown batch is an error."""
    batch = catalog.open_batch(collection)
    catalog.accept(collection, "a.zip", "a" * 64, 10, {"year": 2026}, batch=batch)
    members = (Member("x", "b" * 64, 3), Member("../y", "", 0, "Its name leads out."), Member("sub/z", "c" * 64, 4))
    finish(catalog, batch, members, ())
    assert [(f.name, f.outcome, f.error_code) for f in catalog.batch_files(batch)] == [
        ("a.zip", "added", None), ("a.zip/x", "added", None), ("a.zip/../y", "refused", "member_refused"),
        ("a.zip/sub/z", "added", None),
    ]  # fmt: skip
    assert {finish(catalog, batch), finish(catalog, batch)} == {"a.zip/x", "a.zip/sub/z"}
    parent = catalog.find_document(collection, "a.zip").id
    inside = catalog.find_document(collection, "a.zip/sub/z")
    assert (inside.parent_id, dict(inside.newest.metadata), catalog.depth(inside.id)) == (parent, {"year": 2026}, 1)
    assert catalog.batch(batch).ended_at is not None
    with pytest.raises(NotFound, match="no batch"):
        catalog.accept(collection, "b", "b" * 64, 1, batch="f" * 32)
    with pytest.raises(NotFound, match="no batch"):
        catalog.batch("f" * 32)


def test_a_file_that_is_retried_belongs_to_the_batch_that_brought_it_again(catalog, collection):
    """So do the files inside it: who waits for the batch waits for them."""
    first = catalog.open_batch(collection)
    catalog.accept(collection, "a.zip", "a" * 64, 10, batch=first)
    catalog.fail(catalog.claim("w", 60).id, "w", "internal", "It did not work.")
    second = catalog.open_batch(collection)
    catalog.accept(collection, "a.zip", "a" * 64, 10, batch=second)
    finish(catalog, second, (Member("x", "b" * 64, 3),), ())
    assert [f.name for f in catalog.batch_files(second)] == ["a.zip", "a.zip/x"]
    assert finish(catalog, second) == "a.zip/x"
    assert [f.name for f in catalog.batch_files(first)] == ["a.zip"]


def test_a_retried_file_stands_in_line_with_those_that_come_now(catalog, collection):
    """It does not go before all that have waited since it failed."""
    catalog.accept(collection, "early", "a" * 64, 1)
    catalog.fail(catalog.claim("w", 60).id, "w", "internal", "It did not work.")
    bulk = catalog.open_batch(collection)
    for n in range(4):
        catalog.accept(collection, f"bulk{n}", f"{n}" * 64, 1, batch=bulk)
    finish(catalog, bulk)
    late = catalog.open_batch(collection)
    for n, (name, sha) in enumerate((("late", "e" * 64), ("early", "a" * 64))):
        _, outcome = catalog.accept(collection, name, sha, 1, batch=late)
        assert outcome == ("added", "retried")[n]
    assert [catalog.claim("w", 60).name for _ in range(5)] == ["bulk1", "late", "early", "bulk2", "bulk3"]


def test_the_last_batches_come_first(catalog, collection):
    ids = [catalog.open_batch(collection) for _ in range(3)]
    assert [batch.id for batch in catalog.list_batches(collection, limit=2)] == ids[:0:-1]
