"""The benchmark of ingest: ``make bench-ingest DATA=folder``, where folder holds documents/ with its manifest.csv.

Prints tables and appends them to ``eval/LOG.md``: rates by format, on those documents and on a generated corpus; the
whole corpus with the share of each stage, the embedder's own rate beside it, and the memory of each process; the time
from an upload to the first hit while a bulk load is running; and how much of the documents their parses keep.
Knows the product by its command line, its REST API and `rag`; the rates include the start of the command.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from eval import freshness, parsing
from eval.corpus import FORMATS, Entry, generate, invent, mark_of
from eval.formats import WRITERS
from eval.processes import PeakMemory, finished, start
from eval.tables import LOG, Table, commit, hardware, report
from rag.encoders import open_embedder
from rag.records import Document
from rag.settings import load_settings
from rag.store import open_store

PARTS = ("parsing", "documents", "generated", "sizes", "corpus", "freshness")
COLLECTION = "bench"
#: Passages with which the embedder is measured alone, and how many it is given in one call.
OWN_PASSAGES, OWN_CALL = 3000, 512
#: Text documents of one size: how many words they have at least, and how many words are loaded of each size.
SIZES, SIZE_WORDS, TEXT_FORMATS = (150, 500, 3000, 15_000), 1_000_000, ("txt", "md", "html", "pdf")
#: This share of the corpus is loaded first, on its own.
PILOT = 0.02
#: Most files that are named as not as expected.
NAMED = 20
IDLE = "embed_idle"


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    chosen, tell = set(options.only or PARTS), partial(report, log=options.log)
    tell(f"Benchmark of ingest of {datetime.now(UTC):%Y-%m-%d}, commit {commit()}, {hardware()}")
    if options.documents and "parsing" in chosen:
        scores = parsing.measure(options.documents)
        tell("Words and strings that parsing keeps, by format", parsing.by_format(scores))
        tell("Documents that are not as expected, or with a word recall below 0.95", parsing.faults(scores))
    if options.documents and "documents" in chosen:
        tell("Ingest of the documents by format", documents_by_format(options.documents, options.repeats))
    if "generated" in chosen:
        rows = generated_by_format(options.by_format, options.seed)
        tell(f"Ingest of {options.by_format} generated files by format", rows)
    if "sizes" in chosen:
        tell("Ingest of text documents by their size", text_by_size(options.size_words, options.seed))
    if chosen & {"corpus", "freshness"}:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "corpus"
            entries = generate(folder, options.count, options.seed)
            if "corpus" in chosen:
                for title, table in whole_corpus(folder, entries, Path(scratch)):
                    tell(title, table)
            if "freshness" in chosen:
                found = freshness.measure(folder, Path(scratch) / "served", uploads=options.uploads)
                tell("From upload to first search hit during a bulk load", found.table())
                tell("Peak memory of the server during that load", found.memory)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=Path, help="folder with a manifest.csv; without it no real ones are read")
    parser.add_argument("--count", type=int, default=20_000, help="files of the generated corpus")
    parser.add_argument("--by-format", type=int, default=200, help="generated files of each format")
    parser.add_argument("--size-words", type=int, default=SIZE_WORDS, help="words in text documents of each size")
    parser.add_argument("--uploads", type=int, default=30, help="uploads while a bulk load is running")
    parser.add_argument("--repeats", type=int, default=3, help="how often the small sets are loaded")
    parser.add_argument("--seed", type=int, default=1, help="of the generated corpus")
    parser.add_argument("--only", choices=PARTS, action="append", help="one part alone; may be given again")
    parser.add_argument("--log", type=Path, default=LOG, help="what the tables are appended to, if it is there")
    options = parser.parse_args(arguments)
    if options.documents and not (options.documents / "manifest.csv").is_file():
        parser.error(f"{options.documents} has no manifest.csv, which says what its documents hold.")
    return options


# -- one load --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Load:
    """One run of ``citewell ingest --json``: its report, and what lies in the data folder after it."""

    report: Mapping[str, Any]
    pages: int
    memory: Table

    @property
    def seconds(self) -> float:
        return float(self.report["seconds"])

    @property
    def ready(self) -> int:
        return sum(file.get("state") == "ready" for file in self.report["files"])

    def rates(self) -> list[str]:
        """Return documents, pages and passages per second; pages only where the format has any."""
        numbers = (self.ready, self.pages, int(self.report["passages"]))
        return [f"{number / self.seconds:.2f}" if number else "" for number in numbers]


def load(folder: Path, data: Path) -> Load:
    """Ingest ``folder`` into the data folder ``data``; a file that is refused is no failure here."""
    command = ("ingest", folder, "--collection", COLLECTION, "--json", "--data", data)
    with start(*command) as process, PeakMemory(process.pid) as watched:
        found = json.loads(finished(process, (0, 1)))
    return Load(found, sum(document.newest.pages or 0 for document in documents_in(data)), watched.table())


def documents_in(data: Path) -> Iterator[Document]:
    with open_store(load_settings(data=data)) as store:
        collection, after = store.catalog.collection(COLLECTION).id, ""
        while page := store.catalog.list_documents(collection, after=after, limit=500):
            yield from page
            after = page[-1].name


@contextmanager
def _empty_data() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "data"


# -- by format -------------------------------------------------------------------------------------------------------

BY_FORMAT = ["format", "files", "ready", "pages", "passages", "seconds", "spread"]
RATES = ["documents/s", "pages/s", "passages/s"]


def documents_by_format(folder: Path, repeats: int) -> Table:
    """Return the medians of ``repeats`` loads of the files of each format, below the load of one line of text."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for sample in parsing.read_manifest(folder):
        groups[sample.format].append(sample.path)
    rows = [[*BY_FORMAT, *RATES]]
    with tempfile.TemporaryDirectory() as scratch:
        line = Path(scratch) / "line.txt"
        line.write_text("One line of text, which shows how long the command takes to start and to end.\n")
        for name, paths in {"one line": [line], **groups}.items():
            target = Path(scratch) / name
            target.mkdir()
            for path in paths:
                shutil.copy(path, target)
            rows.append(_row(name, target, repeats))
    return rows


def generated_by_format(count: int, seed: int) -> Table:
    """Return a load of ``count`` generated files of each format."""
    rows = [[*BY_FORMAT, *RATES]]
    with tempfile.TemporaryDirectory() as scratch:
        for name in FORMATS:
            generate(Path(scratch) / name, count, seed, [name], oddities=False)
            rows.append(_row(name, Path(scratch) / name, repeats=1))
    return rows


def _row(name: str, folder: Path, repeats: int) -> list[str]:
    loads = []
    for _ in range(repeats):
        with _empty_data() as data:
            loads.append(load(folder, data))
    loads.sort(key=lambda found: found.seconds)
    middle = loads[len(loads) // 2]
    spread = f"{loads[0].seconds:.1f}-{loads[-1].seconds:.1f}"
    counts = (len(middle.report["files"]), middle.ready, middle.pages, middle.report["passages"])
    return [name, *(f"{number:,}" for number in counts), f"{middle.seconds:.1f}", spread, *middle.rates()]


def text_by_size(words: int, seed: int, sizes: Sequence[int] = SIZES) -> Table:
    """Return loads of text documents of one size each, about ``words`` in all, and the embedder's own rate on them.

    The embedder alone is measured right after each load, on passages of it.
    """
    head = [
        "words a file",
        "files",
        "passages a file",
        "seconds",
        "passages/s",
        "embedder alone, passages/s",
        "of that",
    ]
    rows = [head]
    for size in sizes:
        with tempfile.TemporaryDirectory() as scratch, _empty_data() as data:
            count, rng = max(len(TEXT_FORMATS), words // size), random.Random(seed)
            for number in range(count):
                form = TEXT_FORMATS[number % len(TEXT_FORMATS)]
                writing = invent(rng, mark_of(number), least_words=size)
                Path(scratch, f"{number}.{form}").write_bytes(WRITERS[form](writing))
            found = load(Path(scratch), data)
            passages, alone = int(found.report["passages"]), own_rate(passages_in(data))
        rate = passages / found.seconds
        rows.append(
            [f"{size:,}", f"{count:,}", f"{passages / count:.1f}", f"{found.seconds:.1f}", f"{rate:.1f}",
             f"{alone:.1f}", f"{rate / alone:.2f}"]
        )  # fmt: skip
    return rows


# -- the whole corpus ------------------------------------------------------------------------------------------------


def whole_corpus(folder: Path, entries: Sequence[Entry], scratch: Path) -> Iterator[tuple[str, Table]]:
    """Yield tables on the load of a generated corpus, between two measures of the embedder alone on passages of it."""
    pilot = scratch / "pilot"
    for entry in entries[-max(1, int(PILOT * len(entries))) :]:
        (pilot / entry.name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / entry.name, pilot / entry.name)
    load(pilot, scratch / "pilot-data")
    own = [own_rate(passages_in(scratch / "pilot-data"))]
    found = load(folder, scratch / "data")
    own.append(own_rate(passages_in(scratch / "data")))
    alone, rate = statistics.mean(own), int(found.report["passages"]) / found.seconds
    head = ["files", "ready", "pages", "passages", "seconds", *RATES, "embedder alone, passages/s", "of that"]
    counts = (len(entries), found.ready, found.pages, found.report["passages"])
    speed = [f"{found.seconds:.1f}", *found.rates(), ", ".join(f"{value:.1f}" for value in own), f"{rate / alone:.2f}"]
    yield f"Ingest of a generated corpus of {len(entries):,} files", [head, [*(f"{n:,}" for n in counts), *speed]]
    yield "Its time by stage, all threads and processes added up", stages(found)
    yield "Peak memory of each process during that load", found.memory
    if len(wrong := unexpected(found, entries)) > 1:
        yield "Files that fared otherwise than their manifest says", wrong


def stages(found: Load) -> Table:
    """Return the seconds of each stage and its share of their sum; idling is told beside them, as share of the load."""
    seconds: Mapping[str, float] = found.report["stages"]
    busy = {name: value for name, value in seconds.items() if name != IDLE}
    rows = [["stage", "seconds", "share"]]
    rows += [[name, f"{value:.1f}", f"{100 * value / sum(busy.values()):.1f} %"] for name, value in busy.items()]
    if IDLE in seconds:
        share = f"{100 * seconds[IDLE] / found.seconds:.1f} % of the load"
        rows.append(["embedder idle with work there", f"{seconds[IDLE]:.1f}", share])
    return rows


def unexpected(found: Load, entries: Sequence[Entry]) -> Table:
    """Return the first files that were refused although they are whole, or not with the error that is due."""
    outcomes = {file["name"]: file.get("error_code") for file in found.report["files"]}
    wrong = (
        [entry.name, entry.error or "ready", outcome or "ready"]
        for entry in entries
        if (outcome := outcomes.get(entry.name, "missing")) != entry.error
    )
    return [["file", "expected", "found"], *islice(wrong, NAMED)]


def passages_in(data: Path) -> list[str]:
    """Return what the embedder saw of up to `OWN_PASSAGES` passages, spread over the collection."""
    with open_store(load_settings(data=data)) as store:
        collection = store.catalog.collection(COLLECTION)
        last = store.catalog.pulse(collection.id).last_seq
        chosen = range(1, last + 1, max(1, last // OWN_PASSAGES))
        return [passage.indexed_text for passage in store.catalog.passages(collection.id, chosen).values()]


def own_rate(texts: Sequence[str], rounds: int = 3) -> float:
    """Return how many of ``texts`` the embedder encodes in a second with nothing beside it: the median of rounds."""
    settings = load_settings()
    embedder = open_embedder(settings.embedder, settings.cache)
    try:
        embedder.encode(texts[:OWN_CALL])
        rates = []
        for _ in range(rounds):
            begun = time.perf_counter()
            for first in range(0, len(texts), OWN_CALL):
                embedder.encode(texts[first : first + OWN_CALL])
            rates.append(len(texts) / (time.perf_counter() - begun))
        return statistics.median(rates)
    finally:
        embedder.close()


if __name__ == "__main__":
    main()
