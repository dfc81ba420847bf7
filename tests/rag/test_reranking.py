"""Late interaction as a reranker: the numbers of plain loops, whoever comes along; figures are there or not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from rag.protocols import Embedder
from rag.reranking import LateInteraction
from rag.testing import WordEmbedder

WORDS = st.sampled_from("tide harbour the of master opens noon 1984 E07 buoy".split())
PASSAGE = st.lists(WORDS, max_size=8).map(" ".join)
QUESTION = st.lists(WORDS, min_size=1, max_size=6).map(" ".join)
STOP = {"the", "of"}


def plain(embedder: Embedder, question: str, passages: list[str]) -> list[float]:
    """Word by word and code by code: the mean of the best matches of the question's words, by what `rag.late` says."""
    asked = embedder.encode([question], role="query", tokens=True).tokens[0]
    scores = []
    for passage, codes in zip(passages, embedder.encode(passages, codes=True).codes, strict=True):
        signs = [[1 if byte >> (7 - bit) & 1 else -1 for byte in code for bit in range(8)] for code in codes.tolist()]
        kept: list[float] = []
        every: list[float] = []
        for vector, (first, last) in zip(asked.vectors.tolist(), asked.spans.tolist(), strict=True):
            start, end = first, last
            while start and question[start - 1].isalnum():
                start -= 1
            while end < len(question) and question[end].isalnum():
                end += 1
            word = question[start:end]
            products = (sum(x * s for x, s in zip(vector, sign, strict=True)) / len(vector) ** 0.5 for sign in signs)
            best = max(products, default=-1.0)
            if any(map(str.isdigit, word)):
                best = max(best, 1.0) if word.lower() in passage.lower().split() else min(best, 0.0)
            every.append(best)
            if word.lower() not in STOP:
                kept.append(best)
        counted = kept or every
        scores.append(sum(counted) / len(counted))
    return scores


@given(QUESTION, st.lists(PASSAGE, min_size=1, max_size=5))
def test_scores_are_those_of_plain_loops(question, passages):
    """Of words, with stop words that weigh nothing, and figures."""
    embedder = WordEmbedder()
    found = LateInteraction(embedder).score(question, passages)
    np.testing.assert_allclose(found, plain(embedder, question, passages), atol=1e-4)


def test_scores_of_the_built_in_model_are_those_of_plain_loops(embedder):
    """With word pieces, of the model that ships."""
    question = "When does the harbourmaster open the lock in 1984?"
    passages = [
        "the harbour master opened the lock at six in the morning",
        "the tide turned an hour later in 1984",
        "lunch is at noon",
        "",
    ]
    found = LateInteraction(embedder).score(question, passages)
    np.testing.assert_allclose(found, plain(embedder, question.replace("?", ""), passages), atol=0.02)
    assert found.index(max(found)) in {0, 1}
    assert found[3] == min(found)


@examples(max_examples=20)
@given(QUESTION, st.lists(PASSAGE, min_size=2, max_size=5))
def test_a_passage_has_the_same_score_in_any_company(question, passages):
    """Clients rank in batches and sort what they get of all of them."""
    reranker = LateInteraction(WordEmbedder())
    alone = [reranker.score(question, [passage])[0] for passage in passages]
    np.testing.assert_allclose(reranker.score(question, passages), alone, atol=1e-5)


def test_what_holds_the_figure_comes_first():
    """Part numbers look alike to a model, and are there or not."""
    reranker = LateInteraction(WordEmbedder())
    scores = reranker.score("error E07", ["error E08 of the pump", "it shows E07"])
    assert scores[1] > scores[0]


@pytest.mark.parametrize("question", ["tide", "the of", "?!", ""], ids=["a word", "stop words", "signs", "nothing"])
def test_nothing_to_rank_is_no_error(question):
    """No passages, and passages and questions without a word."""
    reranker = LateInteraction(WordEmbedder())
    assert reranker.score(question, []) == []
    assert len(reranker.score(question, ["", "?", "tide"])) == 3
    assert reranker.score("tide", [""]) == [-1.0]


def test_lengths_are_those_of_the_passages(embedder):
    """The question is read apart, so that it takes nothing of the window of a passage."""
    reranker = LateInteraction(embedder)
    assert reranker.lengths("a long question", ["harbour", "tide " * 300]) == embedder.count_tokens(
        ["harbour", "tide " * 300]
    )
    assert reranker.window == embedder.window == 256
