"""The generator that asks any server that speaks the OpenAI protocol, TensorRT-LLM's trtllm-serve first.

A prompt goes in, text comes out as it is written. Before anything is sent the prompt is known to fit the model's
window; what a server refuses of the request's niceties (a JSON schema for the reply, a usage at its end) is left out
from then on; a connection that fails before the first token is tried again, and nothing else is. Whatever goes wrong
becomes one `GeneratorFailed`.

This path keeps a client of its own, where `rag.llama_llm` takes any LLM class of llama-index: those retry refusals as
well, send headers that describe this machine, and tell neither the server's window nor whether it guides. How many
questions go to the server at once, and whether it is asked at all, is the matter of `rag.language_model`. This module
knows nothing of passages, citations or support.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import structlog

from rag.budget import answer_room, prompt_room, temperature_of, window_of
from rag.chat_server import ChatServer, ChatStream, Chunk, ConnectionLost
from rag.errors import GeneratorFailed
from rag.records import Delta, Guided, Prompt
from rag.served_tokens import ServedTokens
from rag.settings import GeneratorSettings
from rag.spoken import Speech

log = structlog.get_logger(__name__)

RETRIES = 2
_RETRY_SECONDS = 0.2
#: How long is waited for the usage when the answer is complete.
USAGE_SECONDS = 1.0
#: By how much the estimate of a prompt's tokens may be too low.
_DOUBT = 1.25
# llama.cpp's Python server, for one, ends a stream without a word when the prompt is longer than its window.
_SILENT = "ended before its first token; its log may say why (a prompt longer than its window, for instance)"


class OpenAIGenerator:
    """An OpenAI-compatible chat server as a `rag.protocols.Generator`, used from one event loop at a time.

    Nothing is sent before the first call. Raises `Misconfigured` when the URL or the key can not be used.
    """

    quotes = False

    def __init__(self, settings: GeneratorSettings) -> None:
        self._settings = settings
        self._server = ChatServer(settings)
        self._tokens = ServedTokens(self._server)
        self._model: _Model | None = None
        self._manner = _Manner(form=_PLAIN if settings.guided == "off" else 0)

    @property
    def name(self) -> str:
        """``openai:`` and the model; ``auto`` until the server was asked which one it has."""
        return f"openai:{self._settings.model or (self._model.name if self._model else 'auto')}"

    async def prompt_tokens(self) -> int:
        """Return how many tokens a prompt may have; a server that can not be asked is taken at the settings' word."""
        try:
            model = await self._asked_model()
        except GeneratorFailed as error:  # the question itself will tell
            log.debug("the window is that of the settings", code=error.code)
            return prompt_room(self._settings)
        return prompt_room(self._settings, model.window)

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        """Yield the text as the server writes it; yield no text when it says that the documents do not answer.

        Text is held back while it may still become reasoning or the sentence of abstention. An answer that reaches
        ``max_tokens`` ends where it stands, and says so. Closing the iterator or cancelling its task closes the
        request.

        Raises `GeneratorFailed` when the prompt does not fit the window, or when the server can not be reached, is too
        slow, refuses, breaks off, or sends something that is not a completion.
        """
        speech, last = Speech(), Chunk()
        async with aclosing(self._chunks(prompt)) as chunks:
            async for chunk in chunks:
                last = replace(chunk, finish=chunk.finish or last.finish, usage=chunk.usage or last.usage)
                if shown := speech.feed(chunk.text):
                    yield Delta(shown)
        rest = speech.finish()
        if speech.is_empty:  # a failure, not an abstention
            spent = ": generator.max_tokens went into reasoning" if last.finish == "length" else ""
            raise self._server.failed(f"ended without an answer{spent}")
        truncated = last.finish == "length"
        if rest or last.usage or truncated:
            yield Delta(rest, usage=last.usage, truncated=truncated)

    async def ready(self) -> bool:
        """Return whether the server is ready to answer: False while it says itself that it is not (503).

        Asks for NIM's ``/v1/health/ready``, then ``/health``, then ``/v1/models``: the first that is not 404 counts.
        Raises `GeneratorFailed` when the server can not be reached, answers anything else, or has no model.
        """
        limit = _Limit.in_seconds(self._settings.connect_timeout, "did not answer a readiness probe")
        async with self._within(limit):
            if not await self._probed():
                return False
            await self._asked_model()
        return True

    async def aclose(self) -> None:
        """Close all connections; the generator may be used again, then also on another event loop."""
        await self._server.aclose()

    async def _probed(self) -> bool:
        root = self._server.root
        for probe in (f"{root}/v1/health/ready", f"{root}/health", "/models"):
            try:
                await self._server.get(probe)
            except GeneratorFailed as error:
                if error.facts.get("status") == 404:
                    continue
                if error.facts.get("status") == 503:
                    return False
                raise
            return True
        raise self._server.failed("has none of /v1/health/ready, /health and /v1/models; look at generator.base_url")

    async def _chunks(self, prompt: Prompt) -> AsyncGenerator[Chunk, None]:
        """Yield what the server sends. Raises nothing but `GeneratorFailed`."""
        answer_room(self._settings, prompt.tokens, prompt.max_tokens)  # what can not fit asks for nothing
        total = _Limit.in_seconds(self._settings.total_timeout, "did not finish its answer")
        first = _Limit.in_seconds(self._settings.first_token_timeout, "did not send a first token")
        async with self._within(min(first, total, key=lambda limit: limit.at)):
            stream, chunk = await self._open(prompt)
        try:
            yield chunk
            usage = chunk.usage
            while not chunk.finish:
                async with self._within(total):
                    chunk = await self._next(stream)
                usage = usage or chunk.usage
                yield chunk
            if usage is None and self._manner.usage:
                yield await self._closing(stream)
        finally:
            await stream.aclose()

    async def _open(self, prompt: Prompt) -> tuple[ChatStream, Chunk]:
        """Return the stream at its first token; tries again when the connection fails before that."""
        for attempt in range(RETRIES):
            try:
                return await self._asked(prompt)
            except ConnectionLost:
                await asyncio.sleep(_RETRY_SECONDS * 2**attempt * random.uniform(0.5, 1.5))
        return await self._asked(prompt)

    async def _asked(self, prompt: Prompt) -> tuple[ChatStream, Chunk]:
        """Ask in the manner that the server took last, and in a simpler one where it refuses that."""
        model = await self._asked_model()
        max_tokens = await self._room(prompt, model)
        started = manner = self._manner
        while True:
            try:
                opened = await self._started(self._body(prompt, model.name, max_tokens, manner))
            except GeneratorFailed as error:
                if error.facts.get("status") == 404:
                    self._model = None  # the server may have another model by now: ask again next time
                simpler = manner.simpler(error, prompt, self._settings)
                if simpler is None:
                    raise
                manner = simpler
            else:
                if manner != started:
                    self._manner = manner
                return opened

    async def _started(self, body: Mapping[str, Any]) -> tuple[ChatStream, Chunk]:
        stream = await self._server.stream(body)
        async with AsyncExitStack() as opened:
            opened.push_async_callback(stream.aclose)
            chunk: Chunk | None = Chunk()
            while chunk is not None and not (chunk.alive or chunk.finish):
                chunk = await stream.next()
            if chunk is None:
                raise self._server.failed(_SILENT)
            opened.pop_all()
        return stream, chunk

    async def _next(self, stream: ChatStream) -> Chunk:
        chunk = await stream.next()
        if chunk is None:
            raise self._server.down("broke off before the end of its answer")
        return chunk

    async def _closing(self, stream: ChatStream) -> Chunk:
        """Return the usage that comes behind the answer. The answer is whole: that it does not come is no failure."""
        limit = _Limit.in_seconds(USAGE_SECONDS, "did not tell the usage")
        try:
            async with self._within(limit):
                while (chunk := await stream.next()) is not None:
                    if chunk.usage:
                        return Chunk(usage=chunk.usage)
        except GeneratorFailed as error:
            log.debug("no usage", code=error.code)
        return Chunk()

    async def _asked_model(self) -> _Model:
        """Return the model that is asked, and its window where the server tells it; asks the server once.

        A model that the settings name needs no list of models, though no server either where it can not be reached.
        """
        if self._model is None:
            wanted = self._settings.model
            try:
                self._model = await self._listed(wanted)
            except ConnectionLost:
                raise
            except GeneratorFailed:
                if not wanted:
                    raise
                self._model = _Model(wanted)
        return self._model

    async def _listed(self, wanted: str | None) -> _Model:
        try:
            async with self._within(_Limit.in_seconds(self._settings.connect_timeout, "did not list its models")):
                models = (await self._server.get("/models")).json()["data"]
            windows = {str(model["id"]): model.get("max_model_len") for model in models}
        except (KeyError, TypeError, AttributeError) as error:
            raise self._server.failed("does not list its models as expected; set generator.model") from error
        except ValueError as error:
            raise self._server.down("sent something that is not a completion") from error
        if not windows and not wanted:
            raise self._server.failed("has no model loaded")
        name = wanted or next(iter(windows))
        window = windows.get(name)
        return _Model(name, window if isinstance(window, int) and window > 0 else None)

    async def _room(self, prompt: Prompt, model: _Model) -> int:
        """Return how long the answer may be: a request over the window can stop trtllm-serve's engine for everyone."""
        settings, tokens = self._settings, prompt.tokens
        is_close = tokens * _DOUBT + settings.max_tokens > window_of(settings, model.window)
        if is_close and settings.tokenizer is None:
            tokens = await self._tokens.count(model.name, prompt.messages) or tokens
        return answer_room(settings, tokens, prompt.max_tokens, model.window)

    def _body(self, prompt: Prompt, model: str, max_tokens: int, manner: _Manner) -> dict[str, Any]:
        settings = self._settings
        guided = prompt.guided if manner.form != _PLAIN else None
        body = {
            "model": model,
            "messages": [dict(message) for message in (guided or prompt).messages],
            "max_tokens": max_tokens,
            "temperature": temperature_of(settings, prompt.temperature),
            "stream": True,
        }
        if manner.usage:
            body["stream_options"] = {"include_usage": True}
        if guided:
            body["response_format"] = _FORMS[manner.form](guided)
        return {**settings.request_fields, **body}

    @asynccontextmanager
    async def _within(self, limit: _Limit) -> AsyncIterator[None]:
        """Bound what happens inside in time."""
        try:
            async with asyncio.timeout_at(limit.at):
                yield
        except TimeoutError as error:
            raise self._server.down(f"{limit.sentence} within {limit.seconds:g} s") from error


@dataclass(frozen=True, slots=True)
class _Model:
    """A model of the server; ``window`` where the server tells it (vLLM and NIM do)."""

    name: str
    window: int | None = None


def _as_json_schema(guided: Guided) -> dict[str, Any]:
    return {
        "type": "json_schema",
        "json_schema": {"name": guided.name, "schema": dict(guided.schema), "strict": True},
    }


def _as_json_object(guided: Guided) -> dict[str, Any]:
    return {"type": "json_object", "schema": dict(guided.schema)}


# How a schema is asked for, the commonest way first (llama.cpp's server in Python knows only the second), and `_PLAIN`,
# which asks for none.
_FORMS = (_as_json_schema, _as_json_object)
_PLAIN = len(_FORMS)


@dataclass(frozen=True, slots=True)
class _Manner:
    """What beyond the bare question a server is asked for: a ``usage``, and a schema in one of `_FORMS`."""

    usage: bool = True
    form: int = 0

    def simpler(self, error: GeneratorFailed, prompt: Prompt, settings: GeneratorSettings) -> _Manner | None:
        """Return the manner to try after a refusal; None if the refusal is not about this one."""
        status = error.facts.get("status")
        if self.usage and status in {400, 422} and "stream_options" in error.message:
            return replace(self, usage=False)
        if prompt.guided is None or status not in {400, 422, 500, 501} or self.form == _PLAIN:
            return None
        form = self.form + 1
        return None if form == _PLAIN and settings.guided == "on" else replace(self, form=form)


@dataclass(frozen=True, slots=True)
class _Limit:
    """A moment of the event loop's clock, and what to say when it has passed."""

    at: float
    seconds: float
    sentence: str

    @classmethod
    def in_seconds(cls, seconds: float, sentence: str) -> _Limit:
        return cls(asyncio.get_running_loop().time() + seconds, seconds, sentence)
