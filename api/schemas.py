"""What goes over the wire, as pydantic models whose descriptions and examples make up the OpenAPI page.

Requests forbid what they do not know. Replies are made from the records of ``rag`` by their ``of`` methods.
All offsets count Unicode code points from 0, half open. This module knows no route and no database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictInt

from rag.catalog import Accepted, Purged
from rag.records import (
    Answer,
    Citation,
    Claim,
    Collection,
    Copy,
    Document,
    Kind,
    Passage,
    Ranking,
    Stage,
    State,
    Version,
)

#: Whole numbers beyond this are not kept exactly by every JSON reader.
MOST_EXACT = 2**53


def check_text(value: str) -> str:
    """Return ``value``; raises `ValueError` for what no database can hold and no one can read."""
    if any(0xD800 <= ord(character) <= 0xDFFF for character in value):
        raise ValueError("is not valid text: it holds half of a character pair")
    if "\0" in value:
        raise ValueError("holds a NUL character")
    return value


Text = Annotated[str, AfterValidator(check_text)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True)


# -- errors --------------------------------------------------------------------------------------------------------


class Problem(_Reply):
    """What went wrong."""

    code: str = Field(description="Stable name of the kind of error, for programs.", examples=["not_found"])
    message: str = Field(
        description="One sentence for people.",
        examples=["There is no collection named 'handbok'; `citewell collections list` shows them."],
    )
    details: dict[str, Any] | None = Field(None, description="Facts, for instance every field that is wrong.")


class ProblemReply(_Reply):
    """The one shape of every error."""

    error: Problem


# -- health --------------------------------------------------------------------------------------------------------


class LiveReply(_Reply):
    """The process runs."""

    status: Literal["live"] = "live"


class ReadyReply(_Reply):
    """Whether questions can be answered, and by what."""

    status: Literal["ready", "degraded"] = Field(
        description="degraded: the configured generator does not answer, and the built-in reader stands in for it."
    )
    catalog: Literal["ok"] = "ok"
    generator: str = Field(description="What writes the answers now.", examples=["reader"])
    notice: str | None = Field(None, description="Why the service is degraded.")
    queue: int = Field(description="Document versions that wait or are being read.", examples=[0])


# -- collections ---------------------------------------------------------------------------------------------------


class NewCollection(_Request):
    """A collection to create."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "handbook"}]})

    name: Text = Field(description="1 to 100 letters, digits, dots, dashes and underscores; a letter or digit first.")


class CollectionReply(_Reply):
    """A named set of documents that is searched together."""

    name: str = Field(examples=["handbook"])
    id: str = Field(examples=["5f1d0c9e8b7a46529c3d2e1f0a9b8c7d"])
    created_at: datetime
    documents: int = Field(description="Documents that are searched now.", examples=[3])
    passages: int = Field(description="Passages that are searched now.", examples=[41])

    @classmethod
    def of(cls, collection: Collection) -> Self:
        return cls(
            name=collection.name,
            id=collection.id,
            created_at=collection.created_at,
            documents=collection.documents,
            passages=collection.passages,
        )


class CollectionList(_Reply):
    """All collections, by name."""

    collections: list[CollectionReply]


# -- documents -----------------------------------------------------------------------------------------------------


class UploadedFile(_Reply):
    """What became of one file of an upload: ``id`` and ``state``, or ``error``."""

    name: str = Field(description="The name under which the document is kept.", examples=["leave-policy.docx"])
    id: str | None = Field(None, description="The document's id.", examples=["9b2f7c1d4e5a60718293a4b5c6d7e8f9"])
    version: int | None = Field(None, description="Number of this content of the document, from 1.", examples=[1])
    state: State | None = None
    outcome: Accepted | None = Field(
        None,
        description="added: new document. replaced: new version. unchanged: these bytes are known, nothing is done. "
        "retried: these bytes had failed and are tried again.",
    )
    error: Problem | None = Field(None, description="Why this file was not taken; the others are not affected.")

    @classmethod
    def of(cls, version: Version, outcome: Accepted) -> Self:
        return cls(
            name=version.name, id=version.document_id, version=version.number, state=version.state, outcome=outcome
        )


class UploadReply(_Reply):
    """One entry for each file, in the order of the upload."""

    batch: str = Field(description="Id of the batch that the files belong to; watch it at `/v1/batches/{id}`.")
    documents: list[UploadedFile]


class VersionReply(_Reply):
    """One content of a document."""

    id: str
    number: int = Field(description="Counts the contents of a document from 1.", examples=[2])
    state: State
    stage: Stage = Field(description="The step of the ingest journey that it is in, or failed in.")
    progress: float = Field(description="From 0 to 1 over all steps.", examples=[1.0])
    error: Problem | None = Field(None, description="Why it could not be read.")
    attempts: int = Field(description="How often it was tried.", examples=[1])
    deaths: int = Field(description="How many workers died over it since it last got a stage further.", examples=[0])
    not_before: datetime | None = Field(None, description="When it is tried again, if it waits for another try.")
    created_at: datetime
    ended_at: datetime | None = Field(None, description="When it became ready, failed or was replaced.")
    batch_id: str | None = Field(None, description="The batch that it came with.")
    sha256: str = Field(description="Digest of the original.")
    size: int = Field(description="Bytes of the original.", examples=[13395])
    media_type: str | None = Field(None, examples=["application/pdf"])
    language: str | None = Field(None, description="ISO 639-1 code of most of its text.", examples=["en"])
    title: str | None = Field(None, examples=["Leave policy"])
    pages: int | None = Field(None, examples=[4])
    elements: int = Field(description="Headings, paragraphs, list items, tables ... found in it.", examples=[37])
    passages: int = Field(description="Passages it was cut into.", examples=[12])
    metadata: dict[str, Any] = Field(description="Given at upload, or found by the parser.")

    @classmethod
    def of(cls, version: Version) -> Self:
        error = None
        if version.error is not None:
            error = Problem(code=version.error_code or "error", message=version.error)
        return cls.model_validate({**asdict(version), "error": error})


class DocumentReply(_Reply):
    """A document with its newest content. Questions are answered from the live one.

    The two differ while a new version is being read, and stay different when it could not be read.
    """

    id: str = Field(examples=["9b2f7c1d4e5a60718293a4b5c6d7e8f9"])
    name: str = Field(examples=["leave-policy.docx"])
    collection: str = Field(examples=["handbook"])
    created_at: datetime
    state: State = Field(description="State of the newest version.")
    stage: Stage
    progress: float = Field(examples=[1.0])
    error: Problem | None = None
    newest: VersionReply
    live_version: str | None = Field(None, description="Id of the version that is searched now, if there is one.")
    parent_id: str | None = Field(None, description="The archive or message that it was taken out of.")

    @classmethod
    def of(cls, document: Document, collection: str) -> Self:
        newest = VersionReply.of(document.newest)
        return cls(
            id=document.id,
            name=document.name,
            collection=collection,
            created_at=document.created_at,
            state=newest.state,
            stage=newest.stage,
            progress=newest.progress,
            error=newest.error,
            newest=newest,
            live_version=document.live_version_id,
            parent_id=document.parent_id,
        )


class DocumentDetail(DocumentReply):
    """A document with its newest and its live content."""

    live: VersionReply | None = Field(None, description="The version that is searched now, if there is one.")


class DocumentPage(_Reply):
    """Some documents of a collection, by name."""

    documents: list[DocumentReply]
    next: str | None = Field(None, description="Give it as `after` to get the next page; null on the last one.")


class PurgeRequest(_Request):
    """What to remove for good."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"documents": ["travel-policy.pdf"]}]})

    documents: list[Text] | None = Field(
        None,
        min_length=1,
        max_length=10_000,
        description="Names or ids of documents, which are deleted first; null: all that was deleted or replaced.",
    )


class PurgeReply(_Reply):
    """What was removed for good."""

    documents: int = Field(examples=[1])
    versions: int = Field(examples=[2])
    passages: int = Field(examples=[24])
    texts: int = Field(description="Texts of passages that no other document has.", examples=[24])
    vectors: int = Field(examples=[24])
    parses: int = Field(description="Parsed texts that no other document has.", examples=[2])
    files: int = Field(description="Originals that no other document has.", examples=[2])
    bytes: int = Field(description="Their size.", examples=[26790])

    @classmethod
    def of(cls, purged: Purged) -> Self:
        return cls.model_validate(asdict(purged))


# -- search and ask ------------------------------------------------------------------------------------------------


_FILTERS = """Only passages for which this holds: an object, all of whose members must hold. A member is

- a field with a value, which it must equal, or with comparisons: `eq`, `ne`, `lt`, `lte`, `gt`, `gte`, `in` (a list),
  `prefix` (of a text) and `exists` (true or false);
- `and` or `or` with a list of such objects, `not` with one.

Fields are `collection`, `document` (the name), `document_id`, `title`, `language`, `media_type`, `pages`, `page`,
`kind` and `ingested_at`, and every key of the documents' metadata (`metadata.kind` where it has the name of one of
these). Only values of one type compare; text in ISO 8601 compares as a point in time, a day as its first moment, in UTC
where no zone is given. A list has each of its values. A field that is missing or null satisfies no comparison."""


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
        "`hop`. By default as in the settings.",
        examples=[{"late": False}],
    )
    diversity: float = Field(0.0, ge=0, le=1, description="How much passages that say the like are kept apart.")
    around: StrictInt = Field(0, ge=0, le=10, description="Chunks to add on either side of each passage, unranked.")
    section: StrictBool = Field(False, description="Add the whole section of each passage, unranked.")


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
        description="Chunks around it, in order, where the request asks for them.", default_factory=list
    )

    @classmethod
    def of(cls, passage: Passage, collection: str) -> Self:
        return cls.model_validate({**asdict(passage), "collection": collection})


class SearchReply(_Reply):
    """Passages, best first."""

    passages: list[PassageReply]
    timings: dict[str, float] = Field(description="Seconds of each stage.", examples=[{"embed": 0.004}])

    @classmethod
    def of(cls, ranking: Ranking, names: Mapping[str, str]) -> Self:
        """Make the reply; ``names`` maps collection ids to names."""
        return cls(passages=_passages(ranking.passages, names), timings=dict(ranking.timings))


class CitationReply(_Reply):
    """A pointer from a span of the answer to the words that support it. The quote was found at its place."""

    number: int = Field(description="The marker in the text, [1], and the number of the passage.", examples=[1])
    answer_start: int = Field(description="The span of the answer's text that it supports.", examples=[0])
    answer_end: int = Field(examples=[58])
    document_id: str
    document: str = Field(examples=["2026/travel-policy.pdf"])
    version_id: str
    version: int = Field(examples=[2])
    chunk_id: str
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


class AnswerReply(_Reply):
    """An answer that can be traced to the words it rests on."""

    id: str
    question: str
    text: str = Field(examples=["Hotels in the country are paid up to 145 euros a night. [1]"])
    abstained: bool = Field(description="True when the documents do not say.")
    claims: list[ClaimReply]
    citations: list[CitationReply]
    passages: list[PassageReply] = Field(description="What the generator was given, as numbered in the text.")
    generator: str = Field(examples=["reader"])
    notice: str | None = Field(None, description="A sentence for the reader when something did not go as configured.")
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
            claims=claims,
            citations=[CitationReply.of(c, copies.get(c.chunk_id, ())) for c in answer.citations],
            passages=_passages(answer.passages, names),
            generator=answer.generator,
            notice=answer.notice,
            created_at=answer.created_at,
            timings=dict(answer.timings),
        )


def _passages(passages: tuple[Passage, ...], names: Mapping[str, str]) -> list[PassageReply]:
    return [PassageReply.of(passage, names[passage.collection_id]) for passage in passages]
