"""The answer journey, from a real document to an answer whose citations were checked against it."""

from __future__ import annotations

import asyncio
import io
from contextlib import aclosing
from dataclasses import dataclass, replace

import pytest

from ingest.worker import accept
from rag.answering import Answering
from rag.answers import NO_WISH, Answer, Policy, Wish
from rag.assembly import Citewell, open_citewell
from rag.errors import BadInput, GeneratorFailed, Misconfigured
from rag.grounding import LexicalJudge
from rag.pipeline import Done, Event, Passages, Pipeline, Restart, Scored, Token
from rag.prompt import ABSTENTION
from rag.settings import load_settings
from rag.testing import ScriptedGenerator
from tests.reading import read_waiting

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
    read_waiting(citewell)


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


# What is supported, and what goes out

NEWER = b"""# Travel

## Hotels

The hotel limit is 120 euros per night.
"""
PRICES = b"City,Hotel limit,Meals\nBerlin,145,30\nParis,190,40\n"


def events_of(citewell: Citewell, question: str, wish: Wish = NO_WISH) -> list[Event]:
    async def all_of_them() -> list[Event]:
        return [event async for event in citewell.stream(citewell.plan(question, ["c"]), wish)]

    return asyncio.run(all_of_them())


def texts(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Token))


MIXED = ("Hello! The hotel limit is 145 euros per night. ", "[1] Dogs stay for free. [1]\n", "Breakfast is included.")


@scripted(*MIXED)
def test_each_sentence_is_told_with_its_support_as_it_stands_in_the_answer(opened):
    """In order, behind its text; those of the answer are the same; one without a marker is cited, too."""
    events = events_of(opened.citewell, "What is the hotel limit?")
    answer = events[-1].answer
    scored = [event.claim for event in events if isinstance(event, Scored)]
    assert tuple(scored) == answer.claims
    assert [(c.text, c.supported, c.checkable) for c in scored] == [
        ("Hello!", False, False), ("The hotel limit is 145 euros per night.", True, True),
        ("Dogs stay for free.", False, True), ("Breakfast is included.", True, True),
    ]  # fmt: skip
    written = ""
    for event in events:
        if isinstance(event, Token):
            written += event.text
        elif isinstance(event, Scored):
            assert written[event.claim.start : event.claim.end] == event.claim.text
    assert written == answer.text
    assert [citation.attributed for citation in answer.claims[3].citations] == [True]
    assert (answer.policy, answer.withheld, answer.judge, answer.threshold) == ("report", 0, "lexical overlap", 0.7)


@scripted(*MIXED)
@pytest.mark.parametrize("by_settings", [True, False], ids=["by settings", "by request"])
def test_filter_withholds_and_counts_what_nothing_supports(opened, by_settings):
    """No word of it goes out; each claim comes before its text, and stands where it says."""
    citewell = opened.citewell
    wish = NO_WISH if by_settings else Wish(policy=Policy.FILTER)
    if by_settings:
        chosen = citewell.pipeline.grounding.model_copy(update={"policy": "filter"})
        citewell.answering = replace_pipeline(citewell, replace(citewell.pipeline, grounding=chosen))
    events = events_of(citewell, "What is the hotel limit?", wish)
    answer = events[-1].answer
    assert answer.text == "Hello! The hotel limit is 145 euros per night. [1]\nBreakfast is included."
    assert texts(events) == answer.text
    assert (answer.withheld, answer.policy, answer.abstained) == (1, "filter", False)
    assert tuple(event.claim for event in events if isinstance(event, Scored)) == answer.claims
    for claim in answer.claims:
        assert answer.text[claim.start : claim.end] == claim.text
        assert {(c.answer_start, c.answer_end) for c in claim.citations} <= {(claim.start, claim.end)}
    kinds = [type(event) for event in events]
    assert kinds.index(Scored) < kinds.index(Token)


def replace_pipeline(citewell: Citewell, pipeline: Pipeline) -> Answering:
    return Answering(pipeline, citewell.store.catalog, citewell.store.settings)


@scripted("Dogs stay for free. [1] Cats do not.")
def test_filter_abstains_where_nothing_is_left(opened):
    events = events_of(opened.citewell, "What is the hotel limit?", Wish(policy=Policy.FILTER))
    answer = events[-1].answer
    assert (texts(events), answer.text, answer.abstained, answer.withheld) == (ABSTENTION, ABSTENTION, True, 2)
    assert "withheld" in answer.notice


@scripted(*MIXED)
def test_strict_makes_an_answer_with_one_unsupported_sentence_an_abstention(opened):
    events = events_of(opened.citewell, "What is the hotel limit?", Wish(policy=Policy.STRICT))
    answer = events[-1].answer
    assert [type(event) for event in events] == [Passages, Token, Done]
    assert (texts(events), answer.abstained, answer.claims, answer.withheld) == (ABSTENTION, True, (), 1)
    assert "withheld" in answer.notice


@scripted(MIXED[0], "[1] ", MIXED[2])
def test_strict_lets_a_supported_one_out_at_its_end(opened):
    events = events_of(opened.citewell, "What is the hotel limit?", Wish(policy=Policy.STRICT))
    kinds = [type(event) for event in events]
    assert kinds == [Passages, Scored, Scored, Scored, Token, Done]
    assert texts(events) == "Hello! The hotel limit is 145 euros per night. [1] Breakfast is included."
    assert events[-1].answer.text == texts(events)
    assert events[-1].answer.notice is None


@pytest.mark.parametrize("policy", list(Policy))
def test_the_built_in_reader_is_always_supported(citewell, policy):
    """It quotes word for word, rows of tables as well."""
    ingest(citewell, "handbook.md", HANDBOOK)
    ingest(citewell, "prices.csv", PRICES)
    for question in ("What is the hotel limit?", "What is the limit for Paris?"):
        answer = asyncio.run(citewell.ask(citewell.plan(question, ["c"]), Wish(policy=policy)))
        assert answer.claims
        assert not answer.abstained
        assert all(claim.supported and claim.support == 1.0 for claim in answer.claims)


@scripted("In Paris the hotel limit is 190. [1][2]")
def test_a_row_is_cited_with_its_cells(opened):
    ingest(opened.citewell, "prices.csv", PRICES)
    answer = ask(opened.citewell, "What is the hotel limit in Paris?")
    [citation] = [c for c in answer.citations if c.document == "prices.csv"]
    assert citation.quote == "Paris | 190 | 40"
    assert [(cell.column, cell.text) for cell in citation.cells] == [("City", "Paris"), ("Hotel limit", "190")]
    text = opened.citewell.store.catalog.source_text(citation.version_id)
    assert [text[cell.start : cell.end] for cell in citation.cells] == ["Paris", "190"]


@scripted("The hotel limit is 145 euros per night.")
@pytest.mark.parametrize("dated", [True, False], ids=["dated", "as it came"])
def test_documents_that_contradict_each_other_are_shown_newest_first(opened, dated):
    """Both quotes stand in their documents; the date is that of the metadata, or when the document came."""
    collection = opened.citewell.store.catalog.ensure_collection("c")
    metadata = {"date": "2031-01-01"} if dated else {}
    accept(opened.citewell.store, collection, "newer.md", io.BytesIO(NEWER), metadata=metadata)
    read_waiting(opened.citewell)
    answer = ask(opened.citewell, "What is the hotel limit?")
    [conflict] = answer.conflicts
    assert conflict.differs == "number"
    newer, older = conflict.statements
    assert (newer.citation.document, newer.citation.quote) == ("newer.md", "The hotel limit is 120 euros per night.")
    assert (older.citation.document, older.citation.quote) == ("handbook.md", "The hotel limit is 145 euros per night.")
    assert (newer.dated, older.dated) == ("date" if dated else "ingested_at", "ingested_at")
    assert newer.date > older.date
    for side in conflict.statements:
        text = opened.citewell.store.catalog.source_text(side.citation.version_id)
        assert text[side.citation.source_start : side.citation.source_end] == side.citation.quote


@scripted("The hotel limit is 145 euros per night. [1]")
def test_an_older_version_of_a_document_contradicts_nothing(opened):
    """It is not there any more."""
    ingest(opened.citewell, "handbook.md", HANDBOOK.replace(b"145", b"120"))
    assert ask(opened.citewell, "What is the hotel limit?").conflicts == ()


@scripted("Never asked.")
def test_where_nothing_near_was_found_the_generator_is_not_asked(opened):
    """Not for a question of another world, by the distance that was chosen for the embedder."""
    answer = ask(opened.citewell, "Quaternion eigenvalues of hyperbolic Lie algebras?")
    assert (answer.abstained, answer.text, opened.generator.prompts) == (True, ABSTENTION, [])
    assert not ask(opened.citewell, "What is the hotel limit?").abstained


@scripted("The hotel limit is 145 euros per night. [1]")
def test_the_trained_reader_can_be_asked_first_whether_the_passages_answer(opened):
    citewell = opened.citewell
    chosen = citewell.pipeline.grounding.model_copy(update={"ask_reader": 0.1, "least_relevance": -1.0})
    pipeline = replace(citewell.pipeline, grounding=chosen, least_relevance=-1.0)
    citewell.answering = replace_pipeline(citewell, pipeline)
    answer = ask(citewell, "Who won the chess championship of 1972?")
    assert (answer.abstained, opened.generator.prompts) == (True, [])
    assert answer.timings["doubt"] > 0
    assert not ask(citewell, "What is the hotel limit?").abstained


def test_asking_a_reader_that_can_not_tell_is_refused_at_start(tmp_path):
    with pytest.raises(Misconfigured, match=r"generator\.reader to 'trained'"):
        load_settings(data=tmp_path, grounding={"ask_reader": 0.1}, generator={"reader": "words"})
