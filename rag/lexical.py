"""The lexical index: owns the BM25 library. Finds the terms of a question in the passages.

The score is BM25 as in Lucene 8 (Kamphuis et al., "Which BM25 Do You Mean?", ECIR 2020, formula "Lucene (accurate)"):

    score(q, d) = sum over t in q of  idf(t) * tf / (tf + k1 * (1 - b + b * |d| / avgdl))
    idf(t)      = ln(1 + (N - df + 0.5) / (df + 0.5))

N and df count the rows that are live now, on both sides of the seal; avgdl is the mean length of the rows at the last
sealing (of the live tail before the first). So sealing and retiring change no score but through avgdl.
bm25s keeps, for every word, the rows it occurs in with their finished scores; since the idf of its day is known, a
query scales it to the idf of today. `exact_scores` is the plain twin, word for word the formula above.

Knows no vector, and nothing of words: what a term is, `rag.words` says.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bm25s
import numpy as np

from rag.catalog import Catalog
from rag.dense import Mask, merge, top, within
from rag.errors import IndexDamaged
from rag.lifecycle import STEP, DerivedIndex, Snapshot
from rag.protocols import Hits, Rows
from rag.settings import IndexSettings
from rag.words import ANALYSER, Analyser

logging.getLogger("bm25s").setLevel(logging.WARNING)  # it logs each step at a level of its own

K1 = 1.2
B = 0.75

Scores = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class LexicalPart:
    """An opened sealed part: for term number t, rows ``rows[starts[t]:starts[t+1]]`` with BM25 scores ``scores[...]``.

    ``idf`` is by term, as it was when the part was made; ``length`` the sum and ``avgdl`` the mean of row lengths.
    """

    terms: Mapping[str, int]
    scores: Scores
    rows: np.ndarray[Any, np.dtype[np.int32]]
    starts: np.ndarray[Any, np.dtype[np.int64]]
    idf: Scores
    avgdl: float


@dataclass(slots=True)
class LexicalTail:
    """The rows after the seal: ``postings`` maps a term to its (row, count) pairs; rows count from 0. Only ever grows.

    A snapshot sees the first ``size`` rows of it; what was appended since has higher numbers and is cut off.
    """

    size: int = 0
    postings: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list)


class LexicalIndex(DerivedIndex[LexicalPart, LexicalTail]):
    """The words of one collection; the query is the text of a question."""

    kind = "lexical"

    def __init__(self, catalog: Catalog, collection_id: str, folder: Path, settings: IndexSettings) -> None:
        self._analyser = Analyser()
        super().__init__(catalog, collection_id, ANALYSER, folder, settings)

    def search(self, query: str, k: int, allowed: Rows | None = None) -> Hits:
        """See `rag.protocols.Index`. Only rows that hold at least one term of the query are hits."""
        now = self.current()
        terms = Counter(self._analyser.terms(query))
        rows = int(now.sealed_alive.sum()) + int(now.tail_alive.sum())
        sealed = np.zeros(len(now.sealed_seqs), dtype=np.float32)
        tail = np.zeros(len(now.tail_seqs), dtype=np.float32)
        avgdl = average_length(now)
        for term, times in terms.items():
            in_sealed, old = _postings(now.part, term)
            in_tail, counts = _tail_postings(now.tail, term, len(tail))
            found = int(now.sealed_alive[in_sealed].sum()) + int(now.tail_alive[in_tail].sum())
            weight = times * idf(rows, found)
            if now.part is not None and len(in_sealed):
                sealed[in_sealed] += old * np.float32(weight / now.part.idf[now.part.terms[term]])
            if len(in_tail):
                lengths = np.array([now.tail.lengths[row] for row in in_tail])
                tail[in_tail] += (weight * saturation(counts, lengths, avgdl)).astype(np.float32)
        a = _hits(now.sealed_seqs, sealed, within(now.sealed_seqs, now.sealed_alive, allowed), k)
        b = _hits(now.tail_seqs, tail, within(now.tail_seqs, now.tail_alive, allowed), k)
        return merge(a, b, k)

    # -- life cycle --------------------------------------------------------------------------------------------------

    def _empty_tail(self) -> LexicalTail:
        return LexicalTail()

    def _grown_tail(self, tail: LexicalTail, after: int, last: int) -> tuple[Rows, LexicalTail]:
        new = self._catalog.text_rows(self._collection_id, after, last)
        for number, row in enumerate(new, tail.size):
            terms = Counter(self._analyser.terms(row.text))
            tail.lengths.append(terms.total())
            for term, count in terms.items():
                tail.postings.setdefault(term, []).append((number, count))
        # The lists are shared with older snapshots, which look no further than their own size.
        grown = LexicalTail(tail.size + len(new), tail.postings, tail.lengths)
        return np.array([row.seq for row in new], dtype=np.int64), grown

    def _write_part(self, folder: Path, last: int) -> tuple[Rows, dict[str, Any]]:
        vocabulary: dict[str, int] = {}
        rows: list[list[int]] = []
        seqs: list[int] = []
        for start in range(0, last, STEP):
            for row in self._catalog.text_rows(self._collection_id, start, min(start + STEP, last)):
                seqs.append(row.seq)
                rows.append([vocabulary.setdefault(t, len(vocabulary)) for t in self._analyser.terms(row.text)])
        length = sum(map(len, rows))
        if vocabulary:
            index = bm25s.BM25(k1=K1, b=B, method="lucene")
            index.index((rows, vocabulary), create_empty_token=False, show_progress=False)
            for name in ("data", "indices", "indptr"):
                np.save(folder / f"{name}.npy", index.scores[name])
            (folder / "vocabulary.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
        return np.array(seqs, dtype=np.int64), {"k1": K1, "b": B, "terms": len(vocabulary), "length": length}

    def _open_part(self, folder: Path, manifest: Mapping[str, Any]) -> LexicalPart:
        rows = manifest["rows"]
        if (manifest["k1"], manifest["b"]) != (K1, B):
            raise IndexDamaged(f"It was made with k1 = {manifest['k1']} and b = {manifest['b']}.")
        if not manifest["terms"]:
            nothing = np.zeros(0, dtype=np.float32)
            return LexicalPart({}, nothing, np.zeros(0, np.int32), np.zeros(1, np.int64), nothing, 1.0)
        vocabulary = json.loads((folder / "vocabulary.json").read_text())
        data, indices, starts = (np.load(folder / f"{n}.npy", mmap_mode="r") for n in ("data", "indices", "indptr"))
        frequencies = np.diff(starts)
        idfs = np.log1p((rows - frequencies + 0.5) / (frequencies + 0.5)).astype(np.float32)
        return LexicalPart(vocabulary, data, indices, starts, idfs, manifest["length"] / rows)


def average_length(now: Snapshot[LexicalPart, LexicalTail]) -> float:
    """Return the avgdl of a snapshot, see above; 1 when there is nothing to average."""
    if now.part is not None:
        return now.part.avgdl
    lengths = np.array(now.tail.lengths[: len(now.tail_alive)])[now.tail_alive]
    return float(lengths.mean()) if len(lengths) and lengths.any() else 1.0


def idf(rows: int, found: int) -> float:
    """Return the weight of a term that ``found`` of ``rows`` rows hold."""
    return float(np.log1p((rows - found + 0.5) / (found + 0.5)))


def saturation(
    counts: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any], avgdl: float
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return tf / (tf + k1 (1 - b + b |d| / avgdl)) for parallel arrays of counts and row lengths."""
    result: np.ndarray[Any, np.dtype[np.float64]] = counts / (counts + K1 * (1 - B + B * lengths / avgdl))
    return result


def exact_scores(query: Sequence[str], rows: Sequence[Sequence[str]], avgdl: float) -> list[float]:
    """Return the BM25 score of each row (its terms) for the terms of a query: the plain twin of `LexicalIndex`."""
    scores = []
    for row in rows:
        total = 0.0
        for term in query:
            weight = idf(len(rows), sum(term in other for other in rows))
            tf = row.count(term)
            total += weight * tf / (tf + K1 * (1 - B + B * len(row) / avgdl)) if tf else 0.0
        scores.append(total)
    return scores


def _postings(part: LexicalPart | None, term: str) -> tuple[np.ndarray[Any, np.dtype[np.int32]], Scores]:
    number = part.terms.get(term) if part is not None else None
    if part is None or number is None:
        return np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
    span = slice(int(part.starts[number]), int(part.starts[number + 1]))
    return part.rows[span], part.scores[span]


def _tail_postings(tail: LexicalTail, term: str, size: int) -> tuple[Rows, Rows]:
    pairs = [pair for pair in tail.postings.get(term, ()) if pair[0] < size]
    both = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _hits(seqs: Rows, scores: Scores, mask: Mask, k: int) -> Hits:
    positions = np.flatnonzero(mask & (scores > 0))
    return top(seqs[positions], scores[positions], k)
