"""The trained reader: where the best words are, what is quoted of several passages, and what the weights say."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.encoders import built_in_model
from rag.pair_model import WEIGHTS, TrainedPairs
from rag.pairs import PairTokenizer
from rag.records import Kind, Prompt
from rag.span_reader import LONGEST, Asked, SpanReader, best_span
from rag.trained_reader import TrainedReader
from tests.rag.passages import passage

HOTELS = passage(
    "The hotel limit for domestic travel is 145 euros per night. Breakfast is included. Ask the travel desk.",
    1,
    context="Travel policy",
)
ERRORS = passage("Code | Meaning\nE07 | Water in the housing\nE09 | Battery is empty", 2, kind=Kind.TABLE)


@pytest.fixture(scope="module")
def tokenizer():
    return PairTokenizer(built_in_model() / "tokenizer.json")


@given(
    values=st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=16, max_size=16), lead=st.integers(0, 9)
)
def test_the_best_words_are_the_best_of_all_pairs_of_tokens(tokenizer, values, lead):
    """Against every start and end tried one by one."""
    [[pair]] = tokenizer.windows("Who came?", ["It rained and Ann Lee came home late ."])
    starts, ends = (np.array(column, dtype=np.float32)[: len(pair.ids)] for column in zip(*values, strict=True))
    own = [i for i in range(len(starts)) if pair.own[i] and pair.spans[i, 0] >= lead]
    sums = {(i, j): starts[i] + ends[j] for i in own for j in own if i <= j < i + LONGEST}
    place, margin = best_span(pair, starts, ends, lead)
    assert margin == max(sums.values()) - starts[0] - ends[0]
    assert place in {
        (pair.spans[i, 0], pair.spans[j, 1]) for (i, j), value in sums.items() if value == max(sums.values())
    }


def test_there_are_no_words_in_nothing(tokenizer):
    [[pair]] = tokenizer.windows("Who?", [""])
    assert best_span(pair, np.zeros(3, dtype=np.float32), np.zeros(3, dtype=np.float32), 0) is None


@pytest.fixture(scope="module")
def reader():
    if not (WEIGHTS / "reader.onnx").is_file():
        pytest.skip("the weights of the reader are not in the package yet")
    opened = SpanReader(TrainedPairs("reader"))
    yield TrainedReader(opened)
    opened.close()


def read(reader, question, *passages):
    async def collect():
        return [delta async for delta in reader.generate(Prompt(question, passages, (), 0))]

    return asyncio.run(collect())


def test_it_quotes_the_sentence_that_answers_and_marks_the_words(reader):
    question = "What is the hotel limit for domestic travel?"
    deltas = read(reader, question, ERRORS, HOTELS)
    assert "The hotel limit for domestic travel is 145 euros per night." in [delta.text for delta in deltas]
    quote = deltas[0].quotes[0]
    assert HOTELS.text[quote.start : quote.end] == deltas[0].text
    found = reader.answer(question, [ERRORS, HOTELS])
    assert found.passage == 2
    assert "145 euros" in HOTELS.text[slice(*found.words)]


def test_a_question_about_a_cell_gets_its_row(reader):
    assert "E09 | Battery is empty" in [d.text for d in read(reader, "What does error code E09 mean?", HOTELS, ERRORS)]


@pytest.mark.parametrize("question", ["Who won the cup final?", "What does error code E11 mean?"])
def test_it_keeps_silent_when_the_passages_do_not_say(reader, question):
    assert read(reader, question, HOTELS, ERRORS) == []


def test_no_passages_no_text(reader):
    assert read(reader, "Anything?") == []


def test_a_long_passage_is_read_to_its_end(reader):
    """The answer stands behind more than two windows of other words."""
    text = "The garden is open to visitors all day long and has many old trees. " * 60 + HOTELS.text
    [reading] = reader._reader.read([Asked("What is the hotel limit for domestic travel?", "", text)])
    assert "145 euros" in text[slice(*reading.answer)]
    best = max(reading.sentences, key=lambda sentence: sentence.score)
    assert "145 euros" in text[best.start : best.end]
