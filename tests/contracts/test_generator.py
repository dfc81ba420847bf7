"""The contract of `rag.protocols.Generator`: the built-in reader, a double, and a client of a real HTTP server."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, closing

import pytest

from rag.errors import GeneratorFailed
from rag.generators import OpenAIGenerator
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
PASSAGES = [passage("The hotel limit is 145 euros per night. Breakfast is included."), passage("Trains come first.", 2)]


def prompt(question: str) -> Prompt:
    return build_prompt(question, PASSAGES, budget_tokens=2000, count_tokens=estimate_tokens)


async def collect(generator: Generator, question: str) -> list[Delta]:
    try:
        async with aclosing(generator.generate(prompt(question))) as deltas:
            return [piece async for piece in deltas]
    finally:
        if isinstance(generator, OpenAIGenerator):
            await generator.aclose()


@pytest.fixture(params=["reader", "trained reader", "scripted", "openai"])
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
        with ScriptedLLM() as llm:

            def open_client(answers: bool) -> Generator:
                text = "145 euros. [1]" if answers else "The documents do not say."
                llm.on("/v1/chat/completions", stream(delta(text), delta(finish="stop")))
                return OpenAIGenerator(GeneratorSettings(kind="openai", base_url=llm.base_url, model="m"))

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
        if isinstance(generator, OpenAIGenerator):
            await generator.aclose()
        return found

    assert asyncio.run(first())


def test_it_has_a_name(made):
    assert made(True).name


def test_a_failure_is_one_kind_with_one_sentence():
    for generator in (
        ScriptedGenerator(["half"], failure="It went away."),
        OpenAIGenerator(GeneratorSettings(kind="openai", base_url="http://127.0.0.1:9/v1", model="m")),
    ):
        with pytest.raises(GeneratorFailed) as caught:
            asyncio.run(collect(generator, ANSWERED))
        assert caught.value.message.endswith((".", ")"))
        assert "\n" not in caught.value.message
