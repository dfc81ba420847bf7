"""The clients of language models: any server that speaks the OpenAI protocol, TensorRT-LLM's trtllm-serve first.

A prompt goes in, text comes out as it is written. The server's reasoning is kept out of the text, its word that the
documents do not answer becomes no text at all, and whatever goes wrong on the way becomes one `GeneratorFailed`.

Speaks to the configured server alone: no proxies from the environment, no redirects, no headers that describe this
machine. This module knows nothing of passages, citations or support.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import cast

import httpx
import openai
from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from rag.errors import GeneratorFailed, Misconfigured
from rag.prompt import ABSTENTION
from rag.records import Delta, Prompt
from rag.settings import GeneratorSettings

RETRIES = 2
_RETRY_SECONDS = 0.2
_LEAST_ANSWER_TOKENS = 16
_SHOWN_CHARS = 300
# llama.cpp's Python server, for one, ends a stream without a word when the prompt is longer than its window.
_SILENT = "ended before its first token; its log may say why (a prompt longer than its window, for instance)"
# All that goes over the wire: the openai client would add the operating system, the Python version and what
# OPENAI_CUSTOM_HEADERS holds, and httpx the cookies of earlier replies.
_HEADERS = {"host", "accept", "accept-encoding", "connection", "content-type", "content-length"}
# A host that is not there, or that hung up: with the limits set below, no other timeout reaches these two.
_CONNECTION_FAILED = (openai.APIConnectionError, httpx.TransportError)
_RUBBISH = (json.JSONDecodeError, UnicodeDecodeError, httpx.HTTPError, openai.APIResponseValidationError)


class OpenAIGenerator:
    """An OpenAI-compatible chat server as a `rag.protocols.Generator`, used from one event loop at a time.

    Nothing is sent before the first call. Raises `Misconfigured` when the URL or the key can not be used.
    """

    quotes = False

    def __init__(self, settings: GeneratorSettings) -> None:
        self._settings = settings
        self._url = _parse_url(settings.base_url or "")
        self._key = _parse_key(settings.api_key.get_secret_value() if settings.api_key else "")
        self._discovered: str | None = None
        self._opened: AsyncOpenAI | None = None

    @property
    def _client(self) -> AsyncOpenAI:
        """The client, made on first use, since its connections belong to the event loop that it is used on."""
        if self._opened is None:
            # The key is put in by `_dress`, so that the foreign client has none to show.
            self._opened = AsyncOpenAI(
                api_key="-",
                base_url=self._url,
                max_retries=0,
                http_client=httpx.AsyncClient(
                    trust_env=False,
                    timeout=httpx.Timeout(None, connect=self._settings.connect_timeout),
                    limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
                    event_hooks={"request": [self._dress]},
                ),
            )
        return self._opened

    @property
    def name(self) -> str:
        """``openai:`` and the model; ``auto`` until the server was asked which one it has."""
        return f"openai:{self._settings.model or self._discovered or 'auto'}"

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        """Yield the text as the server writes it; yield nothing when it says that the documents do not answer.

        Text is held back while it may still become reasoning or the sentence of abstention. An answer that reaches
        ``max_tokens`` ends where it stands. Closing the iterator or cancelling its task closes the request.

        Raises `GeneratorFailed` when the prompt does not fit the window, or when the server can not be reached, is too
        slow, refuses, breaks off, or sends something that is not a completion.
        """
        gate = AbstentionGate()
        async with aclosing(self._answer(prompt)) as texts:
            async for text in texts:
                if shown := gate.feed(text):
                    yield Delta(shown)
        if shown := gate.finish():
            yield Delta(shown)

    async def ready(self) -> bool:
        """Return whether the server is ready to answer: False while it says itself that it is not (503).

        Asks for NIM's ``/v1/health/ready``, then ``/health``, then ``/v1/models``: the first that is not 404 counts.
        Raises `GeneratorFailed` when the server can not be reached or answers anything else.
        """
        root = str(self._url).rstrip("/").removesuffix("/v1")
        for probe in (f"{root}/v1/health/ready", f"{root}/health", f"{self._url}models"):
            limit = _Limit.in_seconds(self._settings.connect_timeout, "did not answer a readiness probe")
            async with self._guarded(limit):
                try:
                    await self._client.get(probe, cast_to=httpx.Response)
                except openai.NotFoundError:
                    continue
                except openai.InternalServerError as error:
                    if error.status_code == 503:
                        return False
                    raise
            return True
        raise self._failed("has none of /v1/health/ready, /health and /v1/models; look at generator.base_url")

    async def aclose(self) -> None:
        """Close all connections; the generator may be used again, then also on another event loop."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.close()

    async def _answer(self, prompt: Prompt) -> AsyncGenerator[str, None]:
        """Yield the text without its reasoning; an answer without any text is a failure, not an abstention."""
        thoughts = ThoughtFilter()
        written = False
        finish: str | None = None
        async with aclosing(self._chunks(prompt)) as chunks:
            async for chunk in chunks:
                finish = chunk.finish
                text = thoughts.feed(chunk.text) + (thoughts.finish() if finish else "")
                written = written or bool(text.strip())
                if text:
                    yield text
        if not written:
            spent = ": generator.max_tokens went into reasoning" if finish == "length" else ""
            raise self._failed(f"ended without an answer{spent}")

    async def _chunks(self, prompt: Prompt) -> AsyncGenerator[_Chunk, None]:
        """Yield what the server sends, the last one with its reason to finish. Raises nothing but `GeneratorFailed`."""
        total = _Limit.in_seconds(self._settings.total_timeout, "did not finish its answer")
        first = _Limit.in_seconds(self._settings.first_token_timeout, "did not send a first token")
        max_tokens = self._answer_room(prompt)
        async with self._guarded(min(first, total, key=lambda limit: limit.at)):
            stream, chunk = await self._open(prompt, max_tokens)
        try:
            yield chunk
            while not chunk.finish:
                async with self._guarded(total):
                    chunk = await self._next(stream, "broke off before the end of its answer")
                yield chunk
        finally:
            await stream.close()

    def _answer_room(self, prompt: Prompt) -> int:
        """Return how long the answer may be: a request over the window can stop trtllm-serve's engine for everyone."""
        settings = self._settings
        most = min(settings.max_tokens, prompt.max_tokens or settings.max_tokens)
        room = min(most, settings.context_tokens - prompt.tokens)
        if room < min(most, _LEAST_ANSWER_TOKENS):
            raise GeneratorFailed(
                f"The prompt takes about {prompt.tokens} of the {settings.context_tokens} tokens of the generator's "
                "window (generator.context_tokens) and leaves no room for an answer."
            )
        return room

    async def _open(self, prompt: Prompt, max_tokens: int) -> tuple[AsyncStream[ChatCompletionChunk], _Chunk]:
        """Return the stream at its first token; tries again when the connection fails before that."""
        for attempt in range(RETRIES):
            try:
                return await self._attempt(prompt, max_tokens)
            except _CONNECTION_FAILED:
                await asyncio.sleep(_RETRY_SECONDS * 2**attempt * random.uniform(0.5, 1.5))
        return await self._attempt(prompt, max_tokens)

    async def _attempt(self, prompt: Prompt, max_tokens: int) -> tuple[AsyncStream[ChatCompletionChunk], _Chunk]:
        stream = await self._request(prompt, max_tokens)
        async with AsyncExitStack() as opened:
            opened.push_async_callback(stream.close)
            content_type = stream.response.headers.get("Content-Type", "no content type")
            if not content_type.startswith("text/event-stream"):
                raise self._failed(f"answered with {content_type} instead of an event stream")
            chunk = _Chunk()
            while not (chunk.alive or chunk.finish):
                chunk = await self._next(stream, _SILENT)
            opened.pop_all()
        return stream, chunk

    async def _request(self, prompt: Prompt, max_tokens: int) -> AsyncStream[ChatCompletionChunk]:
        model = self._settings.model or self._discovered or await self._discover()
        try:
            return await self._client.chat.completions.create(
                model=model,
                messages=cast(Iterable[ChatCompletionMessageParam], [dict(message) for message in prompt.messages]),
                max_tokens=max_tokens,
                temperature=self._settings.temperature,
                stream=True,
            )
        except openai.NotFoundError:
            self._discovered = None  # the server may have another model by now: ask again next time
            raise

    async def _discover(self) -> str:
        response = await self._client.get("/models", cast_to=httpx.Response)
        try:
            models = [str(model["id"]) for model in response.json()["data"]]
        except (KeyError, TypeError) as error:
            raise self._failed("does not list its models as expected; set generator.model") from error
        if not models:
            raise self._failed("has no model loaded")
        self._discovered = models[0]
        return models[0]

    async def _next(self, stream: AsyncStream[ChatCompletionChunk], at_end: str) -> _Chunk:
        event = await anext(stream, None)
        if event is None:
            raise self._failed(at_end)
        chunk = _Chunk.read(event)
        if chunk is None:
            raise self._failed("sent something that is not a completion")
        if chunk.finish == "content_filter":
            raise self._failed("withheld its answer (content_filter)")
        return chunk

    async def _dress(self, request: httpx.Request) -> None:
        for name in set(request.headers) - _HEADERS:
            del request.headers[name]
        request.headers["User-Agent"] = "citewell"
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"

    @asynccontextmanager
    async def _guarded(self, limit: _Limit) -> AsyncIterator[None]:
        """Bound what happens inside in time, and translate every foreign failure, here and nowhere else."""
        try:
            async with asyncio.timeout_at(limit.at):
                yield
        except TimeoutError as error:
            raise self._failed(f"{limit.sentence} within {limit.seconds:g} s") from error
        except openai.APIStatusError as error:
            raise self._failed(_refusal(error), status=error.status_code) from error
        except _CONNECTION_FAILED as error:
            raise self._failed(_connection_failure(error)) from error
        except _RUBBISH as error:
            raise self._failed("sent something that is not a completion") from error
        except openai.APIError as error:  # an error event inside the stream
            raise self._failed(f"reported an error: {_words(error.body) or error.message}") from error

    def _failed(self, what: str, **facts: object) -> GeneratorFailed:
        """Name the server by host and port alone, and never the key, not even where the server repeats it."""
        port = self._url.port or (443 if self._url.scheme == "https" else 80)
        if self._key:
            what = what.replace(self._key, "***")
        return GeneratorFailed(f"The generator at {self._url.host}:{port} {what.rstrip('. ')}.", **facts)


class ThoughtFilter:
    """Drops ``<think>...</think>`` at the start of a text that comes in pieces, wherever these are cut.

    White space before and after the reasoning goes with it.
    """

    _OPEN, _CLOSE = "<think>", "</think>"

    def __init__(self) -> None:
        self._held = ""
        self._inside = False
        self._passing = False

    def feed(self, text: str) -> str:
        """Take the next piece and return what of the text is certain to be no reasoning."""
        if self._passing:
            return text
        self._held += text
        return self._skip_thought() if self._inside else self._look_at_start()

    def finish(self) -> str:
        """Return what was held back at the end of the text; reasoning that never closed is dropped."""
        rest = "" if self._inside else self._held.lstrip()
        self._held = ""
        return rest

    def _look_at_start(self) -> str:
        self._held = self._held.lstrip()
        if self._held.startswith(self._OPEN):
            self._inside = True
            return self._skip_thought()
        if self._OPEN.startswith(self._held):
            return ""
        self._passing = True
        rest, self._held = self._held, ""
        return rest

    def _skip_thought(self) -> str:
        _, closed, rest = self._held.partition(self._CLOSE)
        if not closed:
            self._held = self._held[-len(self._CLOSE) :]
            return ""
        self._inside, self._held = False, rest
        return self._look_at_start()


class AbstentionGate:
    """Holds back a text in pieces while it may still be the sentence of abstention and nothing else.

    Tolerates case, white space, quotation marks, emphasis, a missing full stop and a marker such as ``[1]`` behind.
    """

    _SENTENCE = ABSTENTION.rstrip(".").casefold()
    _AROUND = " \n\r\t\"'“”‘’„«»*_`"
    _BEHIND = re.compile(r"""(?:[\s.!"'“”‘’„«»*_`]|\[[\d\s,;]*(?:\]|$))*""")

    def __init__(self) -> None:
        self._held = ""
        self._passing = False

    def feed(self, text: str) -> str:
        """Take the next piece and return what may be shown by now."""
        if self._passing:
            return text
        self._held += text
        if self._SENTENCE.startswith(self._start()) or self._is_abstention():
            return ""
        self._passing = True
        return self._held

    def finish(self) -> str:
        """Return what was held back at the end of the text, or nothing if it is an abstention."""
        return "" if self._passing or self._is_abstention() else self._held

    def _start(self) -> str:
        return re.sub(r"\s+", " ", self._held.lstrip(self._AROUND)).casefold()

    def _is_abstention(self) -> bool:
        start = self._start()
        return start.startswith(self._SENTENCE) and bool(self._BEHIND.fullmatch(start, len(self._SENTENCE)))


@dataclass(frozen=True, slots=True)
class _Limit:
    """A moment of the event loop's clock, and what to say when it has passed."""

    at: float
    seconds: float
    sentence: str

    @classmethod
    def in_seconds(cls, seconds: float, sentence: str) -> _Limit:
        return cls(asyncio.get_running_loop().time() + seconds, seconds, sentence)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """One event of the stream: its text, whether the model is at work (on reasoning, too), and why it stopped."""

    text: str = ""
    alive: bool = False
    finish: str | None = None

    @classmethod
    def read(cls, event: object) -> _Chunk | None:
        """Return the chunk in what the openai client made of an event, without checking it; None if there is none."""
        choices = getattr(event, "choices", None)
        if not isinstance(choices, list):
            return None
        if not choices:  # the usage, or a sign of life
            return cls()
        delta = getattr(choices[0], "delta", None)
        text = getattr(delta, "content", None) or ""
        finish = getattr(choices[0], "finish_reason", None) or None
        if not isinstance(text, str) or not isinstance(finish, str | None):
            return None
        thought = getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None)
        return cls(text, bool(text or thought), finish)


def _parse_url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text.rstrip("/") + "/")
    except httpx.InvalidURL as error:
        raise Misconfigured(f"generator.base_url is not a URL: {error}.") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise Misconfigured("generator.base_url must be an http or https URL such as http://127.0.0.1:8000/v1.")
    if url.userinfo:
        raise Misconfigured("generator.base_url must not hold a user or password; set generator.api_key instead.")
    return url


def _parse_key(key: str) -> str:
    key = key.strip()
    if not (key.isascii() and key.isprintable()):
        raise Misconfigured("generator.api_key holds characters that can not be sent in an HTTP header.")
    return key


def _refusal(error: openai.APIStatusError) -> str:
    status = error.status_code
    if 300 <= status < 400:
        return f"answered {status}, a redirect, which is not followed; set generator.base_url to where it leads"
    said = _words(error.body)
    answered = f"answered {status}: {said}" if said else f"answered {status}"
    if status in {401, 403}:
        return f"refused generator.api_key ({answered})"
    if status == 404:
        return f"does not know the path or the model; look at generator.base_url and generator.model ({answered})"
    return answered


def _words(body: object) -> str:
    """Return what a server says in an error: TensorRT-LLM a plain string, others an object. Pages are left out."""
    if isinstance(body, list):
        return _words(body[0]) if body else ""
    if isinstance(body, dict):
        return next((_words(body[key]) for key in ("error", "message", "detail", "msg") if body.get(key)), "")
    if not isinstance(body, str) or "<html" in body.lower():
        return ""
    line = " ".join(body.split())
    return line if len(line) <= _SHOWN_CHARS else line[:_SHOWN_CHARS] + "…"


def _connection_failure(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
    if isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout):
        why = str(cause) or "no answer to the attempt to connect"
        return f"can not be reached ({why}); look at generator.base_url and whether the server runs"
    if not isinstance(cause, httpx.TransportError):  # our own end: a closed client, another event loop
        return f"could not be asked ({type(cause).__name__}: {cause})"
    return f"closed the connection before the end of its answer ({type(cause).__name__})"
