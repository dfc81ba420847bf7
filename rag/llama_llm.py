"""The generator that asks any LLM class of llama-index, named in the settings.

    [generator]
    kind = "llama-index"
    llm = "llama_index.llms.ollama:Ollama"
    llm_arguments = {model = "llama3.2", request_timeout = 60}

The class brings its own client, with the retries, headers and environment variables of that; only its text, its usage
and its failures come through here. Nobody is told about the calls: no callback manager, no global handler. Closing the
answer closes the stream of the class; one that has only a synchronous client (a ``CustomLLM``) holds up the event loop
while it waits, and is meant for trials. Knows nothing of passages, citations or support.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from rag.budget import answer_room, prompt_room, temperature_of
from rag.errors import GeneratorDown, GeneratorFailed, Misconfigured
from rag.quiet import silence_dependencies
from rag.records import Delta, Prompt, Usage
from rag.settings import GeneratorSettings
from rag.spoken import Speech

_SHOWN_CHARS = 300
#: Names of arguments whose values are never shown.
_SECRET = ("key", "token", "secret", "password", "credential")
_COUNTS = (("prompt_tokens", "completion_tokens"), ("input_tokens", "output_tokens"))


class LlamaIndexGenerator:
    """An LLM of llama-index as a `rag.protocols.Model`, used from one event loop at a time.

    Raises `Misconfigured` when there is no such class, when it is no LLM, or when it does not take its arguments.
    """

    quotes = False

    def __init__(self, settings: GeneratorSettings) -> None:
        self._settings = settings
        self._class = _load_class(settings.llm)
        self._arguments = _arguments(self._class, settings)
        self._llm: Any = self._made()

    @property
    def name(self) -> str:
        """``llama-index:``, the class and the model."""
        return f"llama-index:{self._class.__name__}:{self._opened().metadata.model_name}"

    async def prompt_tokens(self) -> int:
        """Return how many tokens a prompt may have, by the window that the class names or by the settings."""
        return prompt_room(self._settings, self._window())

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        """Yield the text as the model writes it; yield no text when it says that the documents do not answer.

        Raises `GeneratorFailed` when the prompt does not fit the window, and when the class raises anything.
        """
        room = answer_room(self._settings, prompt.tokens, prompt.max_tokens, self._window())
        wanted = {"max_tokens": room, "temperature": temperature_of(self._settings, prompt.temperature)}
        speech, usage = Speech(), None
        async with self._wished(wanted) as llm, aclosing(self._replies(llm, prompt.messages)) as replies:
            async for reply in replies:
                usage = _usage(reply) or usage
                if shown := speech.feed(reply.delta or ""):
                    yield Delta(shown)
        rest = speech.finish()
        if speech.is_empty:
            raise GeneratorFailed(f"The language model {self._class.__name__} ended without an answer.")
        if rest or usage:
            yield Delta(rest, usage=usage)

    async def ready(self) -> bool:
        """Return True: the classes have no way to say more before they are asked."""
        return True

    async def aclose(self) -> None:
        """Let go of the class's connections, which belong to the event loop; the next call makes new ones."""
        llm, self._llm = self._llm, None
        await _close(llm)

    @asynccontextmanager
    async def _wished(self, wanted: Mapping[str, Any]) -> AsyncIterator[Any]:
        """Give the class's object, or a copy in which those of the ``wanted`` values are other that it has fields for.

        What a class does with arguments of a call differs from one to the next; all heed their fields.
        """
        llm = self._opened()
        known = type(llm).model_fields
        other = {name: value for name, value in wanted.items() if name in known and getattr(llm, name) != value}
        if not other:
            yield llm
            return
        copied = llm.model_copy(update=other)
        try:
            yield copied
        finally:
            if _client(copied) is not _client(llm):
                await _close(copied)

    async def _replies(self, llm: Any, messages: Sequence[Mapping[str, str]]) -> AsyncGenerator[Any, None]:
        """Yield what the class streams, the first and the last in time. Raises nothing but `GeneratorFailed`.

        A task of its own reads the stream: when it is cancelled it always waits for the class, whose innermost call
        then ends. Closing a stream from here would end the outermost alone, and leave the request to chance.
        """
        settings, start = self._settings, asyncio.get_running_loop().time()
        total = start + settings.total_timeout
        read: asyncio.Queue[Any] = asyncio.Queue()
        reading = asyncio.create_task(_read(llm, messages, read))
        reading.add_done_callback(lambda _: read.put_nowait(None))
        until = min(start + settings.first_token_timeout, total)
        try:
            while True:
                async with self._translated(until):
                    reply = await read.get()
                    if reply is None:
                        await reading
                        return
                yield reply
                until = total
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)  # what it still raises, nobody waits for

    def _opened(self) -> Any:
        if self._llm is None:
            self._llm = self._made()
        return self._llm

    def _made(self) -> Any:
        try:
            return self._class(**self._arguments)
        except Exception as error:  # noqa: BLE001 -- a foreign class raises what it likes
            raise Misconfigured(
                f"generator.llm: {self._class.__name__} does not take generator.llm_arguments ({self._plain(error)})."
            ) from None

    def _window(self) -> int | None:
        window = self._opened().metadata.context_window
        return window if isinstance(window, int) and window > 0 else None

    @asynccontextmanager
    async def _translated(self, until: float) -> AsyncIterator[None]:
        """Bound what happens inside in time, and translate every foreign failure, here and nowhere else."""
        start = asyncio.get_running_loop().time()
        who = f"The language model {self._class.__name__}"
        try:
            async with asyncio.timeout_at(until):
                yield
        except TimeoutError as error:
            raise GeneratorDown(f"{who} did not go on within {until - start:.3g} s.") from error
        except Exception as error:
            status = getattr(error, "status_code", None)
            if isinstance(status, int) and 400 <= status < 500:
                raise GeneratorFailed(f"{who} was refused ({self._plain(error)}).", status=status) from error
            raise GeneratorDown(f"{who} failed ({self._plain(error)}).") from error

    def _plain(self, error: Exception) -> str:
        """Return what went wrong in one line, without anything secret that the arguments hold."""
        line = " ".join(f"{type(error).__name__}: {error}".split())
        for name, value in self._arguments.items():
            if isinstance(value, str) and value and any(word in name.lower() for word in _SECRET):
                line = line.replace(value, "***")
        return (line if len(line) <= _SHOWN_CHARS else line[:_SHOWN_CHARS] + "…").rstrip(".")


async def _read(llm: Any, messages: Sequence[Mapping[str, str]], read: asyncio.Queue[Any]) -> None:
    from llama_index.core.llms import ChatMessage

    said = [ChatMessage(role=message["role"], content=message["content"]) for message in messages]
    async for reply in await llm.astream_chat(said):
        read.put_nowait(reply)


def _client(llm: Any) -> Any:
    """Return the client that a class keeps open, under llama-index's own name for it; None if it keeps none."""
    return getattr(llm, "_aclient", None)


async def _close(llm: Any) -> None:
    close = getattr(_client(llm), "close", None)
    if inspect.iscoroutinefunction(close):
        await close()


def _load_class(path: str) -> Any:
    """Return the LLM class at ``package.module:Class``."""
    silence_dependencies()
    module, _, name = path.partition(":")
    package = module.replace("_", "-").replace(".", "-")
    try:
        from llama_index.core.llms import LLM

        found = getattr(importlib.import_module(module), name or "-", None)
    except ImportError as error:
        raise Misconfigured(
            f"generator.llm: {module} can not be imported ({error}); is it installed? Try `pip install {package}`."
        ) from error
    if not (isinstance(found, type) and issubclass(found, LLM)):
        raise Misconfigured(
            f"generator.llm must name a class of llama-index's LLMs as package.module:Class, and {path!r} is none."
        )
    return found


def _arguments(kind: Any, settings: GeneratorSettings) -> dict[str, Any]:
    """Return what the class is made with: the arguments of the settings, and of `generator` what it has fields for."""
    from llama_index.core.callbacks import CallbackManager

    given = {
        "model": settings.model,
        "api_key": settings.api_key.get_secret_value() if settings.api_key else None,
        "max_tokens": settings.max_tokens,
        "temperature": settings.temperature,
        "context_window": settings.context_tokens,
        "is_chat_model": True,
    }
    fitting = {name: value for name, value in given.items() if value is not None and name in kind.model_fields}
    return fitting | settings.llm_arguments | {"callback_manager": CallbackManager([])}


def _usage(reply: Any) -> Usage | None:
    """Return the usage where the class puts it: beside the reply, or in what its server sent."""
    beside = reply.additional_kwargs or {}
    raw = getattr(reply.raw, "usage", None) or (reply.raw.get("usage") if isinstance(reply.raw, dict) else None)
    inside = raw if isinstance(raw, dict) else vars(raw) if hasattr(raw, "__dict__") else {}
    for counts in (beside, inside):
        for names in _COUNTS:
            prompt, completion = (counts.get(name) for name in names)
            if isinstance(prompt, int) and isinstance(completion, int):
                return Usage(prompt, completion)
    return None
