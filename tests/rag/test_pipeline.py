"""The answer journey, from a real document to an answer whose citations were checked against it."""

from __future__ import annotations

import asyncio
import io
from contextlib import aclosing
from dataclasses import dataclass

import pytest

from ingest.worker import Worker, accept
from rag.answers import Answer
from rag.assembly import Citewell, open_citewell
from rag.errors import BadInput, GeneratorFailed
from rag.grounding import LexicalJudge
from rag.pipeline import Done, Passages, Restart, Token
from rag.prompt import ABSTENTION
from rag.testing import ScriptedGenerator

HANDBOOK = b"""# Travel

## Hotels

The hotel limit is 145 euros per night. Breakfast is included.

## Trains

Trains are booked in second class. First class needs approval by the head of finance.
"""


@dataclass
class Opened:
    citewell: Citewell
    generator: ScriptedGenerator


@pytest.fixture
def opened(settings, embedder, request):
    """A Citewell over one document, with the generator that the test scripted (by indirect parameters)."""
    pieces, failure, fall_back = getattr(request, "param", ([], None, True))
    generator = ScriptedGenerator(pieces, failure)
    settings = settings.model_copy(update={"generator": settings.generator.model_copy(update={"fall_back": fall_back})})
    with open_citewell(settings, embedder=embedder, generator=generator, judge=LexicalJudge()) as citewell:
        ingest(citewell, "handbook.md", HANDBOOK)
        yield Opened(citewell, generator)


def ingest(citewell: Citewell, name: str, content: bytes) -> None:
    collection = citewell.store.catalog.ensure_collection("c")
    accept(citewell.store, collection, name, io.BytesIO(content))
    Worker(citewell).drain()


def ask(citewell: Citewell, question: str) -> Answer:
    return asyncio.run(citewell.ask(citewell.plan(question, ["c"])))


def scripted(*pieces: str, failure: str | None = None, fall_back: bool = True):
    return pytest.mark.parametrize("opened", [(list(pieces), failure, fall_back)], indirect=True, ids=["scripted"])


@scripted("The limit is ", "145 euros", " per night. [", "1]")
def test_what_a_model_writes_gets_checked_citations(opened):
    """Each citation names document, version, section and the exact words, at offsets in the stored text."""
    answer = ask(opened.citewell, "What is the hotel limit?")
    assert answer.text == "The limit is 145 euros per night. [1]"
    [claim] = answer.claims
    [citation] = claim.citations
    assert citation.quote == "The hotel limit is 145 euros per night."
    assert (citation.document, citation.version, citation.section) == ("handbook.md", 1, ("Travel", "Hotels"))
    text = opened.citewell.store.catalog.source_text(citation.version_id)
    assert text[citation.source_start : citation.source_end] == citation.quote
    assert (answer.generator, answer.abstained, answer.notice) == ("scripted", False, None)
    assert {"embed", "dense", "lexical", "generate", "cite"} <= set(answer.timings)
    assert answer.stages["prompt"][0] == citation.chunk_id


@scripted("Dogs may come along. [1] The moon is made of cheese.")
def test_what_the_passages_do_not_say_stays_without_support(opened):
    answer = ask(opened.citewell, "What is the hotel limit?")
    assert [claim.support for claim in answer.claims] == [0.0, 0.0]
    assert answer.citations == ()


@scripted()
def test_a_generator_that_writes_nothing_has_abstained(opened):
    answer = ask(opened.citewell, "What is the hotel limit?")
    assert (answer.text, answer.abstained, answer.claims) == (ABSTENTION, True, ())


@scripted("Never asked.")
def test_without_passages_the_generator_is_not_asked(opened):
    opened.citewell.store.catalog.create_collection("empty")
    answer = asyncio.run(opened.citewell.ask(opened.citewell.plan("Anything?", ["empty"])))
    assert answer.abstained
    assert opened.generator.prompts == []


@scripted("The limit is one mill", failure="It went away.")
def test_a_generator_that_fails_is_replaced_and_the_answer_says_so(opened):
    """The half answer is taken back: what the reader writes begins anew."""

    async def events() -> list[object]:
        plan = opened.citewell.plan("What is the hotel limit?", ["c"])
        return [event async for event in opened.citewell.pipeline.stream(plan)]

    found = asyncio.run(events())
    kinds = [type(event) for event in found]
    assert kinds[0] is Passages
    assert kinds[-1] is Done
    restart = kinds.index(Restart)
    assert "".join(e.text for e in found[restart:] if isinstance(e, Token)) == found[-1].answer.text
    answer = found[-1].answer
    assert answer.text == "The hotel limit is 145 euros per night. [1]"
    assert answer.generator == "reader"
    assert "It went away." in answer.notice


@scripted(failure="It went away.", fall_back=False)
def test_without_fall_back_the_failure_comes_through(opened):
    with pytest.raises(GeneratorFailed, match="went away"):
        ask(opened.citewell, "What is the hotel limit?")


@scripted("One. ", "Two. ", "Three. ")
def test_who_stops_listening_stops_the_generator(opened):
    async def leave_early() -> None:
        async with aclosing(opened.citewell.pipeline.stream(opened.citewell.plan("Limit?", ["c"]))) as events:
            async for event in events:
                if isinstance(event, Token):
                    return

    asyncio.run(leave_early())
    assert opened.generator.closed == 1


def test_the_built_in_reader_answers_from_the_newest_version_only(citewell):
    """Replacing a document changes the answer with its commit; deleting it ends in an honest silence."""
    ingest(citewell, "handbook.md", HANDBOOK)
    assert "145 euros" in ask(citewell, "What is the hotel limit?").text
    ingest(citewell, "handbook.md", HANDBOOK.replace(b"145", b"165"))
    answer = ask(citewell, "What is the hotel limit?")
    assert answer.text.startswith("The hotel limit is 165 euros per night. [")
    assert {c.version for c in answer.citations} == {2}
    assert answer.citations[0].score == 1.0
    document = citewell.store.catalog.find_document(citewell.store.catalog.collection("c").id, "handbook.md")
    citewell.store.catalog.delete_document(document.id)
    assert ask(citewell, "What is the hotel limit?").abstained


@pytest.mark.parametrize("question", ["", "  \n", "?!", "\x00", "x" * 4001, "\ud800 limit"])
def test_what_is_no_question_is_refused_before_anything_is_spent(citewell, question):
    citewell.store.catalog.create_collection("c")
    with pytest.raises(BadInput):
        citewell.plan(question, ["c"])


@pytest.mark.parametrize("top_k", [0, -1, 1001])
def test_top_k_has_bounds(citewell, top_k):
    citewell.store.catalog.create_collection("c")
    with pytest.raises(BadInput, match="top_k"):
        citewell.plan("What?", ["c"], top_k=top_k)
