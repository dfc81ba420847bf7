"""The built-in reader on the real embedder: it quotes, it skips what is no answer, and it keeps silent."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from rag.reader import FIGURE, Reader, token_weights
from rag.records import Delta, Kind, Neighbour, Prompt, Quote
from rag.sentences import sentence_spans
from tests.rag.passages import passage

HOTELS = passage(
    "3. Hotels\n\nThe hotel limit for domestic travel is 145 euros per night. Breakfast is included. "
    "What is the hotel limit abroad? Ask the travel desk.",
    1,
    context="Travel policy",
    section=("3. Hotels",),
)
ERRORS = passage(
    "Code | Meaning\nE07 | Water in the housing\nE09 | Battery is empty", 2, kind=Kind.TABLE, section=("Errors",)
)


@pytest.fixture(scope="module")
def reader(embedder):
    return Reader(embedder)


def read(reader: Reader, question: str, *passages) -> list[Delta]:
    async def collect() -> list[Delta]:
        return [delta async for delta in reader.generate(Prompt(question, passages, (), 0))]

    return asyncio.run(collect())


def test_it_quotes_the_sentence_that_answers(reader):
    deltas = read(reader, "What is the hotel limit for domestic travel?", HOTELS, ERRORS)
    assert deltas[0].text == "The hotel limit for domestic travel is 145 euros per night."
    quote = deltas[0].quotes[0]
    assert HOTELS.text[quote.start : quote.end] == deltas[0].text
    assert quote.passage == 1


def test_a_question_about_a_cell_gets_its_row(reader):
    deltas = read(reader, "What does error code E09 mean?", HOTELS, ERRORS)
    assert [delta.text for delta in deltas] == ["E09 | Battery is empty"]


def test_headings_questions_and_header_rows_are_no_answers(reader):
    sentences = {ERRORS.text[c.start : c.end] for c in reader.score("error code", [ERRORS])}
    assert sentences == {"E07 | Water in the housing", "E09 | Battery is empty"}
    sentences = {HOTELS.text[c.start : c.end] for c in reader.score("What is the hotel limit abroad?", [HOTELS])}
    assert not sentences & {"3. Hotels", "What is the hotel limit abroad?"}


@pytest.mark.parametrize(
    "question",
    ["Does the company pay for a gym membership?", "Who won the cup final?", "What does error code E11 mean?"],
)
def test_it_keeps_silent_when_the_passages_do_not_say(reader, question):
    """The last one is near: the passage has error codes, but not this one."""
    assert read(reader, question, HOTELS, ERRORS) == []


@pytest.mark.parametrize("giant", ["", "many old trees " * 400 + "grow.", "3. Rules\n"])
def test_a_long_passage_is_read_to_its_end(reader, embedder, giant):
    """Every sentence behind the embedder's window is scored, even behind one that is longer than the window alone."""
    text = f"The garden is open to visitors. {giant} {'It has many old trees and a lake. ' * 60}{HOTELS.text}"
    assert embedder.count_tokens([text])[0] > 2 * embedder.window
    long = passage(text, context="Travel policy", start=40, end=40 + len(text))
    question = "What is the hotel limit for domestic travel?"
    [delta] = read(reader, question, long)
    assert delta.text == "The hotel limit for domestic travel is 145 euros per night."
    assert text[delta.quotes[0].start - 40 : delta.quotes[0].end - 40] == delta.text
    scored = {(c.start - 40, c.end - 40) for c in reader.score(question, [long])}
    assert scored == {(a, b) for a, b in sentence_spans(text) if not text[a:b].endswith("?")}


def test_it_quotes_what_stands_around_a_passage(reader):
    """With the number of the passage and the offsets of the document; an unranked table's header row is no answer."""
    table = Neighbour("next", 2, ERRORS.text, "", 300, 300 + len(ERRORS.text), Kind.TABLE, 4, ("Errors",))
    surrounded = replace(HOTELS, around=(table,))
    [delta] = read(reader, "What does error code E09 mean?", surrounded)
    row = "E09 | Battery is empty"
    start = 300 + ERRORS.text.index(row)
    assert (delta.text, delta.quotes) == (row, (Quote(1, start, start + len(row)),))
    assert "Code | Meaning" not in {c.text for c in reader.score("error code", [surrounded])}


def test_no_passages_no_text(reader):
    assert read(reader, "Anything?") == []


def test_weights_add_up_and_content_words_outweigh_the_others(embedder):
    question = "What is the limit in 2026?"
    asked = embedder.encode([question], role="query", tokens=True).tokens[0]
    weights = token_weights(question, asked)
    words = dict.fromkeys(("What", "is", "the", "limit", "in", "2026", "?"), 0.0)
    for (start, end), weight in zip(asked.spans.tolist(), weights, strict=True):
        words[next(word for word in words if question[start:end] in word)] += float(weight)
    assert sum(words.values()) == pytest.approx(1.0)
    assert words["2026"] == pytest.approx(2 * words["limit"]) == pytest.approx(20 * words["is"])
    assert words["?"] == 0


def test_figures_are_names_and_years_but_not_small_amounts():
    found = [m.group() for m in FIGURE.finditer("E07 in 2026: 98 percent of 14,850 at 7 on the TW400, part B4-7.")]
    assert found == ["E07", "2026", "14,850", "TW400"]
