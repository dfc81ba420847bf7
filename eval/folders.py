"""BEIR-style folders: a corpus, questions and relevance judgements, as most public retrieval sets are published.

`load_corpus` and `load_reports` put a corpus into a collection one row a passage, without parsing or chunking, through
the same queue, commit and indexes that documents take. Knows no metric.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rag.assembly import Citewell
from rag.errors import BadInput, Conflict
from rag.originals import blocks_of
from rag.queries import Message, Speaker
from rag.records import Block, Chunk, Collection, Kind, ParsedDocument, Stage, State

#: Told how many of how many passages are embedded.
Progress = Callable[[int, int], None]
BATCH = 256
#: Part of the name of a loaded corpus: what is kept of a passage, so that one that was loaded with less is not used.
CODED = "words"
#: Seconds without a sign of life after which a load counts as dead.
LEASE = 60.0


@dataclass(frozen=True, slots=True)
class Question:
    """A question with what counts as right: ``relevant`` maps passage ids to grades (0 is judged irrelevant).

    ``history`` is the conversation before it, for sets that have one.
    """

    id: str
    text: str
    relevant: dict[str, int]
    history: tuple[Message, ...] = ()


def read_questions(folder: Path) -> list[Question]:
    """Return the questions of a folder that have at least one relevant passage; raises `BadInput`.

    A row of ``queries`` may have a ``history`` beside its ``_id`` and ``text``: the conversation before the question, a
    list of objects with ``role`` (user or assistant) and ``content``.
    """
    judged = read_relevant(folder)
    rows = read_rows(folder, "queries")
    found = [
        Question(str(row["_id"]), str(row["text"]), judged.get(str(row["_id"]), {}), conversation(row)) for row in rows
    ]
    return [question for question in found if any(grade > 0 for grade in question.relevant.values())]


def read_relevant(folder: Path) -> dict[str, dict[str, int]]:
    """Return by question id the passages that were judged, with their grades; raises `BadInput`."""
    judged: dict[str, dict[str, int]] = {}
    for line in _lines(folder / "qrels.tsv")[1:]:
        fields = line.split("\t")
        if len(fields) != 3 or not fields[2].lstrip("-").isdigit():
            raise BadInput(f"{folder / 'qrels.tsv'} has a line that is not query-id, corpus-id, score: {line[:80]!r}.")
        judged.setdefault(fields[0], {})[fields[1]] = int(fields[2])
    return judged


def conversation(row: dict[str, Any]) -> tuple[Message, ...]:
    """Return the ``history`` of a row of ``queries``, if it has one; raises `BadInput`."""
    try:
        return tuple(Message(Speaker(said["role"]), str(said["content"])) for said in row.get("history") or ())
    except (TypeError, KeyError, ValueError) as error:
        raise BadInput(f"The question {row['_id']!r} has a history that is no list of role and content.") from error


def load_corpus(citewell: Citewell, folder: Path, progress: Progress | None = None) -> Collection:
    """Return the collection that holds the folder's corpus, loading it unless it is there already.

    Each row becomes one passage whose section is the row's id and whose context is its title.
    """
    catalog = citewell.store.catalog
    file = _file(folder, "corpus")
    with file.open("rb") as stream, citewell.store.originals.arriving():
        original = citewell.store.originals.store(blocks_of(stream), file.stat().st_size)
        collection = catalog.ensure_collection(f"eval-{original.sha256[:12]}-{CODED}")
        upload = catalog.open_batch(collection.id)
        version, _ = catalog.accept(collection.id, "corpus", original.sha256, original.size, batch=upload)
    owner = f"eval-{secrets.token_hex(4)}"
    if catalog.claim(owner, LEASE, batch=upload) is None:
        if catalog.version(version.id).state is not State.READY:
            raise _being_loaded()
        return catalog.collection(collection.name)
    _commit(citewell, version.id, owner, read_rows(folder, "corpus"), progress)
    return _sealed(citewell, collection.name)


def load_reports(citewell: Citewell, folder: Path, progress: Progress | None = None) -> Collection:
    """Return a collection in which the rows of one ``context_id`` are a document, with that id as its metadata.

    Loads it unless it is there already. A row without one is a document of its own. Rows become passages as in
    `load_corpus`, and those of the ``kind`` table are tables. ``progress`` is told of documents.
    """
    catalog = citewell.store.catalog
    digest = hashlib.sha256(_file(folder, "corpus").read_bytes()).hexdigest()
    reports: dict[str, list[dict[str, Any]]] = {}
    for row in read_rows(folder, "corpus"):
        reports.setdefault(str(row.get("context_id") or row["_id"]), []).append(row)
    collection = catalog.ensure_collection(f"eval-{digest[:12]}-reports")
    if (done := catalog.collection(collection.name).documents) == len(reports):
        return catalog.collection(collection.name)
    upload, owner = _accepted(citewell, collection, reports), f"eval-{secrets.token_hex(4)}"
    while (version := catalog.claim(owner, LEASE, batch=upload)) is not None:
        _commit(citewell, version.id, owner, reports[version.name], tables=True)
        done += 1
        if progress:
            progress(done, len(reports))
    if catalog.collection(collection.name).documents < len(reports):
        raise _being_loaded()
    return _sealed(citewell, collection.name)


def _accepted(citewell: Citewell, collection: Collection, reports: Mapping[str, list[dict[str, Any]]]) -> str:
    """Put reports into the queue and return the batch that they came in."""
    catalog, originals = citewell.store.catalog, citewell.store.originals
    upload = catalog.open_batch(collection.id)
    for name, rows in reports.items():
        content = json.dumps(rows).encode()
        about = {"context_id": name} if rows[0].get("context_id") else {}
        with originals.arriving():
            original = originals.store([content], len(content))
            catalog.accept(collection.id, name, original.sha256, original.size, about, batch=upload)
    return upload


def _being_loaded() -> Conflict:
    return Conflict("Another evaluation is loading this corpus; wait until it is done, or a minute if it died.")


def _commit(
    citewell: Citewell,
    version_id: str,
    owner: str,
    corpus: Iterable[dict[str, Any]],
    progress: Progress | None = None,
    *,
    tables: bool = False,
) -> None:
    """Embed the rows of a version and make it searchable; with ``tables`` a row may be one."""
    catalog, embedder = citewell.store.catalog, citewell.embedder
    parsed = ParsedDocument.from_blocks([_block(row, tables=tables) for row in corpus], "application/jsonl")
    chunks = [Chunk(e.text, e.section[1], e.start, e.end, e.kind, None, e.section[:1], 0) for e in parsed.elements]
    vectors = np.zeros((len(chunks), embedder.dimension), dtype=np.float32)
    codes = [np.zeros((0, 0), dtype=np.uint8)] * len(chunks)
    order = sorted(range(len(chunks)), key=lambda i: len(chunks[i].indexed_text))
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        encoding = embedder.encode([chunks[i].indexed_text for i in batch], codes=True)
        vectors[batch] = encoding.vectors
        for i, code in zip(batch, encoding.codes, strict=True):
            codes[i] = code
        catalog.heartbeat(owner, LEASE, {version_id: (Stage.EMBED, start / len(order))})
        if progress:
            progress(min(start + BATCH, len(order)), len(order))
    catalog.commit(version_id, owner, parsed, chunks, vectors, embedder.fingerprint, codes=codes)


def _block(row: dict[str, Any], *, tables: bool) -> Block:
    """Return a row's text, or where it has none its title, under its id and title."""
    title, body = str(row.get("title") or ""), str(row.get("text") or "")
    title, body = (title, body) if body.strip() else ("", title)
    kind = Kind.TABLE if tables and row.get("kind") == "table" else Kind.TEXT
    return Block(kind, body, None, (str(row["_id"]), title))


def _sealed(citewell: Citewell, name: str) -> Collection:
    collection = citewell.store.catalog.collection(name)
    indexes = citewell.indexes_of(collection)
    indexes.dense.seal()
    indexes.lexical.seal()
    return collection


def _file(folder: Path, name: str) -> Path:
    for ending in (".jsonl", ".jsonl.gz"):
        if (folder / f"{name}{ending}").is_file():
            return folder / f"{name}{ending}"
    raise BadInput(f"{folder} has no {name}.jsonl or {name}.jsonl.gz; give a folder in BEIR layout.")


def _lines(file: Path) -> list[str]:
    if not file.is_file():
        raise BadInput(f"{file.parent} has no {file.name}; give a folder in BEIR layout.")
    return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def read_rows(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of ``corpus`` or ``queries``, plain or compressed, each with its ``_id``; raises `BadInput`."""
    file = _file(folder, name)
    for number, row in json_lines(file):
        if "_id" not in row:
            raise BadInput(f"{file}, line {number}, has no _id; give a folder in BEIR layout.")
        yield row


def table_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a file of JSON lines, or of CSV if its name ends so, with the numbers of their lines.

    Raises `BadInput` for what is not readable as that.
    """
    if file.suffix.lower() != ".csv":
        yield from json_lines(file)
        return
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            for row in reader:
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{file} is not readable as CSV: {error}.") from error


def json_lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a file of JSON lines, plain or compressed, with the numbers of their lines from 1.

    Raises `BadInput` for what is not readable or no object.
    """
    opener = gzip.open if file.suffix == ".gz" else open
    try:
        with opener(file, "rt", encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise BadInput(f"{file}, line {number}, is no JSON object.")
                    yield number, row
    except (OSError, EOFError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadInput(f"{file} is not readable as JSON lines: {error}.") from error
