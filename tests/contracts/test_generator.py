"""The contract of `rag.protocols.Generator`: the readers, a double, and the clients of a real HTTP server."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, closing

import pytest

from rag.errors import GeneratorFailed
from rag.generators import OpenAIGenerator
from rag.language_model import LanguageModel
from rag.llama_llm import LlamaIndexGenerator
from rag.pair_model import TrainedPairs
from rag.prompt import build_prompt, estimate_tokens
from rag.protocols import Generator
from rag.reader import Reader
from rag.records import Delta, Prompt
from rag.settings import GeneratorSettings
from rag.span_reader import SpanReader
from rag.testing import ScriptedGenerator
from rag.trained_reader import TrainedReader
from tests.rag.passages import passage
from tests.scripted_llm import ScriptedLLM, delta, stream

ANSWERED = "What is the hotel limit?"
UNANSWERED = "Does the company pay for a gym membership?"
NOWHERE = GeneratorSettings(kind="openai", base_url="http://127.0.0.1:9/v1", model="m")
PASSAGES = [passage("The hotel limit is 145 euros per night. Breakfast is included."), passage("Trains come first.", 2)]


def prompt(question: str) -> Prompt:
    return build_prompt(question, PASSAGES, budget_tokens=2000, count_tokens=estimate_tokens)


async def collect(generator: Generator, question: str) -> list[Delta]:
    try:
        async with aclosing(generator.generate(prompt(question))) as deltas:
            return [piece async for piece in deltas]
    finally:
        await generator.aclose()


def settings_of(kind: str, llm: ScriptedLLM) -> GeneratorSettings:
    """The settings of a client of the scripted server."""
    if kind == "llama-index":
        arguments = {"api_base": llm.base_url, "api_key": "none", "max_retries": 0}
        like = "llama_index.llms.openai_like:OpenAILike"
        return GeneratorSettings(kind="llama-index", llm=like, llm_arguments=arguments, model="m")
    return GeneratorSettings(kind="openai", base_url=llm.base_url, model="m")


@pytest.fixture(params=["reader", "trained reader", "scripted", "openai", "llama-index", "language model"])
def made(request, embedder):
    """A generator, and what makes it answer or keep silent: each in its own way."""
    if request.param == "reader":
        yield lambda answers: Reader(embedder)  # noqa: ARG005 - the passages decide
    elif request.param == "trained reader":
        with closing(SpanReader(TrainedPairs("reader"))) as spans:
            yield lambda answers: TrainedReader(spans, Reader(embedder))  # noqa: ARG005 - the passages decide
    elif request.param == "scripted":
        yield lambda answers: ScriptedGenerator(["145 euros. [1]"] if answers else [])
    else:
        if request.param == "llama-index":
            pytest.importorskip("llama_index.llms.openai_like", reason="llama-index-llms-openai-like is not installed")
        with ScriptedLLM() as llm:
            config = settings_of(request.param, llm)

            def open_client(answers: bool) -> Generator:
                text = "145 euros. [1]" if answers else "The documents do not say."
                llm.on("/v1/chat/completions", stream(delta(text), delta(finish="stop")))
                if request.param == "openai":
                    return OpenAIGenerator(config)
                if request.param == "llama-index":
                    return LlamaIndexGenerator(config)
                return LanguageModel(OpenAIGenerator(config), config)

            yield open_client


def test_text_comes_in_pieces_and_names_its_passages(made):
    deltas = asyncio.run(collect(made(True), ANSWERED))
    text = "".join(piece.text for piece in deltas)
    assert "145 euros" in text
    named = [quote.passage for piece in deltas for quote in piece.quotes]
    assert set(named) == {1} or "[1]" in text
    for piece in deltas:
        for quote in piece.quotes:
            assert PASSAGES[quote.passage - 1].text[quote.start : quote.end] == piece.text


def test_nothing_is_yielded_when_the_passages_do_not_answer(made):
    assert asyncio.run(collect(made(False), UNANSWERED)) == []


def test_who_stops_listening_ends_it(made):
    """Closing the stream after its first piece raises nothing and leaves nothing running."""

    async def first() -> str:
        generator = made(True)
        async with aclosing(generator.generate(prompt(ANSWERED))) as deltas:
            found = (await anext(deltas)).text
        await generator.aclose()
        return found

    assert asyncio.run(first())


def test_it_has_a_name(made):
    assert made(True).name


def test_a_failure_is_one_kind_with_one_sentence():
    for generator in (
        ScriptedGenerator(["half"], failure="It went away."),
        OpenAIGenerator(NOWHERE),
        LanguageModel(OpenAIGenerator(NOWHERE), NOWHERE),
    ):
        with pytest.raises(GeneratorFailed) as caught:
            asyncio.run(collect(generator, ANSWERED))
        assert caught.value.message.endswith((".", ")"))
        assert "\n" not in caught.value.message
