"""The records of an answer: its claims, what each of them rests on, and how it came about.

Frozen dataclasses, as in `rag.records`. Knows no generator, no judge and no web.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from rag.queries import Query
from rag.records import Passage, Usage


class Policy(StrEnum):
    """What becomes of a sentence that its evidence does not support."""

    REPORT = "report"
    FILTER = "filter"
    STRICT = "strict"


@dataclass(frozen=True, slots=True)
class Wish:
    """How an answer shall be written, where a request says so; None is what the settings say.

    ``max_tokens`` and ``temperature`` go to a language model; the built-in reader knows neither.
    """

    policy: Policy | None = None
    max_tokens: int | None = None
    temperature: float | None = None


#: Everything as in the settings.
NO_WISH = Wish()


@dataclass(frozen=True, slots=True)
class Keeping:
    """What becomes of an answer besides being given.

    ``store`` keeps it in the log, where the settings keep any; ``cached`` lets an earlier answer stand for it;
    ``conversation`` names the conversation that it is a turn of; ``resumable`` opens it in the log when it begins, so
    that its events can be kept too. ``reported`` marks it as asked by a report and not by people.
    """

    store: bool = True
    cached: bool = True
    conversation: str | None = None
    resumable: bool = False
    reported: bool = False


#: As the settings say, and part of no conversation.
AS_USUAL = Keeping()


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table's row: ``parsed_text[start:end] == text``; ``column`` is the header above it, if known."""

    column: str
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Citation:
    """A pointer from a span of the answer to the words in a document that support it.

    ``parsed_text[source_start:source_end] == quote`` for the version named; ``score`` in [0, 1] says how much of the
    claim the quote supports. Where the quote is a row of a table, ``cells`` are those that the claim speaks of.
    ``attributed``: not the generator named the passage for this sentence, the judge found it.
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
    cells: tuple[Cell, ...] = ()
    attributed: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence of an answer with what supports it. ``start`` and ``end`` are offsets in the answer's text.

    ``together`` is the support of the least of its parts, where no citation supports all of it but each part has one.
    ``supported`` says whether its support reaches the threshold that the judge or the settings have. A sentence that is
    not ``checkable`` says nothing that a document could support: a greeting, a heading, a question.
    """

    text: str
    start: int
    end: int
    citations: tuple[Citation, ...]
    together: float = 0.0
    supported: bool = False
    checkable: bool = True

    @property
    def support(self) -> float:
        """The best score of its citations, alone or together, in [0, 1]; 0 when it has none."""
        return max([0.0, self.together, *(citation.score for citation in self.citations)])


@dataclass(frozen=True, slots=True)
class Statement:
    """One side of a conflict: where it stands, and the date of that document version in ISO 8601.

    ``dated`` says what the date is: a key of the document's metadata, or ``ingested_at``.
    """

    citation: Citation
    date: str
    dated: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """Documents that state different things in the same words, newest first.

    ``differs`` says in what: ``number``, ``date`` or ``negation``.
    """

    differs: str
    statements: tuple[Statement, ...]


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
    for instance when the generator failed and the built-in reader answered in its place. ``cached`` says that it was
    written for the same question before, from the same passages. ``withheld`` counts the sentences that the
    ``policy`` kept back since nothing supports them; ``judge`` and ``threshold`` say by whom and from what support on a
    sentence is supported. ``usage`` is what a language model says of its tokens. Where ``refused_by``
    names a rail, ``text`` is what that one says, and the answer has abstained. ``truncated``: the model reached the
    most tokens that it was given before it had ended.
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
    cached: bool = False
    conversation: str | None = None
    policy: Policy = Policy.REPORT
    withheld: int = 0
    conflicts: tuple[Conflict, ...] = ()
    judge: str = ""
    threshold: float = 0.0
    usage: Usage | None = None
    refused_by: str | None = None
    truncated: bool = False

    @property
    def citations(self) -> tuple[Citation, ...]:
        return tuple(citation for claim in self.claims for citation in claim.citations)
