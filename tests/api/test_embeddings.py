"""Embeddings for other programs' clients: OpenAI's, NVIDIA's for LangChain and for LlamaIndex, all unmodified."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import openai
import pytest
import structlog
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from rag.settings import ServerSettings
from tests.api.live import serving
from tests.api.openai_clients import EMBEDDER, MODEL, base_url, connected, leaves_sockets, openai_problem
from tests.gate import PATIENCE, Gate, gated

TEXTS = ["How long is parental leave?", "潮の高さ", "short", "a hotel in the country " * 20]
PATH = "/v1/embeddings"


@pytest.fixture
def client(reading: httpx.Client) -> Iterator[openai.OpenAI]:
    with connected(reading) as opened:
        yield opened


def vectors_of(embedder, *texts: str, role: str = "passage") -> np.ndarray:
    return embedder.encode(list(texts), role=role).vectors


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
def test_openais_client_gets_the_vectors_of_the_embedder(client, embedder, encoding):
    """In order, of length 1, in every encoding; usage counts the embedder's tokens."""
    more = {"encoding_format": encoding} if encoding else {}
    found = client.embeddings.create(model=EMBEDDER, input=TEXTS, **more)
    assert (found.object, found.model, [one.index for one in found.data]) == ("list", EMBEDDER, [0, 1, 2, 3])
    rows = [one.embedding for one in found.data]
    if encoding == "base64":
        rows = [np.frombuffer(base64.b64decode(row), dtype="<f4") for row in rows]
    np.testing.assert_allclose(np.array(rows), vectors_of(embedder, *TEXTS), atol=1e-6)
    assert found.usage.prompt_tokens == found.usage.total_tokens == sum(embedder.count_tokens(TEXTS))


@examples(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=1, max_size=40).filter(lambda text: text.strip() and "\0" not in text))
def test_any_text_has_the_same_vector_over_the_wire(reading, embedder, text):
    """Alone or in a list, as numbers or in base64: not a bit is lost."""
    alone = reading.post(PATH, json={"model": EMBEDDER, "input": text, "encoding_format": "base64"}).json()
    listed = reading.post(PATH, json={"model": EMBEDDER, "input": [text]}).json()
    expected = vectors_of(embedder, text)[0]
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(alone["data"][0]["embedding"]), "<f4"), expected)
    np.testing.assert_array_equal(np.array(listed["data"][0]["embedding"], dtype=np.float32), expected)


def test_the_role_is_said_by_the_request_or_by_the_models_name(settings):
    """`input_type`, or a suffix, or passage; the model sees which."""
    gate = Gate()
    gate.open.set()
    with gated(settings, gate) as opened, serving(opened) as http:
        for model, more in ((EMBEDDER, {}), (f"{EMBEDDER}-passage", {}), (EMBEDDER, {"input_type": "passage"})):
            assert http.post(PATH, json={"model": model, "input": "cat", **more}).status_code == 200
        assert gate.calls == []
        for model, more in ((f"{EMBEDDER}-query", {}), (EMBEDDER, {"input_type": "query"})):
            assert http.post(PATH, json={"model": model, "input": "cat", **more}).json()["model"] == model
        assert gate.calls == [["cat"], ["cat"]]
        both = {"model": f"{EMBEDDER}-query", "input": "cat", "input_type": "passage"}
        assert openai_problem(http.post(PATH, json=both), 400)["param"] == "input_type"


def test_long_texts_are_refused_or_cut_as_wished(reading, embedder):
    """NONE, the default, says how long it is; END keeps the beginning, START the end; usage counts what was read."""
    words = [f"word{number}" for number in range(300)]
    long = " ".join(words)
    tokens = embedder.count_tokens([long])[0]
    for more in ({}, {"truncate": "NONE"}):
        error = openai_problem(reading.post(PATH, json={"model": EMBEDDER, "input": ["x", long], **more}), 400)
        assert error["message"].startswith(f"input[1] has {tokens:,} tokens, and the model reads 256;")
        assert error["details"] == {"param": "input", "tokens": tokens, "window": 256}
    found = {}
    for truncate in ("END", "START"):
        reply = reading.post(PATH, json={"model": EMBEDDER, "input": [long], "truncate": truncate}).json()
        found[truncate] = np.array(reply["data"][0]["embedding"], dtype=np.float32)
        assert reply["usage"]["prompt_tokens"] == 256
    np.testing.assert_allclose(found["END"], vectors_of(embedder, long)[0], atol=1e-6)
    kept = max(n for n in range(300) if embedder.count_tokens([" ".join(words[-n:])])[0] <= 256)
    np.testing.assert_allclose(found["START"], vectors_of(embedder, " ".join(words[-kept:]))[0], atol=1e-6)


def test_dimensions_are_those_of_the_model(client, embedder):
    """Named, they change nothing; others are refused, since vectors are not shortened."""
    found = client.embeddings.create(model=EMBEDDER, input="cat", dimensions=384)
    np.testing.assert_allclose(found.data[0].embedding, vectors_of(embedder, "cat")[0], atol=1e-6)
    with pytest.raises(openai.BadRequestError, match="dimensions is 128, and the model's vectors have 384") as refused:
        client.embeddings.create(model=EMBEDDER, input="cat", dimensions=128)
    assert refused.value.param == "dimensions"


def test_what_is_no_text_or_no_embedder_is_refused(client):
    """Tokens of another model with the cure; a model that is none with the one that there is."""
    with pytest.raises(openai.UnprocessableEntityError, match="check_embedding_ctx_length=False"):
        client.embeddings.create(model=EMBEDDER, input=[[1, 2, 3]])
    with pytest.raises(openai.NotFoundError, match=f"the one here is {EMBEDDER}"):
        client.embeddings.create(model=MODEL, input="cat")


def test_callers_that_gather_are_embedded_together_and_searches_go_on(settings):
    """While the model is held up by one, six wait; then they cost one call. One more than there are places gets 429."""
    gate = Gate()
    settings = settings.model_copy(update={"server": ServerSettings(max_searches=7)})
    with gated(settings, gate) as opened, serving(opened) as http, ThreadPoolExecutor(8) as pool:

        def embed(text: str) -> httpx.Response:
            return http.post(PATH, json={"model": f"{EMBEDDER}-query", "input": text}, timeout=PATIENCE)

        first = pool.submit(embed, "first")
        assert gate.entered.wait(PATIENCE)
        waiting = [pool.submit(embed, f"word{number}") for number in range(6)]
        while True:
            refused = http.post(PATH, json={"model": EMBEDDER, "input": "probe", "truncate": "MIDDLE"})
            assert refused.status_code == 422
            if opened.encodings._rounds._there == 7:
                break
        assert openai_problem(embed("one too many"), 429)["code"] == "busy"
        assert http.get("/v1/models").status_code == 200
        gate.open.set()
        assert first.result(PATIENCE).status_code == 200
        assert {future.result(PATIENCE).status_code for future in waiting} == {200}
    assert [len(call) for call in gate.calls] == [1, 6]


def test_a_client_that_leaves_is_not_embedded_for(settings):
    """It gives up while it waits in line: the log says so, and its text never reaches the model."""
    gate = Gate()
    with (
        structlog.testing.capture_logs() as logged,
        gated(settings, gate) as opened,
        serving(opened) as http,
        ThreadPoolExecutor() as pool,
    ):
        body = {"model": f"{EMBEDDER}-query", "input": "first"}
        first = pool.submit(http.post, PATH, json=body, timeout=PATIENCE)
        assert gate.entered.wait(PATIENCE)
        with pytest.raises(httpx.ReadTimeout):
            http.post(PATH, json={**body, "input": "second"}, timeout=httpx.Timeout(PATIENCE, read=0.5))
        pause = threading.Event()
        while not any(line["event"] == "client left" for line in logged):
            pause.wait(0.01)
        third = pool.submit(http.post, PATH, json={**body, "input": "third"}, timeout=PATIENCE)
        gate.open.set()
        assert first.result(PATIENCE).status_code == third.result(PATIENCE).status_code == 200
    assert gate.calls == [["first"], ["third"]]


@leaves_sockets
def test_nvidias_client_for_langchain(reading, embedder):
    """Queries and documents, in batches, synchronous and not; the model by name or the first that is listed."""
    from langchain_nvidia_ai_endpoints import NVIDIAEmbeddings

    url = base_url(reading)
    client = NVIDIAEmbeddings(
        base_url=url, model=EMBEDDER, truncate="END", max_batch_size=3, usage_telemetry_enabled=False
    )
    np.testing.assert_allclose(client.embed_query(TEXTS[0]), vectors_of(embedder, TEXTS[0])[0], atol=1e-6)
    np.testing.assert_allclose(client.embed_documents(TEXTS), vectors_of(embedder, *TEXTS), atol=1e-6)
    np.testing.assert_allclose(asyncio.run(client.aembed_query(TEXTS[0])), vectors_of(embedder, TEXTS[0])[0], atol=1e-6)
    assert EMBEDDER in {model.id for model in client.available_models}
    with pytest.warns(UserWarning, match=f"Default model is set as: {EMBEDDER}"):
        assert NVIDIAEmbeddings(base_url=url, usage_telemetry_enabled=False).model == EMBEDDER
    with pytest.raises(Exception, match="input has 602 tokens, and the model reads 256"):
        NVIDIAEmbeddings(base_url=url, model=EMBEDDER, usage_telemetry_enabled=False).embed_query("word " * 600)


@leaves_sockets
def test_nvidias_client_for_llamaindex(reading, embedder):
    """Queries and texts, by the suffix of the model too, synchronous and not."""
    from llama_index.embeddings.nvidia import NVIDIAEmbedding

    with httpx.Client(trust_env=False) as http:
        client = NVIDIAEmbedding(base_url=base_url(reading), model=EMBEDDER, truncate="END", http_client=http)
        np.testing.assert_allclose(client.get_query_embedding(TEXTS[0]), vectors_of(embedder, TEXTS[0])[0], atol=1e-6)
        np.testing.assert_allclose(client.get_text_embedding_batch(TEXTS), vectors_of(embedder, *TEXTS), atol=1e-6)
        assert EMBEDDER in {model.id for model in client.available_models}
        named = NVIDIAEmbedding(base_url=base_url(reading), model=f"{EMBEDDER}-query", truncate="END", http_client=http)
        with pytest.raises(openai.BadRequestError, match="input_type is passage, and the model's name says query"):
            named.get_text_embedding("cat")

    async def embed() -> list[float]:
        async with httpx.AsyncClient(trust_env=False) as http:
            client = NVIDIAEmbedding(base_url=base_url(reading), model=EMBEDDER, async_http_client=http)
            return await client.aget_query_embedding(TEXTS[0])

    np.testing.assert_allclose(asyncio.run(embed()), vectors_of(embedder, TEXTS[0])[0], atol=1e-6)
