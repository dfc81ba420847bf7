"""Rankings for NVIDIA's clients, unmodified: the order and the numbers of the product's own reranker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx
import numpy as np
import pytest

from rag.assembly import open_citewell
from rag.reranking import LateInteraction
from rag.testing import WordEmbedder
from tests.api.live import serving
from tests.api.openai_clients import EMBEDDER, LATE, base_url, leaves_sockets, openai_problem

PATH = "/v1/ranking"
QUESTION = "What is the hotel limit?"
PASSAGES = [
    "Lunch is at noon.",
    "The hotel limit is 145 euros per night.",
    "A hotel may be booked online.",
    "",
    "Trains leave every hour.",
]


def body(**more: object) -> dict[str, object]:
    return {"query": {"text": QUESTION}, "passages": [{"text": text} for text in PASSAGES], **more}


def expected(embedder, passages: Sequence[str] = PASSAGES) -> list[float]:
    return LateInteraction(embedder).score(QUESTION, passages)


@pytest.mark.parametrize("model", [{}, {"model": LATE}, {"model": EMBEDDER}], ids=["none", "its name", "the embedder"])
def test_passages_come_best_first_with_the_scores_of_late_interaction(reading, embedder, model):
    """All of them, each once; the one without a word is the last."""
    reply = reading.post(PATH, json=body(**model)).json()
    places = [ranking["index"] for ranking in reply["rankings"]]
    scores = expected(embedder)
    assert places == sorted(range(5), key=lambda place: -scores[place])
    assert (places[0], places[-1]) == (1, 3)
    np.testing.assert_allclose([ranking["logit"] for ranking in reply["rankings"]], np.array(scores)[places], atol=1e-5)
    assert reply["usage"]["total_tokens"] == sum(embedder.count_tokens(PASSAGES))


def test_equal_passages_keep_their_order(reading):
    """Of two that say the same, the first of the request comes first."""
    twice = [{"text": text} for text in [*PASSAGES, *PASSAGES]]
    rankings = reading.post(PATH, json=body(passages=twice)).json()["rankings"]
    places = [ranking["index"] for ranking in rankings]
    assert [place - 5 for place in places[1::2]] == places[::2]


class Lengths:
    """A reranker that likes long passages."""

    name, window = "lengths", 30

    def lengths(self, _: str, passages: Sequence[str]) -> list[int]:
        return [len(passage) for passage in passages]

    def score(self, _: str, passages: Sequence[str]) -> list[float]:
        return [float(len(passage)) for passage in passages]


def test_a_cross_encoder_that_is_configured_ranks(settings):
    """Where none is named, or it is; late interaction stays to be had by its name. Each has its own window."""
    with open_citewell(settings, embedder=WordEmbedder(), reranker=Lengths()) as opened, serving(opened) as http:
        listed = [model["id"] for model in http.get("/v1/models").json()["data"]]
        assert listed == [EMBEDDER, "lengths", LATE]
        for model in ({}, {"model": "lengths"}, {"model": EMBEDDER}):
            rankings = http.post(PATH, json=body(truncate="END", **model)).json()["rankings"]
            assert [ranking["index"] for ranking in rankings] == [1, 2, 4, 0, 3]
            assert rankings[0]["logit"] == float(len(PASSAGES[1]))
        error = openai_problem(http.post(PATH, json=body()), 400)
        assert error["message"].startswith("passages[1] has 39 tokens, and the model reads 30;")
        late = http.post(PATH, json=body(model=LATE)).json()["rankings"]
        scores = expected(WordEmbedder())
        assert [ranking["index"] for ranking in late] == sorted(range(5), key=lambda place: -scores[place])


def test_a_reranker_that_is_none_is_refused_with_those_that_there_are(reading):
    """404 with the names."""
    error = openai_problem(reading.post(PATH, json=body(model="nv-rerank")), 404)
    assert error["message"] == f"'nv-rerank' is no reranker; there is {LATE}."
    assert error["param"] == "model"


@leaves_sockets
def test_nvidias_client_for_langchain(reading, embedder):
    """In batches, whose scores it sorts together; synchronous and not."""
    from langchain_core.documents import Document
    from langchain_nvidia_ai_endpoints import NVIDIARerank

    client = NVIDIARerank(
        base_url=base_url(reading), model=LATE, top_n=3, max_batch_size=2, usage_telemetry_enabled=False
    )
    documents = [Document(page_content=text) for text in PASSAGES]
    scores = expected(embedder)
    best = sorted(range(5), key=lambda place: -scores[place])[:3]
    for found in (
        client.compress_documents(documents, QUESTION),
        asyncio.run(client.acompress_documents(documents, QUESTION)),
    ):
        assert [document.page_content for document in found] == [PASSAGES[place] for place in best]
        told = [document.metadata["relevance_score"] for document in found]
        np.testing.assert_allclose(told, [scores[place] for place in best], atol=1e-5)
    with pytest.warns(UserWarning, match="Default model is set as"):
        default = NVIDIARerank(base_url=base_url(reading), top_n=1, usage_telemetry_enabled=False)
    assert default.compress_documents(documents, QUESTION)[0].page_content == PASSAGES[1]


@leaves_sockets
def test_nvidias_client_for_llamaindex(reading, embedder):
    """It looks its model up in the list first."""
    from llama_index.core.schema import NodeWithScore, TextNode
    from llama_index.postprocessor.nvidia_rerank import NVIDIARerank

    nodes = [NodeWithScore(node=TextNode(text=text)) for text in PASSAGES if text]
    with httpx.Client(trust_env=False) as http:
        client = NVIDIARerank(base_url=base_url(reading), model=LATE, top_n=2, http_client=http)
        found = client.postprocess_nodes(nodes, query_str=QUESTION)
        with pytest.warns(UserWarning, match="Default model is set as"):
            assert NVIDIARerank(base_url=base_url(reading), http_client=http).model == EMBEDDER
    texts = [text for text in PASSAGES if text]
    scores = expected(embedder, texts)
    best = sorted(range(4), key=lambda place: -scores[place])[:2]
    assert [node.node.get_content() for node in found] == [texts[place] for place in best]
    np.testing.assert_allclose([node.score for node in found], [scores[place] for place in best], atol=1e-5)
