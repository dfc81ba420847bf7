"""Searches and answers as they go over the wire, see ``api.schemas``.

All offsets count Unicode code points from 0, half open. This module knows no route and no database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

from api.schemas import Text
from rag.answers import Answer, Citation, Claim, Conflict, Policy, ShortAnswer
from rag.plan import MOST_MESSAGES
from rag.queries import Query as Asked
from rag.queries import QueryRole, Speaker
from rag.records import Copy, Kind, Passage, Ranking


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True)


_FILTERS = """Only passages for which this holds: an object, all of whose members must hold. A member is

- a field with a value, which it must equal, or with comparisons: `eq`, `ne`, `lt`, `lte`, `gt`, `gte`, `in` (a list),
  `prefix` (of a text) and `exists` (true or false);
- `and` or `or` with a list of such objects, `not` with one.

Fields are `collection`, `document` (the name), `document_id`, `title`, `language`, `media_type`, `pages`, `page`,
`kind` and `ingested_at`, and every key of the documents' metadata (`metadata.kind` where it has the name of one of
these). Only values of one type compare; text in ISO 8601 compares as a point in time, a day as its first moment, in UTC
where no zone is given. A list has each of its values. A field that is missing or null satisfies no comparison."""


class MessageRequest(_Request):
    """One turn of the conversation before a question."""

    role: Speaker
    content: Text


class Looking(_Request):
    """How to look."""

    filters: dict[str, Any] = Field(
        default_factory=dict,
        description=_FILTERS,
        examples=[
            {"year": 2026, "language": "de"},
            {"year": {"gte": 2024, "lt": 2026}, "tags": {"in": ["hr", "it"]}},
            {"or": [{"document": {"prefix": "2026/"}}, {"not": {"status": {"exists": True}}}]},
        ],
    )
    top_k: StrictInt | None = Field(None, ge=1, le=1000, description="How many passages; by default the setting.")
    parts: dict[Text, StrictBool] = Field(
        default_factory=dict,
        max_length=20,
        description="Parts of retrieval to switch on or off for this request: `dense`, `lexical`, `late`, `rerank`, "
        "`hop`; and those that let a language model, where one is configured, make queries of the question first: "
        "`rewrite` (complete it from `history`), `decompose`, `multi_query`, `hyde`. By default as in the settings.",
        examples=[{"late": False}, {"decompose": True, "hyde": True}],
    )
    diversity: float | None = Field(
        None,
        ge=0,
        le=1,
        strict=True,
        description="How much passages that say the like are kept apart; by default the setting.",
    )
    around: StrictInt | None = Field(
        None, ge=0, le=10, description="Chunks to add on either side of each passage, unranked; by default the setting."
    )
    section: StrictBool | None = Field(
        None, description="Add the whole section of each passage, unranked; by default the setting."
    )


class Query(Looking):
    """Where to look, and how."""

    collections: list[Text] = Field(min_length=1, max_length=100, description="Names of the collections to look in.")
    history: list[MessageRequest] = Field(
        default_factory=list,
        max_length=MOST_MESSAGES,
        description="The conversation before the question, oldest message first. Its end is used, up to a setting.",
        examples=[[{"role": "user", "content": "What is the hotel limit for domestic travel?"}]],
    )


class SearchRequest(Query):
    """Words to look for."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "hotel limit", "collections": ["handbook"], "top_k": 5}]}
    )

    query: Text = Field(description="A question or words, in any language that the embedder knows.")
    hidden: StrictBool | None = Field(
        None,
        description="Find text that readers of a document do not see (white on white, hidden rows ...), too: its "
        "`kind` is `hidden`. By default the setting.",
    )


class AskRequest(Query):
    """A question to answer."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "question": "What is the hotel limit for domestic travel?",
                    "collections": ["handbook"],
                    "filters": {"document": "2026/travel-policy.pdf"},
                    "stream": False,
                }
            ]
        }
    )

    question: Text = Field(description="A question in words.")
    stream: StrictBool = Field(False, description="Send server-sent events instead of one JSON object.")
    resumable: StrictBool = Field(
        False,
        description="With `stream`: the answer goes on for a while when its client leaves, and its events can be read "
        "from `GET /v1/answers/{id}/events` on, from any place.",
    )
    conversation: Text | None = Field(
        None,
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="The conversation that the question belongs to: the answers before it stand for `history`, up to a "
        "setting. An id that is not known begins one; `new` lets the server choose the id, which the answer has.",
        examples=["new"],
    )
    store: StrictBool = Field(True, description="Keep the answer in the log, where the settings keep any.")
    cache: StrictBool = Field(
        True, description="Let an earlier answer to the same question stand, where the same passages are found again."
    )
    policy: Policy | None = Field(
        None,
        description="What becomes of a sentence that the documents do not support. report: it has its score, as all. "
        "filter: it is withheld and counted; text comes sentence by sentence. strict: the whole answer is withheld, "
        "which comes at its end. By default the setting.",
    )


class CopyReply(_Reply):
    """Another place that says the same."""

    chunk_id: str
    document_id: str
    document: str = Field(examples=["archive/travel-policy-copy.pdf"])
    version: int = Field(examples=[1])
    page: int | None = Field(None, examples=[2])
    exact: bool = Field(description="In the same words, headings included.")

    @classmethod
    def of(cls, copy: Copy) -> Self:
        return cls.model_validate(asdict(copy))


class NeighbourReply(_Reply):
    """A chunk next to a passage, which was not ranked."""

    chunk_id: str
    text: str
    start: int
    end: int
    page: int | None
    section: list[str]


class PassageReply(_Reply):
    """A passage, where it stands, and what each stage thought of it (higher is better)."""

    chunk_id: str
    document_id: str
    document: str = Field(examples=["2026/travel-policy.pdf"])
    collection: str = Field(examples=["handbook"])
    title: str | None = Field(None, examples=["Travel policy"])
    version_id: str
    version: int = Field(examples=[2])
    page: int | None = Field(None, description="From 1, where the format has pages.", examples=[2])
    section: list[str] = Field(description="Headings above it, outermost first.", examples=[["3. Accommodation"]])
    kind: Kind = Field(description="`hidden`: text that the document says and a reader of it does not see.")
    start: int = Field(description="Where the text begins in the parsed text of the version.", examples=[1204])
    end: int = Field(examples=[1391])
    text: str
    score: float = Field(description="The score of the last stage, by which passages are ordered.", examples=[0.93])
    scores: dict[str, float] = Field(description="Score of each stage that found it.")
    also_in: list[CopyReply] = Field(description="Other documents that say the same.", default_factory=list)
    around: list[NeighbourReply] = Field(
        description="Chunks around it, in order, where request or settings ask for them.", default_factory=list
    )

    @classmethod
    def of(cls, passage: Passage, collection: str) -> Self:
        return cls.model_validate({**asdict(passage), "collection": collection})


class QueryReply(_Reply):
    """What was looked for."""

    role: QueryRole = Field(
        description="question: as it was asked. standalone: completed from the conversation. part, paraphrase: a part "
        "of it, the same in other words. hypothetical: a passage that might answer it, written by the model and no "
        "source of anything. conversation: the question behind the one before it."
    )
    text: str

    @classmethod
    def of(cls, query: Asked) -> Self:
        return cls(role=query.role, text=query.text)


class SearchReply(_Reply):
    """Passages, best first."""

    passages: list[PassageReply]
    queries: list[QueryReply] = Field(description="What was looked for; the first is the question.")
    notice: str | None = Field(None, description="A sentence when something did not go as configured.")
    timings: dict[str, float] = Field(description="Seconds of each stage.", examples=[{"embed": 0.004}])

    @classmethod
    def of(cls, ranking: Ranking, names: Mapping[str, str]) -> Self:
        """Make the reply; ``names`` maps collection ids to names."""
        return cls(
            passages=_passages(ranking.passages, names),
            queries=[QueryReply.of(query) for query in ranking.queries],
            notice=ranking.notice,
            timings=dict(ranking.timings),
        )


class CellReply(_Reply):
    """A cell of a table's row, unchanged."""

    column: str = Field(description="The header above it; empty where that is not known.", examples=["Price"])
    text: str = Field(examples=["145"])
    start: int = Field(description="Its place in the parsed text of the version.", examples=[1221])
    end: int = Field(examples=[1224])


class CitationReply(_Reply):
    """A pointer from a span of the answer to the words that support it. The quote was found at its place."""

    number: int = Field(
        description="The marker in the text, [1], and the number of the passage in which, or around which, the quote "
        "stands.",
        examples=[1],
    )
    answer_start: int = Field(description="The span of the answer's text that it supports.", examples=[0])
    answer_end: int = Field(examples=[58])
    document_id: str
    document: str = Field(examples=["2026/travel-policy.pdf"])
    version_id: str
    version: int = Field(examples=[2])
    chunk_id: str = Field(description="The chunk that holds the quote: the passage or one around it.")
    page: int | None = Field(None, examples=[2])
    section: list[str] = Field(examples=[["3. Accommodation"]])
    source_start: int = Field(description="Where the quote begins in the parsed text of the version.", examples=[1204])
    source_end: int = Field(examples=[1262])
    quote: str = Field(description="The words of the document, unchanged: a sentence, or the row of a table.")
    cells: list[CellReply] = Field(
        description="Of a table's row the cells that the sentence speaks of.", default_factory=list
    )
    score: float = Field(description="How much of the sentence the quote supports, from 0 to 1.", examples=[1.0])
    attributed: bool = Field(
        False, description="The generator did not name this passage for the sentence; the judge found it."
    )
    also_in: list[CopyReply] = Field(description="Other documents that say the same.", default_factory=list)

    @classmethod
    def of(cls, citation: Citation, copies: tuple[Copy, ...]) -> Self:
        """Make the reply; ``copies`` say the same as the passage that is cited."""
        return cls.model_validate({**asdict(citation), "also_in": [CopyReply.of(copy) for copy in copies]})


class ClaimReply(_Reply):
    """One sentence of the answer."""

    text: str
    start: int = Field(description="Its place in the answer's text.", examples=[0])
    end: int = Field(examples=[58])
    support: float = Field(
        description="Best score of its citations, alone or together, from 0 to 1; 0 without any.", examples=[1.0]
    )
    supported: bool = Field(description="Whether `support` reaches the answer's `threshold`.", examples=[True])
    checkable: bool = Field(
        description="False where it says nothing that a document could support: a greeting, a heading, a question.",
        examples=[True],
    )
    citations: list[int] = Field(description="Places in the answer's `citations`, from 0.", examples=[[0]])

    @classmethod
    def of(cls, claim: Claim, first: int) -> Self:
        """Make the reply for a claim whose first citation has the place ``first``."""
        places = list(range(first, first + len(claim.citations)))
        return cls(
            text=claim.text,
            start=claim.start,
            end=claim.end,
            support=claim.support,
            supported=claim.supported,
            checkable=claim.checkable,
            citations=places,
        )


class ShortAnswerReply(_Reply):
    """The words of the answer that say the least that answers, as they stand in the document."""

    text: str = Field(examples=["145 euros"])
    start: int = Field(description="Its place in the answer's text.", examples=[44])
    end: int = Field(examples=[53])
    number: int = Field(description="The number of the citation in which it stands.", examples=[1])
    source_start: int = Field(description="Where it begins in the parsed text of the version.", examples=[1248])
    source_end: int = Field(examples=[1257])

    @classmethod
    def of(cls, short: ShortAnswer) -> Self:
        return cls.model_validate(asdict(short))


class StatementReply(_Reply):
    """One side of a conflict."""

    citation: CitationReply
    date: str = Field(description="The date of the document's version, in ISO 8601.", examples=["2026-01-01"])
    dated: str = Field(description="What tells the date: a key of the metadata, or `ingested_at`.", examples=["date"])


class ConflictReply(_Reply):
    """Documents that state different things in the same words."""

    differs: str = Field(description="In what: `number`, `date` or `negation`.", examples=["number"])
    statements: list[StatementReply] = Field(description="What each document states, the newest first.")

    @classmethod
    def of(cls, conflict: Conflict, copies: Mapping[str, tuple[Copy, ...]]) -> Self:
        """Make the reply; ``copies`` say the same as the passage of a chunk id."""
        return cls(
            differs=conflict.differs,
            statements=[
                StatementReply(
                    citation=CitationReply.of(side.citation, copies.get(side.citation.chunk_id, ())),
                    date=side.date,
                    dated=side.dated,
                )
                for side in conflict.statements
            ],
        )


class AnswerReply(_Reply):
    """An answer that can be traced to the words it rests on."""

    id: str
    question: str
    text: str = Field(examples=["Hotels in the country are paid up to 145 euros a night. [1]"])
    abstained: bool = Field(description="True when the documents do not say, or a rail has refused.")
    refused_by: str | None = Field(
        None, description="The rail that refused the question or the answer; `text` is what it says."
    )
    short_answer: ShortAnswerReply | None = Field(
        None, description="The words that answer, where the generator marks them: the trained reader alone does."
    )
    claims: list[ClaimReply]
    citations: list[CitationReply]
    conflicts: list[ConflictReply] = Field(
        description="Where other documents among the passages contradict what is cited, in the same words.",
        default_factory=list,
    )
    policy: Policy = Field(description="What becomes of a sentence that the documents do not support.")
    withheld: int = Field(0, description="How many sentences were withheld since nothing supports them.")
    judge: str = Field(description="What judged the support.", examples=["lexical overlap"])
    threshold: float = Field(description="Support from which a sentence is supported.", examples=[0.7])
    passages: list[PassageReply] = Field(
        description="What the generator was given, as numbered in the text; around each what it saw of that."
    )
    generator: str = Field(examples=["reader"])
    notice: str | None = Field(None, description="A sentence for the reader when something did not go as configured.")
    queries: list[QueryReply] = Field(description="What was looked for; the first is the question that is answered.")
    created_at: datetime
    cached: bool = Field(False, description="An earlier answer to the same question, from the same passages.")
    conversation: str | None = Field(None, description="The conversation that it is a turn of.")
    truncated: bool = Field(False, description="The model reached the most tokens that it may write before its end.")
    timings: dict[str, float] = Field(description="Seconds of each stage.")

    @classmethod
    def of(cls, answer: Answer, names: Mapping[str, str]) -> Self:
        """Make the reply; ``names`` maps collection ids to names."""
        claims: list[ClaimReply] = []
        for claim in answer.claims:
            claims.append(ClaimReply.of(claim, sum(len(earlier.citations) for earlier in claims)))
        copies = {passage.chunk_id: passage.also_in for passage in answer.passages}
        return cls(
            id=answer.id,
            question=answer.question,
            text=answer.text,
            abstained=answer.abstained,
            refused_by=answer.refused_by,
            short_answer=ShortAnswerReply.of(answer.short) if answer.short else None,
            claims=claims,
            citations=[CitationReply.of(c, copies.get(c.chunk_id, ())) for c in answer.citations],
            conflicts=[ConflictReply.of(conflict, copies) for conflict in answer.conflicts],
            policy=answer.policy,
            withheld=answer.withheld,
            judge=answer.judge,
            threshold=answer.threshold,
            passages=_passages(answer.passages, names),
            generator=answer.generator,
            notice=answer.notice,
            queries=[QueryReply.of(query) for query in answer.queries],
            created_at=answer.created_at,
            cached=answer.cached,
            conversation=answer.conversation,
            truncated=answer.truncated,
            timings=dict(answer.timings),
        )


def _passages(passages: tuple[Passage, ...], names: Mapping[str, str]) -> list[PassageReply]:
    return [PassageReply.of(passage, names[passage.collection_id]) for passage in passages]
