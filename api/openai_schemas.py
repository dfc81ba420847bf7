"""Models, embeddings and rankings as they go over the wire in OpenAI's and NIM's shapes.

Requests forbid what they do not know, but for fields that change nothing here and are named as such. Chats are in
``api.chat_schemas``, vector stores in ``api.vector_store_schemas``. This module knows no route and no model.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictInt

from api.model_names import Model
from api.schemas import Problem, ProblemReply, Text
from rag.encodings import Truncate

#: Most texts of one request, and characters of one text.
MOST_TEXTS, MOST_CHARS = 2048, 100_000


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True)


class OpenAIProblem(Problem):
    """What went wrong, with what clients of OpenAI's API look for besides."""

    type: str = Field(description="OpenAI's kind of error.", examples=["invalid_request_error"])
    param: str | None = Field(None, description="The field that is wrong, the first of several.", examples=["model"])


class OpenAIProblemReply(ProblemReply):
    """The shape of errors on the addresses of OpenAI's API."""

    error: OpenAIProblem


# -- models --------------------------------------------------------------------------------------------------------


class ModelReply(_Reply):
    """A model that can be named in requests."""

    id: str = Field(examples=["citewell/handbook"])
    object: Literal["model"] = "model"
    created: int = Field(description="Unix seconds: since when the collection is there; 0 for other models.")
    owned_by: str = "citewell"
    root: str = Field(description="The model that this is a name for.", examples=["citewell/handbook"])

    @classmethod
    def of(cls, model: Model) -> Self:
        return cls(id=model.id, created=model.created, root=model.root)


class ModelList(_Reply):
    """All models: the embedder, what ranks, and the collections that answer."""

    object: Literal["list"] = "list"
    data: list[ModelReply]


# -- embeddings ----------------------------------------------------------------------------------------------------


def check_words(text: str) -> str:
    """Return a text that can be read; raises `ValueError` for one without a visible character, or that is too long."""
    if not text.strip():
        raise ValueError("is empty: there is nothing to read")
    if len(text) > MOST_CHARS:
        raise ValueError(f"has {len(text):,} characters; the limit is {MOST_CHARS:,}")
    return text


def listed(value: object) -> object:
    """Return the input of a request for embeddings as a list of texts; raises `ValueError` for tokens."""
    values = [value] if isinstance(value, str) else value
    if isinstance(values, list) and any(isinstance(one, int | list) for one in values):
        raise ValueError(
            "is in tokens, and whose they are nobody can tell; send texts (in LangChain's OpenAIEmbeddings, "
            "check_embedding_ctx_length=False)"
        )
    return values


Readable = Annotated[Text, AfterValidator(check_words)]
Truncation = Annotated[
    Truncate,
    BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value),
    Field(
        description="What becomes of texts that are longer than the model's window: `NONE` refuses them, `END` leaves "
        "out their end, `START` their beginning."
    ),
]


class EmbeddingRequest(_Request):
    """Texts to embed."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "all-MiniLM-L6-v2", "input": ["hotel limit"], "input_type": "query"}]}
    )

    model: Text = Field(description="The embedder's name, also with `-query` or `-passage` behind it.")
    input: Annotated[
        list[Readable],
        BeforeValidator(listed, json_schema_input_type=str | list[str]),
        Field(min_length=1, max_length=MOST_TEXTS, description="One text, or several in a list."),
    ]
    input_type: Literal["query", "passage"] | None = Field(
        None,
        description="What the texts are, where the model tells them apart; by default as its name says, or passage.",
    )
    truncate: Truncation = Truncate.NONE
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="Numbers (`float`, the default), or the bytes of little-endian float32 in base64."
    )
    dimensions: StrictInt | None = Field(
        None, description="That of the model, if any is given: vectors are not shortened."
    )
    user: Any = Field(None, description="Accepted and ignored.")


class EmbeddingReply(_Reply):
    """One vector, of length 1."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(_Reply):
    """Tokens that were read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(_Reply):
    """The vectors, in the order of the texts."""

    object: Literal["list"] = "list"
    data: list[EmbeddingReply]
    model: str
    usage: EmbeddingUsage


# -- rankings ------------------------------------------------------------------------------------------------------


class RankingText(_Request):
    """A text of a request for a ranking."""

    text: Readable


class RankingPassage(_Request):
    """A passage to rank. It may be empty, and is the last then."""

    text: Annotated[Text, Field(max_length=MOST_CHARS)]


class RankingRequest(_Request):
    """A question, and passages to rank by how well they answer it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "query": {"text": "What is the hotel limit?"},
                    "passages": [{"text": "Hotels are paid up to 145 euros."}, {"text": "Lunch is at noon."}],
                }
            ]
        }
    )

    model: Text | None = Field(None, description="A reranker's name; by default the one that searches use.")
    query: RankingText
    passages: list[RankingPassage] = Field(min_length=1, max_length=MOST_TEXTS)
    truncate: Truncation = Truncate.NONE


class RankingScore(_Reply):
    """How well a passage answers."""

    index: int = Field(description="Its place in the request, from 0.")
    logit: float = Field(description="Its score: higher is better; scores of one question and model can be compared.")


class RankingUsage(_Reply):
    """Tokens that were read."""

    prompt_tokens: int
    total_tokens: int


class RankingReply(_Reply):
    """All passages, best first; of equal ones the first in the request."""

    rankings: list[RankingScore]
    usage: RankingUsage
