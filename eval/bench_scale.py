"""The benchmark of scale behind README.md: ``make bench-scale DATA=folder ROWS=1000000``, on BEIR-style folders.

Prints which index is how fast, how exact and how large on so many rows, what the two indexes of a collection cost, and
how soon a commit is found in another process while parts are sealed. The passages of the folders, and windows of their
sentences, are embedded by the product and kept in the cache; rows beyond those are mixed from two near ones with noise,
and the tables say how many are real. Questions are real. Knows no quality but recall against exact search.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing as mp
import re
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from eval.folders import read_questions, read_rows
from eval.statistics import interval
from eval.tables import LOG, Table, commit, hardware, report
from rag.catalog import Catalog
from rag.dense import DenseIndex
from rag.encoders import open_embedder
from rag.hits import Mask
from rag.lexical import LexicalIndex
from rag.protocols import Rows, Vectors
from rag.records import Block, Chunk, Kind, ParsedDocument
from rag.sealed_vectors import nearest, open_vectors, write_vectors
from rag.sentences import sentence_spans
from rag.settings import IndexSettings, Settings, load_settings

CANDIDATES, STEP, QUESTIONS = 100, 20_000, 500
#: Characters of a window of sentences.
WINDOW = 400
#: How far a mixed vector is moved away from between its parents.
NOISE = 0.35
KINDS = {
    "flat, float32": {"kind": "flat"},
    "hnsw, sq8": {"kind": "hnsw"},
    "ivf, sq8": {"kind": "ivf", "codes": "sq8"},
    "ivf, sq4": {"kind": "ivf", "codes": "sq4"},
    "ivf, rabitq": {"kind": "ivf", "codes": "rabitq"},
}
Step = tuple[Rows, Vectors]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with folders in BEIR layout")
    parser.add_argument("--rows", type=int, default=100_000, help="how many passages")
    parser.add_argument("--texts", type=int, default=40_000, help="most texts to embed; the others are mixed from them")
    parser.add_argument(
        "--only", choices=["embed", "kinds", "product", "freshness"], nargs="*", help="some parts alone"
    )
    parser.add_argument(
        "--kinds", choices=list(KINDS), nargs="*", default=list(KINDS), help="some kinds of index alone"
    )
    parser.add_argument("--log", type=Path, default=LOG, help="file that the tables are appended to if it is there")
    options = parser.parse_args()
    folders = sorted(folder for folder in options.data.iterdir() if (folder / "qrels.tsv").is_file())
    if not folders:
        parser.error(f"{options.data} has no folder in BEIR layout.")
    settings = load_settings()
    only = options.only or ["kinds", "product", "freshness"]
    real = material(settings, folders, options.texts)
    if only == ["embed"]:
        return
    count = f"{options.rows:,} passages, {min(options.rows, len(real.texts)):,} of them real"
    tell = partial(report, log=options.log)
    tell(f"Benchmark of scale of {datetime.now(UTC):%Y-%m-%d}, commit {commit()}, {hardware()}; {count}")
    with tempfile.TemporaryDirectory(dir=settings.cache) as scratch:
        if "kinds" in only:
            chosen = {name: KINDS[name] for name in options.kinds}
            tell(
                "Sealed vectors by kind of index, one thread a query", kinds(real, options.rows, chosen, Path(scratch))
            )
        if {"product", "freshness"} & set(only):
            filled = fill(real, options.rows, Path(scratch))
            tell("The two indexes of a collection", product(real, filled))
        if "freshness" in only:
            tell("Seconds from a commit to its first hit in another process", freshness(real, filled))


# -- the passages ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Material:
    """Real texts with their vectors (n, dimension), which rows are near each (n, near), and real questions."""

    texts: Sequence[str]
    vectors: Vectors
    near: Rows
    questions: Sequence[str]
    asked: Vectors
    fingerprint: str

    def step(self, start: int, stop: int) -> tuple[list[str], Vectors]:
        """Return texts and vectors of rows from 0: the real ones first, then mixed ones, always the same."""
        mixed = np.arange(max(start, len(self.texts)), stop)
        random = np.random.default_rng([7, start])
        first = random.integers(0, len(self.texts), len(mixed))
        second = self.near[first, random.integers(0, self.near.shape[1], len(mixed))]
        share = random.uniform(0.3, 0.7, (len(mixed), 1)).astype(np.float32)
        noise = random.standard_normal((len(mixed), self.vectors.shape[1])).astype(np.float32)
        noise *= NOISE / np.sqrt(self.vectors.shape[1])
        vectors = share * self.vectors[first] + (1 - share) * self.vectors[second] + noise
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        texts = [
            *self.texts[start:stop],
            *(_halves(self.texts[a], self.texts[b]) for a, b in zip(first, second, strict=True)),
        ]
        return texts, np.concatenate([self.vectors[start:stop], vectors])


def _halves(a: str, b: str) -> str:
    one, two = a.split(), b.split()
    return " ".join([*one[: len(one) // 2], *two[len(two) // 2 :]])


def material(settings: Settings, folders: Sequence[Path], most: int) -> Material:
    """Return real passages, with windows of their sentences up to ``most`` texts, and questions; embed what is new."""
    passages = [str(row.get("text") or row.get("title")) for folder in folders for row in read_rows(folder, "corpus")]
    windows = (window for text in passages for window in windows_of(text))
    texts = list(dict.fromkeys([*passages, *windows]))[:most]
    every = [question.text for folder in folders for question in read_questions(folder)]
    questions = every[:: max(1, len(every) // QUESTIONS)][:QUESTIONS]
    embedder = open_embedder(settings.embedder, settings.cache)
    try:
        vectors = _embedded(texts, embedder, settings.cache)
        asked = embedder.encode(questions, role="query").vectors
    finally:
        embedder.close()
    return Material(texts, vectors, _near(vectors, settings.cache), questions, asked, embedder.fingerprint)


def windows_of(text: str) -> Iterator[str]:
    """Yield runs of whole sentences of about `WINDOW` characters, each beginning in the middle of the one before."""
    spans = sentence_spans(text)
    begin = 0
    for place, (start, end) in enumerate(spans):
        if end - spans[begin][0] >= WINDOW:
            if (begin, place) != (0, len(spans) - 1):
                yield text[spans[begin][0] : end]
            begin = max(begin + 1, (begin + place + 1) // 2)
        del start


def _embedded(texts: Sequence[str], embedder: Any, cache: Path) -> Vectors:
    """Return the vectors of texts, kept in files of the cache by the thousand, so that an end half way loses little."""
    folder = cache / "scale"
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for start in range(0, len(texts), 1000):
        some = list(texts[start : start + 1000])
        key = hashlib.sha256("\0".join([embedder.fingerprint, *some]).encode()).hexdigest()[:24]
        file = folder / f"{key}.npy"
        if not file.is_file():
            order = np.argsort([len(text) for text in some])
            vectors = np.zeros((len(some), embedder.dimension), dtype=np.float32)
            for batch in np.array_split(order, max(1, len(order) // 64)):
                vectors[batch] = embedder.encode([some[i] for i in batch]).vectors
            np.save(file, vectors.astype(np.float16))
            print(f"embedded {start + len(some):,} of {len(texts):,}", flush=True)
        parts.append(np.load(file).astype(np.float32))
    return np.concatenate(parts)


def _near(vectors: Vectors, cache: Path) -> Rows:
    file = cache / "scale" / f"near-{hashlib.sha256(vectors.tobytes()).hexdigest()[:24]}.npy"
    if not file.is_file():
        halves = vectors.astype(np.float16)
        blocks = [nearest(halves, vectors[start : start + 2000])[:, 1:] for start in range(0, len(vectors), 2000)]
        np.save(file, np.concatenate(blocks))
    found: Rows = np.load(file)
    return found


# -- kinds of index --------------------------------------------------------------------------------------------------


def kinds(real: Material, rows: int, chosen: dict[str, dict[str, str]], scratch: Path) -> Table:
    """Return what each kind of index costs and finds on the same rows and questions."""
    halves = np.concatenate([real.step(s, min(s + STEP, rows))[1].astype(np.float16) for s in range(0, rows, STEP)])
    exact = nearest(halves, real.asked)
    del halves
    head = ["index", "build s", "bytes a row", "resident MB", "recall@10 of probes", "of questions", "95 %"]
    table = [[*head, *PERCENTILES, "effort", "rescored"]]
    for name, given in chosen.items():
        folder = scratch / name.replace(", ", "-")
        folder.mkdir()
        with ProcessPoolExecutor(1, mp_context=mp.get_context("spawn")) as pool:
            facts, seconds = pool.submit(_made, real, rows, given, folder).result()
        with ProcessPoolExecutor(1, mp_context=mp.get_context("spawn")) as pool:
            found, times, resident = pool.submit(_asked, folder, facts, rows, real.asked).result()
        hits = [float(np.isin(a, b[:10]).mean()) for a, b in zip(exact, found, strict=True)]
        low, high = interval(hits)
        size = sum(file.stat().st_size for file in folder.iterdir()) / rows
        table.append([
            name, f"{seconds:.0f}", f"{size:.0f}", f"{resident:.0f}", f"{facts['recall@10']:.3f}",
            f"{np.mean(hits):.3f}", f"{low:.3f}-{high:.3f}", *times.cells(), str(facts["effort"]),
            str(facts["rescored"]),
        ])  # fmt: skip
    return table


def _made(real: Material, rows: int, given: dict[str, str], folder: Path) -> tuple[dict[str, Any], float]:
    steps = (_numbered(start, real.step(start, min(start + STEP, rows))[1]) for start in range(0, rows, STEP))
    rules = IndexSettings.model_validate({"flat_rows": 1, **given})
    start = time.perf_counter()
    _, facts = write_vectors(folder, steps, real.vectors.shape[1], rules)
    return facts, time.perf_counter() - start


def _numbered(start: int, vectors: Vectors) -> Step:
    return np.arange(start + 1, start + 1 + len(vectors)), vectors


def _asked(folder: Path, facts: dict[str, Any], rows: int, asked: Vectors) -> tuple[list[Rows], Times, float]:
    """Return rows found, milliseconds, and the memory that opening and searching took, in a process of its own."""
    before = resident_megabytes()
    part = open_vectors(folder, {**facts, "rows": rows}, asked.shape[1])
    mask: Mask = np.ones(rows, dtype=bool)
    for query in asked:
        part.search(query, CANDIDATES, mask, rows)
    resident = resident_megabytes() - before
    found, times = timed(lambda query: part.search(query, CANDIDATES, mask, rows).seqs, asked)
    return found, times, resident


# -- the product -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Filled:
    """A data folder with a catalog of one collection."""

    folder: Path
    collection: str
    rows: int
    fingerprint: str
    dimension: int

    def open(self) -> tuple[Catalog, DenseIndex, LexicalIndex]:
        catalog, rules = Catalog.in_folder(self.folder), IndexSettings()
        indexes = self.folder / "indexes"
        dense = DenseIndex(catalog, self.collection, self.fingerprint, self.dimension, indexes, rules)
        return catalog, dense, LexicalIndex(catalog, self.collection, indexes, rules)


def fill(real: Material, rows: int, scratch: Path) -> Filled:
    """Make a catalog of so many rows: the first by a commit, the others put into its tables as a commit would.

    Only the search for near-copies is left out, which would take most of the time and is not what is measured.
    """
    catalog = Catalog.in_folder(scratch)
    collection = catalog.create_collection("scale").id
    filled = Filled(scratch, collection, rows, real.fingerprint, real.vectors.shape[1])
    texts, vectors = real.step(0, 100)
    add(catalog, filled, "first", texts, vectors)
    catalog.close()
    with sqlite3.connect(scratch / "catalog.sqlite3") as database:
        (version,) = database.execute("SELECT version_id FROM chunks LIMIT 1").fetchone()
        for start in range(100, rows, STEP):
            _insert(database, filled, version, start, *real.step(start, min(start + STEP, rows)))
        database.execute("UPDATE collections SET last_seq = ?, commits = commits + 1", (rows,))
    database.close()
    return filled


def _insert(
    database: sqlite3.Connection, filled: Filled, version: str, start: int, texts: Sequence[str], vectors: Vectors
) -> None:
    (last,) = database.execute("SELECT max(id) FROM texts").fetchone()
    ids = range(last + 1, last + 1 + len(texts))
    said = [
        (i, filled.collection, f"{i:032x}", "", text, len(text) // 5, i) for i, text in zip(ids, texts, strict=True)
    ]
    database.executemany(
        "INSERT INTO texts (id, collection_id, digest, context, text, tokens, like_id) VALUES (?, ?, ?, ?, ?, ?, ?)",
        said,
    )
    blobs = ((i, filled.fingerprint, row.tobytes()) for i, row in zip(ids, vectors.astype("<f2"), strict=True))
    database.executemany("INSERT INTO vectors (text_id, embedder, vector) VALUES (?, ?, ?)", blobs)
    rows = ((filled.collection, start + n + 1, f"{i:032x}", version, i, 0, 1, "text", "[]") for n, i in enumerate(ids))
    database.executemany(
        'INSERT INTO chunks (collection_id, seq, id, version_id, text_id, start, "end", kind, section) '
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        rows,
    )


def add(catalog: Catalog, filled: Filled, name: str, texts: Sequence[str], vectors: Vectors) -> None:
    """Commit a document as a worker does."""
    content = "\n".join(texts)
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    batch = catalog.open_batch(filled.collection)
    catalog.accept(filled.collection, name, sha256, len(content), batch=batch)
    claimed = catalog.claim("bench", 60.0, batch=batch)
    if claimed is None:
        raise SystemExit("The catalog gave no work.")
    parsed = ParsedDocument.from_blocks([Block(Kind.TEXT, text) for text in texts], "text/plain")
    pieces = [Chunk(e.text, "", e.start, e.end, e.kind, e.page, e.section, 1) for e in parsed.elements]
    catalog.commit(claimed.id, "bench", parsed, pieces, vectors, filled.fingerprint)


def product(real: Material, filled: Filled) -> Table:
    """Return what sealing and searching both indexes take, each in a process of its own."""
    table = [
        [
            "index",
            "seal s",
            "peak MB of sealing",
            "bytes a row",
            "resident MB",
            *PERCENTILES,
            "said by the manifest",
        ]
    ]
    for which, queries in (("dense", list(real.asked)), ("lexical", list(real.questions))):
        with ProcessPoolExecutor(1, mp_context=mp.get_context("spawn")) as pool:
            seconds, peak = pool.submit(_sealed, filled, which).result()
        with ProcessPoolExecutor(1, mp_context=mp.get_context("spawn")) as pool:
            times, resident = pool.submit(_searched, filled, which, queries).result()
        (part,) = (filled.folder / "indexes" / filled.collection).glob(f"{which}-*")
        size = sum(file.stat().st_size for file in part.iterdir()) / filled.rows
        facts = json.loads((part / "manifest.json").read_text())
        said = ", ".join(
            f"{key} {facts[key]}"
            for key in ("index", "codes", "lists", "recall@10", "terms", "postings")
            if key in facts
        )
        table.append([which, f"{seconds:.0f}", f"{peak:.0f}", f"{size:.0f}", f"{resident:.0f}", *times.cells(), said])
    return table


def _sealed(filled: Filled, which: str) -> tuple[float, float]:
    catalog, dense, lexical = filled.open()
    start = time.perf_counter()
    (dense if which == "dense" else lexical).seal()
    catalog.close()
    return time.perf_counter() - start, _status("VmHWM")


def _searched(filled: Filled, which: str, queries: Sequence[Any]) -> tuple[Times, float]:
    catalog, dense, lexical = filled.open()
    search: Callable[..., Any] = dense.search if which == "dense" else lexical.search
    before = resident_megabytes()
    for query in queries:
        search(query, CANDIDATES)
    resident = resident_megabytes() - before
    _, times = timed(lambda query: search(query, CANDIDATES), queries)
    catalog.close()
    return times, resident


def freshness(real: Material, filled: Filled, commits: int = 60, every: float = 0.5) -> Table:
    """Commit documents at a steady pace while one process seals without a pause and another one searches."""
    context = mp.get_context("spawn")
    said, found = context.Queue(), context.Queue()
    stop = context.Event()
    reader = context.Process(target=_read, args=(filled, said, found, list(real.asked)))
    sealer = context.Process(target=_seal_on, args=(filled, stop))
    reader.start()
    found.get()  # it is open
    sealer.start()
    catalog = Catalog.in_folder(filled.folder)
    random = np.random.default_rng(11)
    for number in range(commits):
        vector = random.standard_normal((1, filled.dimension)).astype(np.float32)
        vector /= np.linalg.norm(vector)
        word = f"plover{number:05d}"
        add(catalog, filled, word, [f"{word} was seen at the shore"], vector)
        said.put((time.monotonic(), word, vector[0]))
        time.sleep(every)
    said.put(None)
    seconds, searches = found.get()
    stop.set()
    reader.join()
    sealer.join()
    catalog.close()
    late = sorted(seconds)
    p95 = late[int(0.95 * len(late))]
    head = ["commits", "median s", "p95 s", "slowest s", "searches meanwhile", *PERCENTILES, "seals in force"]
    seals = str(len(list((filled.folder / "indexes" / filled.collection).glob("[dl]*-*"))))
    row = [str(len(late)), f"{np.median(late):.3f}", f"{p95:.3f}", f"{late[-1]:.3f}", f"{len(searches.wall):,}"]
    return [head, [*row, *searches.cells(), seals]]


def _seal_on(filled: Filled, stop: Any) -> None:
    catalog, dense, lexical = filled.open()
    while not stop.is_set():
        dense.seal()
        lexical.seal()
    catalog.close()


def _read(filled: Filled, said: Any, found: Any, asked: Sequence[Vectors]) -> None:
    catalog, dense, lexical = filled.open()
    dense.search(asked[0], CANDIDATES), lexical.search("shore", CANDIDATES)
    found.put("open")
    seconds: list[float] = []
    searches = Times()
    wanted: list[tuple[float, str, Vectors]] = []
    over = False
    while wanted or not over:
        while not said.empty():
            new = said.get()
            over = over or new is None
            wanted += [new] if new is not None else []
        for one in list(wanted):
            if dense.search(one[2], 1).scores[:1] > 0.99 and len(lexical.search(one[1], 1).seqs):
                seconds.append(time.monotonic() - one[0])
                wanted.remove(one)
        _, times = timed(lambda query: dense.search(query, CANDIDATES), asked[len(searches.wall) % len(asked) :][:1])
        searches.wall.extend(times.wall)
        searches.processor.extend(times.processor)
        time.sleep(0.01)
    found.put((seconds, searches))
    catalog.close()


# -- measures --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds of some calls: by the clock on the wall, and of the processor, which other work changes little."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def cells(self) -> list[str]:
        return [f"{np.percentile(self.wall, p):.2f}" for p in (50, 99)] + [f"{np.median(self.processor):.2f}"]


PERCENTILES = ("p50 ms", "p99 ms", "p50 ms of processor")


def timed(step: Callable[[Any], Any], queries: Iterable[Any]) -> tuple[list[Any], Times]:
    """Return what ``step`` gives for each query, and how long it takes."""
    found, times = [], Times()
    for query in queries:
        wall, processor = time.perf_counter(), time.thread_time()
        found.append(step(query))
        times.processor.append(1000 * (time.thread_time() - processor))
        times.wall.append(1000 * (time.perf_counter() - wall))
    return found, times


def resident_megabytes() -> float:
    """Return the resident memory of this process, mapped files included, where Linux tells."""
    return _status("VmRSS")


def _status(field: str) -> float:
    file = Path("/proc/self/status")
    found = re.search(rf"^{field}:\s+(\d+) kB$", file.read_text(), re.MULTILINE) if file.is_file() else None
    return int(found[1]) / 1024 if found else 0.0


if __name__ == "__main__":
    main()
