"""The records of the answer log: an answer with all that explains it, what people think of it, and its events.

What quotes documents or says what was asked stands apart (`Texts`) from the rest (`Facts`), since it may have to go:
by a setting, or with a document that is purged. Knows no database and no pipeline.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter

from rag.answers import NO_WISH, Answer, Wish
from rag.records import Plan, Ranking, digest

T = TypeVar("T")
#: The events after which there is none.
LAST = frozenset({"done", "error"})
#: Seconds without a sign of life after which nobody writes an answer any more.
DEAD_SECONDS = 20.0


class Redact(StrEnum):
    """What of an answer is not kept: nothing is left out, what was asked, or every text."""

    NONE = "none"
    QUESTION = "question"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class IndexState:
    """Where a collection stood when it was searched: ``commits`` grows with every change that a search can notice."""

    collection_id: str
    name: str
    commits: int
    last_seq: int
    tuning: str | None = None
    embedder: str | None = None

    @property
    def digest(self) -> str:
        """Equal as long as nothing has changed that a search could notice."""
        return digest(self.collection_id, str(self.commits), str(self.last_seq), self.tuning or "", self.embedder or "")


@dataclass(frozen=True, slots=True)
class Texts:
    """All of an answer that holds texts. ``messages`` are what a language model was given, none if it was not asked.

    The plan is the one that was asked for, before the question was understood.
    """

    answer: Answer
    plan: Plan | None = None
    wish: Wish = NO_WISH
    messages: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """All of an answer that holds no text. ``stages`` are the candidates of each stage by id and score, best first."""

    stages: Mapping[str, tuple[tuple[str, float], ...]]
    timings: Mapping[str, float]
    indexes: tuple[IndexState, ...]
    settings_digest: str
    prompt_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Feedback:
    """What somebody thinks of an answer, or of the claim with the number ``claim``: ``rating`` is from -1 to 1."""

    created_at: datetime
    rating: float
    claim: int | None = None
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class Logged:
    """An answer of the log. ``texts`` is None where they were not kept or had to go, ``facts`` until it has ended."""

    id: str
    created_at: datetime
    cached: bool
    conversation: str | None
    generator: str | None
    abstained: bool | None
    texts: Texts | None
    facts: Facts | None
    purged_at: datetime | None = None
    feedback: tuple[Feedback, ...] = ()


@dataclass(frozen=True, slots=True)
class Headline:
    """An answer as a list shows it; ``question`` and ``text`` are None where the log has no texts of it."""

    id: str
    created_at: datetime
    cached: bool
    conversation: str | None
    generator: str | None
    abstained: bool | None
    question: str | None
    text: str | None


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question of the log and how it was answered: ``support`` is that of the least supported sentence, if any.

    One that ``follows`` others in a conversation may mean nothing without them.
    """

    id: str
    question: str
    abstained: bool
    support: float | None
    collections: tuple[str, ...]
    follows: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """An answer on its way into the log.

    ``saw`` are the documents, with the numbers of their versions, whose words it may hold; ``quoting`` says that its
    client gave it a conversation, whose words may come from anywhere. An answer with a ``cache_key`` can stand for a
    later one with the same key and ``basis``. ``reported``: not people asked it, but a report.
    """

    logged: Logged
    collections: tuple[str, ...]
    saw: frozenset[tuple[str, int]]
    quoting: bool = False
    cache_key: str | None = None
    basis: str | None = None
    reported: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """An event of a resumable answer: ``data`` is JSON."""

    number: int
    name: str
    data: str


@dataclass(frozen=True, slots=True)
class Followed:
    """Events of a resumable answer, whether the last of them is there (``over``), and how long its writer is silent."""

    events: tuple[Told, ...]
    over: bool
    silent: float


def redacted(texts: Texts, redact: Redact) -> Texts | None:
    """Return what is kept of the texts of an answer."""
    if redact is Redact.NONE:
        return texts
    if redact is Redact.ALL:
        return None
    return Texts(replace(texts.answer, question="", queries=()), None, texts.wish)


def least_support(answer: Answer) -> float | None:
    """Return the support of an answer's least supported sentence; 0 if one was withheld for want of it.

    None where it says nothing that a document could support.
    """
    if answer.withheld:
        return 0.0
    return min((claim.support for claim in answer.claims if claim.checkable), default=None)


def saw(ranking: Ranking, answer: Answer | None = None) -> frozenset[tuple[str, int]]:
    """Return the documents, by id and version, whose words or names may stand in what was made of a ranking."""
    passages = (*ranking.passages, *(answer.passages if answer else ()))
    own = {(passage.document_id, passage.version) for passage in passages}
    cited = {(citation.document_id, citation.version) for citation in (answer.citations if answer else ())}
    return frozenset(own | cited | {(copy.document_id, copy.version) for p in passages for copy in p.also_in})


def basis(ranking: Ranking) -> str:
    """Return a digest of all in a ranking that decides what is written: the queries, and the passages in their order.

    Of the scores it holds the cosines alone, which may decide whether a generator is asked: the others go by all that
    is there, and every new document moves them a little.
    """
    parts = [f"{query.role}\n{query.text}" for query in ranking.queries]
    for passage in ranking.passages:
        place = (passage.chunk_id, passage.version_id, passage.document, passage.title, passage.page, passage.section)
        cosine = round(passage.scores["dense"], 4) if "dense" in passage.scores else None
        text = (passage.context, passage.text, passage.start, passage.end, cosine)
        around = [(chunk.chunk_id, chunk.text, chunk.context) for chunk in passage.around]
        copies = [(copy.chunk_id, copy.document, copy.version, copy.exact) for copy in passage.also_in]
        parts.append(json.dumps([place, text, around, copies]))
    return digest(ranking.notice or "", *parts)


def to_json(record: Texts | Facts) -> str:
    """Write a record; `from_json` reads it."""
    return json.dumps(_adapter(type(record).__name__).dump_python(record, mode="json"))


def from_json(kind: type[T], text: str) -> T:
    """Read a record that `to_json` wrote; fields that are newer than it have their defaults."""
    found: T = _adapter(kind.__name__).validate_python(json.loads(text))
    return found


@cache
def _adapter(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter({"Texts": Texts, "Facts": Facts}[kind])
