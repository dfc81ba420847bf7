"""The records of an answer: its claims, what each of them rests on, and how it came about.

Frozen dataclasses, as in `rag.records`. Knows no generator, no judge and no web.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from rag.queries import Query
from rag.records import Passage


@dataclass(frozen=True, slots=True)
class Citation:
    """A pointer from a span of the answer to the words in a document that support it.

    ``parsed_text[source_start:source_end] == quote`` for the version named; ``score`` in [0, 1] says how much of the
    claim the quote supports.
    """

    answer_start: int
    answer_end: int
    number: int
    document_id: str
    document: str
    version_id: str
    version: int
    chunk_id: str
    page: int | None
    section: tuple[str, ...]
    source_start: int
    source_end: int
    quote: str
    score: float


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence of an answer with what supports it. ``start`` and ``end`` are offsets in the answer's text."""

    text: str
    start: int
    end: int
    citations: tuple[Citation, ...]

    @property
    def support(self) -> float:
        """The best score of its citations, in [0, 1]; 0 when it has none."""
        return max((citation.score for citation in self.citations), default=0.0)


@dataclass(frozen=True, slots=True)
class ShortAnswer:
    """The words of an answer that say the least that answers: ``answer.text[start:end] == text``.

    They are those of a citation with the number ``number``, at [source_start, source_end) of the parsed text.
    """

    text: str
    start: int
    end: int
    number: int
    source_start: int
    source_end: int


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that can be traced: its claims, its sources, and how it came about.

    ``short`` is there where the generator marks the words that answer and their citation was checked.
    ``notice`` is a sentence for the reader of the answer when something did not go as configured,
    for instance when the generator failed and the built-in reader answered in its place.
    """

    id: str
    question: str
    text: str
    abstained: bool
    claims: tuple[Claim, ...]
    passages: tuple[Passage, ...]
    generator: str
    created_at: datetime
    notice: str | None = None
    stages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    settings_digest: str = ""
    queries: tuple[Query, ...] = ()
    short: ShortAnswer | None = None

    @property
    def citations(self) -> tuple[Citation, ...]:
        return tuple(citation for claim in self.claims for citation in claim.citations)
