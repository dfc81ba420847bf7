"""The lexical index: BM25 over postings. Finds the terms of a question in the passages.

The score is BM25 as in Lucene 8 (Kamphuis et al., "Which BM25 Do You Mean?", ECIR 2020, formula "Lucene (accurate)"):

    score(q, d) = sum over t in q of  idf(t) * tf / (tf + k1 * (1 - b + b * |d| / avgdl))
    idf(t)      = ln(1 + (N - df + 0.5) / (df + 0.5))

N and df count the rows that are live now, on both sides of the seal; avgdl is the mean length of the rows at the last
sealing (of the live tail before the first). So sealing and retiring change no score but through avgdl.

A search goes through the terms from the one that can give a row most to the one that can give it least (MaxScore:
Turtle and Flood, "Query evaluation: strategies and optimizations", 1995). As soon as k rows have more than all terms
that are left could give together, no further row can come in, and those terms are only looked up for the rows that
can still be among the best. The result is exact: `exact_scores` is the plain twin, word for word the formula above.

Knows no vector, and nothing of words: what a term is, `rag.words` says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rag.catalog import Catalog
from rag.errors import IndexDamaged
from rag.hits import Mask, merge, no_hits, top, within
from rag.lifecycle import STEP, DerivedIndex, Snapshot
from rag.postings import Integers, Kept, Postings, Run, counted, keep, merged, open_kept
from rag.protocols import Hits, Rows
from rag.settings import IndexSettings
from rag.words import ANALYSER, Analyser

K1 = 1.2
B = 0.75

Scores = np.ndarray[Any, np.dtype[np.float32]]
#: Sums of float32 may be off by this share: bounds are compared with so much to spare.
_SLACK = 1e-5
#: So few rows that a filter leaves are looked up in each term.
_LOOKED_UP = 5_000
#: Rows of a term among which a bar is looked for.
_SAMPLED = 50_000
#: Postings of which the scores are computed at once while a part is made.
_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class LexicalPart:
    """An opened sealed part: its postings, the mean row length, and for each term the most that it gives a row.

    ``peaks`` are without idf: the greatest tf / (tf + k1 ...) of the term.
    """

    kept: Kept
    peaks: Scores
    avgdl: float


@dataclass(frozen=True, slots=True)
class LexicalTail:
    """The rows after the seal, counted from 0: postings in ``runs`` that follow upon another, and ``lengths`` by row.

    ``vocabulary`` numbers the terms; it is shared with older snapshots and only ever grows.
    """

    runs: tuple[Postings, ...] = ()
    lengths: Integers = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    vocabulary: dict[str, int] = field(default_factory=dict)

    def grown(self, texts: Sequence[Sequence[str]]) -> LexicalTail:
        """Return a tail with the terms of further texts; a run is merged with one before it that is not larger."""
        number = self.vocabulary
        run = counted([[number.setdefault(t, len(number)) for t in text] for text in texts], len(self.lengths))
        runs = [*self.runs, run]
        while len(runs) > 1 and len(runs[-2].rows) <= 2 * len(runs[-1].rows):
            runs[-2:] = [merged(runs[-2], runs[-1])]
        lengths = np.fromiter(map(len, texts), dtype=np.int32, count=len(texts))
        return LexicalTail(tuple(runs), np.concatenate([self.lengths, lengths]), number)

    def of(self, term: str) -> tuple[Integers, Integers]:
        """Return rows and counts of a term."""
        number = self.vocabulary.get(term, -1)
        found = [run.of(number) for run in self.runs] or [(np.zeros(0, np.int32), np.zeros(0, np.int32))]
        return np.concatenate([rows for rows, _ in found]), np.concatenate([counts for _, counts in found])


@dataclass(frozen=True, slots=True)
class Term:
    """A term of a question in the sealed part: its rows, how often each holds it, and its weight; ``most`` it gives."""

    rows: Integers
    counts: Integers
    weight: float
    most: float


class LexicalIndex(DerivedIndex[LexicalPart, LexicalTail]):
    """The words of one collection; the query is the text of a question."""

    kind = "lexical"

    def __init__(self, catalog: Catalog, collection_id: str, folder: Path, settings: IndexSettings) -> None:
        self._analyser = Analyser()
        super().__init__(catalog, collection_id, ANALYSER, folder, settings)

    def search(self, query: str, k: int, allowed: Rows | None = None) -> Hits:
        """See `rag.protocols.Index`. Only rows that hold at least one term of the query are hits."""
        now = self.current()
        avgdl = average_length(now)
        tail = np.zeros(len(now.tail_seqs), dtype=np.float32)
        sealed: list[Term] = []
        for term, times in Counter(self._analyser.terms(query)).items():
            in_tail, counts = now.tail.of(term)
            number, rows, sealed_counts = now.part.kept.of(term) if now.part else (-1, in_tail[:0], counts[:0])
            found = live(rows, now.sealed_retired) + live(in_tail, now.tail_retired)
            weight = times * idf(now.live, found)
            if now.part is not None and len(rows):
                sealed.append(Term(rows, sealed_counts, weight, weight * float(now.part.peaks[number])))
            if len(in_tail):
                tail[in_tail] += (weight * saturation(counts, now.tail.lengths[in_tail], avgdl)).astype(np.float32)
        found_tail = np.flatnonzero(within(now.tail_seqs, now.tail_alive, allowed) & (tail > 0))
        hits = top(now.tail_seqs[found_tail], tail[found_tail], k)
        if now.part is None or not sealed:
            return hits
        mask = None
        if allowed is not None or len(now.sealed_retired):
            mask = within(now.sealed_seqs, now.sealed_alive, allowed)
        best = search_terms(sealed, now.part.kept.lengths, avgdl, mask, k)
        return merge(Hits(now.sealed_seqs[best.seqs], best.scores), hits, k)

    def rarity(self, terms: Sequence[str]) -> list[float]:
        """See `rag.protocols.LexicalIndex`."""
        now = self.current()
        return [idf(now.live, self._found(now, term)) for term in terms]

    def _found(self, now: Snapshot[LexicalPart, LexicalTail], term: str) -> int:
        """Return how many live rows hold a term."""
        sealed = live(now.part.kept.of(term)[1], now.sealed_retired) if now.part is not None else 0
        return sealed + live(now.tail.of(term)[0], now.tail_retired)

    # -- life cycle --------------------------------------------------------------------------------------------------

    def _empty_tail(self) -> LexicalTail:
        return LexicalTail()

    def _grown_tail(self, tail: LexicalTail, after: int, last: int) -> tuple[Rows, LexicalTail]:
        seqs: list[int] = []
        for start in range(after, last, STEP):
            if new := self._catalog.text_rows(self._collection_id, start, min(start + STEP, last)):
                seqs += [row.seq for row in new]
                tail = tail.grown([self._analyser.terms(row.text) for row in new])
        return np.array(seqs, dtype=np.int64), tail

    def _write_part(self, folder: Path, last: int) -> tuple[Rows, dict[str, Any]]:
        """Merge what a search sees, the part before and the tail, so that no text is read again."""
        now = self.current()
        tail_alive = now.tail_alive & (now.tail_seqs <= last)
        numbers = dict(now.tail.vocabulary)
        before, lengths = [], now.tail.lengths[tail_alive]
        if now.part is not None:
            before = [Run(_renumbered(now.part.kept, numbers), now.sealed_alive)]
            lengths = np.concatenate([now.part.kept.lengths[now.sealed_alive], lengths])
        offset = int(np.count_nonzero(now.sealed_alive))
        keep(folder, list(numbers), before + [Run(run, tail_alive, offset) for run in now.tail.runs], lengths)
        seqs = np.concatenate([now.sealed_seqs[now.sealed_alive], now.tail_seqs[tail_alive]])
        kept = open_kept(folder)
        length = int(lengths.sum(dtype=np.int64))
        np.save(folder / "peaks.npy", peaks_of(kept, length / len(seqs) if length else 1.0))
        return seqs, {"k1": K1, "b": B, "terms": len(kept.words), "postings": len(kept.postings.rows), "length": length}

    def _open_part(self, folder: Path, manifest: Mapping[str, Any]) -> LexicalPart:
        if (manifest["k1"], manifest["b"]) != (K1, B):
            raise IndexDamaged(f"It was made with k1 = {manifest['k1']} and b = {manifest['b']}.")
        kept, peaks = open_kept(folder), np.load(folder / "peaks.npy")
        if (len(kept.lengths), len(peaks)) != (manifest["rows"], len(kept.words)):
            raise IndexDamaged(f"It holds {len(kept.lengths)} rows.")
        return LexicalPart(kept, peaks, manifest["length"] / manifest["rows"] if manifest["length"] else 1.0)


def search_terms(terms: Sequence[Term], lengths: Integers, avgdl: float, mask: Mask | None, k: int) -> Hits:
    """Return the ``k`` best rows for some terms, of those that are True in ``mask`` if it is given."""
    terms = sorted(terms, key=lambda term: -term.most)
    left = [*np.cumsum([term.most for term in terms][::-1])[::-1].tolist(), 0.0]  # what the terms from here on give
    if mask is not None and np.count_nonzero(mask) <= _LOOKED_UP:
        rows = np.flatnonzero(mask)
        scores, done = np.zeros(len(rows), dtype=np.float32), 0
    else:
        rows, scores, done = _gathered(terms, left, lengths, avgdl, mask, k)
    for place in range(done, len(terms)):
        rows, scores = _still_possible(rows, scores, left[place], k)
        _look_up(terms[place], rows, scores, lengths, avgdl)
    hit = scores > 0
    return top(rows[hit], scores[hit], k) if len(rows) else no_hits()


def _gathered(
    terms: Sequence[Term], left: Sequence[float], lengths: Integers, avgdl: float, mask: Mask | None, k: int
) -> tuple[Rows, Scores, int]:
    """Add up terms over all their rows until no row without one of them can be among the ``k`` best.

    Returns the rows that still can be, their scores so far, and the number of terms that are in them.
    """
    scores = np.zeros(len(lengths), dtype=np.float32)
    done, bar = 0, 0.0
    while done < len(terms) and bar <= left[done]:
        term = terms[done]
        scores[term.rows] += _given(term.weight, term.counts, lengths[term.rows], avgdl)
        done += 1
        if left[0] - left[done] > left[done]:  # before that no row has enough
            bar = max(bar, _reached(terms[:done], scores, mask, k) * (1 - _SLACK))
    rows = np.flatnonzero(scores >= bar - left[done] if bar > left[done] else scores > 0)
    if mask is not None:
        rows = rows[mask[rows]]
    return rows, scores[rows], done


def _reached(terms: Sequence[Term], scores: Scores, mask: Mask | None, k: int) -> float:
    """Return a score that at least ``k`` rows have: the k-th best among the rows of one term; 0 if all have fewer."""
    for term in terms:
        rows = term.rows if mask is None else term.rows[mask[term.rows]]
        if len(rows) > 2 * k:
            return _kth(scores[rows[:_SAMPLED]], k)
    return 0.0


def _still_possible(rows: Rows, scores: Scores, left: float, k: int) -> tuple[Rows, Scores]:
    """Leave out the rows that ``left`` can not lift among the ``k`` best."""
    if len(rows) <= k:
        return rows, scores
    kept = scores + left >= _kth(scores, k) * (1 - _SLACK)
    return rows[kept], scores[kept]


def _look_up(term: Term, rows: Rows, scores: Scores, lengths: Integers, avgdl: float) -> None:
    """Add what a term gives to those of some rows that hold it."""
    found = np.minimum(np.searchsorted(term.rows, rows.astype(term.rows.dtype)), len(term.rows) - 1)
    hold = np.flatnonzero(term.rows[found] == rows)
    scores[hold] += _given(term.weight, term.counts[found[hold]], lengths[rows[hold]], avgdl)


def _given(weight: float, counts: Integers, lengths: Integers, avgdl: float) -> Scores:
    """Return weight * saturation in float32."""
    times = counts.astype(np.float32)
    result: Scores = np.float32(weight) * times
    times += lengths * np.float32(K1 * B / avgdl)
    times += np.float32(K1 * (1 - B))
    result /= times
    return result


def _kth(scores: Scores, k: int) -> float:
    return float(np.partition(scores, len(scores) - k)[len(scores) - k])


def live(rows: Integers, retired: Rows) -> int:
    """Return how many of ``rows`` are not among ``retired``; both are in order."""
    if not len(retired) or not len(rows):
        return len(rows)
    few, many = (retired, rows) if len(retired) < len(rows) else (rows, retired)
    found = np.minimum(np.searchsorted(many, few.astype(many.dtype)), len(many) - 1)
    return len(rows) - int(np.count_nonzero(many[found] == few))


def peaks_of(kept: Kept, avgdl: float) -> Scores:
    """Return for each term the greatest saturation in one of its rows."""
    starts, postings = kept.postings.starts, kept.postings
    peaks = np.zeros(len(kept.words), dtype=np.float32)
    first = 0
    while first < len(peaks):
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + _AT_ONCE)) - 1)
        span = slice(int(starts[first]), int(starts[last]))
        given = _given(1.0, postings.counts[span], kept.lengths[postings.rows[span]], avgdl)
        peaks[first:last] = np.maximum.reduceat(given, starts[first:last] - starts[first])
        first = last
    return peaks


def _renumbered(kept: Kept, numbers: dict[str, int]) -> Postings:
    """Return the postings of a part by the term numbers of ``numbers``, to which its other terms are added."""
    names = (word.decode(errors="surrogatepass") for word in kept.words)
    new = np.fromiter((numbers.setdefault(name, len(numbers)) for name in names), np.int32, count=len(kept.words))
    return Postings(new, kept.postings.starts, kept.postings.rows, kept.postings.counts)


def average_length(now: Snapshot[Any, LexicalTail]) -> float:
    """Return the avgdl of a snapshot, see above; 1 when there is nothing to average."""
    if now.part is not None:
        return float(now.part.avgdl)
    lengths = now.tail.lengths[: len(now.tail_alive)][now.tail_alive]
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
