"""The cross-encoder: a real one, tiny and untrained, decides the order of a real search; what is none is refused."""

from __future__ import annotations

import numpy as np
import pytest

from rag.assembly import open_citewell
from rag.cross_encoder import CrossEncoder
from rag.encoders import built_in_model
from rag.errors import Misconfigured
from rag.settings import EmbedderSettings
from rag.testing import WordEmbedder
from tests.rag.test_retrieval import put

QUESTION, PASSAGES = "how high is the tide", ["the tide is high", "a storm and rain", "neap tide at noon"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A BERT of one layer with random weights and one output, and the tokenizer of the built-in embedder."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    target = tmp_path_factory.mktemp("cross-encoder")
    tokenizer = AutoTokenizer.from_pretrained(built_in_model(), local_files_only=True)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        num_labels=1,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


def scores_of(folder, passages: list[str]) -> list[float]:
    """The sigmoid of the model's own output, computed by transformers alone."""
    import torch
    from transformers import AutoTokenizer, BertForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = BertForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()
    with torch.inference_mode():
        read = tokenizer([QUESTION] * len(passages), passages, padding=True, return_tensors="pt")
        return [float(score) for score in torch.sigmoid(model(**read).logits[:, 0])]


def test_scores_are_those_of_the_model(folder):
    model = CrossEncoder(str(folder), EmbedderSettings(device="cpu"))
    np.testing.assert_allclose(model.score(QUESTION, PASSAGES), scores_of(folder, PASSAGES), atol=1e-4)
    assert model.score(QUESTION, []) == []


def test_lengths_are_those_of_what_the_model_reads(folder):
    """Question, passage and special tokens, as transformers alone counts them; the window is the model's."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = CrossEncoder(str(folder), EmbedderSettings(device="cpu"))
    long = [*PASSAGES, "tide " * 600]
    assert model.lengths(QUESTION, long) == [len(tokenizer(QUESTION, text)["input_ids"]) for text in long]
    assert model.lengths(QUESTION, long)[-1] == 600 + 5 + 3
    assert (model.lengths(QUESTION, []), model.window) == ([], 512)


def test_it_has_the_last_word_in_a_search(folder, settings):
    chosen = settings.retrieval.model_copy(update={"reranker": str(folder)})
    with open_citewell(settings.model_copy(update={"retrieval": chosen}), embedder=WordEmbedder()) as citewell:
        put(citewell, "c", "tides", PASSAGES)
        ranking = citewell.search(citewell.plan(QUESTION, ["c"]), trace=True)
        expected = sorted(PASSAGES, key=lambda text: -scores_of(folder, [text])[0])
        assert [passage.text for passage in ranking.passages] == expected
        assert list(ranking.stages["reranked"]) == [passage.chunk_id for passage in ranking.passages]
        without = citewell.search(citewell.plan(QUESTION, ["c"], parts={"rerank": False}), trace=True)
        assert "reranked" not in without.stages


def test_what_is_no_cross_encoder_is_refused_with_the_cure(tmp_path, folder):
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    with pytest.raises(Misconfigured, match="is no folder"):
        CrossEncoder("no/such/folder", EmbedderSettings())
    with pytest.raises(Misconfigured, match="can not be loaded"):
        CrossEncoder(str(tmp_path), EmbedderSettings())
    torch.manual_seed(0)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = BertConfig.from_pretrained(folder, num_labels=3)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(Misconfigured, match="3 outputs"):
        CrossEncoder(str(tmp_path), EmbedderSettings())
