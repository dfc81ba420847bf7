"""How long the catalog takes to say which rows pass a filter: ``python -m eval.bench_filters --rows 200000``.

Fills a new catalog with generated documents of ten passages each, asks filters of every selectivity, and prints a
table. ``--database`` names an empty PostgreSQL database; without it the catalog is a SQLite file. Knows no index: what
a search under a filter costs beside this is theirs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from eval.tables import Table, commit, hardware, report
from rag.catalog import Catalog
from rag.records import Block, Chunk, Kind, ParsedDocument

PASSAGES = 10
FILTERS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("one document by name", {"document": "2026/0000007.txt"}),
    ("equal, 1 in 1000", {"number": 7}),
    ("a list has it, 1 in 100", {"tags": "t42"}),
    ("range of numbers, 1 in 10", {"number": {"gte": 100, "lt": 200}}),
    ("range of dates, 1 in 12", {"created": {"gte": "2026-02-01", "lt": "2026-03-01"}}),
    ("language, half", {"language": "de"}),
    ("and, or, not, nearly all", {"not": {"and": [{"team": "hr"}, {"or": [{"tags": "t1"}, {"number": 7}]}]}}),
    ("page, 1 in 10", {"page": 3}),
    ("page of some documents, 1 in 1000", {"page": 3, "tags": "t42"}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000, help="how many passages")
    parser.add_argument("--repeats", type=int, default=7, help="how often each filter is asked")
    parser.add_argument("--database", help="URL of an empty PostgreSQL database; by default a SQLite file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        catalog = Catalog(options.database or f"sqlite:///{Path(scratch) / 'catalog.sqlite3'}")
        collection = catalog.create_collection("many").id
        fill(catalog, collection, options.rows // PASSAGES)
        report(f"Filters of {datetime.now(UTC):%Y-%m-%d}, commit {commit()}, {hardware()}")
        named = "PostgreSQL" if options.database else "SQLite"
        report(f"Milliseconds in {named}, {options.rows:,} passages", asked(catalog, collection, options.repeats))
        catalog.close()


def fill(catalog: Catalog, collection: str, documents: int) -> None:
    """Take generated documents through accept, claim and commit; all have the same texts."""
    blocks = [Block(Kind.TEXT, f"What page {page} says.", page) for page in range(1, PASSAGES + 1)]
    vectors = np.eye(PASSAGES, dtype=np.float32)
    for number in range(documents):
        version, _ = catalog.accept(collection, f"2026/{number:07}.txt", f"{number}", 1, said_of(number))
        catalog.claim("bench", 600)
        language = "de" if number % 2 else "en"
        parsed = ParsedDocument.from_blocks(blocks, "text/plain", f"Title {number}", PASSAGES, {}, language)
        chunks = [Chunk(e.text, "", e.start, e.end, e.kind, e.page, e.section, 5) for e in parsed.elements]
        catalog.commit(version.id, "bench", parsed, chunks, vectors, "bench")


def said_of(number: int) -> dict[str, Any]:
    """Return metadata of the size that parsers and senders give."""
    created = datetime(2026, 1, 1, 8, tzinfo=UTC) + timedelta(days=number % 365, seconds=number)
    return {
        "number": number % 1000,
        "team": ("hr", "it", "law", "sales", "research")[number % 5],
        "tags": [f"t{number % 100}", "all", "2026"],
        "created": created.isoformat(),
        "author": {"name": "A. N. Author", "mail": "author@example.org"},
        "subject": "Minutes of the meeting of the works council, with all its annexes",
    }


def asked(catalog: Catalog, collection: str, repeats: int) -> Table:
    """Return, for each filter, how many rows pass and how long it takes to know them, the first time left out."""
    rows = [["filter", "rows that pass", "median", "slowest"]]
    for name, filters in FILTERS:
        times = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            found = catalog.allowed_rows(collection, filters)
            times.append(1000 * (time.perf_counter() - start))
        count = 0 if found is None else len(found)
        rows.append([name, f"{count:,}", f"{statistics.median(times[1:]):.1f}", f"{max(times[1:]):.1f}"])
    return rows


if __name__ == "__main__":
    main()
