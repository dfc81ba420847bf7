"""Chats as they go over the wire in OpenAI's shapes; citations are annotations of the message.

What OpenAI's API has and changes nothing here is named, accepted and told back as ignored; what would change the
answer and is not done is refused by name. All offsets count Unicode code points from 0, half open. Knows no route and
no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, WithJsonSchema

from api.answer_schemas import AnswerReply, CellReply, ClaimReply, ConflictReply, Looking, MessageRequest, Query
from api.schemas import Text
from rag.answers import Citation, Policy
from rag.errors import BadInput
from rag.plan import MOST_MESSAGES
from rag.queries import Speaker

#: Roles whose messages are told to the answerer by others than who asks; they change nothing here.
INSTRUCTING = frozenset({"system", "developer"})
_IGNORED = "Accepted and ignored; the reply's `citewell.ignored` says so."
_REFUSED = "Refused, unless it asks for what is done anyway."


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True)


# -- requests ------------------------------------------------------------------------------------------------------


def text_of(value: object) -> object:
    """Return the text of a message's content: a string, or parts, whose texts become paragraphs.

    Raises `ValueError` for a part that is no text.
    """
    if not isinstance(value, list):
        return value
    texts = []
    for place, part in enumerate(value):
        if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise ValueError(f'part {place} is no text; send parts of the type "text" alone')
        texts.append(part["text"])
    return "\n\n".join(texts)


_PART = {"type": "object", "properties": {"type": {"const": "text"}, "text": {"type": "string"}}}
_CONTENT = {"anyOf": [{"type": "string"}, {"type": "array", "items": _PART}, {"type": "null"}]}


class ChatMessage(BaseModel):
    """One message of a conversation. Fields that are not listed are ignored, so that a reply can be sent back whole."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Annotated[Text | None, BeforeValidator(text_of), WithJsonSchema(_CONTENT)] = None
    tool_calls: list[Any] | None = Field(None, description=_REFUSED)
    function_call: Any = Field(None, description=_REFUSED)


class StreamOptions(BaseModel):
    """What a stream holds besides."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    include_usage: StrictBool = Field(False, description="Send one more chunk, without choices, with the usage.")


class CitewellOptions(Looking):
    """Where to look, and how: as in `POST /v1/ask`."""

    collections: list[Text] = Field(
        default_factory=list, max_length=100, description="Collections to look in, in place of those in `model`."
    )
    policy: Policy | None = Field(
        None,
        description="What becomes of a sentence that the documents do not support: `report` shows its score, `filter` "
        "withholds it, `strict` withholds the whole answer. By default the setting.",
    )
    cache: StrictBool = Field(True, description="Let an earlier answer to the same question stand.")


class ChatRequest(CitewellOptions):
    """A conversation whose last message is a question to answer.

    Fields of `POST /v1/ask` may stand at the top or in `citewell`, which goes before.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "citewell/handbook",
                    "messages": [{"role": "user", "content": "What is the hotel limit for domestic travel?"}],
                }
            ]
        }
    )

    model: Text = Field(
        description="`citewell/COLLECTION`, several with commas between them, or `citewell` with `collections`."
    )
    messages: list[ChatMessage] = Field(
        min_length=1,
        max_length=10_000,
        description="The last one is the question, those before it the conversation, whose end is used. Those of "
        "`system` and `developer` change nothing: what the answer may say, the documents decide.",
    )
    citewell: CitewellOptions | None = Field(None, description="Where to look, and how; for clients' `extra_body`.")
    stream: StrictBool | None = Field(None, description="Send chunks as server-sent events.")
    stream_options: StreamOptions | None = None
    max_tokens: StrictInt | None = Field(None, ge=1, description="Most tokens that a language model writes.")
    max_completion_tokens: StrictInt | None = Field(None, ge=1, description="The same; it goes before.")
    temperature: float | None = Field(
        None, ge=0, le=2, strict=True, description="For a language model; the built-in reader has none."
    )
    store: StrictBool | None = Field(None, description="False keeps the answer out of the log of answers.")

    n: StrictInt | None = Field(None, description=_REFUSED)
    tools: Any = Field(None, description=_REFUSED)
    tool_choice: Any = Field(None, description=_REFUSED)
    functions: Any = Field(None, description=_REFUSED)
    function_call: Any = Field(None, description=_REFUSED)
    response_format: Any = Field(None, description=_REFUSED)
    logprobs: Any = Field(None, description=_REFUSED)
    top_logprobs: Any = Field(None, description=_REFUSED)
    audio: Any = Field(None, description=_REFUSED)
    modalities: Any = Field(None, description=_REFUSED)
    web_search_options: Any = Field(None, description=_REFUSED)

    frequency_penalty: Any = Field(None, description=_IGNORED)
    logit_bias: Any = Field(None, description=_IGNORED)
    metadata: Any = Field(None, description=_IGNORED)
    parallel_tool_calls: Any = Field(None, description=_IGNORED)
    prediction: Any = Field(None, description=_IGNORED)
    presence_penalty: Any = Field(None, description=_IGNORED)
    prompt_cache_key: Any = Field(None, description=_IGNORED)
    prompt_cache_retention: Any = Field(None, description=_IGNORED)
    reasoning_effort: Any = Field(None, description=_IGNORED)
    safety_identifier: Any = Field(None, description=_IGNORED)
    seed: Any = Field(None, description=_IGNORED)
    service_tier: Any = Field(None, description=_IGNORED)
    stop: Any = Field(None, description=_IGNORED)
    top_p: Any = Field(None, description=_IGNORED)
    user: Any = Field(None, description=_IGNORED)
    verbosity: Any = Field(None, description=_IGNORED)

    @property
    def options(self) -> CitewellOptions:
        """Where to look, and how: what stands at the top, and over it what stands in `citewell`."""
        top = {name: getattr(self, name) for name in self.model_fields_set & CitewellOptions.model_fields.keys()}
        inner = self.citewell.model_dump(exclude_unset=True) if self.citewell else {}
        return CitewellOptions.model_validate({**top, **inner})

    @property
    def ignored(self) -> list[str]:
        """What was sent and changes nothing, by name."""
        fields = [name for name in IGNORED if getattr(self, name) is not None]
        roles = sorted({message.role for message in self.messages} & INSTRUCTING)
        return [*fields, *(f"messages ({role})" for role in roles)]


#: Fields that change nothing, and for each refused one the values that ask for what is done anyway.
IGNORED = tuple(name for name, field in ChatRequest.model_fields.items() if field.description == _IGNORED)
HARMLESS: Mapping[str, tuple[object, ...]] = {
    "n": (1,), "tools": ([],), "tool_choice": ("none", "auto"), "functions": ([],), "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},), "logprobs": (False,), "top_logprobs": (0,), "audio": (),
    "modalities": (["text"],), "web_search_options": (),
}  # fmt: skip
WHY = {
    "n": "one answer is given to a question",
    "tools": "the answerer calls no tools",
    "tool_choice": "the answerer calls no tools",
    "functions": "the answerer calls no functions",
    "function_call": "the answerer calls no functions",
    "response_format": "answers are text; their citations are in the message's annotations",
    "logprobs": "no probabilities of tokens are known; annotations have support scores",
    "top_logprobs": "no probabilities of tokens are known; annotations have support scores",
    "audio": "answers are text",
    "modalities": "answers are text",
    "web_search_options": "only the collections are searched",
}


def question_of(body: ChatRequest) -> tuple[str, list[MessageRequest]]:
    """Return the question of a chat, and the end of the conversation before it.

    Raises `BadInput`, which names the field, for what is not done here and for a chat that does not end in a question.
    """
    for name, harmless in HARMLESS.items():
        value = getattr(body, name)
        if value is not None and value not in harmless:
            raise BadInput(f"{name} is not supported: {WHY[name]}; leave it out.", param=name)
    said: list[MessageRequest] = []
    for place, message in enumerate(body.messages):
        if message.role in {"tool", "function"} or message.tool_calls or message.function_call:
            raise BadInput(
                f"messages[{place}] belongs to a call of a tool, and the answerer calls none; leave it out.",
                param=f"messages[{place}]",
            )
        if message.role not in INSTRUCTING:
            said.append(MessageRequest(role=Speaker(message.role), content=message.content or ""))
    if not said or said[-1].role is not Speaker.USER:
        raise BadInput("The last message must be the question, with the role user.", param="messages")
    return said[-1].content, said[:-1][-MOST_MESSAGES:]


def query_of(body: ChatRequest, collections: list[str], history: list[MessageRequest]) -> Query:
    """Return the request for passages that a chat makes; ``collections`` are those of its model."""
    options = body.options
    values = options.model_dump(exclude_unset=True, exclude={"policy", "cache", "collections"})
    wanted = options.collections or collections
    if not 1 <= len(wanted) <= 100:
        raise BadInput(
            f"{len(wanted)} collections are named; name 1 to 100, as the model citewell/NAME or in `collections`.",
            param="model",
        )
    return Query(collections=wanted, history=history, **values)


# -- replies -------------------------------------------------------------------------------------------------------


class FileCitation(_Reply):
    """A pointer from a span of the answer to the words in a document that support it."""

    type: Literal["file_citation"] = "file_citation"
    start_index: int = Field(description="The span of the message's content that is supported.", examples=[0])
    end_index: int = Field(examples=[58])
    file_id: str = Field(description="Id of the document; see `GET /v1/documents/{id}`.")
    filename: str = Field(examples=["2026/travel-policy.pdf"])
    version: int = Field(description="Version of the document.", examples=[2])
    chunk_id: str
    page_number: int | None = Field(None, description="From 1, where the format has pages.", examples=[2])
    section: list[str] = Field(examples=[["3. Accommodation"]])
    quote: str = Field(description="The words of the document, unchanged.")
    source_start: int = Field(description="Where the quote begins in the parsed text of the version.", examples=[1204])
    source_end: int = Field(examples=[1262])
    support_score: float = Field(
        description="How much of the sentence the quote supports, from 0 to 1.", examples=[1.0]
    )
    cells: list[CellReply] = Field(description="Of a table's row the cells that the sentence speaks of.")
    attributed: bool = Field(
        description="The generator did not name this passage for the sentence; the judge found it."
    )

    @classmethod
    def of(cls, citation: Citation) -> Self:
        return cls(
            start_index=citation.answer_start,
            end_index=citation.answer_end,
            file_id=citation.document_id,
            filename=citation.document,
            version=citation.version,
            chunk_id=citation.chunk_id,
            page_number=citation.page,
            section=list(citation.section),
            quote=citation.quote,
            source_start=citation.source_start,
            source_end=citation.source_end,
            support_score=citation.score,
            cells=[CellReply.model_validate(asdict(cell)) for cell in citation.cells],
            attributed=citation.attributed,
        )


class ChatReplyMessage(_Reply):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None
    annotations: list[FileCitation]


class ChatChoice(_Reply):
    """The one choice."""

    index: Literal[0] = 0
    message: ChatReplyMessage
    logprobs: None = None
    finish_reason: Literal["stop", "length", "content_filter"] = Field(
        description="length: it is cut off. content_filter: a rail refused the question or the answer."
    )


class ChatUsage(_Reply):
    """Tokens, as counted before sending: what was shown to the generator, and the answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, prompt: int, completion: int) -> Self:
        return cls(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


class CitewellExtra(_Reply):
    """What OpenAI's shape has no place for."""

    answer_id: str = Field(description="See `GET /v1/answers/{id}`.")
    abstained: bool = Field(description="True when the documents do not say; the content says so in words.")
    refused_by: str | None = Field(None, description="The rail that refused the question or the answer.")
    generator: str = Field(examples=["reader"])
    notice: str | None = Field(None, description="A sentence for the reader when something did not go as configured.")
    claims: list[ClaimReply] = Field(
        description="The sentences of the content, each with its support; `citations` are places among the annotations."
    )
    conflicts: list[ConflictReply] = Field(description="Where other documents contradict what is cited.")
    policy: Policy
    withheld: int = Field(description="How many sentences were withheld since nothing supports them.")
    threshold: float = Field(description="Support from which a sentence is supported.", examples=[0.7])
    cached: bool = Field(description="An earlier answer to the same question, from the same passages.")
    ignored: list[str] = Field(description="What was sent and changes nothing.", examples=[["top_p"]])

    @classmethod
    def of(cls, answer: AnswerReply, ignored: list[str]) -> Self:
        return cls(
            answer_id=answer.id,
            abstained=answer.abstained,
            refused_by=answer.refused_by,
            generator=answer.generator,
            notice=answer.notice,
            claims=answer.claims,
            conflicts=answer.conflicts,
            policy=answer.policy,
            withheld=answer.withheld,
            threshold=answer.threshold,
            cached=answer.cached,
            ignored=ignored,
        )


class ChatCompletion(_Reply):
    """A whole answer."""

    id: str = Field(examples=["chatcmpl-5f1d0c9e8b7a46529c3d2e1f0a9b8c7d"])
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str = Field(examples=["citewell/handbook"])
    system_fingerprint: str = Field(description="Digest of the settings that can change an answer.")
    choices: list[ChatChoice]
    usage: ChatUsage
    citewell: CitewellExtra
