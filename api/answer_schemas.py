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
from rag.answers import Answer, Citation, Claim, ShortAnswer
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


class Query(_Request):
    """Where to look, and how."""

    collections: list[Text] = Field(min_length=1, max_length=100, description="Names of the collections to look in.")
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
    history: list[MessageRequest] = Field(
        default_factory=list,
        max_length=MOST_MESSAGES,
        description="The conversation before the question, oldest message first. Its end is used, up to a setting.",
        examples=[[{"role": "user", "content": "What is the hotel limit for domestic travel?"}]],
    )
    diversity: float | None = Field(
        None, ge=0, le=1, description="How much passages that say the like are kept apart; by default the setting."
    )
    around: StrictInt | None = Field(
        None, ge=0, le=10, description="Chunks to add on either side of each passage, unranked; by default the setting."
    )
    section: StrictBool | None = Field(
        None, description="Add the whole section of each passage, unranked; by default the setting."
    )


class SearchRequest(Query):
    """Words to look for."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "hotel limit", "collections": ["handbook"], "top_k": 5}]}
    )

    query: Text = Field(description="A question or words, in any language that the embedder knows.")


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
    kind: Kind
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
    quote: str = Field(description="The words of the document, unchanged.")
    score: float = Field(description="How much of the sentence the quote supports, from 0 to 1.", examples=[1.0])
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
    support: float = Field(description="Best score of its citations, from 0 to 1; 0 without any.", examples=[1.0])
    citations: list[int] = Field(description="Places in the answer's `citations`, from 0.", examples=[[0]])

    @classmethod
    def of(cls, claim: Claim, first: int) -> Self:
        """Make the reply for a claim whose first citation has the place ``first``."""
        places = list(range(first, first + len(claim.citations)))
        return cls(text=claim.text, start=claim.start, end=claim.end, support=claim.support, citations=places)


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


class AnswerReply(_Reply):
    """An answer that can be traced to the words it rests on."""

    id: str
    question: str
    text: str = Field(examples=["Hotels in the country are paid up to 145 euros a night. [1]"])
    abstained: bool = Field(description="True when the documents do not say.")
    short_answer: ShortAnswerReply | None = Field(
        None, description="The words that answer, where the generator marks them: the trained reader alone does."
    )
    claims: list[ClaimReply]
    citations: list[CitationReply]
    passages: list[PassageReply] = Field(
        description="What the generator was given, as numbered in the text; around each what it saw of that."
    )
    generator: str = Field(examples=["reader"])
    notice: str | None = Field(None, description="A sentence for the reader when something did not go as configured.")
    queries: list[QueryReply] = Field(description="What was looked for; the first is the question that is answered.")
    created_at: datetime
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
            short_answer=ShortAnswerReply.of(answer.short) if answer.short else None,
            claims=claims,
            citations=[CitationReply.of(c, copies.get(c.chunk_id, ())) for c in answer.citations],
            passages=_passages(answer.passages, names),
            generator=answer.generator,
            notice=answer.notice,
            queries=[QueryReply.of(query) for query in answer.queries],
            created_at=answer.created_at,
            timings=dict(answer.timings),
        )


def _passages(passages: tuple[Passage, ...], names: Mapping[str, str]) -> list[PassageReply]:
    return [PassageReply.of(passage, names[passage.collection_id]) for passage in passages]
