"""The trained reader: where the best words are, what is quoted of several passages, and what the weights say."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.encoders import built_in_model
from rag.pair_model import TrainedPairs
from rag.pairs import PairTokenizer
from rag.reader import Candidate, Reader
from rag.records import Kind, Neighbour, Prompt
from rag.span_reader import COMMON, LONGEST, SpanReader, best_span, unmatched
from rag.trained_reader import SURE, TrainedReader, _enough
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


@given(
    question=st.lists(st.sampled_from(["ann", "lee", "harbour", "the", "of", "1932", "?"]), max_size=6),
    sentences=st.lists(
        st.lists(st.sampled_from(["ann", "harbour", "the", "bridge", "1932"]), min_size=1, max_size=4),
        min_size=1, max_size=3,
    ),
    number=st.integers(0, 2),
)  # fmt: skip
def test_what_of_a_question_is_missing_or_elsewhere(tokenizer, question, sentences, number):
    """Against sets of words; each is one token here, and the title counts as part of every sentence."""
    texts = [" ".join(words) for words in sentences]
    number %= len(texts)
    text = "\n".join(["lee", *texts])
    start = 4 + sum(len(other) + 1 for other in texts[:number])
    [[pair]] = tokenizer.windows(" ".join(question), [text])
    found = unmatched(pair, 4, (start, start + len(texts[number])))
    rare = {"ann": 5754, "lee": 3389, "harbour": 7440, "1932": 4673}
    asked = {*question} & {*rare}
    there, here = {"lee"}.union(*sentences), {"lee", *sentences[number]}
    missing, elsewhere = asked - there, (asked & there) - here
    expected = [sum(math.log(rare[word] / COMMON) for word in words) for words in (missing, elsewhere)]
    assert found == pytest.approx(expected)


@pytest.fixture(scope="module")
def reader(embedder):
    opened = SpanReader(TrainedPairs("reader"))
    yield TrainedReader(opened, Reader(embedder))
    opened.close()


def read(reader, question, *passages):
    async def collect():
        return [delta async for delta in reader.generate(Prompt(question, passages, (), 0))]

    return asyncio.run(collect())


def test_it_quotes_the_sentence_that_answers_and_marks_the_words(reader):
    deltas = read(reader, "What is the hotel limit for domestic travel?", ERRORS, HOTELS)
    assert "The hotel limit for domestic travel is 145 euros per night." in [delta.text for delta in deltas]
    [marked] = [delta for delta in deltas if delta.short]
    quote, short = marked.quotes[0], marked.short
    assert HOTELS.text[quote.start : quote.end] == marked.text
    assert quote.passage == short.passage == 2
    assert "145 euros" in HOTELS.text[short.start : short.end]
    assert quote.start <= short.start < short.end <= quote.end


def test_a_question_about_a_cell_gets_its_row(reader):
    assert "E09 | Battery is empty" in [d.text for d in read(reader, "What does error code E09 mean?", HOTELS, ERRORS)]


@pytest.mark.parametrize("question", ["Who won the cup final?", "What does error code E11 mean?"])
def test_it_keeps_silent_when_the_passages_do_not_say(reader, question):
    assert read(reader, question, HOTELS, ERRORS) == []
    assert 0 < reader.answer(question, [HOTELS, ERRORS]).probability < 0.5


def test_no_passages_no_text(reader):
    assert read(reader, "Anything?") == []


def test_what_stands_around_a_passage_is_read_at_its_place(reader):
    """A neighbour's sentence is quoted with offsets in the parsed text, under the number of its passage."""
    shifted = replace(HOTELS, start=500, end=500 + len(HOTELS.text), seq=7)
    facts = {name: getattr(shifted, name) for name in Neighbour.__dataclass_fields__}
    centre = passage("Rooms are booked by the travel desk.", 1, seq=6, around=(Neighbour(**facts),))
    [marked] = [d for d in read(reader, "What is the hotel limit for domestic travel?", centre) if d.short]
    assert marked.text == HOTELS.text[marked.quotes[0].start - 500 : marked.quotes[0].end - 500]
    assert "145 euros" in HOTELS.text[marked.short.start - 500 : marked.short.end - 500]
    assert marked.quotes[0].passage == 1


def test_a_long_passage_is_read_to_its_end(reader):
    """The answer stands behind more than two windows of other words, and behind the embedder's."""
    text = "The garden is open to visitors all day long and has many old trees. " * 60 + HOTELS.text
    found = reader.answer("What is the hotel limit for domestic travel?", [passage(text)])
    assert "145 euros" in text[found.short.start : found.short.end]
    assert any("145 euros" in sentence.text for sentence in found.sentences)


@given(scores=st.lists(st.floats(-6, 6), max_size=8))
def test_sentences_are_added_until_one_of_them_surely_answers(scores):
    """As few of the best as are enough, by the plain product of doubts; without any sure one all of them."""
    ranked = [Candidate(1, n, n + 1, str(n), score) for n, score in enumerate(sorted(scores, reverse=True))]
    shown = _enough(ranked)
    assert shown == ranked[: len(shown)]
    doubts = [math.prod(1 - 1 / (1 + math.exp(-c.score)) for c in ranked[:n]) for n in range(len(ranked) + 1)]
    assert all(doubt >= 1 - SURE for doubt in doubts[: len(shown)])
    assert len(shown) == len(ranked) or doubts[len(shown)] < 1 - SURE
    assert _enough([*ranked[:1] * 3]) == ranked[:1]
