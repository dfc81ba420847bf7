"""The records that travel between the rooms: frozen dataclasses; standard library and `rag.queries` only.

What crosses a boundary is one of these, a plain value, or a ``numpy`` float32 matrix with unit rows.
This module knows no database, no model, no file format and no web. Records of a question are in `rag.queries`, those of
its answer in `rag.answers`.

Offsets are in Unicode code points, half open, and refer to the *parsed text* of a document version:
the texts of its elements joined by ``ELEMENT_SEPARATOR``. The parsed text is stored with the version, so
that ``parsed_text[citation.source_start:citation.source_end] == citation.quote`` can be checked at any time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from rag.queries import Message, Parts, Query, QueryRole, Understanding

ELEMENT_SEPARATOR = "\n\n"
#: What stands between the cells of a table row.
CELL = " | "


def digest(*parts: str | bytes) -> str:
    """Return a 32-digit hexadecimal id of ``parts``: equal parts, equal id, on every machine (SHA-256, cut)."""
    h = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        h.update(len(data).to_bytes(8, "big"))
        h.update(data)
    return h.hexdigest()[:32]


class Kind(StrEnum):
    """What an element of a document is.

    ``HIDDEN`` is text that the document says and a reader of it does not see: white on white, of no size, beside the
    page, in letters that no program shows ... It is kept and marked, so that nothing is lost, and it is no source of an
    answer: who reads a document has not read it, and whoever hides text there means it for programs.
    """

    TITLE = "title"
    TEXT = "text"
    LIST_ITEM = "list_item"
    TABLE = "table"
    CODE = "code"
    CAPTION = "caption"
    HEADER = "header"
    FOOTER = "footer"
    HIDDEN = "hidden"


class State(StrEnum):
    """Where a document version stands. Only ``READY`` versions are ever searched."""

    QUEUED = "queued"
    PROCESSING = "processing"
    READY = "ready"
    FAILED = "failed"
    RETIRED = "retired"


class Stage(StrEnum):
    """The step of the ingest journey that a version is in or failed in."""

    ACCEPT = "accept"
    PARSE = "parse"
    CHUNK = "chunk"
    EMBED = "embed"
    COMMIT = "commit"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Block:
    """What a parser says of one piece of a document, before it has a place in the parsed text."""

    kind: Kind
    text: str
    page: int | None = None
    section: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Element:
    """A block at its place. ``page`` counts from 1; ``section`` is the path of headings above it.

    A table's text has one row a line and `` | `` between cells; its first line is the header when it has one.
    """

    kind: Kind
    text: str
    page: int | None
    section: tuple[str, ...]
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside a document: in an archive, or attached to a message. It becomes a document of its own.

    ``name`` is its relative path in there. ``error`` says in one sentence why it can not be taken out, if it can not;
    ``sha256`` is empty then.
    """

    name: str
    sha256: str
    size: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """What the parser makes of a file. ``text[e.start:e.end] == e.text`` for every element ``e``.

    ``language`` is the ISO 639-1 code of most of the text, None where there is too little of it to tell.
    """

    elements: tuple[Element, ...]
    media_type: str
    title: str | None = None
    pages: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    language: str | None = None
    members: tuple[Member, ...] = ()

    @classmethod
    def from_blocks(
        cls,
        blocks: list[Block],
        media_type: str,
        title: str | None = None,
        pages: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        language: str | None = None,
        members: tuple[Member, ...] = (),
    ) -> ParsedDocument:
        """Lay ``blocks`` one after the other, leaving out those without any visible text."""
        elements = []
        start = 0
        for block in blocks:
            text = block.text.strip()
            if not text:
                continue
            elements.append(Element(block.kind, text, block.page, block.section, start))
            start += len(text) + len(ELEMENT_SEPARATOR)
        return cls(tuple(elements), media_type, title, pages, metadata or {}, language, members)

    @property
    def text(self) -> str:
        return ELEMENT_SEPARATOR.join(element.text for element in self.elements)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A span of the parsed text that is embedded, searched and cited as one.

    ``text`` is exactly ``parsed_text[start:end]``. ``context`` (document title, headings, a table's header row)
    is put before it for the embedder, the lexical index and the prompt, and is never quoted.
    ``tokens`` counts context and text in the embedder's own tokens, its special tokens included.
    """

    text: str
    context: str
    start: int
    end: int
    kind: Kind
    page: int | None
    section: tuple[str, ...]
    tokens: int

    @property
    def indexed_text(self) -> str:
        return f"{self.context}\n{self.text}" if self.context else self.text

    @property
    def digest(self) -> str:
        """Equal for chunks that are embedded and indexed alike, wherever they stand."""
        return digest(self.context, self.text)


@dataclass(frozen=True, slots=True)
class Collection:
    """A named set of documents that is searched together. ``embedder`` is the fingerprint of its vectors.

    ``documents`` and ``passages`` count what can be searched; they are 0 in a record that was read without counting.
    ``tuning`` names what its searches go by (`rag.tuning`), if anything.
    """

    id: str
    name: str
    created_at: datetime
    embedder: str | None = None
    documents: int = 0
    passages: int = 0
    tuning: str | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """One content of a document. ``progress`` runs from 0 to 1 over all stages.

    A version that waits for another try has the ``error`` of the last one and is not tried ``not_before`` that time.
    ``attempts`` counts tries; ``deaths`` counts workers that fell silent over it since it last got a stage further.
    ``parse_id`` names what the parser made of it, once that is kept.
    """

    id: str
    document_id: str
    collection_id: str
    name: str
    number: int
    sha256: str
    size: int
    state: State
    stage: Stage
    progress: float
    attempts: int
    created_at: datetime
    metadata: Mapping[str, Any]
    error: str | None = None
    error_code: str | None = None
    media_type: str | None = None
    title: str | None = None
    pages: int | None = None
    elements: int = 0
    passages: int = 0
    language: str | None = None
    deaths: int = 0
    not_before: datetime | None = None
    ended_at: datetime | None = None
    parse_id: str | None = None
    batch_id: str | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A name in a collection with its newest version, and the version that is searched now, if any.

    The two differ while a new version is being read, and stay different when it could not be read. ``parent_id`` is the
    archive or message that it was taken out of.
    """

    id: str
    collection_id: str
    name: str
    created_at: datetime
    newest: Version
    live_version_id: str | None
    parent_id: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Files that came together, and how far they are: ``states`` counts them, those that were refused under `REFUSED`.

    ``size`` and ``size_ended`` are bytes, of all files and of those that have ended; ``passages`` became searchable
    through it. ``ended_at`` is None while one of them waits or is being read.
    """

    id: str
    collection_id: str
    created_at: datetime
    files: int
    states: Mapping[str, int]
    size: int
    size_ended: int
    passages: int
    ended_at: datetime | None

    @property
    def ended(self) -> int:
        """How many files have an outcome."""
        return self.files - self.states.get(State.QUEUED, 0) - self.states.get(State.PROCESSING, 0)


#: Stands among the states of a batch's files for those that were never taken in.
REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class BatchFile:
    """One file of a batch. ``outcome`` is what accepting it meant; a refused one has an error and no version."""

    number: int
    name: str
    outcome: str
    version: Version | None
    error: str | None = None
    error_code: str | None = None


@dataclass(frozen=True, slots=True)
class Copy:
    """Another place that says the same as a passage. ``exact``: in the same words, headings included."""

    chunk_id: str
    document_id: str
    document: str
    version: int
    page: int | None
    exact: bool


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A chunk that stands near a passage in the same version: part of no ranking."""

    chunk_id: str
    seq: int
    text: str
    context: str
    start: int
    end: int
    kind: Kind
    page: int | None
    section: tuple[str, ...]

    @property
    def indexed_text(self) -> str:
        return f"{self.context}\n{self.text}" if self.context else self.text


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk as retrieved: where it stands, and what each stage thought of it (higher is better).

    Passages of one collection with equal ``like_id`` say the same; ``also_in`` names where else the retriever found it.
    """

    chunk_id: str
    seq: int
    collection_id: str
    document_id: str
    document: str
    title: str | None
    version_id: str
    version: int
    text: str
    context: str
    start: int
    end: int
    kind: Kind
    page: int | None
    section: tuple[str, ...]
    score: float = 0.0
    scores: Mapping[str, float] = field(default_factory=dict)
    like_id: int | None = None
    also_in: tuple[Copy, ...] = ()
    around: tuple[Neighbour, ...] = ()

    @property
    def indexed_text(self) -> str:
        return f"{self.context}\n{self.text}" if self.context else self.text


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be looked for, where, and how much of it at each stage.

    ``diversity`` in [0, 1] keeps passages apart that say the like; ``around`` adds so many chunks on either side of
    each passage, ``section`` all of its section, without ranking them. ``hidden`` lets text in that readers of the
    documents do not see (`Kind.HIDDEN`).
    """

    question: str
    collections: tuple[Collection, ...]
    filters: Mapping[str, Any]
    candidates: int
    top_k: int
    parts: Parts = field(default_factory=Parts)
    diversity: float = 0.0
    around: int = 0
    section: bool = False
    history: tuple[Message, ...] = ()
    understanding: Understanding = field(default_factory=Understanding)
    hidden: bool = False

    @property
    def queries(self) -> tuple[Query, ...]:
        """All that is looked for; the first is the question, with what it takes from the conversation."""
        return self.understanding.queries or (Query(QueryRole.QUESTION, self.question),)


@dataclass(frozen=True, slots=True)
class Ranking:
    """The result of retrieval: passages best first, and the trace that explains it.

    ``stages`` maps a stage name to its chunk ids, best first, ``stage_scores`` to the score of each of these;
    ``timings`` maps it to seconds.
    """

    passages: tuple[Passage, ...]
    stages: Mapping[str, tuple[str, ...]]
    timings: Mapping[str, float]
    queries: tuple[Query, ...] = ()
    notice: str | None = None
    stage_scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Quote:
    """Words of passage number ``passage`` (from 1, as numbered in the prompt) or of one chunk around it.

    Offsets are in the parsed text of its version.
    """

    passage: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens that a model says one reply took, ``reasoning_tokens`` of them for thoughts that nobody sees."""

    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of generated text.

    A language model gives text alone, in which ``[n]`` marks passage n. A generator that knows its evidence
    gives a whole claim with its quotes; no markers are looked for in that text. ``short`` are the words of these quotes
    that are the short answer, where it knows them too. ``usage`` comes with the last piece, whose text may be empty,
    where a model tells it, and so does ``truncated``: it had to stop before the end of what it had to say.
    """

    text: str
    quotes: tuple[Quote, ...] = ()
    short: Quote | None = None
    usage: Usage | None = None
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Guided:
    """Messages that ask for JSON, and the JSON schema that a server can hold the reply to.

    A server may ignore the schema without a word: who reads the reply checks it.
    """

    name: str
    schema: Mapping[str, Any]
    messages: tuple[Mapping[str, str], ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a generator gets: the question, the passages that fit, and the messages for a language model.

    Around each passage is what the messages show of it, see `rag.windows`; no chunk is there twice.
    ``tokens`` is the (estimated) size of ``messages`` in the generator's tokens; ``max_tokens`` bounds the reply, where
    that is less than usual, and ``temperature`` stands for the usual one. ``guided`` takes the place of ``messages``
    where the server takes a schema.
    """

    question: str
    passages: tuple[Passage, ...]
    messages: tuple[Mapping[str, str], ...]
    tokens: int
    max_tokens: int | None = None
    temperature: float | None = None
    guided: Guided | None = None
