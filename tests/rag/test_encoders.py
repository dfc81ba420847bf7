"""The torch embedder on several devices, with prompts and other tokenizers, and how near the fast backend comes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from ingest.chunk import chunk
from ingest.parse import parse
from rag.encoders import TorchEmbedder, built_in_model, open_embedder
from rag.errors import Misconfigured
from rag.settings import EmbedderSettings, load_settings

PASSAGES = [f"Passage {n} says: " + "the buoy drifts and its mooring line holds " * (n % 17) for n in range(60)]

#: What a process holds after texts of 128 lengths one by one, and after them two by two: 256 shapes in all.
SHAPES = """
from pathlib import Path
from rag.encoders import open_embedder
from rag.settings import load_settings
settings = load_settings()
embedder = open_embedder(settings.embedder, settings.cache)
for count in (1, 2):
    for length in range(1, 129):
        embedder.encode([" ".join(["harbour"] * length)] * count)
    print(Path("/proc/self/status").read_text())
"""


def opened(cache, **settings):
    return open_embedder(EmbedderSettings(backend="torch", **settings), cache)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """One replica in float32 on the CPU."""
    embedder = opened(tmp_path_factory.mktemp("cache"), device="cpu")
    yield embedder
    embedder.close()


@pytest.fixture(scope="module")
def real_passages(sample_files):
    """The passages of the sample documents, cut a little shorter than usual to have some two hundred."""
    embedder_window, limits = 160, load_settings().ingest
    count = opened_counter()
    parsed = [parse(file, file.name, limits) for file in sample_files]
    return [piece.indexed_text for document in parsed for piece in chunk(document, embedder_window, count)]


def opened_counter():
    from rag.tokens import counter_of, open_counter

    return open_counter(counter_of(built_in_model() / "tokenizer.json"))


def test_the_fast_backend_keeps_the_vectors_of_float32(embedder, plain, real_passages):
    """On the real passages of the samples: mean cosine at least 0.999, no passage below 0.995."""
    assert len(real_passages) > 150
    cosines = (embedder.encode(real_passages).vectors * plain.encode(real_passages).vectors).sum(axis=1)
    assert cosines.mean() >= 0.999
    assert cosines.min() >= 0.995


def test_memory_does_not_grow_with_the_shapes_of_batches():
    """The fast backend keeps a bounded number of kernels: unbounded they took 180 MiB more in the second round."""
    told = subprocess.run([sys.executable, "-c", SHAPES], capture_output=True, text=True, check=True).stdout
    before, after = (int(size) / 1024 for size in re.findall(r"RssAnon:\s+(\d+) kB", told))
    assert after - before < 100


def test_the_torch_embedder_keeps_the_vectors_of_sentence_transformers(plain):
    """Packing by tokens changes nothing: the library's own loop over the same texts gives the same numbers."""
    library = SentenceTransformer(str(built_in_model()), device="cpu", local_files_only=True)
    expected = library.encode_document(PASSAGES, normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(plain.encode(PASSAGES).vectors, expected, atol=1e-5)


def test_two_replicas_give_what_one_gives(tmp_path, plain):
    """Batches go to whichever device is idle, and the results stand in the order of the texts."""
    both = opened(tmp_path, device="cpu,cpu")
    assert (both.engine, plain.engine) == ("torch float32 cpu,cpu", "torch float32 cpu")
    assert both.fingerprint == plain.fingerprint
    one, two = plain.encode(PASSAGES, tokens=True), both.encode(PASSAGES, tokens=True)
    np.testing.assert_allclose(two.vectors, one.vectors, atol=1e-5)
    for a, b in zip(one.tokens, two.tokens, strict=True):
        np.testing.assert_array_equal(a.ids, b.ids)
        np.testing.assert_array_equal(a.spans, b.spans)
        np.testing.assert_allclose(a.vectors, b.vectors, atol=1e-4)
    both.close()


def test_threads_may_encode_at_once(tmp_path, plain):
    """More callers than replicas: each gets the vectors of its own texts."""
    both = opened(tmp_path, device="cpu,cpu")
    lots = [PASSAGES[n : n + 9] for n in range(0, 54, 9)]
    with ThreadPoolExecutor(len(lots)) as pool:
        found = list(pool.map(lambda texts: both.encode(texts).vectors, lots))
    for texts, vectors in zip(lots, found, strict=True):
        np.testing.assert_allclose(vectors, plain.encode(texts).vectors, atol=1e-5)
    both.close()


@pytest.mark.parametrize("device", ["cuda:99", "abacus", "cpu,", "cpu,cuda:99"])
def test_a_device_that_is_not_there_is_refused_at_start(tmp_path, device):
    with pytest.raises(Misconfigured, match=r"embedder\.device"):
        opened(tmp_path, device=device)


@pytest.fixture
def model_copy(tmp_path):
    """A folder with the built-in model's files, to be changed."""
    folder = tmp_path / "own-model"
    for path in built_in_model().rglob("*"):
        target = folder / path.relative_to(built_in_model())
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
    return folder


def replace(file, **changes):
    content = json.loads(file.read_text()) | changes
    file.unlink()
    file.write_text(json.dumps(content))


def test_prompts_take_their_share_of_the_window_and_no_place_in_the_text(model_copy, tmp_path, plain):
    """A model's prompts go before the texts as it was trained, and token places are those in the text itself."""
    replace(model_copy / "config_sentence_transformers.json", prompts={"query": "ask: ", "document": "read this: "})
    own = opened(tmp_path, model=str(model_copy), device="cpu")
    text = "The mooring line holds."
    assert own.window == plain.window - 3
    assert own.count_tokens([text]) == plain.count_tokens([text])
    for role, prompt in [("query", "ask: "), ("passage", "read this: ")]:
        expected = plain.encode([prompt + text]).vectors
        found = own.encode([text], role=role, tokens=True)
        np.testing.assert_allclose(found.vectors, expected, atol=1e-5)
        assert [text[a:b] for a, b in found.tokens[0].spans.tolist()] == ["The", "moor", "ing", "line", "holds", "."]
    own.close()


def test_the_tokenizer_is_written_once_where_the_model_has_no_file_that_reads_alike(model_copy, tmp_path):
    """Here the model's settings keep upper case, which its tokenizer.json does not say; the counter follows."""
    replace(model_copy / "tokenizer_config.json", do_lower_case=False)
    own = opened(tmp_path / "cache", model=str(model_copy), device="cpu")
    written = list((tmp_path / "cache" / "models").iterdir())
    assert [f"tokenizer:{file}" for file in written] == [own.counter]
    expected = [len(own._model.tokenizer("MOORING Lines")["input_ids"])]
    assert own.count_tokens(["MOORING Lines"]) == expected != opened_counter()(["MOORING Lines"])
    again = TorchEmbedder(str(model_copy), EmbedderSettings(device="cpu"), tmp_path / "cache")
    assert list((tmp_path / "cache" / "models").iterdir()) == written
    assert again.counter == own.counter


def test_the_built_in_model_needs_no_written_tokenizer(plain):
    assert plain.counter == f"tokenizer:{built_in_model() / 'tokenizer.json'}"
