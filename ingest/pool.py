"""The chunks that wait for their vectors, of all documents in hand; chooses which go into the next batch.

Every second batch begins with the document that waits longest, the others with the one that needs least: a small file
does not wait for the end of a large one, and a large one goes on while small ones keep coming. The rest of a batch are
texts of like length, so that little of it is padding. Equal texts are embedded once. Knows no embedder and no catalog.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from rag.protocols import Codes, Encoding, Vectors
from rag.records import Chunk

#: A batch is chosen from so many times as many texts.
CHOICE = 4
#: Vectors of texts embedded last that are remembered, for copies that are read at the same time.
RECENT = 4096


@dataclass(eq=False)
class Order:
    """The chunks of one document with their vectors (n, dimension) and codes; rows ``missing`` are still to come."""

    chunks: Sequence[Chunk]
    vectors: Vectors
    codes: list[Codes]
    missing: list[int]
    #: Rows that came since they were last taken by `take_fresh`.
    fresh: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, chunks: Sequence[Chunk], known: Mapping[str, tuple[Vectors, Codes]], dimension: int) -> Order:
        """Order what is not in ``known``, vectors and codes by digest."""
        none = np.zeros((0, -(-dimension // 8)), dtype=np.uint8)
        order = cls(chunks, np.zeros((len(chunks), dimension), dtype=np.float32), [none] * len(chunks), [])
        for row, chunk in enumerate(chunks):
            if chunk.digest in known:
                order.fill(row, known[chunk.digest])
            else:
                order.missing.append(row)
        return order

    def fill(self, row: int, embedded: tuple[Vectors, Codes]) -> None:
        """Put in what came for a row; it counts as missing until it is taken off that list."""
        self.vectors[row], self.codes[row] = embedded

    def take_fresh(self) -> list[int]:
        """Return the rows that came since the last call."""
        rows, self.fresh = self.fresh, []
        return rows

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """The digests of all chunks, which every batch asks for."""
        return tuple(chunk.digest for chunk in self.chunks)

    @property
    def done(self) -> float:
        """The share that has come."""
        return 1.0 if not self.chunks else 1 - len(self.missing) / len(self.chunks)


@dataclass(frozen=True, slots=True)
class Batch:
    """Texts to embed, and for each the (order, row) places that want its vector."""

    texts: tuple[str, ...]
    digests: tuple[str, ...]
    places: tuple[tuple[tuple[Order, int], ...], ...]

    def apart(self) -> list[tuple[Order, Batch]]:
        """Return what the batch holds of each order by itself."""
        orders = dict.fromkeys(order for places in self.places for order, _ in places)
        return [(order, self._of(order)) for order in orders]

    def _of(self, wanted: Order) -> Batch:
        rows = [
            (text, digest, tuple(place for place in places if place[0] is wanted))
            for text, digest, places in zip(self.texts, self.digests, self.places, strict=True)
        ]
        mine = [row for row in rows if row[2]]
        return Batch(tuple(r[0] for r in mine), tuple(r[1] for r in mine), tuple(r[2] for r in mine))


class Pool:
    """Orders in hand. Thread-safe. Several batches may be taken at a time; each is brought, or else given back."""

    def __init__(self) -> None:
        self._orders: list[Order] = []
        self._taken: set[str] = set()
        self._recent: OrderedDict[str, tuple[Vectors, Codes]] = OrderedDict()
        self._oldest_first = True
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many chunks wait for their vectors, taken or not."""
        return sum(len(order.missing) for order in list(self._orders))

    def add(self, order: Order) -> bool:
        """Put an order in line; True if what was embedded a moment ago for others makes it complete at once."""
        with self._lock:
            self._fill(order)
            if order.missing:
                self._orders.append(order)
            return not order.missing

    def drop(self, order: Order) -> None:
        """Take an order out; it may not be in."""
        with self._lock:
            if order in self._orders:
                self._orders.remove(order)

    def take(self, most: int) -> Batch:
        """Return a batch of at most ``most`` different texts; empty if nothing waits that is not taken already."""
        with self._lock:
            wanted: dict[str, list[tuple[Order, int]]] = {}
            for order in self._line():
                for row in order.missing:
                    digest = order.digests[row]
                    if digest not in self._taken and (digest in wanted or len(wanted) < CHOICE * most):
                        wanted.setdefault(digest, []).append((order, row))
            self._oldest_first = not self._oldest_first
            chosen = _alike(wanted, most)
            self._taken.update(chosen)
        texts = tuple(places[0][0].chunks[places[0][1]].indexed_text for places in chosen.values())
        return Batch(texts, tuple(chosen), tuple(map(tuple, chosen.values())))

    def bring(self, batch: Batch, encoding: Encoding) -> list[Order]:
        """Hand out the vectors and codes of a batch; return the orders that are complete now, taken out."""
        with self._lock:
            self._taken.difference_update(batch.digests)
            embedded = zip(batch.digests, batch.places, encoding.vectors, encoding.codes, strict=True)
            for digest, places, vector, codes in embedded:
                self._recent[digest] = vector, codes
                for order, row in places:
                    order.fill(row, self._recent[digest])
                    order.fresh.append(row)
            brought: dict[int, set[int]] = {}
            for order, row in (place for places in batch.places for place in places):
                brought.setdefault(id(order), set()).add(row)
            for order in self._orders:
                rows = brought.get(id(order), set())
                order.missing = [row for row in order.missing if row not in rows]
                self._fill(order)  # it may have come while the batch was in the model
            while len(self._recent) > RECENT:
                self._recent.popitem(last=False)
            complete = [order for order in self._orders if not order.missing]
            self._orders = [order for order in self._orders if order.missing]
        return complete

    def give_back(self, batch: Batch) -> None:
        """Let what was taken be taken again, but for what was brought meanwhile."""
        with self._lock:
            self._taken.difference_update(batch.digests)

    def _fill(self, order: Order) -> None:
        """Give an order the vectors of those of its texts that were embedded a moment ago."""
        known = [row for row in order.missing if order.digests[row] in self._recent]
        for row in known:
            order.fill(row, self._recent[order.digests[row]])
        if known:
            order.missing = [row for row in order.missing if order.digests[row] not in self._recent]

    def _line(self) -> list[Order]:
        """Return the orders in the order in which the next batch takes of them."""
        by_need = sorted(self._orders, key=lambda order: len(order.missing))
        if not self._oldest_first or not self._orders:
            return by_need
        oldest = self._orders[0]
        return [oldest, *(order for order in by_need if order is not oldest)]


def _alike(wanted: Mapping[str, list[tuple[Order, int]]], most: int) -> dict[str, list[tuple[Order, int]]]:
    """Return the first of ``wanted`` with those next to it in length, ``most`` in all, by length."""
    if not wanted:
        return {}
    first = next(iter(wanted))
    by_length = sorted(wanted, key=lambda digest: wanted[digest][0][0].chunks[wanted[digest][0][1]].tokens)
    start = max(0, min(by_length.index(first) - most // 2, len(by_length) - most))
    return {digest: wanted[digest] for digest in by_length[start : start + most]}
