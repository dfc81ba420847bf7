"""The list of models, as OpenAI's client reads it, and LlamaIndex's LLM over it."""

from __future__ import annotations

import asyncio

import httpx
import openai
import pytest

from rag.assembly import open_citewell
from tests.api.live import HOTEL, serving
from tests.api.openai_clients import EMBEDDER, LATE, MODEL, base_url, connected, leaves_sockets


def test_models_are_the_embedder_what_ranks_and_every_collection(reading, indexed):
    """The embedder first: NVIDIA's clients that are told of no model take that."""
    created = int(indexed.store.catalog.collection("demo", counted=False).created_at.timestamp())
    with connected(reading) as client:
        models = list(client.models.list())
        assert [model.id for model in models] == [EMBEDDER, LATE, MODEL, "citewell/empty"]
        assert {(model.object, model.owned_by) for model in models} == {("model", "citewell")}
        assert [model.created for model in models][:3] == [0, 0, created]
        assert [model.root for model in models] == [model.id for model in models]


@pytest.mark.parametrize(
    ("name", "root"),
    [
        (MODEL, MODEL),
        ("citewell/demo,empty", "citewell/demo,empty"),
        (EMBEDDER, EMBEDDER),
        (f"{EMBEDDER}-query", EMBEDDER),
        (f"{EMBEDDER}-passage", EMBEDDER),
        (LATE, LATE),
    ],
)
def test_a_model_is_shown_by_its_name(reading, name, root):
    """Also what is not listed: several collections, and the embedder for one kind of text."""
    with connected(reading) as client:
        model = client.models.retrieve(name)
    assert (model.id, model.root) == (name, root)


@pytest.mark.parametrize("name", ["gpt-4o", "citewell/nope", "citewell/demo,nope", f"{EMBEDDER}-question", "demo"])
def test_a_model_that_is_none_is_not_found(reading, name):
    """404, which OpenAI's client knows."""
    with connected(reading) as client, pytest.raises(openai.NotFoundError):
        client.models.retrieve(name)


def test_an_embedder_in_a_folder_is_named_after_it(settings, embedder, tmp_path):
    """Nothing is told of where it lies."""
    (tmp_path / "our-model").mkdir()
    chosen = settings.embedder.model_copy(update={"model": str(tmp_path / "our-model")})
    settings = settings.model_copy(update={"embedder": chosen})
    with open_citewell(settings, embedder=embedder) as opened, serving(opened) as http:
        reply = http.get("/v1/models")
        assert [model["id"] for model in reply.json()["data"]] == ["our-model", "our-model-late-interaction"]
        assert str(tmp_path) not in reply.text


def test_examples_of_the_description_work(client):
    """What the OpenAPI page teaches is what the service takes."""
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert client.post("/v1/collections", json={"name": "handbook"}).status_code == 201
    for path, name in (
        ("/v1/chat/completions", "ChatRequest"),
        ("/v1/embeddings", "EmbeddingRequest"),
        ("/v1/ranking", "RankingRequest"),
        ("/v2/vector_stores/handbook/search", "VectorStoreSearchRequest"),
    ):
        assert client.post(path, json=schemas[name]["examples"][0]).status_code == 200
        assert schemas[name]["additionalProperties"] is False


@leaves_sockets
def test_llamaindexes_llm_for_openai_like_servers(reading):
    """`OpenAILike` over a collection: chat and completion, whole and streamed, synchronous and not."""
    from llama_index.core.llms import ChatMessage
    from llama_index.llms.openai_like import OpenAILike

    asked = [ChatMessage(role="user", content=HOTEL)]
    with httpx.Client(trust_env=False) as http:
        llm = OpenAILike(
            model=MODEL, api_base=base_url(reading), api_key="not-needed", is_chat_model=True, http_client=http
        )
        reply = llm.chat(asked)
        assert "145" in str(reply.message.content)
        assert reply.raw.choices[0].message.annotations[0].filename == "2026/travel-policy.pdf"
        assert "".join(chunk.delta or "" for chunk in llm.stream_chat(asked)) == reply.message.content
        assert llm.complete(HOTEL).text == reply.message.content

    async def chat() -> str:
        async with httpx.AsyncClient(trust_env=False) as http:
            llm = OpenAILike(
                model=MODEL, api_base=base_url(reading), api_key="x", is_chat_model=True, async_http_client=http
            )
            return str((await llm.achat(asked)).message.content)

    assert asyncio.run(chat()) == reply.message.content
