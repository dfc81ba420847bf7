"""The whole answer journey through a real language model: the path works and its citations are checked, no more."""

from __future__ import annotations

import pytest

from ingest.worker import Worker, accept_file
from rag.assembly import open_citewell
from rag.settings import GeneratorSettings, load_settings
from tests.api.live import HOTEL, SAMPLES, events, serving
from tests.llm.conftest import LlmServer

pytestmark = pytest.mark.llm


@pytest.fixture(scope="module")
def client(llm_server: LlmServer, embedder, tmp_path_factory):
    """A client of the real API over one sample, whose generator is the real server."""
    generator = GeneratorSettings(
        kind="openai", base_url=llm_server.base_url, context_tokens=llm_server.window, max_tokens=60, fall_back=False
    )
    settings = load_settings(
        data=tmp_path_factory.mktemp("data"), generator=generator, retrieval={"top_k": 2},
        understanding={"timeout_seconds": 60, "max_tokens": 60},
    )  # fmt: skip
    with open_citewell(settings, embedder=embedder) as citewell:
        collection = citewell.store.catalog.create_collection("demo")
        accept_file(citewell.store, collection, "travel-policy.pdf", SAMPLES / "2026" / "travel-policy.pdf")
        Worker(citewell).drain()
        with serving(citewell) as connected:
            yield connected


def check(answer: dict) -> None:
    """What must hold whatever a model writes."""
    assert answer["text"]
    assert answer["generator"].startswith("openai:")
    for citation in answer["citations"]:
        assert citation["quote"]
        assert citation["document"] == "travel-policy.pdf"
        assert citation["quote"] in answer["passages"][citation["number"] - 1]["text"]


def test_a_question_is_answered_by_the_model(client):
    response = client.post("/v1/ask", json={"question": HOTEL, "collections": ["demo"]})
    assert response.status_code == 200, response.text
    check(response.json())


def test_the_stream_of_tokens_is_the_answer(client):
    """Its tokens, put together, are the text of the whole answer at the end."""
    body = {"question": HOTEL, "collections": ["demo"], "stream": True, "cache": False}
    with client.stream("POST", "/v1/ask", json=body) as response:
        found = list(events(response.iter_lines()))
    names = [name for _, name, _ in found]
    assert names[0] == "passages"
    assert names[-1] == "done"
    assert names.count("token") > 3
    answer = found[-1][2]
    check(answer)
    assert "".join(data["text"] for _, name, data in found if name == "token") == answer["text"]


def test_a_follow_up_goes_through_the_model_first(client):
    """The model is asked to complete the question; whatever it writes, passages are found and the trace is whole."""
    before = [{"role": "user", "content": HOTEL}]
    body = {"query": "And abroad, how much is it?", "collections": ["demo"], "history": before}
    found = client.post("/v1/search", json={**body, "parts": {"multi_query": True}}).json()
    assert found["passages"]
    assert found["timings"]["understand"] > 0
    assert found["queries"][0]["role"] in {"question", "standalone"}
    roles = {query["role"] for query in found["queries"]}
    assert (roles & {"standalone", "paraphrase"}) or found["notice"].startswith("The question was looked for as it is.")
