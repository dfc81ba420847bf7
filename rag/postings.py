"""Postings: for each term the rows that hold it and how often, in arrays; how they are counted, merged and kept.

A `Postings` is sorted by term, and within a term by row. Those of a sealed part are files, mapped into memory, and
their terms are found by bisection of one sorted list of words, so that opening a part reads nothing. Knows no score,
no catalog, and nothing of what a term is.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from rag.errors import IndexDamaged
from rag.hits import Mask

Integers = np.ndarray[Any, np.dtype[np.integer[Any]]]
#: The files of kept postings; `words` are the terms in UTF-8, one behind the other, `ends` where each ends.
FILES = ("words", "ends", "starts", "rows", "counts", "lengths")
#: Most terms of which the place is remembered.
REMEMBERED = 1024
#: Postings that are worked on at once while they are kept.
BLOCK = 1 << 22


@dataclass(frozen=True, slots=True)
class Postings:
    """Term ``terms[i]`` is in ``rows[starts[i]:starts[i + 1]]``, so many times as ``counts`` says there.

    ``terms`` are in order, but in a block on its way to `keep`.
    """

    terms: Integers
    starts: Integers
    rows: Integers
    counts: Integers

    def of(self, term: int) -> tuple[Integers, Integers]:
        """Return rows and counts of a term by its number; empty arrays if no row holds it."""
        place = int(np.searchsorted(self.terms, term))
        if place == len(self.terms) or self.terms[place] != term:
            return self.rows[:0], self.counts[:0]
        return self.span(place)

    def span(self, place: int) -> tuple[Integers, Integers]:
        """Return rows and counts of the term that stands at ``place`` in ``terms``."""
        span = slice(int(self.starts[place]), int(self.starts[place + 1]))
        return self.rows[span], self.counts[span]

    def of_each(self) -> Integers:
        """Return the term of each posting."""
        return np.repeat(self.terms, np.diff(self.starts))

    def blocks(self) -> Iterator[Postings]:
        """Yield all postings, of some terms at a time, so that no more than a block is in memory."""
        first = 0
        while first < len(self.terms):
            last = max(first + 1, int(np.searchsorted(self.starts, self.starts[first] + BLOCK, side="right")) - 1)
            span = slice(int(self.starts[first]), int(self.starts[last]))
            starts = self.starts[first : last + 1] - self.starts[first]
            yield Postings(self.terms[first:last], starts, self.rows[span], self.counts[span])
            first = last


@dataclass(frozen=True, slots=True)
class Run:
    """Postings that go into kept ones: the rows True in ``alive``, numbered without gaps from ``first_row`` on."""

    postings: Postings
    alive: Mask
    first_row: int = 0

    def blocks(self) -> Iterator[Postings]:
        """Yield what is alive of the postings, renumbered, of some terms at a time."""
        numbers = np.cumsum(self.alive, dtype=np.int32) - 1 + self.first_row
        for block in self.postings.blocks():
            chosen = self.alive[block.rows]
            yield grouped(block.of_each()[chosen], numbers[block.rows[chosen]], block.counts[chosen])


def grouped(terms: Integers, rows: Integers, counts: Integers) -> Postings:
    """Return parallel arrays, sorted by term and row, as postings."""
    first = np.flatnonzero(np.diff(terms, prepend=-1))
    starts = np.append(first, len(terms)).astype(np.int64)
    return Postings(terms[first], starts, rows.astype(np.int32, copy=False), counts)


def counted(texts: Sequence[Sequence[int]], first_row: int) -> Postings:
    """Return the postings of texts, each the numbers of its terms, as rows from ``first_row`` on."""
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    terms = np.fromiter((term for text in texts for term in text), dtype=np.int64, count=int(lengths.sum()))
    keys = terms * max(len(texts), 1) + np.repeat(np.arange(len(texts)), lengths)
    unique, counts = np.unique(keys, return_counts=True)
    found, rows = np.divmod(unique, max(len(texts), 1))
    return grouped(found.astype(np.int32), rows + first_row, counts.astype(np.int32))


def merged(a: Postings, b: Postings) -> Postings:
    """Return the postings of both, where all rows of ``b`` come after those of ``a``."""
    terms = np.concatenate([a.of_each(), b.of_each()])
    order = np.argsort(terms, kind="stable")
    rows, counts = np.concatenate([a.rows, b.rows]), np.concatenate([a.counts, b.counts])
    return grouped(terms[order], rows[order], counts[order])


# -- kept as files ---------------------------------------------------------------------------------------------------


class Words(Sequence[bytes]):
    """The terms of kept postings in the order of their bytes; the place in it is the number of the term."""

    def __init__(self, words: Integers, ends: Integers) -> None:
        self._words = memoryview(words)  # type: ignore[arg-type]
        self._ends = ends
        self._places: dict[str, int | None] = {}

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, place: int) -> bytes: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[bytes]: ...
    def __getitem__(self, place: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        return bytes(self._words[int(self._ends[place - 1]) if place else 0 : int(self._ends[place])])

    def place(self, term: str) -> int | None:
        """Return the number of a term, None if it is not there.

        Some are remembered: a search asks for each term twice, and questions have terms in common.
        """
        if term in (places := self._places):
            return places[term]
        if len(places) >= REMEMBERED:
            self._places = places = {}
        places[term] = found = self._looked_up(term)
        return found

    def _looked_up(self, term: str) -> int | None:
        word = term.encode(errors="surrogatepass")
        place = bisect_left(self, word)
        return place if place < len(self) and self[place] == word else None


@dataclass(frozen=True, slots=True)
class Kept:
    """Postings in files: ``words`` name the terms of ``postings``, which are all numbers; ``lengths`` are by row."""

    words: Words
    postings: Postings
    lengths: Integers

    def of(self, term: str) -> tuple[int, Integers, Integers]:
        """Return the number of a term, or -1, with its rows and counts."""
        place = self.words.place(term)
        if place is None:
            return -1, self.postings.rows[:0], self.postings.counts[:0]
        return place, *self.postings.span(place)


def keep(folder: Path, vocabulary: Sequence[str], runs: Sequence[Run], lengths: Integers) -> None:
    """Write postings that follow upon another, by the numbers of ``vocabulary``; unused terms are left out."""
    sizes, most = np.zeros(len(vocabulary), dtype=np.int64), 0
    for block in _blocks(runs):
        sizes[block.terms] += np.diff(block.starts)
        most = max(most, int(block.counts.max(initial=0)))
    words = {term: vocabulary[term].encode(errors="surrogatepass") for term in np.flatnonzero(sizes).tolist()}
    order = np.array(sorted(words, key=words.__getitem__), dtype=np.int64)
    starts = np.append(0, np.cumsum(sizes[order]))
    free = np.zeros(len(vocabulary), dtype=np.int64)  # where the next posting of each term goes
    free[order] = starts[:-1]
    rows = _empty(folder / "rows.npy", int(starts[-1]), np.dtype(np.int32))
    counts = _empty(folder / "counts.npy", int(starts[-1]), np.min_scalar_type(most))
    for block in _blocks(runs):
        numbers = np.diff(block.starts)
        goals = np.repeat(free[block.terms] - block.starts[:-1], numbers) + np.arange(len(block.rows))
        rows[goals], counts[goals] = block.rows, block.counts
        free[block.terms] += numbers
    in_order = [words[term] for term in order.tolist()]
    np.save(folder / "words.npy", np.frombuffer(b"".join(in_order), dtype=np.uint8))
    np.save(folder / "ends.npy", np.cumsum([len(word) for word in in_order], dtype=np.int64))
    np.save(folder / "starts.npy", starts)
    np.save(folder / "lengths.npy", lengths.astype(np.int32))
    _finish(rows)
    _finish(counts)


def _blocks(runs: Sequence[Run]) -> Iterator[Postings]:
    return (block for run in runs for block in run.blocks())


def open_kept(folder: Path) -> Kept:
    """Map what `keep` wrote into memory; raises `IndexDamaged`."""
    try:
        words, ends, starts, rows, counts, lengths = (_mapped(folder / f"{name}.npy") for name in FILES)
    except (OSError, ValueError) as error:
        raise IndexDamaged(f"Its postings can not be read: {error}.") from error
    if len(starts) != len(ends) + 1 or len(rows) != starts[-1] or len(counts) != len(rows):
        raise IndexDamaged("Its postings do not fit together.")
    return Kept(Words(words, ends), Postings(np.arange(len(ends)), starts, rows, counts), lengths)


def _mapped(file: Path) -> Integers:
    """Return an array in a file, mapped into memory unless it is empty."""
    with file.open("rb") as stream:
        np.lib.format.read_magic(stream)
        shape = np.lib.format.read_array_header_1_0(stream)[0]
    array: Integers = np.load(file, mmap_mode="r").view(np.ndarray) if np.prod(shape) else np.load(file)
    return array


def _empty(file: Path, size: int, dtype: np.dtype[Any]) -> Integers:
    """Return an array to be filled, in a file that it is mapped from unless it is empty."""
    if size:
        return np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=(size,))
    nothing = np.zeros(0, dtype=dtype)
    np.save(file, nothing)
    return nothing


def _finish(array: Integers) -> None:
    if isinstance(array, np.memmap):
        array.flush()
