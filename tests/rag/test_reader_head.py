"""The built-in reader as a reranker: what it says joins the ranking before it, with the model that answers."""

from __future__ import annotations

import numpy as np
import pytest

from rag.assembly import open_citewell
from rag.pair_model import TrainedPairs
from rag.pairs import MOST_TOKENS
from rag.reader_head import ReaderHead
from rag.retrieval import HEAD
from rag.span_reader import Asked, SpanReader
from rag.testing import WordEmbedder
from rag.tuning import Tuned
from tests.api.test_ranking import Lengths
from tests.rag.test_retrieval import put

QUESTION = "Who opened the harbour bridge?"
PASSAGES = [
    "The harbour bridge is painted every seven years.",
    "In 1932 the mayor of Porto, Maria Santos, opened the harbour bridge.",
    "A bridge over the harbour carries two railways.",
    "The museum is closed on Mondays.",
]


@pytest.fixture(scope="module")
def spans():
    opened = SpanReader(TrainedPairs("reader"))
    yield opened
    opened.close()


def test_a_search_is_ordered_by_both(settings, spans):
    """Scores of the stages before in standard deviations, plus the weighed log odds; and the setting alone does it."""
    chosen = settings.retrieval.model_copy(update={"reranker": "reader"})
    with open_citewell(settings.model_copy(update={"retrieval": chosen}), embedder=WordEmbedder()) as citewell:
        put(citewell, "c", "bridges", PASSAGES)
        plan = citewell.plan(QUESTION, ["c"])
        found = citewell.search(plan, trace=True)
        before = citewell.search(citewell.plan(QUESTION, ["c"], parts={"rerank": False}))
    scores = np.array([passage.score for passage in before.passages])
    odds = np.array(ReaderHead(spans).score(QUESTION, [passage.indexed_text for passage in before.passages]))
    expected = scores / scores.std() + HEAD * odds
    assert {passage.text: passage.score for passage in found.passages} == pytest.approx(
        {passage.text: score for passage, score in zip(before.passages, expected, strict=True)}, abs=0.05
    )
    assert [passage.score for passage in found.passages] == sorted((p.score for p in found.passages), reverse=True)
    assert found.passages[0].text == PASSAGES[1]
    assert odds.argmax() == [passage.text for passage in before.passages].index(PASSAGES[1])


def scores_of(citewell, reader_weight, **parts):
    plan = citewell.plan(QUESTION, ["c"], parts=parts)
    tuned = Tuned(0.5, 0.6, reader_weight=reader_weight)
    return {p.text: p.score for p in citewell.retriever.retrieve(plan, tuned=tuned).passages}


def test_a_tuning_weighs_the_reader_whatever_the_setting_says(settings, spans):
    """More or less than usual, or not at all; a request may do without; and the best passages alone are read."""
    with open_citewell(settings, embedder=WordEmbedder()) as citewell:
        put(citewell, "c", "bridges", PASSAGES)
        usual, alone, weighed = (scores_of(citewell, weight) for weight in (None, 0.0, 0.8))
        assert usual == alone == scores_of(citewell, 0.8, rerank=False)
    odds = dict(zip(alone, ReaderHead(spans).score(QUESTION, [*alone]), strict=True))
    spread = np.std([*alone.values()])
    assert weighed == pytest.approx({text: alone[text] / spread + 0.8 * odds[text] for text in alone}, abs=0.05)
    chosen = settings.retrieval.model_copy(update={"reranker": "reader"})
    with open_citewell(settings.model_copy(update={"retrieval": chosen}), embedder=WordEmbedder()) as citewell:
        assert scores_of(citewell, 0.0) == alone
        assert scores_of(citewell, 0.8) == pytest.approx(weighed, abs=0.05)


def test_a_reranker_of_the_operator_stands_before_a_tuning(settings):
    """Its scores are the ranking; where there is no trained reader the tuning's ranking is the one before it."""
    with open_citewell(settings, embedder=WordEmbedder(), reranker=Lengths()) as citewell:
        put(citewell, "c", "bridges", PASSAGES)
        assert scores_of(citewell, 0.8) == {text: len(text) for text in PASSAGES}
    words = settings.generator.model_copy(update={"reader": "words"})
    with open_citewell(settings.model_copy(update={"generator": words}), embedder=WordEmbedder()) as citewell:
        assert scores_of(citewell, 0.8) == scores_of(citewell, 0.0)


def test_no_more_passages_are_read_than_the_setting_says(settings):
    """However many are asked for; the others stay behind those, in the order that they had."""
    chosen = settings.retrieval.model_copy(update={"rerank_candidates": 2})
    with open_citewell(
        settings.model_copy(update={"retrieval": chosen}), embedder=WordEmbedder(), reranker=Lengths()
    ) as citewell:
        put(citewell, "c", "bridges", PASSAGES)
        before = [*scores_of(citewell, None, rerank=False)]
        after = scores_of(citewell, None)
    assert [*after] == [*sorted(before[:2], key=len, reverse=True), *before[2:]]
    assert [*after.values()][:2] == [len(text) for text in [*after][:2]]
    assert [*after.values()] == sorted(after.values(), reverse=True)


def test_of_a_long_passage_the_beginning_is_read(spans):
    """As much as the model reads at a time: what stands behind it changes nothing, but a reader of answers finds it."""
    head, long = ReaderHead(spans), "The museum is closed. " * 90
    tail = f"{long}Maria Santos opened the harbour bridge."
    assert head.lengths(QUESTION, [long])[0] > MOST_TOKENS
    assert head.score(QUESTION, [tail]) == pytest.approx(head.score(QUESTION, [long]), abs=0.05)
    [whole] = spans.read([Asked(QUESTION, "", tail)])
    assert whole.log_odds > head.score(QUESTION, [tail])[0] + 1
