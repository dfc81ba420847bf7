"""What goes over the wire, as pydantic models whose descriptions and examples make up the OpenAPI page.

Requests forbid what they do not know. Replies are made from the records of ``rag`` by their ``of`` methods.
Searches and answers are in ``api.answer_schemas``, batches in ``api.batch_schemas``. This module knows no route and no
database.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rag.catalog import Accepted, Purged
from rag.records import Collection, Document, Stage, State, Version

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


class LoadReply(_Reply):
    """What a process has in hand for its language model. All counts are of the process that answers this."""

    in_flight: int = Field(description="Answers that are being written.", examples=[3])
    most: int = Field(description="Most at once (`generator.max_in_flight`).", examples=[16])
    waiting: int = Field(description="Questions that wait for one of these places.", examples=[0])
    breaker: Literal["closed", "open", "trying"] = Field(
        description="closed: asked as usual. open: failed several times in a row and is left alone. trying: the next "
        "question tries it."
    )
    failures: int = Field(description="Failures in a row.", examples=[0])


class ReadyReply(_Reply):
    """Whether questions can be answered, and by what."""

    status: Literal["ready", "degraded"] = Field(
        description="degraded: the configured generator does not answer, and the built-in reader stands in for it."
    )
    catalog: Literal["ok"] = "ok"
    generator: str = Field(description="What writes the answers now.", examples=["reader"])
    notice: str | None = Field(None, description="Why the service is degraded.")
    load: LoadReply | None = Field(
        None, description="Of a language model; null without one, and for who does not see every collection."
    )
    queue: int | None = Field(
        description="Document versions that wait or are being read; null for who does not see every collection.",
        examples=[0],
    )


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


class DocumentTextReply(_Reply):
    """A part of what was read of a document: ``text`` stands at [start, end) of ``length`` characters.

    Offsets of passages and citations of this version refer to the same text.
    """

    document_id: str = Field(examples=["9b2f7c1d4e5a60718293a4b5c6d7e8f9"])
    document: str = Field(examples=["2026/travel-policy.pdf"])
    collection: str = Field(examples=["handbook"])
    version_id: str
    version: int = Field(examples=[2])
    title: str | None = Field(None, examples=["Travel policy"])
    start: int = Field(examples=[0])
    end: int = Field(examples=[1391])
    length: int = Field(description="Characters of the whole text.", examples=[5210])
    text: str

    @classmethod
    def of(cls, document: Document, version: Version, collection: str, text: str, start: int, length: int) -> Self:
        """Make the reply for up to ``length`` characters of the whole ``text``."""
        part = text[start : start + length]
        return cls(
            document_id=document.id,
            document=document.name,
            collection=collection,
            version_id=version.id,
            version=version.number,
            title=version.title,
            start=start,
            end=start + len(part),
            length=len(text),
            text=part,
        )


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
