from __future__ import annotations

import pytest

from ingest.worker import Worker
from rag.assembly import open_citewell
from rag.settings import GeneratorSettings
from tests.api.live import problem, serving, upload
from tests.scripted_llm import CHAT, MODEL, ScriptedLLM, json_reply


def test_live_and_ready_with_the_built_in_reader(client, demo):
    """Both are 200; ready says what answers and how long the queue is."""
    assert client.get("/health/live").json() == {"status": "live"}
    upload(client, demo, ("a.txt", b"x"), ("b.txt", b"y"))
    assert client.get("/health/ready").json() == {
        "status": "ready", "catalog": "ok", "generator": "reader", "notice": None, "load": None, "queue": 2
    }  # fmt: skip


@pytest.mark.parametrize("fall_back", [True, False])
@pytest.mark.parametrize("trouble", ["down", "starting", None])
def test_ready_knows_how_the_generator_does(settings, embedder, trouble, fall_back):
    """Degraded is in the body while the reader stands in; 503 only when nothing can answer."""
    with ScriptedLLM() as llm:
        llm.on("/health", json_reply({"down": 500, "starting": 503, None: 200}[trouble], {}))
        generator = GeneratorSettings(kind="openai", base_url=llm.base_url, fall_back=fall_back)
        chosen = settings.model_copy(update={"generator": generator})
        with open_citewell(chosen, embedder=embedder) as citewell, serving(citewell) as client:
            reply = client.get("/health/ready")
    if trouble is None:
        assert (reply.status_code, reply.json()["status"]) == (200, "ready")
        assert reply.json()["generator"] == f"openai:{MODEL}"
        assert reply.json()["load"] == {
            "in_flight": 0, "most": 16, "waiting": 0, "breaker": "closed", "failures": 0
        }  # fmt: skip
    elif fall_back:
        body = reply.json()
        assert (reply.status_code, body["status"], body["generator"]) == (200, "degraded", "reader")
        assert body["notice"].endswith(".")
    else:
        assert problem(reply, 503)["message"].endswith(".")


def test_a_model_that_is_left_alone_is_seen(settings, embedder):
    """After as many failures as the settings say the service is degraded, and says for how long."""
    with ScriptedLLM() as llm:
        llm.on(CHAT, json_reply(500, {"error": "engine died"}))
        generator = GeneratorSettings(kind="openai", base_url=llm.base_url, breaker_failures=2, breaker_seconds=600)
        chosen = settings.model_copy(update={"generator": generator})
        with open_citewell(chosen, embedder=embedder) as citewell, serving(citewell) as client:
            client.post("/v1/collections", json={"name": "c"})
            upload(client, "c", ("a.txt", b"The hotel limit is 145 euros per night."))
            Worker(citewell).drain()
            for _ in range(3):
                answer = client.post("/v1/ask", json={"question": "What is the hotel limit?", "collections": ["c"]})
                assert answer.json()["generator"].startswith("reader")
            reply = client.get("/health/ready").json()
    assert len(llm.chats) == 2, "the third question did not ask it"
    assert (reply["status"], reply["load"]["breaker"], reply["load"]["failures"]) == ("degraded", "open", 2)
    assert "failed 2 times in a row and is not asked for another" in reply["notice"]


def test_not_ready_when_the_catalog_is_gone(client, citewell):
    """503 with a sentence, while the process is still live."""
    citewell.store.catalog.close()  # connections that are open would go on from what they have read
    for file in citewell.store.settings.data.glob("catalog.sqlite3*"):
        file.write_bytes(b"not a database" * 1000)
    assert "catalog" in problem(client.get("/health/ready"), 503)["message"]
    assert client.get("/health/live").status_code == 200
