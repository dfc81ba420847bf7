"""Chat: `POST /v1/ask` for clients of OpenAI's API, whole or in chunks, with citations as annotations.

When the client leaves, the work for it ends. Chunks can not be taken back: where a generator fails after some of its
text has gone out, the stream ends with an error, and no other answer is put behind that text.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import Response

from api.answer_schemas import AnswerReply
from api.chat_schemas import (
    ChatChoice,
    ChatCompletion,
    ChatReplyMessage,
    ChatRequest,
    ChatUsage,
    CitewellExtra,
    FileCitation,
    query_of,
    question_of,
)
from api.dialects import in_openai
from api.guard import Places
from api.leaving import unless_gone
from api.model_names import named_collections
from api.openai_schemas import OpenAIProblemReply
from api.routes.parts import Whole, planned, problems
from api.streams import EventStream, failure_of, log_answer
from rag.answers import Answer, Citation, Keeping, Wish
from rag.errors import GeneratorFailed
from rag.pipeline import Done, Event, Passages, Restart, Scored, Token
from rag.prompt import estimate_tokens

router = APIRouter(prefix="/v1", tags=["OpenAI-compatible"])

_CHUNKS = """data: {"id": "chatcmpl-5f1d...", "object": "chat.completion.chunk", ..., "choices": [{"index": 0, \
"delta": {"role": "assistant", "content": ""}, "finish_reason": null}]}

data: {..., "choices": [{"index": 0, "delta": {"content": "Hotels are paid up to 145 euros. [1]"}, ...}]}

data: {..., "choices": [{"index": 0, "delta": {"annotations": [{"index": 0, "type": "file_citation", ...}]}, ...}]}

data: {..., "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "citewell": {"answer_id": "5f1d...", ...}}

data: [DONE]

"""


@router.post(
    "/chat/completions",
    summary="Answer a question as a chat",
    response_model=ChatCompletion,
    responses=problems(400, 404, 422, 429, 500, 503, model=OpenAIProblemReply)
    | {200: {"description": "The answer.", "content": {"text/event-stream": {"example": _CHUNKS}}}},
)
async def complete(body: ChatRequest, request: Request, citewell: Whole) -> Response | ChatCompletion:
    """Answers the last message from the collections that `model` names, as `POST /v1/ask` does.

    Each citation is an annotation of the type `file_citation`. In a stream, annotations come in chunks of their own
    once a sentence is complete, each with its `index` in the list; `citewell` stands in the chunk with the
    `finish_reason`. When the documents do not say, the content says so and `citewell.abstained` is true. An error in a
    stream is its last event: `{"error": {...}}`.
    """
    places: Places = request.app.state.answers
    with ExitStack() as held:
        held.enter_context(places.one())
        question, history = question_of(body)
        query = query_of(body, named_collections(body.model), history)
        plan = await run_in_threadpool(planned, citewell, question, query)
        keeping = Keeping(store=body.store is not False, cached=body.options.cache)
        events = citewell.stream(plan, _wish(body), keeping)
        # What fails before anything went out gets a status of its own.
        first = await unless_gone(request.receive, anext(events))
        names = {collection.id: collection.name for collection in plan.collections}
        completion = _Completion(body, names, citewell.store.settings.digest(), _id_of(first))
        if body.stream:
            return EventStream(completion.chunks(first, events), held.pop_all())
        return completion.whole(await unless_gone(request.receive, _done(events)))


def _wish(body: ChatRequest) -> Wish:
    most = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    return Wish(policy=body.options.policy, max_tokens=most, temperature=body.temperature)


def _id_of(first: Event) -> str:
    if isinstance(first, Passages):
        return first.answer_id
    raise AssertionError("a stream of events begins with Passages")


async def _done(events: AsyncGenerator[Event, None]) -> Done:
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Done):
                return event
    raise AssertionError("a stream of events ends with Done")


@dataclass(slots=True)
class _Completion:
    """One answer in OpenAI's shapes: what all its chunks have in common, and what has gone out already."""

    body: ChatRequest
    names: Mapping[str, str]
    settings_digest: str
    answer_id: str
    created: int = field(default_factory=lambda: int(time.time()))
    annotated: list[Citation] = field(default_factory=list)
    spoken: bool = False

    def whole(self, done: Done) -> ChatCompletion:
        """Return the answer as one object."""
        answer = done.answer
        log_answer(answer)
        message = ChatReplyMessage(
            content=answer.text, annotations=[FileCitation.of(citation) for citation in answer.citations]
        )
        choice = ChatChoice(message=message, finish_reason=_finish_reason(answer))
        return ChatCompletion(**self._common(), choices=[choice], usage=_usage(done), citewell=self._extra(answer))

    async def chunks(self, first: Event, rest: AsyncGenerator[Event, None]) -> AsyncGenerator[bytes, None]:
        """Yield the answer chunk by chunk; a failure becomes the last event."""
        del first  # passages have no place in a chat
        async with aclosing(rest):
            try:
                yield self._chunk({"role": "assistant", "content": ""})
                async for event in rest:
                    for wire in self._wires(event):
                        yield wire
                yield _wire("[DONE]")
            except Exception as error:  # noqa: BLE001 - the outermost edge of a stream: the headers have gone out
                yield _wire(json.dumps({"error": in_openai(*failure_of(error))}, ensure_ascii=True))

    def _wires(self, event: Event) -> Iterable[bytes]:
        """Return the chunks for an event; raises `GeneratorFailed` where what has gone out were to be taken back."""
        match event:
            case Token(text):
                self.spoken = True
                return [self._chunk({"content": text})]
            case Scored(claim):
                return self._annotations(claim.citations)
            case Restart(notice) if self.spoken or self.annotated:
                raise GeneratorFailed(f"{notice} What was sent is not all of an answer; ask again.")
            case Done(answer):
                log_answer(answer)
                return [*self._annotations(answer.citations), *self._last(event)]
            case _:
                return []

    def _annotations(self, citations: Iterable[Citation]) -> list[bytes]:
        """Return a chunk with those citations that have not gone out, each with its place in the whole list."""
        new = [citation for citation in citations if citation not in self.annotated]
        first = len(self.annotated)
        self.annotated += new
        shown = [
            {"index": place, **FileCitation.of(citation).model_dump(mode="json")}
            for place, citation in enumerate(new, first)
        ]
        return [self._chunk({"annotations": shown})] if shown else []

    def _last(self, done: Done) -> Iterable[bytes]:
        yield self._chunk(
            {}, finish=_finish_reason(done.answer), citewell=self._extra(done.answer).model_dump(mode="json")
        )
        if self._shows_usage:
            yield self._written(choices=[], usage=_usage(done).model_dump(mode="json"))

    def _chunk(self, delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return self._written(choices=[choice], **({"usage": None} if self._shows_usage else {}), **more)

    def _written(self, **more: Any) -> bytes:
        chunk = {**self._common(), "object": "chat.completion.chunk", **more}
        return _wire(json.dumps(chunk, ensure_ascii=True))

    @property
    def _shows_usage(self) -> bool:
        return self.body.stream_options is not None and self.body.stream_options.include_usage

    def _common(self) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self.answer_id}",
            "created": self.created,
            "model": self.body.model,
            "system_fingerprint": f"fp_{self.settings_digest}",
        }

    def _extra(self, answer: Answer) -> CitewellExtra:
        return CitewellExtra.of(AnswerReply.of(answer, self.names), self.body.ignored)


def _finish_reason(answer: Answer) -> Literal["stop", "length", "content_filter"]:
    if answer.refused_by is not None:
        return "content_filter"
    return "length" if answer.truncated else "stop"


def _usage(done: Done) -> ChatUsage:
    """Return the tokens as the model told them, else as they were estimated; an answer of the cache took no prompt."""
    if (told := done.answer.usage) is not None and not done.answer.cached:
        return ChatUsage.of(told.prompt_tokens, told.completion_tokens)
    return ChatUsage.of(done.prompt.tokens if done.prompt else 0, estimate_tokens(done.answer.text))


def _wire(data: str) -> bytes:
    """Write one event. JSON in ASCII has no line breaks, so that one ``data`` line holds it."""
    return f"data: {data}\n\n".encode("ascii")
