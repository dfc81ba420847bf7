"""One OpenAI-compatible server over HTTP: what it is asked, what it streams, and one sentence for whatever goes wrong.

Speaks to that server alone: no proxies from the environment, no redirects, no headers that describe this machine. What
the openai client and httpx raise is translated here and nowhere else, to `ConnectionLost` if asking again may help, to
`GeneratorDown` if every question would fail, and else to `GeneratorFailed`, whose ``status`` is that of the refusal.

Knows nothing of prompts, budgets, retries or time limits but the one for connecting; those are its caller's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import httpx
import openai
from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletionChunk

from rag.errors import GeneratorDown, GeneratorFailed, Misconfigured
from rag.records import Usage
from rag.settings import GeneratorSettings
from rag.telemetry import here

_SHOWN_CHARS = 300
# All that goes over the wire: the openai client would add the operating system, the Python version and what
# OPENAI_CUSTOM_HEADERS holds, and httpx the cookies of earlier replies.
_HEADERS = {"host", "accept", "accept-encoding", "connection", "content-type", "content-length"}
# A host that is not there, or that hung up: with no other limits than the one for connecting, no timeout is among them.
_CONNECTION_FAILED = (openai.APIConnectionError, httpx.TransportError)
_RUBBISH = (json.JSONDecodeError, UnicodeDecodeError, httpx.HTTPError, openai.APIResponseValidationError)


class ConnectionLost(GeneratorDown):
    """The connection to the generator failed: it may be gone, or it may only have closed an old connection."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One event of a stream: its text, whether the model is at work (on reasoning, too), why it stopped, the usage."""

    text: str = ""
    alive: bool = False
    finish: str | None = None
    usage: Usage | None = None

    @classmethod
    def read(cls, event: object) -> Chunk | None:
        """Return the chunk in what the openai client made of an event, without checking it; None if there is none."""
        choices = getattr(event, "choices", None)
        if not isinstance(choices, list):
            return None
        usage = _usage(getattr(event, "usage", None))
        if not choices:  # the usage, or a sign of life
            return cls(usage=usage)
        delta = getattr(choices[0], "delta", None)
        text = getattr(delta, "content", None) or ""
        finish = getattr(choices[0], "finish_reason", None) or None
        if not isinstance(text, str) or not isinstance(finish, str | None):
            return None
        thought = getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None)
        return cls(text, bool(text or thought), finish, usage)


class ChatServer:
    """The server at ``generator.base_url``, used from one event loop at a time; nothing is sent before it is asked.

    Raises `Misconfigured` when the URL or the key can not be used.
    """

    def __init__(self, settings: GeneratorSettings) -> None:
        self._connect_timeout = settings.connect_timeout
        self._url = _parse_url(settings.base_url or "")
        self._key = _parse_key(settings.api_key.get_secret_value() if settings.api_key else "")
        self._opened: AsyncOpenAI | None = None

    @property
    def root(self) -> str:
        """The URL without ``/v1``, where probes and tokenizers are."""
        return str(self._url).rstrip("/").removesuffix("/v1")

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
                    timeout=httpx.Timeout(None, connect=self._connect_timeout),
                    limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
                    event_hooks={"request": [self._dress]},
                ),
            )
        return self._opened

    async def get(self, path: str) -> httpx.Response:
        """Return what the server says at a path under ``/v1``, or at a whole URL."""
        with self.translated():
            return await self._client.get(path, cast_to=httpx.Response)

    async def post(self, url: str, body: Mapping[str, Any]) -> httpx.Response:
        """Return what the server says to a JSON body at a whole URL."""
        with self.translated():
            return await self._client.post(url, body=dict(body), cast_to=httpx.Response)

    async def stream(self, body: Mapping[str, Any]) -> ChatStream:
        """Ask for a chat completion and return its events, before the first one is there."""
        with self.translated():
            # Fields that the openai client does not know go the same way as those that it does.
            stream = await self._client.chat.completions.create(
                messages=cast(Any, body["messages"]), model=body["model"], stream=True, extra_body=dict(body)
            )
        content_type = stream.response.headers.get("Content-Type", "no content type")
        if not content_type.startswith("text/event-stream"):
            await stream.close()
            raise self.down(f"answered with {content_type} instead of an event stream")
        return ChatStream(self, stream)

    async def aclose(self) -> None:
        """Close all connections; the server may be asked again, then also on another event loop."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.close()

    def failed(self, what: str, **facts: object) -> GeneratorFailed:
        """Return the error for one question: a sentence that begins with the server's name."""
        return GeneratorFailed(self._sentence(what), **facts)

    def down(self, what: str, **facts: object) -> GeneratorDown:
        """Return the error for a server that would fail with any question."""
        return GeneratorDown(self._sentence(what), **facts)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Translate every foreign failure inside."""
        try:
            yield
        except openai.APIStatusError as error:
            fail = self.down if error.status_code >= 500 else self.failed
            raise fail(_refusal(error), status=error.status_code) from error
        except _CONNECTION_FAILED as error:
            raise ConnectionLost(self._sentence(_connection_failure(error))) from error
        except _RUBBISH as error:
            raise self.down("sent something that is not a completion") from error
        except openai.APIError as error:  # an error event inside the stream
            raise self.down(f"reported an error: {_words(error.body) or error.message}") from error

    def _sentence(self, what: str) -> str:
        """Name the server by host and port alone, and never the key, not even where the server repeats it."""
        port = self._url.port or (443 if self._url.scheme == "https" else 80)
        if self._key:
            what = what.replace(self._key, "***")
        return f"The generator at {self._url.host}:{port} {what.rstrip('. ')}."

    async def _dress(self, request: httpx.Request) -> None:
        for name in set(request.headers) - _HEADERS:
            del request.headers[name]
        request.headers["User-Agent"] = "citewell"
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        if (place := here()) is not None:
            request.headers["traceparent"] = place


class ChatStream:
    """The events of one completion. Closing it ends the request."""

    def __init__(self, server: ChatServer, stream: AsyncStream[ChatCompletionChunk]) -> None:
        self._server = server
        self._stream = stream

    async def next(self) -> Chunk | None:
        """Return the next chunk, or None at the end of the stream."""
        with self._server.translated():
            event = await anext(self._stream, None)
        if event is None:
            return None
        chunk = Chunk.read(event)
        if chunk is None:
            raise self._server.down("sent something that is not a completion")
        if chunk.finish == "content_filter":
            raise self._server.failed("withheld its answer (content_filter)")
        return chunk

    async def aclose(self) -> None:
        """End the request."""
        await self._stream.close()


def _usage(found: object) -> Usage | None:
    """Return the usage in what the openai client made of it; None unless its numbers are numbers."""
    counts = [getattr(found, name, None) for name in ("prompt_tokens", "completion_tokens")]
    thoughts = getattr(getattr(found, "completion_tokens_details", None), "reasoning_tokens", None)
    prompt, completion = (count if _is_count(count) else None for count in counts)
    if prompt is None or completion is None:
        return None
    return Usage(prompt, completion, thoughts if thoughts is not None and _is_count(thoughts) else 0)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


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
