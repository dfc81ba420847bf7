"""The rails of NeMo Guardrails: what a folder of its files says about questions and answers, asked of its runtime.

    [guardrails]
    config = "rails"        # a folder with config.yml and, if wanted, flows (*.co) and actions.py

Of the library's own rails those are taken that ask the models named in the folder, or compute here: many others send
text to hosts that are written into the library. Each model of the folder has to name its OpenAI-compatible server by
``parameters.base_url``; nothing else is spoken to, no embedding is computed and no hub is asked. The runtime has a
thread with an event loop of its own, since it computes between its calls.

A rail that fails is told apart from one that refuses, whose messages look alike. Knows no passages, no citations and
nothing of what becomes of a refusal.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import httpx

from rag.errors import GuardrailsFailed, Misconfigured
from rag.protocols import Verdict
from rag.quiet import silence_dependencies
from rag.settings import GuardrailsSettings

ResultT = TypeVar("ResultT")
Side = Literal["input", "output"]

#: Rails of the library that ask the models of the folder, or compute in this process from what is installed.
KNOWN_RAILS = frozenset({
    "self check input", "self check output", "self check facts", "self check hallucination", "hallucination warning",
    "content safety check input", "content safety check output", "topic safety check input",
    "llama guard check input", "llama guard check output", "regex check input", "regex check output",
    "context bloat detection on input", "injection detection",
})  # fmt: skip
_SHOWN_CHARS = 300
#: ``flow $model=content_safety``, ``flow(...)``: what stands behind a flow's name.
_ARGUMENTS = re.compile(r"\s*[$(].*")


class NemoRails:
    """The rails of one folder as `rag.protocols.Rails`. Thread-safe; to be closed.

    Raises `Misconfigured` with the cure where the library is not installed, or the folder can not be used.
    """

    def __init__(self, settings: GuardrailsSettings) -> None:
        if settings.config is None:
            raise Misconfigured("guardrails.config is not set; it names the folder of NeMo Guardrails' files.")
        self._seconds = settings.timeout_seconds
        self._key = settings.api_key.get_secret_value() if settings.api_key else None
        self._clients: list[httpx.AsyncClient] = []
        _import_library()
        config = _read(settings.config)
        _check(config, settings.config)
        self._flows = {"input": list(config.rails.input.flows), "output": list(config.rails.output.flows)}
        self._fingerprint = _fingerprint(settings.config)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="guardrails", daemon=True)
        self._thread.start()
        try:
            self._rails = self._submit(lambda: self._opened(config)).result()
        except Exception as error:  # whatever the files of the folder raise
            self.close()
            raise Misconfigured(f"guardrails.config: {settings.config} can not be used: {_words(error)}") from error

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def holds_answers(self) -> bool:
        return bool(self._flows["output"])

    @property
    def told(self) -> str:
        """What it does, in a line for people."""
        sides = [f"{', '.join(flows) or 'nothing'} on {side}" for side, flows in self._flows.items()]
        return "; ".join(sides)

    async def check_question(self, question: str) -> Verdict:
        """See `rag.protocols.Rails`."""
        return await self._asked("input", [{"role": "user", "content": question}], question)

    async def check_answer(self, question: str, answer: str, passages: Sequence[str]) -> Verdict:
        """See `rag.protocols.Rails`. Flows find the passages as ``$relevant_chunks``, and ``$check_facts`` is true."""
        context = {"relevant_chunks": "\n".join(passages), "check_facts": True}
        messages: list[dict[str, Any]] = [
            {"role": "context", "content": context},
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
        return await self._asked("output", messages, answer)

    def close(self) -> None:
        """Close all connections and end the thread."""
        if self._thread.is_alive():
            self._submit(self._close_clients).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    # -- the runtime, in its thread ----------------------------------------------------------------------------------

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def _submit(self, work: Callable[[], Awaitable[ResultT]]) -> Any:
        async def run() -> ResultT:
            return await work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop)

    async def _opened(self, config: Any) -> Any:
        from nemoguardrails import LLMRails, register_provider, set_default_framework

        set_default_framework("default")
        for engine in {model.engine for model in config.models}:
            register_provider(engine, self._model)
        return LLMRails(config)

    def _model(self, model: str, base_url: str, api_key: str | None = None, **parameters: Any) -> Any:
        """Return a model at an OpenAI-compatible server, by a client that goes by nothing but what it is told."""
        from nemoguardrails.llm.clients.openai_compatible import OpenAICompatibleClient
        from nemoguardrails.llm.models.openai_chat import OpenAIChatModel

        transport = httpx.AsyncClient(trust_env=False, timeout=self._seconds, headers={"User-Agent": "citewell"})
        self._clients.append(transport)
        client = OpenAICompatibleClient(base_url, api_key or self._key, max_retries=1, http_client=transport)
        return OpenAIChatModel(client, model, provider_name="openai", **parameters)

    async def _close_clients(self) -> None:
        for client in self._clients:
            await client.aclose()

    async def _asked(self, side: Side, messages: list[dict[str, Any]], text: str) -> Verdict:
        if not self._flows[side]:
            return Verdict(text)
        return await asyncio.wrap_future(self._submit(lambda: self._checked(side, messages)))

    async def _checked(self, side: Side, messages: list[dict[str, Any]]) -> Verdict:
        log = {"activated_rails": True, "internal_events": True}
        try:
            async with asyncio.timeout(self._seconds):
                # A state of its own: without one the library keeps the events of every conversation for ever.
                reply = await self._rails.generate_async(
                    messages=messages, options={"rails": [side], "log": log}, state={}
                )
        except TimeoutError as error:
            raise _failed(side, f"they took longer than guardrails.timeout_seconds ({self._seconds:g})") from error
        except Exception as error:  # a model server that is away, an action of the folder, a flow of it
            raise _failed(side, _words(error)) from error
        return self._verdict(side, reply)

    def _verdict(self, side: Side, reply: Any) -> Verdict:
        """Read what the runtime says; raises `GuardrailsFailed` where it is not the word of a rail."""
        events = reply.log.internal_events or []
        if any(_is_failure(event) for event in events):
            raise _failed(side, "an action of theirs failed")
        said = reply.response[-1]["content"]
        activated = [rail for rail in reply.log.activated_rails if rail.type == side]
        for rail in activated:
            if rail.stop:
                return Verdict(said["message"] if isinstance(said, dict) else said, refused_by=rail.name)
        if isinstance(said, dict):
            raise _failed(side, f"one of them raised {said.get('type', 'an exception')}")
        if missing := {_name(flow) for flow in self._flows[side]} - {_name(rail.name) for rail in activated}:
            raise _failed(side, f"these did not run: {', '.join(sorted(missing))}")
        if not said:
            raise _failed(side, "they left nothing of it, and none refused it")
        return Verdict(said)


def _import_library() -> None:
    silence_dependencies()
    try:
        import nemoguardrails
    except ImportError as error:
        raise Misconfigured(
            "guardrails.config is set but NeMo Guardrails is not installed: `pip install citewell[guardrails]`."
        ) from error
    # It logs questions and answers when something fails; what matters of that is in our errors.
    logging.getLogger(nemoguardrails.__name__).setLevel(logging.CRITICAL + 1)


def _read(folder: Path) -> Any:
    from nemoguardrails import RailsConfig

    if not folder.is_dir():
        raise Misconfigured(f"guardrails.config names {folder}, which is no folder; it holds config.yml and flows.")
    try:
        return RailsConfig.from_path(str(folder))
    except Exception as error:  # whatever its YAML and Colang parsers raise
        raise Misconfigured(f"guardrails.config: {folder} can not be read: {_words(error)}") from error


def _check(config: Any, folder: Path) -> None:
    """Refuse what would speak to other hosts, or could not be checked."""
    if config.colang_version != "1.0":
        raise Misconfigured(f"guardrails.config: {folder} is written in Colang {config.colang_version}; 1.0 is taken.")
    if config.docs:
        raise Misconfigured(f"guardrails.config: remove {folder / 'kb'}; Citewell's own documents answer.")
    own = {_name(str(flow["id"])) for flow in config.flows if "id" in flow}
    flows = [*config.rails.input.flows, *config.rails.output.flows]
    if not flows:
        raise Misconfigured(f"guardrails.config: {folder} names no flow under rails.input or rails.output.")
    if foreign := sorted({flow for flow in flows if _name(flow) not in own | KNOWN_RAILS}):
        raise Misconfigured(
            f"guardrails.config: no such rail, or one that speaks to other hosts: {', '.join(foreign)}. "
            f"There are your own flows and {', '.join(sorted(KNOWN_RAILS))}."
        )
    for model in config.models:
        _check_server(model)


def _check_server(model: Any) -> None:
    if model.type == "embeddings":
        raise Misconfigured("guardrails.config: remove the model of the type embeddings; no rail needs one here.")
    text = str(model.parameters.get("base_url") or "")
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise Misconfigured(f"guardrails.config: {text!r} is not a URL: {error}.") from error
    if url.scheme not in {"http", "https"} or not url.host or url.userinfo:
        raise Misconfigured(
            f"guardrails.config: the model {model.model} needs parameters.base_url, an http or https URL of an "
            "OpenAI-compatible server such as http://127.0.0.1:8000/v1, without a password in it."
        )


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder)}\n{len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def _is_failure(event: Mapping[str, Any]) -> bool:
    failed = event.get("intent") == "inform internal error occurred", event.get("error_type") == "internal_error"
    return any(failed)


def _name(flow: str) -> str:
    return _ARGUMENTS.sub("", flow).strip().replace("_", " ")


def _failed(side: Side, why: str) -> GuardrailsFailed:
    what = "question" if side == "input" else "answer"
    return GuardrailsFailed(f"The guardrails could not check the {what}: {why.rstrip('. ')}.")


def _words(error: BaseException) -> str:
    """Return what an error says, in one line."""
    inner = getattr(error, "inner_exception", None) or error.__cause__ or error
    line = " ".join(str(inner).split()) or type(inner).__name__
    return line if len(line) <= _SHOWN_CHARS else line[:_SHOWN_CHARS] + "…"
