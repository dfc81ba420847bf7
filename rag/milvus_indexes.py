"""The dense and the lexical index in Milvus: the life cycle of `rag.lifecycle`, with the sealed rows in that engine.

    rows 1 ........................ S | S+1 ........ last
         in Milvus                      tail (memory)      minus the rows retired since

The folder of a sealed part holds no vector, only what is needed to use those in Milvus: their numbers, the name of the
Milvus collection, and of the terms how many rows have them. A sealing writes to Milvus what it lacks, so that its cost
is that of the new rows, and names the new part in the catalog; only then are retired rows deleted from Milvus. So a
search that works with an older part still finds all it needs, and what Milvus holds beside the rows of a part (rows of
a sealing that died, or that is not finished) is passed over. A purge writes everything anew into another Milvus
collection and drops the old one. What Milvus has lost is noticed by the count of its rows or by a search that it can
not answer: the part is dropped, searches go on with a tail of all rows, and the next sealing fills Milvus again.

The lexical score is BM25 as `rag.lexical` defines it. It is a sum of products: a term's idf, which changes with every
row that comes or goes, and the saturation of its count in a row, which does not as long as avgdl stays the same. Milvus
keeps the saturations as the sparse vector of the row; the idf of today are the sparse vector of the question. avgdl is
that of the rows when they were last written anew, which they are when it has moved by more than `DRIFT`.

Knows no pymilvus, no model, and nothing of words.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import structlog

from rag.catalog import Catalog
from rag.dense import DenseTail, exact_search, vector_steps
from rag.errors import CitewellError, IndexDamaged, Unavailable
from rag.hits import Mask, merge, no_hits, places, top, within
from rag.lexical import K1, B, LexicalTail, average_length, idf, live, saturation
from rag.lifecycle import MANIFEST, STEP, DerivedIndex, Snapshot
from rag.milvus import LISTED, MOST_HITS, Kind, Milvus, NotHeld, among, but
from rag.protocols import Hits, Rows, Vectors
from rag.settings import IndexSettings
from rag.words import ANALYSER, Analyser

#: Of all names in a Milvus, these are ours.
PREFIX = "citewell_"
#: The numbers of the rows that a sealing took out, in the folder of the part.
GONE = "gone.npy"
#: Seal when the tail has this share of all rows: the new ones alone have to be written.
SHARE = 0.01
#: Seconds between two looks at whether Milvus still holds what was written to it.
LOOK = 60.0
#: How often a search begins again because the part that it works with was replaced.
TRIES = 5
#: Hits asked for beyond those wanted, for retired rows among them and for ties with the last.
SLACK = 16
#: Share by which the mean length of the rows may differ from that with which they were scored.
DRIFT = 0.05
#: Queries with which the recall of a graph is measured, how many neighbours, and how many a search keeps on the way.
PROBES, NEIGHBOURS = 100, 10
EFFORTS = (32, 64, 128, 256, 512, 1024)

log = structlog.get_logger(__name__)
Weights = dict[int, float]
Lengths = np.ndarray[Any, np.dtype[np.int32]]
Digests = np.ndarray[Any, np.dtype[np.uint64]]
Numbers = np.ndarray[Any, np.dtype[np.uint32]]


@dataclass(frozen=True, slots=True)
class MilvusPart:
    """Sealed rows in Milvus: ``held`` rows in the collection ``name``, all of them searchable at ``since``.

    ``kind`` is that of its index; ``effort`` how many neighbours a search of a graph keeps, 0 for the others.
    """

    name: str
    kind: Kind
    held: int
    since: int
    effort: int


@dataclass(frozen=True, slots=True)
class WordsPart(MilvusPart):
    """Sealed words in Milvus, ``avgdl`` and ``lengths`` of the rows, and the terms, memory-mapped.

    The term with the digest ``digests[i]`` (sorted) has the number ``numbers[i]``; ``found[n]`` rows have term n.
    """

    avgdl: float
    lengths: Lengths
    digests: Digests
    numbers: Numbers
    found: Rows

    def look_up(self, term: str) -> int | None:
        """Return the number of a term, if any row ever had it."""
        place = place_of(self.digests, digest_of(term))
        return None if place is None else int(self.numbers[place])


PartT = TypeVar("PartT", bound=MilvusPart)
TailT = TypeVar("TailT")
Found = TypeVar("Found")


class MilvusIndex(DerivedIndex[PartT, TailT]):
    """What both indexes have in common: writing to Milvus, and searching there as exactly as Milvus does.

    Raises `Unavailable` with the cure while Milvus does not answer.
    """

    def __init__(
        self, catalog: Catalog, collection_id: str, space: str, folder: Path, settings: IndexSettings, milvus: Milvus
    ) -> None:
        self._milvus = milvus
        self._sealing = threading.Lock()
        self._anew = False
        self._looked = -LOOK
        super().__init__(catalog, collection_id, f"milvus {space}", folder, settings)

    # -- what an index must say of itself ----------------------------------------------------------------------------

    @abstractmethod
    def _extended(
        self, part: PartT, seqs: Rows, gone: Mask, after: int, last: int, folder: Path
    ) -> tuple[Rows, dict[str, Any]] | None:
        """Write the rows in (after, last] beside those ``seqs`` of a part that are not ``gone``.

        Return the numbers of all rows and facts for the manifest; None if they had better be written anew.
        """

    @abstractmethod
    def _written_anew(self, name: str, last: int, folder: Path) -> tuple[Rows, dict[str, Any]]:
        """Write all rows into a new collection of that name; return their numbers and facts for the manifest."""

    @abstractmethod
    def _opened(self, facts: Mapping[str, Any], folder: Path) -> PartT:
        """Return the part that a manifest tells of."""

    # -- searching ---------------------------------------------------------------------------------------------------

    def _asked(self, find: Callable[[Snapshot[PartT, TailT]], Found]) -> Found:
        """Ask a snapshot with ``find``, and a newer one if the part was replaced or lost meanwhile."""
        for _ in range(TRIES):
            now = self.current()
            try:
                return find(now)
            except NotHeld:
                self._begin_again(now)
        raise Unavailable("The index is being written anew in Milvus; try again in a moment.")

    def _begin_again(self, now: Snapshot[PartT, TailT]) -> None:
        with self._lock:
            if self._snapshot is now:
                seal = self._catalog.seal(self._collection_id, self.kind, self._space)
                self._snapshot = self._grown(self._begin(seal), now.pulse)

    def _search_sealed(self, now: Snapshot[PartT, TailT], query: Any, k: int, allowed: Rows | None) -> Hits:
        """Return the ``k`` best of the sealed rows that are live and ``allowed``.

        More hits than wanted are asked for, and those that may not be returned left out. Where a filter leaves so few
        rows that most hits would be in vain, Milvus is told which rows to search.
        """
        part = now.part
        if part is None or not part.held or not k:
            return no_hits()
        if allowed is None:
            limit = k + SLACK
        else:
            here = places(now.sealed_seqs, allowed)
            allowed = now.sealed_seqs[here[now.sealed_alive[here]]]
            if not len(allowed):
                return no_hits()
            limit = int(1.5 * k * len(now.sealed_seqs) / len(allowed)) + SLACK
        if limit * 2 <= MOST_HITS:
            hits = self._best(part, query, k, limit, lambda seqs: _live(now, seqs, allowed))
            if hits is not None:
                return hits
        if allowed is None:
            return self._all(part, query, k, but(now.sealed_seqs[-1], now.sealed_seqs[now.sealed_retired]))
        hits = no_hits()
        for start in range(0, len(allowed), LISTED):
            hits = merge(hits, self._these(part, query, k, allowed[start : start + LISTED]), k)
        return hits

    def _these(self, part: PartT, query: Any, k: int, seqs: Rows) -> Hits:
        """Return the ``k`` best of a few sealed rows, all of which are live."""
        return self._all(part, query, k, among(seqs))

    def _best(
        self, part: PartT, query: Any, k: int, limit: int, live: Callable[[Rows], Mask], where: str = ""
    ) -> Hits | None:
        """Ask for more and more hits until ``k`` live ones and all that tie with the last are there; None if never."""
        while True:
            found = self._milvus.search(part.name, query, limit, where=where, since=part.since, effort=part.effort)
            mask = live(found.seqs)
            hits = top(found.seqs[mask], found.scores[mask], k)
            if len(found.seqs) < limit or (len(hits.seqs) == k and found.scores[-1] < hits.scores[-1]):
                return hits
            if limit == MOST_HITS:
                return hits if len(hits.seqs) == k else None
            limit = min(4 * limit, MOST_HITS)

    def _all(self, part: PartT, query: Any, k: int, where: str) -> Hits:
        """Return the ``k`` best of the rows that meet ``where``, all of which are live."""
        hits = self._best(part, query, k, min(k + SLACK, MOST_HITS), lambda seqs: np.ones(len(seqs), bool), where)
        return hits or no_hits()

    # -- life cycle --------------------------------------------------------------------------------------------------

    def wants_seal(self) -> bool:
        """Say whether enough rows came, or Milvus lost enough, to make writing there worth its cost."""
        seal = self._catalog.seal(self._collection_id, self.kind, self._space)
        if seal is not None and time.monotonic() - self._looked >= LOOK:
            self._looked = time.monotonic()
            with suppress(Unavailable):  # what is down has not lost anything yet
                seal = self._begin(seal).seal
        last = self._catalog.pulse(self._collection_id).last_seq
        return last - (seal.last_seq if seal else 0) >= max(self._settings.seal_rows, SHARE * last)

    def _seal(self, *, keep_before: bool) -> int:
        """See `DerivedIndex`. Without ``keep_before`` all is written anew: what is deleted in place leaves traces."""
        if not self._sealing.acquire(blocking=False):
            return 0
        try:
            self._anew = not keep_before
            return super()._seal(keep_before=keep_before)
        except IndexDamaged as error:
            raise Unavailable(f"Milvus lost what was being written to it; try again. {error.message}") from error
        finally:
            self._sealing.release()

    def _write_part(self, folder: Path, last: int) -> tuple[Rows, dict[str, Any]]:
        before = None if self._anew else self._in_force()
        if before is not None:
            part, seqs, gone, after = before
            try:
                self._milvus.delete_after(part.name, after)  # rows of a sealing that died
                written = self._extended(part, seqs, gone, after, last, folder)
            except NotHeld as error:
                log.warning("rows are written to Milvus anew", kind=self.kind, reason=error.message)
                written = None
            if written is not None:
                np.save(folder / GONE, seqs[gone])
                return written
        np.save(folder / GONE, np.zeros(0, dtype=np.int64))
        name = f"{self._prefix}{folder.name.rsplit('-', 1)[1]}"
        try:
            return self._written_anew(name, last, folder)
        except BaseException:
            with suppress(CitewellError):
                self._milvus.drop(name)  # what nobody names would stay there
            raise

    def _in_force(self) -> tuple[PartT, Rows, Mask, int] | None:
        """Return the part that can be built upon, its rows, which of them are retired, and the last row it covers."""
        seal = self._catalog.seal(self._collection_id, self.kind, self._space)
        if seal is None:
            return None
        try:
            seqs, part, made_at = self._open(seal)
        except IndexDamaged as error:
            log.warning("rows are written to Milvus anew", kind=self.kind, reason=error.message)
            return None
        self._delete_gone(part.name, self._folder / seal.folder)
        commits = self._catalog.pulse(self._collection_id).commits
        retired = self._catalog.retired_rows(self._collection_id, made_at.commits, commits)
        gone = np.zeros(len(seqs), dtype=bool)
        gone[places(seqs, retired)] = True
        return part, seqs, gone, seal.last_seq

    def _open_part(self, folder: Path, manifest: Mapping[str, Any]) -> PartT:
        if "milvus" not in manifest:
            raise IndexDamaged("It is not in Milvus.")
        part = self._opened(manifest["milvus"], folder)
        self._milvus.load(part.name)
        held = self._milvus.count(part.name, manifest["last_seq"])
        if held < part.held:
            raise NotHeld(f"Milvus holds {held} of {part.held} rows.")
        return part

    def _sweep(self, keep: set[str]) -> None:
        """Remove older parts, in Milvus too, and the rows that were taken out of the one that stays."""
        super()._sweep(keep)
        seal = self._catalog.seal(self._collection_id, self.kind, self._space)
        if seal is not None:
            folder = self._folder / seal.folder
            self._delete_gone(str(_named_in(folder)), folder)
        self._drop_strays()

    def _delete_gone(self, name: str, folder: Path) -> None:
        self._milvus.delete(name, np.load(folder / GONE))

    def _drop_strays(self) -> None:
        """Drop the collections in Milvus that no part of ours names: those of older parts, or of sealings that died."""
        named = {_named_in(folder) for folder in self._folder.glob(f"{self.kind}-*")}
        for name in self._milvus.names(self._prefix):
            if name not in named:
                self._milvus.drop(name)

    @property
    def _prefix(self) -> str:
        return f"{PREFIX}{self._collection_id}_{self.kind}_"


class MilvusDense(MilvusIndex[MilvusPart, DenseTail]):
    """The vectors of one collection under one embedder; the query is a unit vector of shape (dimension,).

    Exact up to ``flat_rows``, then a graph whose measured recall stands in the manifest.
    """

    kind = "dense"

    def __init__(
        self, catalog: Catalog, collection_id: str, embedder: str, dimension: int, folder: Path,
        settings: IndexSettings, milvus: Milvus,
    ) -> None:  # fmt: skip
        self._embedder = embedder
        self._dimension = dimension
        super().__init__(catalog, collection_id, embedder, folder, settings, milvus)

    def search(self, query: Vectors, k: int, allowed: Rows | None = None) -> Hits:
        """See `rag.protocols.Index`."""
        query = np.ascontiguousarray(query, dtype=np.float32)
        return self._asked(lambda now: self._best_of(now, query, k, allowed))

    def _best_of(self, now: Snapshot[MilvusPart, DenseTail], query: Vectors, k: int, allowed: Rows | None) -> Hits:
        sealed = self._search_sealed(now, query.tolist(), k, allowed)
        mask = within(now.tail_seqs, now.tail_alive, allowed)
        return merge(sealed, exact_search(now.tail.vectors, now.tail_seqs, mask, query, k), k)

    def _these(self, part: MilvusPart, query: Any, k: int, seqs: Rows) -> Hits:
        """See above; a graph that may return few of its rows finds none of them, so these are scored here."""
        if part.kind == "flat":
            return super()._these(part, query, k, seqs)
        found = self._catalog.vectors(self._collection_id, self._embedder, seqs.tolist())
        rows = np.array(sorted(found), dtype=np.int64)
        vectors = np.array([found[seq] for seq in rows.tolist()], dtype=np.float32).reshape(-1, self._dimension)
        return exact_search(vectors, rows, np.ones(len(rows), dtype=bool), np.array(query, dtype=np.float32), k)

    # -- life cycle --------------------------------------------------------------------------------------------------

    def _empty_tail(self) -> DenseTail:
        return DenseTail.empty(self._dimension)

    def _grown_tail(self, tail: DenseTail, after: int, last: int) -> tuple[Rows, DenseTail]:
        return tail.extended(self._steps(after, last))

    def _steps(self, after: int, last: int) -> Iterator[tuple[Rows, Vectors]]:
        return vector_steps(self._catalog, self._collection_id, self._embedder, after, last)

    def _opened(self, facts: Mapping[str, Any], folder: Path) -> MilvusPart:
        del folder
        return MilvusPart(facts["name"], facts["kind"], facts["held"], facts["since"], facts["effort"])

    def _extended(
        self, part: MilvusPart, seqs: Rows, gone: Mask, after: int, last: int, folder: Path
    ) -> tuple[Rows, dict[str, Any]] | None:
        del folder
        kept = [seqs[~gone]]
        if part.kind == "flat" and len(kept[0]) + last - after > self._settings.flat_rows:
            return None
        for found, vectors in self._steps(after, last):
            self._milvus.put(part.name, found, vectors)
            kept.append(found)
        rows = np.concatenate(kept)
        return rows, self._facts(part.name, part.kind, len(rows), part.effort)

    def _written_anew(self, name: str, last: int, folder: Path) -> tuple[Rows, dict[str, Any]]:
        del folder
        kind: Kind = "hnsw" if last > self._settings.flat_rows else "flat"
        self._milvus.create(name, kind, self._dimension)
        seqs, probes = [np.zeros(0, dtype=np.int64)], Probes()
        for found, vectors in self._steps(0, last):
            self._milvus.put(name, found, vectors)
            seqs.append(found)
            if kind == "hnsw":
                probes.see(found, vectors)
        rows = np.concatenate(seqs)
        facts = self._facts(name, kind, len(rows), EFFORTS[0] if kind == "hnsw" else 0)
        if kind == "hnsw":
            facts["milvus"]["effort"], facts["recall@10"] = self._measured(name, probes)
        return rows, facts

    def _facts(self, name: str, kind: Kind, held: int, effort: int) -> dict[str, Any]:
        since = self._milvus.settle(name, [1.0] + [0.0] * (self._dimension - 1))
        facts = {"name": name, "kind": kind, "held": held, "since": since, "effort": effort}
        return {"milvus": facts, "dimension": self._dimension}

    def _measured(self, name: str, probes: Probes) -> tuple[int, float]:
        """Return the least effort that has the recall asked for, and the recall that it has."""
        effort, recall = EFFORTS[0], 1.0
        if not probes.exact():
            return effort, recall
        for effort in EFFORTS:
            shares = [
                len(np.intersect1d(self._milvus.search(name, query.tolist(), len(exact), effort=effort).seqs, exact))
                for query, exact in zip(probes.queries, probes.exact(), strict=True)
            ]
            recall = sum(shares) / sum(map(len, probes.exact()))
            if recall >= self._settings.min_recall:
                break
        return effort, round(recall, 4)


@dataclass(slots=True)
class Probes:
    """Queries like the rows, and their exact neighbours among all rows seen."""

    queries: Vectors = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    _best: list[Hits] = field(default_factory=list)

    def see(self, seqs: Rows, vectors: Vectors) -> None:
        """Take these rows into account; the first ones also make the queries: half way between two of them."""
        if not len(self.queries):
            pairs = np.random.default_rng(0).integers(0, len(vectors), size=(PROBES, 2))
            self.queries = vectors[pairs[:, 0]] + vectors[pairs[:, 1]]
            self._best = [no_hits()] * PROBES
        new = (top(seqs, scores, NEIGHBOURS) for scores in self.queries @ vectors.T)
        self._best = [merge(a, b, NEIGHBOURS) for a, b in zip(self._best, new, strict=True)]

    def exact(self) -> list[Rows]:
        """Return the neighbours of each query."""
        return [hits.seqs for hits in self._best]


class MilvusLexical(MilvusIndex[WordsPart, LexicalTail]):
    """The words of one collection; the query is the text of a question."""

    kind = "lexical"

    def __init__(
        self, catalog: Catalog, collection_id: str, folder: Path, settings: IndexSettings, milvus: Milvus
    ) -> None:
        self._analyser = Analyser()
        self._counting = threading.Lock()
        self._retired = RetiredTerms()
        super().__init__(catalog, collection_id, ANALYSER, folder, settings, milvus)

    def search(self, query: str, k: int, allowed: Rows | None = None) -> Hits:
        """See `rag.protocols.Index`. Only rows that hold at least one term of the query are hits."""
        terms = Counter(self._analyser.terms(query))
        return self._asked(lambda now: self._best_of(now, terms, k, allowed))

    def rarity(self, terms: Sequence[str]) -> list[float]:
        """See `rag.protocols.LexicalIndex`."""
        return self._asked(lambda now: [self._idf(now, term, self._retired_terms(now)) for term in terms])

    def _idf(self, now: Snapshot[WordsPart, LexicalTail], term: str, retired: Counter[int]) -> float:
        number = now.part.look_up(term) if now.part is not None else None
        sealed = 0 if now.part is None or number is None else int(now.part.found[number]) - retired[number]
        return idf(now.live, sealed + live(now.tail.of(term)[0], now.tail_retired))

    def _best_of(
        self, now: Snapshot[WordsPart, LexicalTail], terms: Counter[str], k: int, allowed: Rows | None
    ) -> Hits:
        retired = self._retired_terms(now)
        avgdl = average_length(now)
        tail = np.zeros(len(now.tail_seqs), dtype=np.float32)
        weights: Weights = {}
        for term, times in terms.items():
            number = now.part.look_up(term) if now.part is not None else None
            weight = times * self._idf(now, term, retired)
            if number is not None:
                weights[number] = weight
            in_tail, counts = now.tail.of(term)
            if len(in_tail):
                tail[in_tail] += (weight * saturation(counts, now.tail.lengths[in_tail], avgdl)).astype(np.float32)
        found = np.flatnonzero(within(now.tail_seqs, now.tail_alive, allowed) & (tail > 0))
        hits = top(now.tail_seqs[found], tail[found], k)
        return merge(self._search_sealed(now, weights, k, allowed), hits, k) if weights else hits

    def _retired_terms(self, now: Snapshot[WordsPart, LexicalTail]) -> Counter[int]:
        """Return how many of the sealed rows that are retired have each term; asks Milvus for those not seen before."""
        part = now.part
        if part is None or not len(now.sealed_retired):
            return Counter()
        with self._counting:
            known = self._retired if self._retired.part is part else RetiredTerms(part)
            new = np.setdiff1d(now.sealed_retired, known.places)
            if len(new):
                held = self._terms(part, now.sealed_seqs[new[part.lengths[new] > 0]])
                known = RetiredTerms(part, np.union1d(known.places, new), known.counts + _counted(held))
            self._retired = known
            return known.counts

    def _terms(self, part: WordsPart, seqs: Rows) -> dict[int, list[int]]:
        """Return the terms of sealed rows; raise `NotHeld` if one is not there any more."""
        held = self._milvus.terms(part.name, seqs)
        if len(held) < len(seqs):
            raise NotHeld("Rows were taken out of Milvus.")
        return held

    # -- life cycle --------------------------------------------------------------------------------------------------

    def _empty_tail(self) -> LexicalTail:
        return LexicalTail()

    def _grown_tail(self, tail: LexicalTail, after: int, last: int) -> tuple[Rows, LexicalTail]:
        seqs = [np.zeros(0, dtype=np.int64)]
        for found, texts in self._steps(after, last):
            seqs.append(found)
            tail = tail.grown(texts)
        return np.concatenate(seqs), tail

    def _steps(self, after: int, last: int) -> Iterator[tuple[Rows, list[list[str]]]]:
        """Fetch rows step by step, as their terms."""
        for start in range(after, last, STEP):
            rows = self._catalog.text_rows(self._collection_id, start, min(start + STEP, last))
            if rows:
                yield np.array([row.seq for row in rows], dtype=np.int64), [self._analyser.terms(r.text) for r in rows]

    def _opened(self, facts: Mapping[str, Any], folder: Path) -> WordsPart:
        if (facts["k1"], facts["b"]) != (K1, B):
            raise IndexDamaged(f"It was made with k1 = {facts['k1']} and b = {facts['b']}.")
        names = ("lengths", "digests", "numbers", "found")
        lengths, digests, numbers, found = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in names)
        return WordsPart(
            facts["name"], "sparse", facts["held"], facts["since"], 0, facts["avgdl"], lengths, digests, numbers, found
        )

    def _extended(
        self, part: WordsPart, seqs: Rows, gone: Mask, after: int, last: int, folder: Path
    ) -> tuple[Rows, dict[str, Any]] | None:
        vocabulary = Vocabulary(part.digests, part.numbers, part.found)
        vocabulary.take_out(self._terms(part, seqs[gone & (part.lengths > 0)]))
        rows, lengths = self._fill(part.name, part.avgdl, vocabulary, after, last)
        lengths = np.concatenate([part.lengths[~gone], lengths])
        if lengths.any() and abs(float(lengths.mean()) / part.avgdl - 1) > DRIFT:
            return None
        return np.concatenate([seqs[~gone], rows]), self._facts(part.name, part.avgdl, vocabulary, lengths, folder)

    def _written_anew(self, name: str, last: int, folder: Path) -> tuple[Rows, dict[str, Any]]:
        lengths = [len(terms) for _, step in self._steps(0, last) for terms in step]
        avgdl = sum(lengths) / len(lengths) if any(lengths) else 1.0
        self._milvus.create(name, "sparse")
        vocabulary = Vocabulary()
        rows, found = self._fill(name, avgdl, vocabulary, 0, last)
        return rows, self._facts(name, avgdl, vocabulary, found, folder)

    def _fill(self, name: str, avgdl: float, vocabulary: Vocabulary, after: int, last: int) -> tuple[Rows, Lengths]:
        """Write the rows in (after, last]; return their numbers and lengths. One without a term is not written."""
        seqs, lengths = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int32)]
        for found, texts in self._steps(after, last):
            seqs.append(found)
            lengths.append(np.fromiter(map(len, texts), dtype=np.int32, count=len(texts)))
            weights = [vocabulary.weights(terms, avgdl) for terms in texts if terms]
            self._milvus.put(name, found[lengths[-1] > 0], weights)
        return np.concatenate(seqs), np.concatenate(lengths)

    def _facts(self, name: str, avgdl: float, vocabulary: Vocabulary, lengths: Lengths, folder: Path) -> dict[str, Any]:
        np.save(folder / "lengths.npy", lengths)
        terms, held = vocabulary.save(folder), int(np.count_nonzero(lengths))
        since = self._milvus.settle(name, {0: 1.0})
        return {
            "milvus": {"name": name, "held": held, "since": since, "avgdl": avgdl, "k1": K1, "b": B},
            "terms": terms,
        }


@dataclass(frozen=True, slots=True)
class RetiredTerms:
    """How many of the rows at these ``places`` of a part have each term."""

    part: WordsPart | None = None
    places: Rows = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    counts: Counter[int] = field(default_factory=Counter)


@dataclass(slots=True)
class Vocabulary:
    """The terms of a collection in Milvus, while rows come and go: those of a part as in `WordsPart`, and new ones."""

    digests: Digests = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    numbers: Numbers = field(default_factory=lambda: np.zeros(0, dtype=np.uint32))
    found: Rows = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    _new: dict[int, int] = field(default_factory=dict)
    _known: dict[str, int] = field(default_factory=dict)
    _changes: Counter[int] = field(default_factory=Counter)

    def weights(self, terms: Sequence[str], avgdl: float) -> Weights:
        """Return what a new row with these terms weighs for each of them, and count them."""
        counts = Counter(terms)
        numbers = [self._number(term) for term in counts]
        self._changes.update(numbers)
        tf = np.fromiter(counts.values(), dtype=np.int64, count=len(counts))
        return dict(zip(numbers, saturation(tf, np.full(len(tf), len(terms)), avgdl).tolist(), strict=True))

    def take_out(self, rows: Mapping[int, Sequence[int]]) -> None:
        """Count the terms of these rows no more."""
        self._changes.subtract(_counted(rows))

    def save(self, folder: Path) -> int:
        """Write what `WordsPart` maps into memory, and return how many terms that are."""
        digests = np.concatenate([self.digests, np.array(list(self._new), dtype=np.uint64)])
        numbers = np.concatenate([self.numbers, np.array(list(self._new.values()), dtype=np.uint32)])
        found = np.concatenate([self.found, np.zeros(len(self._new), dtype=np.int64)])
        found[np.array(list(self._changes), dtype=np.int64)] += np.array(list(self._changes.values()), dtype=np.int64)
        order = np.argsort(digests)
        for name, array in (("digests", digests[order]), ("numbers", numbers[order]), ("found", found)):
            np.save(folder / f"{name}.npy", array)
        return len(found)

    def _number(self, term: str) -> int:
        if (known := self._known.get(term)) is None:
            digest = digest_of(term)
            place = place_of(self.digests, digest)
            new = len(self.found) + len(self._new)
            known = self._new.setdefault(int(digest), new) if place is None else int(self.numbers[place])
            self._known[term] = known
        return known


def drop_collections(settings: IndexSettings, collection_id: str) -> None:
    """Drop all that a collection has in Milvus; raises `Unavailable` while Milvus does not answer."""
    with closing(Milvus(settings)) as milvus:
        for name in milvus.names(f"{PREFIX}{collection_id}_"):
            milvus.drop(name)


def digest_of(term: str) -> np.uint64:
    """Return 64 bits that stand for a term; two of ten million terms have the same in one of 370,000 vocabularies."""
    digest = hashlib.blake2b(term.encode(errors="surrogatepass"), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def place_of(digests: Digests, digest: np.uint64) -> int | None:
    """Return where a digest stands among sorted ones, if it does."""
    place = int(np.searchsorted(digests, digest))
    return place if place < len(digests) and digests[place] == digest else None


def _counted(rows: Mapping[int, Sequence[int]]) -> Counter[int]:
    """Return how many of these rows have each term."""
    return Counter(number for numbers in rows.values() for number in numbers)


def _live(now: Snapshot[Any, Any], seqs: Rows, allowed: Rows | None) -> Mask:
    """Return which of these rows are sealed, live and ``allowed``."""
    among_all = now.sealed_seqs if allowed is None else allowed
    at = np.minimum(np.searchsorted(among_all, seqs), len(among_all) - 1)
    mask: Mask = among_all[at] == seqs
    return mask & now.sealed_alive[at] if allowed is None else mask


def _named_in(folder: Path) -> str | None:
    """Return the collection in Milvus that the manifest of a part names."""
    try:
        facts = json.loads((folder / MANIFEST).read_text())
        return str(facts["milvus"]["name"])
    except (OSError, ValueError, KeyError):
        return None
