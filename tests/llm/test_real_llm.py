"""The generator's client against a real server with a real model: does the path hold, whatever the model says?"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import pytest

from rag.assembly import open_language_model
from rag.errors import GeneratorFailed
from rag.generators import OpenAIGenerator
from rag.guided_queries import read_object
from rag.prompt import build_prompt, estimate_tokens
from rag.queries import Parts, QueryRole
from rag.records import Guided, Kind, Passage, Plan, Prompt
from rag.settings import GeneratorSettings, UnderstandingSettings
from rag.understanding import build_request

pytestmark = pytest.mark.llm
T = TypeVar("T")

STORY = Prompt("", (), ({"role": "user", "content": "Tell a very long story about the sea and its ships."},), 100)
PLAN = Plan("How long is the notice period?", (), {}, 10, 5, Parts(multi_query=True))
FACTS = (
    "The notice period is three months to the end of a quarter. During probation it is two weeks.",
    "Parking in the garage is free for employees. Visitors pay four euros a day at the gate.",
)


def passage(number: int, text: str) -> Passage:
    place = {"start": 0, "end": len(text), "kind": Kind.TEXT, "page": 1, "section": ()}
    ids = {"chunk_id": str(number), "seq": number, "collection_id": "c", "document_id": "d", "version_id": "v"}
    return Passage(**ids, document="handbook.pdf", title=None, version=1, text=text, context="Handbook", **place)


def prompt_of(window: int) -> Prompt:
    passages = [passage(number, text) for number, text in enumerate(FACTS, 1)]
    question = "How long is the notice period?"
    return build_prompt(question, passages, budget_tokens=window - 128, count_tokens=estimate_tokens)


def using(server, act: Callable[[OpenAIGenerator], Awaitable[T]], **values: Any) -> T:
    defaults = {"base_url": server.base_url, "context_tokens": server.window, "max_tokens": 64}

    async def run() -> T:
        generator = OpenAIGenerator(GeneratorSettings(kind="openai", **{**defaults, **values}))
        try:
            return await act(generator)
        finally:
            await generator.aclose()

    return asyncio.run(run())


async def collect(generator: OpenAIGenerator, prompt: Prompt) -> list[str]:
    return [item.text async for item in generator.generate(prompt)]


def test_it_is_ready(llm_server):
    assert using(llm_server, OpenAIGenerator.ready) is True


def test_it_streams_an_answer_over_two_passages(llm_server):
    prompt = prompt_of(llm_server.window)
    assert len(prompt.passages) == 2
    texts = using(llm_server, lambda generator: collect(generator, prompt), model=llm_server.model)
    assert len(texts) > 1
    assert "".join(texts).strip()


def test_it_discovers_the_model(llm_server):
    async def named(generator: OpenAIGenerator) -> str:
        await collect(generator, STORY)
        return generator.name

    assert using(llm_server, named, max_tokens=16) == f"openai:{llm_server.model}"


def test_an_answer_that_reaches_max_tokens_still_comes(llm_server):
    texts = using(llm_server, lambda generator: collect(generator, STORY), max_tokens=16)
    assert 1 < len(texts) <= 16


def test_an_answer_over_the_time_limit_fails(llm_server):
    start = time.monotonic()
    with pytest.raises(GeneratorFailed, match="did not finish its answer within 1 s"):
        using(llm_server, lambda generator: collect(generator, STORY), max_tokens=1500, total_timeout=1)
    assert time.monotonic() - start < 5


def test_stopping_early_frees_the_server_for_the_next_request(llm_server):
    """The server answers one request at a time: the second would wait for 1,500 tokens if the first went on."""

    async def stop_then_ask(generator: OpenAIGenerator) -> None:
        for _ in range(2):
            async with aclosing(generator.generate(STORY)) as answer:
                assert (await anext(answer)).text

    start = time.monotonic()
    using(llm_server, lambda generator: collect(generator, STORY), max_tokens=50)
    fifty_tokens = time.monotonic() - start
    start = time.monotonic()
    using(llm_server, stop_then_ask, max_tokens=1500)
    assert time.monotonic() - start < 10 * fifty_tokens


def test_a_prompt_over_the_window_fails_before_it_is_sent(llm_server):
    words = "one two three " * 1500
    prompt = Prompt("", (), ({"role": "user", "content": words},), estimate_tokens(words))
    with pytest.raises(GeneratorFailed, match=r"of the 2048 tokens of the generator's window"):
        using(llm_server, lambda generator: collect(generator, prompt))


def test_a_prompt_over_the_window_that_was_not_noticed_fails_and_the_server_lives(llm_server):
    prompt = Prompt("", (), ({"role": "user", "content": "one two three " * 1500},), 100)
    with pytest.raises(GeneratorFailed, match="ended before its first token"):
        using(llm_server, lambda generator: collect(generator, prompt), context_tokens=8192)
    assert llm_server.process.poll() is None
    assert using(llm_server, lambda generator: collect(generator, STORY), max_tokens=16)


def test_a_prompt_near_the_end_of_the_window_is_counted_by_the_server(llm_server):
    """Said to be nearly as long as the window, it gets all the room that it has by the server's own tokenizer."""
    content = f"{' '.join(FACTS) * 5} Tell a very long story about the sea and its ships."
    prompt = Prompt("", (), ({"role": "user", "content": content},), llm_server.window - 18)
    texts = using(llm_server, lambda generator: collect(generator, prompt), max_tokens=100)
    assert 18 < len(texts) <= 100
    assert "/extras/tokenize/count" in llm_server.log.read_text(errors="replace")


def test_a_reply_is_held_to_a_schema(llm_server):
    """The server refuses one form of asking for it and takes the other, also while it streams."""
    schema = {
        "type": "object",
        "properties": {"colour": {"type": "string", "enum": ["grue"]}},
        "required": ["colour"],
        "additionalProperties": False,
    }
    messages = ({"role": "user", "content": "Which colour is grass? Reply in JSON."},)
    prompt = Prompt("", (), messages, 100, guided=Guided("colours", schema, messages))

    async def twice(generator: OpenAIGenerator) -> list[str]:
        return ["".join(await collect(generator, prompt)) for _ in range(2)]

    replies = using(llm_server, twice)
    assert [json.loads(reply) for reply in replies] == [{"colour": "grue"}] * 2


def test_queries_are_made_in_json(llm_server):
    """Through the interpreter of questions: whatever such a small model writes, it has the keys that were asked for."""
    config = GeneratorSettings(kind="openai", base_url=llm_server.base_url, context_tokens=llm_server.window)
    asked = build_request(PLAN, (QueryRole.PARAPHRASE,), UnderstandingSettings())

    async def run() -> str:
        generator = OpenAIGenerator(config)
        try:
            return "".join(await collect(generator, asked))
        finally:
            await generator.aclose()

    reply = asyncio.run(run())
    assert reply.lstrip().startswith("{")
    found = read_object(reply, ["paraphrase"], frozenset({"paraphrase"}))
    if found is not None:  # else it wrote on until its tokens were spent
        assert found.keys() == {"paraphrase"}


def test_a_class_of_llama_index_asks_the_same_server(llm_server):
    pytest.importorskip("llama_index.llms.openai_like", reason="llama-index-llms-openai-like is not installed")
    config = GeneratorSettings(
        kind="llama-index", llm="llama_index.llms.openai_like:OpenAILike", model=llm_server.model,
        llm_arguments={"api_base": llm_server.base_url, "api_key": "none"},
        context_tokens=llm_server.window, max_tokens=16,
    )  # fmt: skip
    model = open_language_model(config)
    assert model is not None

    async def run() -> list[str]:
        try:
            return [item.text async for item in model.generate(STORY)]
        finally:
            await model.aclose()

    texts = asyncio.run(run())
    assert 1 < len(texts) <= 16
    assert "".join(texts).strip()


@pytest.mark.parametrize(
    "text",
    [
        " ".join(FACTS) * 5,
        "Срок уведомления составляет три месяца до конца квартала. " * 5,
        "通知期は三か月です。" * 10,
    ],
    ids=["english", "russian", "japanese"],
)
def test_the_estimate_is_above_what_the_model_counts(llm_server, text):
    """The wordiest tokenizer in use: one that learnt English alone."""
    import httpx

    root = llm_server.base_url.removesuffix("/v1")
    with httpx.Client(trust_env=False) as client:
        counted = client.post(f"{root}/extras/tokenize/count", json={"input": text}).json()["count"]
    assert counted <= estimate_tokens(text)
