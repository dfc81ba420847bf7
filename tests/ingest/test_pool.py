"""The pool of chunks that wait: each row gets the vector of its own text, equal texts cost one, nobody waits long."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ingest.pool import CHOICE, Batch, Order, Pool
from rag.protocols import Encoding
from rag.records import Chunk, Kind
from tests.contracts.strategies import DIMENSION, vectors_for

#: Few different texts, so that most of them come more than once.
TEXTS = st.lists(st.sampled_from([f"{word} {n}" for word in ("tide", "storm") for n in range(6)]), max_size=12)


def chunk_of(text: str, tokens: int | None = None) -> Chunk:
    return Chunk(text, "", 0, len(text), Kind.TEXT, None, (), len(text) if tokens is None else tokens)


def order_of(texts: list[str]) -> Order:
    return Order.of([chunk_of(text) for text in texts], {}, DIMENSION)


def numbered(name: str, count: int, tokens: int = 10) -> Order:
    return Order.of([chunk_of(f"{name} {n}", tokens) for n in range(count)], {}, DIMENSION)


def encoding_of(texts: Sequence[str]) -> Encoding:
    """What an embedder would make of texts: their codes are the bytes that their vectors begin with."""
    vectors = vectors_for(texts)
    return Encoding(vectors, codes=tuple(np.frombuffer(v.tobytes()[:2], np.uint8).reshape(2, 1) for v in vectors))


def names_in(batch: Batch) -> set[str]:
    return {text.split()[0] for text in batch.texts}


class Interleavings(RuleBasedStateMachine):
    """Orders come, are taken, brought, given back and dropped in any order; batches may be on their way meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool()
        self.orders: list[Order] = []
        self.dropped: list[Order] = []
        self.complete: list[Order] = []
        self.taken: list[Batch] = []
        self.embedded: list[str] = []
        self.fresh: dict[int, list[int]] = {}

    @rule(texts=TEXTS)
    def add(self, texts: list[str]) -> None:
        order = order_of(texts)
        self.orders.append(order)
        if self.pool.add(order):
            self.complete.append(order)

    @rule(most=st.integers(1, 5))
    def take(self, most: int) -> None:
        batch = self.pool.take(most)
        away = {text for other in self.taken for text in other.texts}
        assert len(batch.texts) == len(set(batch.texts)) == len(set(batch.digests)) <= most
        assert not away.intersection(batch.texts)
        waiting = {order.chunks[row].text for order in self.orders for row in order.missing}
        assert bool(batch.texts) == bool(waiting - away)
        if batch.texts:
            self.taken.append(batch)

    @precondition(lambda self: self.taken)
    @rule(which=st.integers(0))
    def bring(self, which: int) -> None:
        batch = self.taken.pop(which % len(self.taken))
        self.embedded += batch.texts
        self.complete += self.pool.bring(batch, encoding_of(batch.texts))

    @precondition(lambda self: self.taken)
    @rule(which=st.integers(0))
    def give_back(self, which: int) -> None:
        self.pool.give_back(self.taken.pop(which % len(self.taken)))

    @precondition(lambda self: self.orders)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        order = data.draw(st.sampled_from(self.orders))
        self.pool.drop(order)
        if order.missing:
            self.orders.remove(order)
            self.dropped.append(order)

    @precondition(lambda self: self.orders)
    @rule(data=st.data())
    def take_fresh(self, data: st.DataObject) -> None:
        order = data.draw(st.sampled_from(self.orders))
        self.fresh.setdefault(id(order), []).extend(order.take_fresh())

    @invariant()
    def a_text_is_embedded_once(self) -> None:
        assert len(self.embedded) == len(set(self.embedded))

    @invariant()
    def what_is_not_missing_has_its_own_vector(self) -> None:
        for order in self.orders:
            there = [row for row in range(len(order.chunks)) if row not in order.missing]
            expected = encoding_of([order.chunks[row].text for row in there])
            assert np.array_equal(order.vectors[there], expected.vectors)
            assert all(np.array_equal(order.codes[row], c) for row, c in zip(there, expected.codes, strict=True))

    @invariant()
    def fresh_rows_come_once(self) -> None:
        for rows in self.fresh.values():
            assert len(rows) == len(set(rows))

    @invariant()
    def what_waits_is_counted(self) -> None:
        assert len(self.pool) == sum(len(order.missing) for order in self.orders)

    def teardown(self) -> None:
        """All that is left comes to its end, in as many batches as there are texts at most."""
        for _ in range(100):
            while self.taken:
                self.bring(0)
            batch = self.pool.take(3)
            self.taken = [batch] if batch.texts else []
        assert len(self.pool) == 0
        assert len(self.complete) == len({id(order) for order in self.complete})
        assert {id(order) for order in self.orders} <= {id(order) for order in self.complete}
        self.a_text_is_embedded_once()
        self.what_is_not_missing_has_its_own_vector()


Interleavings.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestInterleavings = Interleavings.TestCase


@given(st.lists(TEXTS, max_size=4), st.integers(1, 6))
def test_a_batch_falls_apart_by_documents_without_loss(documents, most):
    """`apart` gives every place to the document whose it is, once, with the text that it is for."""
    pool = Pool()
    for texts in documents:
        pool.add(order_of(texts))
    batch = pool.take(most)
    parts = batch.apart()
    places = [place for _, part in parts for some in part.places for place in some]
    assert sorted((id(o), row) for o, row in places) == sorted((id(o), r) for some in batch.places for o, r in some)
    assert len({id(order) for order, _ in parts}) == len(parts)
    for order, part in parts:
        for text, digest, some in zip(part.texts, part.digests, part.places, strict=True):
            assert all(o is order and order.chunks[row].text == text for o, row in some)
            assert all(order.chunks[row].digest == digest for _, row in some)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(1, 8))
def test_the_texts_of_a_batch_are_neighbours_in_length(lengths, most):
    """Among those it is chosen from, no text that is left lies strictly between two that are taken."""
    pool = Pool()
    order = Order.of([chunk_of(f"text {n}", tokens) for n, tokens in enumerate(lengths)], {}, DIMENSION)
    pool.add(order)
    batch = pool.take(most)
    taken = {row for some in batch.places for _, row in some}
    assert len(taken) == min(most, len(lengths))
    assert 0 in taken
    shortest, longest = min(lengths[row] for row in taken), max(lengths[row] for row in taken)
    left = [lengths[row] for row in range(min(CHOICE * most, len(lengths))) if row not in taken]
    assert not [length for length in left if shortest < length < longest]


def test_the_oldest_document_goes_on_in_every_second_batch_while_small_ones_keep_coming():
    pool, large = Pool(), numbered("large", 40)
    pool.add(large)
    progress = []
    for n in range(40):
        pool.add(numbered(f"small{n}", 4))
        before = len(large.missing)
        batch = pool.take(4)
        pool.bring(batch, encoding_of(batch.texts))
        progress.append(len(large.missing) < before)
    assert not [n for n in range(0, 39, 2) if large.missing and not any(progress[n : n + 2])]
    assert not large.missing


@pytest.mark.parametrize("size", [1, 3, 8])
def test_a_small_document_does_not_wait_for_the_end_of_a_large_one(size):
    """Of texts of one length it needs two batches at most, however much waits before it."""
    pool, large, small = Pool(), numbered("large", 400), numbered("small", size)
    pool.add(large)
    pool.add(small)
    for _ in range(2):
        batch = pool.take(8)
        pool.bring(batch, encoding_of(batch.texts))
    assert not small.missing
    assert len(large.missing) >= 400 - 16


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8, unique=True))
def test_a_small_document_of_mixed_lengths_has_a_text_in_every_second_batch(lengths):
    """The texts beside its own are chosen by length, and yet every second batch begins with one of its own."""
    pool, small = Pool(), Order.of([chunk_of(f"small {n}", n) for n in lengths], {}, DIMENSION)
    pool.add(Order.of([chunk_of(f"large {n}", 1 + n % 30) for n in range(400)], {}, DIMENSION))
    pool.add(small)
    for _ in range(2 * len(lengths)):
        batch = pool.take(4)
        pool.bring(batch, encoding_of(batch.texts))
    assert not small.missing


def test_an_order_of_known_texts_is_complete_at_once():
    """Vectors of texts that were embedded a moment ago, or are known to the catalog, are not asked for."""
    pool, first = Pool(), numbered("tide", 3)
    pool.add(first)
    batch = pool.take(8)
    assert pool.bring(batch, encoding_of(batch.texts)) == [first]
    again = numbered("tide", 3)
    assert pool.add(again)
    assert np.array_equal(again.vectors, vectors_for(["tide 0", "tide 1", "tide 2"]))
    known = {chunk_of("storm").digest: (vectors_for(["storm"])[0], np.zeros((0, 1), np.uint8))}
    half = Order.of([chunk_of("storm"), chunk_of("ebb")], known, DIMENSION)
    assert (half.missing, half.done) == ([1], 0.5)
    assert names_in(Batch(("ebb",), ("x",), ((),))) == {"ebb"}


def test_a_text_that_comes_while_it_is_being_embedded_is_not_embedded_again():
    """A copy that is read while the batch with its text is in the model gets its vector from that batch."""
    pool, first, copy = Pool(), numbered("tide", 2), numbered("tide", 2)
    pool.add(first)
    batch = pool.take(8)
    assert not pool.add(copy)
    complete = pool.bring(batch, encoding_of(batch.texts))
    assert complete == [first, copy]
    assert len(pool) == 0
    assert np.array_equal(copy.vectors, first.vectors)
