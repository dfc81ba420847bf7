"""Any LLM class of llama-index as the generator: real classes, one of them over a real server on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import pytest
from pydantic import SecretStr, ValidationError

pytest.importorskip("llama_index.llms.openai_like", reason="llama-index-llms-openai-like is not installed")
from llama_index.core.llms import MockLLM

from rag.assembly import open_language_model
from rag.errors import GeneratorDown, GeneratorFailed, Misconfigured
from rag.llama_llm import LlamaIndexGenerator
from rag.prompt import ABSTENTION
from rag.records import Delta, Prompt, Usage
from rag.settings import GeneratorSettings
from tests.scripted_llm import CHAT, DONE, Pause, ScriptedLLM, delta, event, event_stream, json_reply, stream

T = TypeVar("T")
KEY = "sk-very-secret-0123456789"
MESSAGES = ({"role": "system", "content": "Rules."}, {"role": "user", "content": "Wie heißt es?"})
PROMPT = Prompt("Wie heißt es?", (), MESSAGES, 100)
OPENAI_LIKE = "llama_index.llms.openai_like:OpenAILike"


class Wordless(MockLLM):
    """An LLM whose constructor takes no argument that it was not told about, and which knows its window."""

    @property
    def metadata(self) -> Any:
        return super().metadata.model_copy(update={"context_window": 600, "model_name": "wordless-1"})


def settings_for(server: ScriptedLLM | None = None, llm: str = OPENAI_LIKE, **values: Any) -> GeneratorSettings:
    arguments = {"api_base": server.base_url, "max_retries": 0, "api_key": KEY} if server else {}
    defaults = {"model": "m", "llm_arguments": arguments, "first_token_timeout": 30, "total_timeout": 60}
    return GeneratorSettings(kind="llama-index", llm=llm, **{**defaults, **values})


def using(config: GeneratorSettings, act: Callable[[LlamaIndexGenerator], Awaitable[T]]) -> T:
    async def run() -> T:
        generator = LlamaIndexGenerator(config)
        try:
            return await act(generator)
        finally:
            await generator.aclose()

    return asyncio.run(run())


def ask(config: GeneratorSettings, prompt: Prompt = PROMPT) -> list[Delta]:
    async def collect(generator: LlamaIndexGenerator) -> list[Delta]:
        async with aclosing(generator.generate(prompt)) as deltas:
            return [item async for item in deltas]

    return using(config, collect)


def text_of(deltas: list[Delta]) -> str:
    return "".join(item.text for item in deltas)


# -- what comes back ---------------------------------------------------------------------------------------------------


def test_text_comes_as_the_class_streams_it(server):
    server.on(CHAT, stream("Three", " months", " [1]."))
    assert [item.text for item in ask(settings_for(server))] == ["Three", " months", " [1]."]


def test_the_class_gets_the_messages_and_the_settings(server):
    """Its arguments, and the values of `generator` that it has fields for."""
    server.on(CHAT, stream("Yes."))
    arguments = {"api_base": server.base_url, "api_key": KEY, "additional_kwargs": {"seed": 7}}
    ask(settings_for(max_tokens=77, temperature=0.5, llm_arguments=arguments))
    [chat] = server.chats
    assert chat.headers["authorization"] == f"Bearer {KEY}"
    assert chat.json == {
        "model": "m", "messages": [dict(message) for message in MESSAGES], "max_tokens": 77, "temperature": 0.5,
        "stream": True, "seed": 7,
    }  # fmt: skip


def test_what_a_request_wishes_reaches_the_class(server):
    server.on(CHAT, stream("Yes."))
    ask(settings_for(server, max_tokens=77), Prompt("q", (), MESSAGES, 100, max_tokens=20, temperature=0.7))
    assert (server.chats[0].json["max_tokens"], server.chats[0].json["temperature"]) == (20, 0.7)


def test_reasoning_is_kept_out(server):
    thinking = (delta("", reasoning_content="Let me see."), "<think>", "Hm.</think>", "Three months.")
    server.on(CHAT, stream(*thinking))
    assert text_of(ask(settings_for(server))) == "Three months."


def test_the_sentence_of_abstention_becomes_no_text(server):
    server.on(CHAT, stream(*ABSTENTION))
    assert text_of(ask(settings_for(server))) == ""


def test_the_usage_comes_with_the_last_piece(server):
    counts = {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
    last = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [], "usage": counts}
    server.on(CHAT, event_stream(delta("Yes."), delta(finish="stop"), event(last), DONE))
    assert ask(settings_for(server))[-1] == Delta("", usage=Usage(12, 5))


def test_a_class_without_a_server():
    """llama-index's own mock writes as many words as it may; it has neither model nor key nor temperature."""
    said = text_of(ask(settings_for(llm="llama_index.core.llms:MockLLM", max_tokens=3)))
    assert said == "text text text"


def test_the_window_that_the_class_names_is_heeded():
    config = settings_for(llm=f"{__name__}:Wordless")
    assert using(config, LlamaIndexGenerator.prompt_tokens) == 600 - 300 - 64
    with pytest.raises(GeneratorFailed, match="about 595 of the 600 tokens"):
        ask(config, Prompt("q", (), MESSAGES, 595))


def test_its_name_says_what_it_is(server):
    async def named(generator: LlamaIndexGenerator) -> str:
        return generator.name

    assert using(settings_for(server), named) == "llama-index:OpenAILike:m"


def test_it_may_be_used_on_one_event_loop_after_the_other(server):
    server.on(CHAT, stream("One."), stream("Two."))
    generator = LlamaIndexGenerator(settings_for(server))

    async def once() -> str:
        try:
            return text_of([item async for item in generator.generate(PROMPT)])
        finally:
            await generator.aclose()

    assert [asyncio.run(once()) for _ in range(2)] == ["One.", "Two."]


# -- how it ends -------------------------------------------------------------------------------------------------------


def test_closing_the_iterator_closes_the_request(server):
    server.on(CHAT, stream("One", Pause(30), "Two"))

    async def first(generator: LlamaIndexGenerator) -> str:
        async with aclosing(generator.generate(PROMPT)) as answer:
            said = (await anext(answer)).text
        assert await asyncio.to_thread(server.hung_up.wait, 5), "closed at once, not with the generator"
        return said

    assert using(settings_for(server), first) == "One"


def test_cancelling_closes_the_request(server):
    server.on(CHAT, stream("One", Pause(30), "Two"))

    async def cancelled(generator: LlamaIndexGenerator) -> None:
        async def collect() -> None:
            async for _ in generator.generate(PROMPT):
                pass

        task = asyncio.create_task(collect())
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(server.hung_up.wait, 5)

    using(settings_for(server), cancelled)


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (json_reply(400, {"error": {"message": "too long"}}), GeneratorFailed, "was refused (BadRequestError"),
        (json_reply(401, {"error": f"wrong key: {KEY}"}), GeneratorFailed, "wrong key: ***"),
        (json_reply(503, {"error": "starting"}), GeneratorDown, "failed (InternalServerError"),
        (event_stream(b"data: {broken\n\n"), GeneratorDown, "failed ("),
        ((Pause(30),), GeneratorDown, "did not go on within 0.3 s"),
        (event_stream(delta("Half"), Pause(30)), GeneratorDown, "did not go on within"),
        (stream(), GeneratorFailed, "ended without an answer"),
        (stream("<think>and so on"), GeneratorFailed, "ended without an answer"),
    ],
)
def test_a_class_that_fails(server, answer, kind, message):
    """One sentence, of the kind that the breaker needs to know, and never the key."""
    server.on(CHAT, answer)
    with pytest.raises(GeneratorFailed) as caught:
        ask(settings_for(server, first_token_timeout=0.3, total_timeout=0.8))
    assert type(caught.value) is kind
    assert message in caught.value.message
    assert caught.value.message.startswith("The language model OpenAILike ")
    assert caught.value.message.endswith(".")
    assert KEY not in caught.value.message
    assert "\n" not in caught.value.message


# -- the settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("llm", "message"),
    [
        ("llama_index.llms.nowhere:Nobody", r"can not be imported .* `pip install llama-index-llms-nowhere`"),
        ("llama_index.core.llms:Nobody", "must name a class of llama-index's LLMs as package.module:Class"),
        ("llama_index.core.llms", "must name a class"),
        ("pathlib:Path", "must name a class"),
        ("json:loads", "must name a class"),
    ],
)
def test_what_is_no_llm_is_refused_at_start(llm, message):
    with pytest.raises(Misconfigured, match=message):
        LlamaIndexGenerator(settings_for(llm=llm))


def test_arguments_that_the_class_does_not_take_are_refused_at_start():
    config = settings_for(llm="llama_index.core.llms:MockLLM", llm_arguments={"api_key": KEY, "nonsense": 1})
    with pytest.raises(Misconfigured, match=r"MockLLM does not take generator\.llm_arguments") as caught:
        LlamaIndexGenerator(config)
    assert KEY not in caught.value.message


def test_the_kind_needs_a_class():
    with pytest.raises(ValidationError, match=r"generator\.llm is not set"):
        GeneratorSettings(kind="llama-index")


def test_the_settings_choose_it(server):
    """Through the one place that chooses, with the key of the settings, behind the same admission and breaker."""
    server.on(CHAT, stream("Yes."))
    arguments = {"api_base": server.base_url, "max_retries": 0}
    config = settings_for(llm_arguments=arguments, api_key=SecretStr(KEY), llm=OPENAI_LIKE)
    model = open_language_model(config)
    assert model is not None

    async def once() -> str:
        try:
            return text_of([item async for item in model.generate(PROMPT)])
        finally:
            await model.aclose()

    assert asyncio.run(once()) == "Yes."
    assert model.name == "llama-index:OpenAILike:m"
    assert model.load.breaker == "closed"
    assert server.chats[0].headers["authorization"] == f"Bearer {KEY}"
