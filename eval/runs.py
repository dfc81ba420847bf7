"""The records of a report: what is asked and known, what came of it, and a run of many questions with its verdict.

A run holds figures and ids, and no text. What was asked and said, and what it rests on, stands in the log of answers
and among the golden questions, from where it may have to go. Frozen data; knows no metric, page or database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter

from rag.queries import Message
from rag.records import digest

RecordT = TypeVar("RecordT")

#: Corrected p values up to this one count as a change.
SIGNIFICANCE = 0.05


class Source(StrEnum):
    """Where a question comes from. Scores of different sources are never put together.

    Those of a ``FOLDER`` in BEIR layout are measured by `citewell eval` and kept beside the others.
    """

    GOLDEN = "golden"
    TRAFFIC = "traffic"
    GENERATED = "generated"
    FOLDER = "folder"


class Cause(StrEnum):
    """What a failed question is put down to: the first step of the journey that lost the answer."""

    MISSING = "missing document"
    PARSING = "parsing"
    RETRIEVAL = "retrieval"
    RANKING = "ranking"
    READING = "reading"


@dataclass(frozen=True, slots=True)
class Relevant:
    """A document that answers a question: its name, the words of it that do, and which content that was, if known."""

    document: str
    sha256: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A question to be asked, and what is known of it.

    ``answers`` are the accepted ones; where it is not ``answerable``, silence is right. One of the `Source.TRAFFIC` was
    answered already: ``answer_id`` names that answer in the log, and it is not asked again; it stands for ``weight``
    asked questions. ``made`` says how a generated one was made, ``drift`` why a golden one should be looked at again.
    """

    id: str
    text: str
    source: Source
    collection: str
    tags: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    relevant: tuple[Relevant, ...] = ()
    answerable: bool = True
    filters: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[Message, ...] = ()
    answer_id: str | None = None
    weight: float = 1.0
    made: str = ""
    drift: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Equal for questions of two runs that can be compared: the same text of which the same is known."""
        known = [self.source, self.collection, self.text, str(self.answerable), *sorted(self.answers), "\n"]
        said = [f"{message.role}: {message.content}" for message in self.history]
        return digest(*known, *sorted(found.document for found in self.relevant), "\n", repr(dict(self.filters)), *said)


@dataclass(frozen=True, slots=True)
class Scores:
    """Numbers by metric, higher is better where its name does not say otherwise; where one failed, the reason."""

    values: Mapping[str, float] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of one question.

    ``failed`` is None where nothing is known by which an answer could be called wrong; ``cause`` and ``why`` say what a
    failure is put down to, where that can be told. ``seconds`` are those to the first word, to the last one and to the
    end, empty where it was not asked now. The judge supported ``supported`` of the ``claims`` that could be, and took
    ``judge_tokens``, if it is a language model. ``error`` is a sentence where no answer came. ``weight`` is that of the
    question; ``drifted`` says that its documents have changed since somebody confirmed it.
    """

    key: str
    id: str
    source: Source
    collection: str
    tags: tuple[str, ...] = ()
    answer_id: str | None = None
    scores: Scores = field(default_factory=Scores)
    failed: bool | None = None
    cause: Cause | None = None
    why: str = ""
    abstained: bool = False
    fallen_back: bool = False
    seconds: Mapping[str, float] = field(default_factory=dict)
    stages: Mapping[str, float] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    judge_tokens: int = 0
    claims: int = 0
    supported: int = 0
    weight: float = 1.0
    drifted: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """The state of the service when a run ended.

    ``waiting`` documents are in the queue, the oldest since ``oldest_seconds``; ``failed`` ones could not be read.
    """

    documents: int = 0
    passages: int = 0
    index_bytes: int = 0
    waiting: int = 0
    oldest_seconds: float = 0.0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the judge agrees with people, as it was last measured: ``balanced_accuracy`` with its 95 % interval.

    Of the claims that people found supported it ``found`` some and ``missed`` some; of the others it ``passed`` some as
    supported and ``refused`` some.
    """

    judge: str
    measured_at: datetime
    balanced_accuracy: tuple[float, float, float]
    found: int
    missed: int
    passed: int
    refused: int


@dataclass(frozen=True, slots=True)
class Request:
    """What a run is asked for: the ``collections``, all if none is named, and traffic ``since`` a moment.

    ``limit`` is the most questions of each source; ``label`` names what is tried, for comparisons. ``folder`` is the
    one in BEIR layout whose questions were measured, if that was so, and what of them.
    """

    collections: tuple[str, ...] = ()
    since: datetime | None = None
    limit: int | None = None
    label: str = ""
    folder: str = ""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which questions are meant: those of a source (golden, if none is named), in a collection, with a tag."""

    source: Source | None = None
    collection: str | None = None
    tag: str | None = None

    def holds(self, asked: Asked) -> bool:
        """Say whether a question is meant, whatever its source."""
        mine = self.collection is None or asked.collection == self.collection
        return mine and (self.tag is None or self.tag in asked.tags)

    def of(self, asked: Sequence[Asked]) -> tuple[Asked, ...]:
        """Return the questions that are meant."""
        source = self.source or Source.GOLDEN
        return tuple(one for one in asked if one.source is source and self.holds(one))

    def __str__(self) -> str:
        words = [
            f" of {self.source.value} questions" if self.source else "",
            f" in {self.collection}" if self.collection is not None else "",
            f" with the tag {self.tag}" if self.tag is not None else "",
        ]
        return "".join(words)


@dataclass(frozen=True, slots=True)
class Change:
    """How far a metric is above an earlier run or runs (``versus``) on the ``count`` questions that both have.

    ``p_value`` is corrected for all changes that are told together; ``runs`` says how many runs it is compared with.
    """

    metric: str
    versus: str
    mean: float
    low: float
    high: float
    p_value: float
    count: int
    runs: int = 1
    scope: Scope = field(default_factory=Scope)

    @property
    def is_sure(self) -> bool:
        """Whether chance alone is no good explanation."""
        return self.p_value <= SIGNIFICANCE

    def as_json(self) -> dict[str, Any]:
        """Return the numbers, rounded, and of which questions they are."""
        return {
            "metric": self.metric, "source": (self.scope.source or Source.GOLDEN).value,
            "collection": self.scope.collection, "tag": self.scope.tag, "versus": self.versus,
            "difference": round(self.mean, 4), "interval": [round(self.low, 4), round(self.high, 4)],
            "p_value": round(self.p_value, 4), "questions": self.count, "runs": self.runs, "is_sure": self.is_sure,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a run passes: ``reasons`` has a sentence for each of the ``gates`` that it does not pass.

    The gates are kept as plain JSON. Without any nothing was asked for.
    """

    passed: bool
    reasons: tuple[str, ...] = ()
    gates: tuple[Mapping[str, Any], ...] = ()

    @property
    def word(self) -> str:
        """The verdict in a word."""
        return ("Passed" if self.passed else "Failed") if self.gates else "Measured"

    def as_json(self) -> dict[str, Any]:
        """Return the verdict as one object."""
        return {"passed": self.passed, "reasons": list(self.reasons), "gates": [dict(gate) for gate in self.gates]}


@dataclass(frozen=True, slots=True)
class Run:
    """A run that has ended. ``left_out`` says of what was not asked or not scored at all why that is so.

    ``changes`` and ``verdict`` are those of the moment when it ended: what comes later does not touch them.
    """

    id: str
    started_at: datetime
    ended_at: datetime
    request: Request
    settings_digest: str
    generator: str
    judge: str
    asked: tuple[Asked, ...]
    service: Service = field(default_factory=Service)
    agreement: Agreement | None = None
    left_out: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    verdict: Verdict = field(default_factory=lambda: Verdict(passed=True))

    @property
    def seconds(self) -> float:
        return (self.ended_at - self.started_at).total_seconds()

    def of(self, source: Source) -> tuple[Asked, ...]:
        """Return what came of the questions of one source."""
        return tuple(one for one in self.asked if one.source is source)


def plain(record: Asked | Request | Service | Agreement | Change | Verdict) -> dict[str, Any]:
    """Return a record as plain JSON; `record_of` reads it."""
    found: dict[str, Any] = _adapter(type(record).__name__).dump_python(record, mode="json")
    return found


def record_of(kind: type[RecordT], values: Any) -> RecordT:
    """Return the record that `plain` wrote; fields that are newer than it have their defaults."""
    found: RecordT = _adapter(kind.__name__).validate_python(values)
    return found


@cache
def _adapter(kind: str) -> TypeAdapter[Any]:
    kinds = (Asked, Request, Service, Agreement, Change, Verdict)
    return TypeAdapter({one.__name__: one for one in kinds}[kind])
