"""Citewell for LlamaIndex: a retriever and a query engine over a server by its URL, or over an opened `Citewell`.

    from api.llamaindex import CitewellQueryEngine, CitewellRetriever

    engine = CitewellQueryEngine("http://127.0.0.1:8321", ["handbook"])
    response = engine.query("What is the hotel limit for domestic travel?")
    print(response, response.metadata["citations"][0]["quote"])

    retriever = CitewellRetriever("http://127.0.0.1:8321", ["handbook"], top_k=5)
    for found in retriever.retrieve("hotel limit"):
        print(found.score, found.node.metadata["document"], found.node.metadata["page"])

A retriever gives passages to any pipeline of LlamaIndex; the query engine gives Citewell's own answers, whose citations
were checked. Errors are those of `rag.errors`. Nothing in Citewell depends on this module.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from typing import Any

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.response.schema import AsyncStreamingResponse, Response, StreamingResponse
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.schema import NodeRelationship, NodeWithScore, QueryBundle, RelatedNodeInfo, TextNode

from api.answer_schemas import AnswerReply, AskRequest, NeighbourReply, PassageReply, SearchReply, SearchRequest
from api.background import Tap, elsewhere, wait
from api.doors import Door, Heard, ProcessDoor, ServerDoor
from api.problems import validated
from rag.answers import Policy
from rag.assembly import Citewell
from rag.errors import BadInput
from rag.pipeline import Restart

#: What of a node's metadata a language model is shown with its text; embedders of others are shown none.
_SHOWN = ("document", "page", "section")


class CitewellRetriever(BaseRetriever):  # type: ignore[misc]  # the library is not typed
    """Finds passages: one `TextNode` each, whose id is the passage's own and stays the same while its text does.

    ``citewell`` is the URL of a running server, which may want a ``key``, or an opened whole. The others are those of
    ``POST /v1/search``; what is None is as in its settings. Raises `BadInput` for values that it does not take.
    """

    def __init__(
        self,
        citewell: str | Citewell,
        collections: Sequence[str],
        *,
        top_k: int | None = None,
        filters: Mapping[str, Any] | None = None,
        parts: Mapping[str, bool] | None = None,
        diversity: float | None = None,
        around: int | None = None,
        section: bool | None = None,
        key: str | None = None,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        self._door = _door(citewell, key)
        self._query = _given(collections, top_k, filters, parts, diversity, around, section)
        validated(SearchRequest, {**self._query, "query": "?"})
        super().__init__(callback_manager=callback_manager)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _found(wait(self._door.search(self._asked(query_bundle))))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _found(await elsewhere(self._door.search(self._asked(query_bundle))))

    def _asked(self, query_bundle: QueryBundle) -> SearchRequest:
        return validated(SearchRequest, {**self._query, "query": query_bundle.query_str})


class CitewellQueryEngine(BaseQueryEngine):  # type: ignore[misc]  # the library is not typed
    """Answers questions: the text with its markers, the cited passages as source nodes, the citations as metadata.

    ``metadata`` is the reply of ``POST /v1/ask`` without its passages: ``citations`` with quotes and places, ``claims``
    with their support, ``abstained`` where the documents do not say, ``notice`` and the others. With ``streaming`` the
    text comes in pieces; source nodes are all that was found until the text has ended, and those that are cited from
    then on, when the metadata is there too. ``policy`` says what becomes of a sentence that the documents do not
    support; the other arguments are those of `CitewellRetriever`.
    """

    def __init__(
        self,
        citewell: str | Citewell,
        collections: Sequence[str],
        *,
        streaming: bool = False,
        policy: Policy | None = None,
        top_k: int | None = None,
        filters: Mapping[str, Any] | None = None,
        parts: Mapping[str, bool] | None = None,
        diversity: float | None = None,
        around: int | None = None,
        section: bool | None = None,
        key: str | None = None,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        self._door = _door(citewell, key)
        self._streaming = streaming
        self._given = _given(collections, top_k, filters, parts, diversity, around, section)
        if policy is not None:
            self._given["policy"] = policy
        validated(AskRequest, {**self._given, "question": "?"})
        super().__init__(callback_manager)

    def _get_prompt_modules(self) -> dict[str, Any]:
        """Return none: the prompt is Citewell's own."""
        return {}

    def _query(self, query_bundle: QueryBundle) -> Response | StreamingResponse:
        with self._event(query_bundle) as event:
            request = self._asked(query_bundle)
            response = self._streamed(request) if self._streaming else _response(wait(self._door.ask(request)))
            event.on_end(payload={EventPayload.RESPONSE: response})
        return response

    async def _aquery(self, query_bundle: QueryBundle) -> Response | AsyncStreamingResponse:
        with self._event(query_bundle) as event:
            request = self._asked(query_bundle)
            if self._streaming:
                response = await self._streamed_elsewhere(request)
            else:
                response = _response(await elsewhere(self._door.ask(request)))
            event.on_end(payload={EventPayload.RESPONSE: response})
        return response

    def _event(self, query_bundle: QueryBundle) -> Any:
        payload = {EventPayload.QUERY_STR: query_bundle.query_str}
        return self.callback_manager.event(CBEventType.QUERY, payload=payload)

    def _asked(self, query_bundle: QueryBundle) -> AskRequest:
        return validated(AskRequest, {**self._given, "question": query_bundle.query_str})

    def _streamed(self, request: AskRequest) -> StreamingResponse:
        events = Tap(self._door.stream(request))
        nodes = _first(wait(events.next()))
        metadata: dict[str, Any] = {}

        def texts() -> Generator[str, None, None]:
            for event in events:
                yield from _shown(event, nodes, metadata)

        return StreamingResponse(texts(), nodes, metadata)

    async def _streamed_elsewhere(self, request: AskRequest) -> AsyncStreamingResponse:
        events = Tap(self._door.stream(request))
        nodes = _first(await elsewhere(events.next()))
        metadata: dict[str, Any] = {}

        async def texts() -> AsyncGenerator[str, None]:
            async for event in events:
                for text in _shown(event, nodes, metadata):
                    yield text

        return AsyncStreamingResponse(texts(), nodes, metadata)


def _door(citewell: str | Citewell, key: str | None) -> Door:
    return ServerDoor(citewell, key) if isinstance(citewell, str) else ProcessDoor(citewell)


def _given(
    collections: Sequence[str],
    top_k: int | None,
    filters: Mapping[str, Any] | None,
    parts: Mapping[str, bool] | None,
    diversity: float | None,
    around: int | None,
    section: bool | None,
) -> dict[str, Any]:
    """Return the fields of a request that somebody has set."""
    if isinstance(collections, str):
        raise BadInput(f"collections is a text; write [{collections[:100]!r}].")
    fields = {
        "collections": list(collections), "top_k": top_k, "filters": filters, "parts": parts,
        "diversity": diversity, "around": around, "section": section,
    }  # fmt: skip
    return {name: value for name, value in fields.items() if value is not None}


def _found(reply: SearchReply) -> list[NodeWithScore]:
    return [_node(passage, passage) for passage in reply.passages]


def _response(answer: AnswerReply) -> Response:
    return Response(answer.text, _cited(answer), _metadata(answer))


def _first(event: Heard | None) -> list[NodeWithScore]:
    return _found(event) if isinstance(event, SearchReply) else []


def _shown(event: Heard, nodes: list[NodeWithScore], metadata: dict[str, Any]) -> list[str]:
    """Return the text of an event of a stream; the last one puts the cited nodes and the metadata in place.

    What was streamed can not be taken back: where the built-in reader begins anew, a paragraph says so.
    """
    match event:
        case str(text):
            return [text]
        case Restart(notice):
            return [f"\n\n{notice}\n\n"]
        case AnswerReply():
            nodes[:] = _cited(event)
            metadata.update(_metadata(event))
    return []


def _cited(answer: AnswerReply) -> list[NodeWithScore]:
    """Return the passages that are cited, each once, in the order of the text; of a passage's surroundings, too."""
    places: dict[str, tuple[PassageReply, PassageReply | NeighbourReply]] = {}
    for passage in reversed(answer.passages):
        places |= {chunk.chunk_id: (passage, chunk) for chunk in passage.around}
    places |= {passage.chunk_id: (passage, passage) for passage in answer.passages}
    cited = dict.fromkeys(citation.chunk_id for citation in answer.citations)
    return [_node(*places[chunk_id]) for chunk_id in cited if chunk_id in places]


def _metadata(answer: AnswerReply) -> dict[str, Any]:
    return answer.model_dump(mode="json", exclude={"text", "passages"})


def _node(passage: PassageReply, chunk: PassageReply | NeighbourReply) -> NodeWithScore:
    """Return a passage, or a chunk around one, as a node; only a passage was ranked and has a score."""
    metadata = {
        "document": passage.document,
        "document_id": passage.document_id,
        "collection": passage.collection,
        "title": passage.title,
        "version": passage.version,
        "version_id": passage.version_id,
        "page": chunk.page,
        "section": " > ".join(chunk.section),
        "chunk_id": chunk.chunk_id,
        "start": chunk.start,
        "end": chunk.end,
        "also_in": [copy.model_dump(mode="json") for copy in passage.also_in] if chunk is passage else [],
    }
    node = TextNode(
        id_=chunk.chunk_id,
        text=chunk.text,
        metadata=metadata,
        start_char_idx=chunk.start,
        end_char_idx=chunk.end,
        excluded_llm_metadata_keys=[key for key in metadata if key not in _SHOWN],
        excluded_embed_metadata_keys=list(metadata),
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=passage.document_id)},
    )
    return NodeWithScore(node=node, score=passage.score if chunk is passage else None)
