"""The contract of `rag.protocols.Embedder`: every implementation, with its numbers from the plain float32 model."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from rag.encoders import PASS_COST, PASS_TOKENS, OpenVINOEmbedder, open_embedder, pack_by_tokens, with_less_padding
from rag.errors import Misconfigured
from rag.settings import EmbedderSettings, load_settings
from rag.testing import WordEmbedder
from rag.tokens import open_counter

TEXTS = [
    "How long is parental leave?",
    "Parental leave lasts 14 weeks for each parent.",
    "Das Gerät misst Wind und Wellen.",
    "short",
    "潮の高さ",
    "E07 | Water in the housing",
    "word " * 400,
]


@pytest.fixture(scope="module")
def torch_embedder():
    """One thread: on a busy machine the threads of one pass wait for each other, which costs many times as much."""
    settings = load_settings()
    return open_embedder(EmbedderSettings(backend="torch", threads=1), settings.cache)


@pytest.fixture(params=["openvino", "torch", "words"])
def any_embedder(request, embedder, torch_embedder):
    return {"openvino": embedder, "torch": torch_embedder, "words": WordEmbedder()}[request.param]


def test_a_list_in_a_list_of_equal_length_out(any_embedder):
    encoding = any_embedder.encode(TEXTS, tokens=True)
    assert encoding.vectors.shape == (len(TEXTS), any_embedder.dimension)
    assert encoding.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(encoding.vectors, axis=1), 1.0, atol=1e-3)
    assert len(encoding.tokens) == len(TEXTS)
    assert any_embedder.encode([]).vectors.shape == (0, any_embedder.dimension)


def test_token_vectors_have_unit_length_and_stand_on_their_words(any_embedder):
    for text, tokens in zip(TEXTS, any_embedder.encode(TEXTS, tokens=True).tokens, strict=True):
        assert tokens.vectors.shape == (len(tokens.ids), any_embedder.dimension)
        assert len(tokens.ids) <= any_embedder.window - 2
        np.testing.assert_allclose(np.linalg.norm(tokens.vectors, axis=1), 1.0, atol=1e-3)
        assert all(text[a:b].strip() for a, b in tokens.spans.tolist())


def test_a_text_has_the_same_vector_in_any_company(any_embedder):
    together = any_embedder.encode(TEXTS).vectors
    alone = np.concatenate([any_embedder.encode([text]).vectors for text in TEXTS])
    assert (together * alone).sum(axis=1).min() > 0.999


def test_tokens_are_counted_with_the_special_ones_and_beyond_the_window(any_embedder):
    counts = any_embedder.count_tokens(TEXTS)
    assert counts[6] == 402
    assert any_embedder.count_tokens([""]) == [2]
    assert any_embedder.count_tokens([]) == []


@examples(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4))
def test_any_process_can_count_as_the_embedder_does(any_embedder, texts):
    """Its counter needs no model and agrees with what the embedder counts, and with the tokens that it reads."""
    counts = any_embedder.count_tokens(texts)
    assert open_counter(any_embedder.counter)(texts) == counts
    for count, tokens in zip(counts, any_embedder.encode(texts, tokens=True).tokens, strict=True):
        assert len(tokens.ids) == min(count, any_embedder.window) - 2


def test_likeness_is_found(any_embedder):
    vectors = any_embedder.encode(["parental leave weeks", TEXTS[1], TEXTS[5]]).vectors
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]


def test_the_fast_backend_agrees_with_float32(embedder, torch_embedder):
    """The same fingerprint promises comparable vectors: cosine at least 0.999 on the mean, 0.995 on each text."""
    assert isinstance(embedder, OpenVINOEmbedder)
    assert embedder.fingerprint == torch_embedder.fingerprint
    fast, plain = embedder.encode(TEXTS, tokens=True), torch_embedder.encode(TEXTS, tokens=True)
    cosines = (fast.vectors * plain.vectors).sum(axis=1)
    assert cosines.mean() >= 0.999
    assert cosines.min() >= 0.995
    for a, b in zip(fast.tokens, plain.tokens, strict=True):
        np.testing.assert_array_equal(a.ids, b.ids)
        np.testing.assert_array_equal(a.spans, b.spans)
        assert (a.vectors * b.vectors).sum(axis=1).min() >= 0.99


@given(st.lists(st.integers(1, 300), max_size=80), st.integers(1, 2000))
def test_batches_hold_everyone_once_and_keep_their_budget(lengths, budget):
    batches = list(pack_by_tokens(lengths, budget))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


@pytest.mark.parametrize(
    ("settings", "cure"),
    [
        (EmbedderSettings(model="no/such/folder"), "allow_download"),
        (EmbedderSettings(model="no/such/folder", backend="openvino"), "torch or auto"),
    ],
    ids=["model", "backend"],
)
def test_a_missing_model_is_an_error_at_start_with_its_cure(tmp_path, settings, cure):
    with pytest.raises(Misconfigured, match=cure):
        open_embedder(settings, tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(Misconfigured, match="can not be loaded"):
        open_embedder(EmbedderSettings(model=str(tmp_path)), tmp_path)


def test_the_budget_of_a_pass_is_a_sane_number():
    assert 256 <= PASS_TOKENS <= 65536


@given(st.lists(st.integers(1, 300), min_size=1, max_size=9))
def test_less_padding_is_what_costs_least_of_all_ways_to_cut_a_batch(lengths):
    """Judged by trying them all; every text comes once, longest first."""
    batch = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    passes = with_less_padding(batch, lengths)
    assert [i for some in passes for i in some] == batch
    size = len(batch)
    ways = [pairwise((0, *cuts, size)) for n in range(size) for cuts in combinations(range(1, size), n)]
    costs = [sum(PASS_COST + (end - start) * lengths[batch[start]] for start, end in way) for way in ways]
    assert sum(PASS_COST + len(some) * lengths[some[0]] for some in passes) == min(costs)
