"""What the reader and the judge are trained on: rows of text with what is true of them.

Knows no data set, no token and no model.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.folders import read_relevant
from rag.errors import BadInput

Span = tuple[int, int]
#: The share of passages whose rows train nothing: they choose the checkpoint and calibrate.
HELD = 0.05


@dataclass(frozen=True, slots=True)
class ReaderRow:
    """A question beside a passage: ``context`` (title, headings; may be empty) above ``text``.

    ``answer`` is its place in ``text``. A row that is ``answerable`` without an answer only says that the passage
    answers, not where.
    """

    question: str
    context: str
    text: str
    answer: Span | None
    answerable: bool
    source: str

    @property
    def group(self) -> str:
        """What must not be in the training part and the held part both."""
        return self.text[:200]


@dataclass(frozen=True, slots=True)
class JudgeRow:
    """A claim beside evidence, and whether the evidence supports all of it."""

    claim: str
    evidence: str
    supported: bool
    source: str
    group: str


def is_held(group: str) -> bool:
    """Say whether rows of ``group`` are kept from training: always the same ones."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:4], "big") < HELD * 2**32


def surrounded(text: str, sentences: Sequence[str], rng: random.Random) -> tuple[str, int]:
    """Return ``text`` somewhere among ``sentences``, which keep their order, and how many characters come before it."""
    cut = rng.randint(0, len(sentences))
    before = "".join(f"{sentence} " for sentence in sentences[:cut])
    return before + " ".join([text, *sentences[cut:]]), len(before)


def plain(text: str) -> str:
    """Return the words of ``text`` in small letters, whatever stands between them: equal texts are equal so."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())


def dev_texts(data: Path) -> frozenset[str]:
    """Return what must not be trained on, `plain`: passages that answer dev questions, questions and claims of dev."""
    found: set[str] = set()
    for queries in sorted(data.glob("*/queries.jsonl.gz")):
        relevant = {key for grades in read_relevant(queries.parent).values() for key in grades}
        for row in read_lines(queries):
            found.add(plain(row["text"]))
            relevant.add(str(row.get("source_paragraph")))
        found |= {
            plain(row["text"]) for row in read_lines(queries.parent / "corpus.jsonl.gz") if row["_id"] in relevant
        }
    for file in sorted((data / "faithfulness").glob("*.jsonl.gz")):
        found |= {plain(row["response"]) for row in read_lines(file) if row["split"] != "train"}
    return frozenset(found)


def read_claims(data: Path, name: str) -> Iterator[JudgeRow]:
    """Yield the claims of people that train, of the set ``name`` in the folder of the sets; raises `BadInput`."""
    for row in read_lines(data / "faithfulness" / f"{name}.jsonl.gz"):
        if row["split"] == "train":
            yield JudgeRow(row["response"], row["context"], row["label"], name, row["response"])


def read_lines(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a compressed JSON lines file; raises `BadInput`."""
    try:
        with gzip.open(file, "rt", encoding="utf-8") as stream:
            for line in stream:
                if line.strip():
                    yield json.loads(line)
    except (OSError, EOFError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadInput(f"{file} is not readable as compressed JSON lines: {error}.") from error
