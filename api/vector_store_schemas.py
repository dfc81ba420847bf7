"""Searches of a vector store as they go over the wire in OpenAI's shapes; a collection is the vector store.

Filters are translated into the language of `rag.filters`, whose fields and bounds hold. Knows no route and no database.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt

from api.schemas import Text
from rag.errors import BadInput
from rag.filters import DEEPEST
from rag.records import Passage

#: Most queries of one search, and passages that it finds.
MOST_QUERIES, MOST_RESULTS = 10, 50
#: OpenAI's names of comparisons that are ours too.
COMPARISONS = frozenset({"eq", "ne", "gt", "gte", "lt", "lte", "in"})
_KINDS = "eq, ne, gt, gte, lt, lte, in, nin, and, or"


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True)


class RankingOptions(_Request):
    """How passages are ranked."""

    ranker: Literal["auto", "none", "default-2024-11-15"] = Field(
        "auto", description="`none` leaves candidates as they were found; all others rank as the settings say."
    )
    score_threshold: float = Field(0.0, ge=0, le=1, strict=True, description="Leave out passages with a lower score.")


class VectorStoreSearchRequest(_Request):
    """What to look for in a collection."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "query": "hotel limit",
                    "filters": {"type": "eq", "key": "document", "value": "2026/travel-policy.pdf"},
                    "max_num_results": 5,
                }
            ]
        }
    )

    query: Annotated[
        list[Text],
        BeforeValidator(
            lambda value: [value] if isinstance(value, str) else value, json_schema_input_type=str | list[str]
        ),
        Field(
            min_length=1,
            max_length=MOST_QUERIES,
            description="A question or words; of several, a passage has its best score.",
        ),
    ]
    filters: dict[str, Any] | None = Field(
        None,
        description="A comparison (`type` is eq, ne, gt, gte, lt, lte, in or nin, with `key` and `value`), or `and` or "
        "`or` with `filters`. Keys are as in `POST /v1/search`: metadata, `document`, `page` ...",
    )
    max_num_results: StrictInt = Field(10, ge=1, le=MOST_RESULTS, description="How many passages.")
    ranking_options: RankingOptions = RankingOptions()
    rewrite_query: StrictBool = Field(
        False, description="Let a language model, where one is configured, make queries of the question first."
    )


class ResultContent(_Reply):
    """A piece of text."""

    type: Literal["text"] = "text"
    text: str


class ResultPlace(_Reply):
    """Where a passage stands, which OpenAI's shape has no place for."""

    chunk_id: str
    version: int = Field(examples=[2])
    page_number: int | None = Field(None, examples=[2])
    section: list[str] = Field(examples=[["3. Accommodation"]])
    source_start: int = Field(description="Where the text begins in the parsed text of the version.", examples=[1204])
    source_end: int = Field(examples=[1391])


class SearchResult(_Reply):
    """A passage."""

    file_id: str = Field(description="Id of the document; see `GET /v1/documents/{id}`.")
    filename: str = Field(examples=["2026/travel-policy.pdf"])
    score: float = Field(description="From 0 to 1, among the candidates of this search.", examples=[0.93])
    attributes: dict[str, str | float | bool] = Field(description="The metadata of the document, but for lists.")
    content: list[ResultContent]
    citewell: ResultPlace

    @classmethod
    def of(cls, passage: Passage, metadata: Mapping[str, Any]) -> Self:
        place = ResultPlace(
            chunk_id=passage.chunk_id,
            version=passage.version,
            page_number=passage.page,
            section=list(passage.section),
            source_start=passage.start,
            source_end=passage.end,
        )
        return cls(
            file_id=passage.document_id,
            filename=passage.document,
            score=min(max(passage.score, 0.0), 1.0),
            attributes={key: value for key, value in metadata.items() if isinstance(value, str | int | float | bool)},
            content=[ResultContent(text=passage.text)],
            citewell=place,
        )


class SearchResultsPage(_Reply):
    """Passages, best first. There is one page."""

    object: Literal["vector_store.search_results.page"] = "vector_store.search_results.page"
    search_query: list[str] = Field(description="What was looked for.")
    data: list[SearchResult]
    has_more: Literal[False] = False
    next_page: None = None


def translated(given: object, place: str = "filters", depth: int = 1) -> dict[str, Any]:
    """Return a filter of OpenAI's in the language of `rag.filters`, which checks keys and values.

    Raises `BadInput` with a sentence that names the place.
    """
    if not isinstance(given, Mapping):
        raise BadInput(
            f'{place}: must be an object such as {{"type": "eq", "key": "year", "value": 2026}}.', param=place
        )
    if depth > DEEPEST:
        raise BadInput(f"{place}: filters may lie {DEEPEST} deep in each other, not more.", param="filters")
    kind = given.get("type")
    if kind in {"and", "or"} and given.keys() == {"type", "filters"}:
        parts = given["filters"]
        if not isinstance(parts, list) or not parts:
            raise BadInput(f"{place}.filters: must be a list of filters.", param=place)
        return {kind: [translated(part, f"{place}.filters.{n}", depth + 1) for n, part in enumerate(parts)]}
    if (
        given.keys() != {"type", "key", "value"}
        or not isinstance(given["key"], str)
        or given["key"] in {"and", "or", "not"}
    ):
        raise BadInput(
            f"{place}: must have a type ({_KINDS}) with a key and a value, or with filters for and and or.", param=place
        )
    if kind == "nin":
        return {"and": [{given["key"]: {"exists": True}}, {"not": {given["key"]: {"in": given["value"]}}}]}
    if kind not in COMPARISONS:
        raise BadInput(f"{place}.type: must be one of {_KINDS}.", param=place)
    return {given["key"]: {kind: given["value"]}}
