"""The contract of `rag.protocols.Reranker`: every implementation, over real models."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest

from rag.cross_encoder import CrossEncoder
from rag.pair_model import TrainedPairs
from rag.reader_head import ReaderHead
from rag.reranking import LateInteraction
from rag.settings import EmbedderSettings
from rag.span_reader import SpanReader
from rag.testing import WordEmbedder
from tests.rag.test_cross_encoder import folder  # noqa: F401 - a fixture

QUESTION = "How high is the tide at noon?"
PASSAGES = ["The tide is high.", "Das Gerät misst Wind und Wellen.", "潮の高さ", "?!", "", "tide " * 600]


@pytest.fixture(scope="module")
def spans():
    with closing(SpanReader(TrainedPairs("reader"))) as opened:
        yield opened


@pytest.fixture(params=["late interaction", "late interaction of words", "cross-encoder", "built-in reader"])
def reranker(request, embedder, folder, spans):  # noqa: F811
    return {
        "built-in reader": lambda: ReaderHead(spans),
        "late interaction": lambda: LateInteraction(embedder),
        "late interaction of words": lambda: LateInteraction(WordEmbedder()),
        "cross-encoder": lambda: CrossEncoder(str(folder), EmbedderSettings(device="cpu")),
    }[request.param]()


def test_a_list_in_a_list_of_equal_length_out(reranker):
    """Plain numbers, also for what holds no word and for what is longer than the window; none for nothing."""
    scores = reranker.score(QUESTION, PASSAGES)
    assert len(scores) == len(PASSAGES)
    assert {type(score) for score in scores} == {float}
    assert np.isfinite(scores).all()
    assert reranker.score(QUESTION, []) == reranker.lengths(QUESTION, []) == []
    assert reranker.name


def test_a_passage_has_the_same_score_in_any_company(reranker):
    """Whoever comes along, and in whatever order."""
    scores = reranker.score(QUESTION, PASSAGES)
    np.testing.assert_allclose([reranker.score(QUESTION, [text])[0] for text in PASSAGES], scores, atol=1e-2)
    np.testing.assert_allclose(reranker.score(QUESTION, PASSAGES[::-1])[::-1], scores, atol=1e-2)


def test_what_is_beyond_the_window_is_not_read(reranker):
    """`lengths` tells what is: two texts that differ behind it have one score."""
    lengths = reranker.lengths(QUESTION, PASSAGES)
    assert [length > reranker.window for length in lengths] == [False] * 5 + [True]
    first, second = reranker.score(QUESTION, [PASSAGES[-1], f"{PASSAGES[-1]} noon"])
    assert first == pytest.approx(second, abs=1e-2)
