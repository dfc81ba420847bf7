"""The log of answers over REST: explained, listed, rated, removed; conversations and the cache, as clients see them."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from rag.assembly import Citewell, open_citewell
from rag.settings import AnswerSettings
from rag.testing import ScriptedGenerator
from tests.api.live import HOTEL, events, problem, serving

ASK = {"question": HOTEL, "collections": ["demo"]}
PIECES = ("The limit is 145 euros ", "per night. [1]")


@pytest.fixture
def generator() -> ScriptedGenerator:
    return ScriptedGenerator(PIECES)


@pytest.fixture
def model(indexed: Citewell, generator: ScriptedGenerator) -> Iterator[httpx.Client]:
    """A client of a server over the indexed documents whose answers a scripted model writes."""
    settings = indexed.store.settings.model_copy(update={"answers": AnswerSettings()})
    with open_citewell(settings, embedder=indexed.embedder, generator=generator) as opened:
        for headline in opened.store.catalog.list_answers(limit=1000):
            opened.store.catalog.delete_answer(headline.id)
        with serving(opened) as client:
            yield client


def ask(client: httpx.Client, **more: object) -> dict:
    reply = client.post("/v1/ask", json={**ASK, **more})
    assert reply.status_code == 200, reply.text
    return reply.json()


def explained(client: httpx.Client, answer_id: str) -> dict:
    reply = client.get(f"/v1/answers/{answer_id}")
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_an_answer_is_explained_by_its_id(model, generator):
    """Plan, candidates and scores at each stage, prompt, timings, digests, and the answer as it was given."""
    answer = ask(model, top_k=4, filters={"document": {"prefix": "2026/"}}, policy="report")
    found = explained(model, answer["id"])
    assert found["answer"] == answer
    assert (found["state"], found["generator"], found["abstained"], found["cached"]) == (
        "done",
        "scripted",
        False,
        False,
    )
    plan = found["plan"]
    assert (plan["collections"], plan["top_k"], plan["filters"], plan["policy"]) == (
        ["demo"], 4, {"document": {"prefix": "2026/"}}, "report"
    )  # fmt: skip
    assert plan["parts"]["dense"] is True
    assert found["messages"] == [dict(message) for message in generator.prompts[-1].messages]
    best = answer["passages"][0]
    for stage, score in best["scores"].items():
        assert {"chunk_id": best["chunk_id"], "score": score} in found["stages"][stage]
    assert found["stages"]["fused"]
    assert found["timings"] == answer["timings"]
    [index] = found["indexes"]
    assert (index["collection"], index["commits"] > 0, len(index["digest"])) == ("demo", True, 32)
    assert found["settings_digest"]
    assert found["feedback"] == []


def test_a_streamed_answer_is_in_the_log_when_its_last_event_has_come(model):
    with model.stream("POST", "/v1/ask", json={**ASK, "stream": True}) as response:
        done = list(events(response.iter_lines()))[-1][2]
    assert explained(model, done["id"])["answer"] == done


def test_what_is_not_in_the_log_is_not_found(model):
    answer = ask(model, store=False)
    for method, path in (
        ("GET", f"/v1/answers/{answer['id']}"), ("DELETE", "/v1/answers/nothing"), ("GET", "/v1/answers/x/events"),
        ("GET", "/v1/answers?collection=nowhere"),
    ):  # fmt: skip
        problem(model.request(method, path), 404)
    problem(model.post("/v1/answers/nothing/feedback", json={"rating": "up"}), 404)


def test_the_list_is_read_page_by_page(model):
    """Newest first; the next page begins where the last one ended."""
    ids = [ask(model, cache=False)["id"] for _ in range(5)]
    first = model.get("/v1/answers", params={"collection": "demo", "limit": 3}).json()
    second = model.get("/v1/answers", params={"limit": 3, "before": first["next"]}).json()
    assert [found["id"] for found in first["answers"] + second["answers"]] == ids[::-1]
    assert second["next"] is None
    assert first["answers"][0]["question"] == HOTEL
    assert model.get("/v1/answers", params={"collection": "empty"}).json()["answers"] == []
    problem(model.get("/v1/answers", params={"limit": 0}), 422)


def test_an_answer_is_removed(model):
    answer = ask(model)
    assert model.delete(f"/v1/answers/{answer['id']}").status_code == 204
    problem(model.get(f"/v1/answers/{answer['id']}"), 404)
    assert not ask(model)["cached"]


@pytest.mark.parametrize(("rating", "score"), [("up", 1.0), ("down", -1.0), (0.25, 0.25), (-1, -1.0)])
def test_ratings_are_kept_as_figures(model, rating, score):
    answer = ask(model)
    said = model.post(f"/v1/answers/{answer['id']}/feedback", json={"rating": rating, "comment": "So it is."})
    assert said.status_code == 201, said.text
    model.post(f"/v1/answers/{answer['id']}/feedback", json={"rating": "up", "claim": 0})
    found = explained(model, answer["id"])["feedback"]
    assert [(one["rating"], one["comment"], one["claim"]) for one in found] == [
        (score, "So it is.", None),
        (1.0, None, 0),
    ]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422), ({"rating": 2}, 422), ({"rating": "sideways"}, 422), ({"rating": "up", "claim": -1}, 422),
        ({"rating": "up", "claim": 7}, 400), ({"rating": True}, 422), ({"rating": "up", "more": 1}, 422),
    ],
)  # fmt: skip
def test_what_is_no_rating_is_refused(model, body, status):
    problem(model.post(f"/v1/answers/{ask(model)['id']}/feedback", json=body), status)


def test_an_answer_comes_from_the_cache_and_says_so(model, generator):
    """The same question again: the same words under a new id, whole and streamed; not where it is not wanted."""
    first, second = ask(model), ask(model)
    assert (first["cached"], second["cached"], len(generator.prompts)) == (False, True, 1)
    assert {key: first[key] for key in ("text", "claims", "citations", "passages")} == {
        key: second[key] for key in ("text", "claims", "citations", "passages")
    }
    assert first["id"] != second["id"]
    with model.stream("POST", "/v1/ask", json={**ASK, "stream": True}) as response:
        told = list(events(response.iter_lines()))
    assert told[-1][2]["cached"] is True
    assert "".join(data["text"] for _, name, data in told if name == "token") == first["text"]
    assert [data["text"] for _, name, data in told if name == "claim"] == [claim["text"] for claim in first["claims"]]
    assert ask(model, cache=False)["cached"] is False
    assert ask(model, policy="filter")["cached"] is False
    assert explained(model, second["id"])["cached"] is True


class TestConversation:
    """Questions after each other, whose history the server keeps."""

    def test_a_new_one_gets_an_id_and_remembers(self, model):
        first = ask(model, conversation="new")
        assert len(first["conversation"]) == 32
        second = ask(model, question="And abroad?", conversation=first["conversation"])
        assert second["conversation"] == first["conversation"]
        assert any(HOTEL in query["text"] for query in second["queries"])
        history = explained(model, second["id"])["plan"]["history"]
        assert [(turn["role"], turn["content"]) for turn in history] == [("user", HOTEL), ("assistant", first["text"])]

    def test_an_id_of_the_client_begins_one(self, model):
        assert ask(model, conversation="mine")["conversation"] == "mine"
        assert len(explained(model, ask(model, conversation="mine")["id"])["plan"]["history"]) == 2
        assert explained(model, ask(model, conversation="other")["id"])["plan"]["history"] == []

    @pytest.mark.parametrize(
        ("more", "status"),
        [
            pytest.param({"conversation": "c", "history": [{"role": "user", "content": "x"}]}, 400, id="two_histories"),
            pytest.param({"conversation": "c", "store": False}, 400, id="not_stored"),
            pytest.param({"conversation": "a b"}, 422, id="no_id"),
            pytest.param({"resumable": True}, 400, id="resumable_without_stream"),
            pytest.param({"resumable": True, "stream": True, "store": False}, 400, id="resumable_not_stored"),
        ],
    )
    def test_what_does_not_go_together_is_refused(self, model, more, status):
        problem(model.post("/v1/ask", json={**ASK, **more}), status)


def test_a_server_that_keeps_no_texts_says_so(indexed):
    """Ids and figures are there; a conversation, which needs the texts, is refused."""
    settings = indexed.store.settings.model_copy(update={"answers": AnswerSettings(redact="all")})
    with open_citewell(settings, embedder=indexed.embedder) as opened, serving(opened) as client:
        answer = ask(client)
        found = explained(client, answer["id"])
        assert (found["answer"], found["plan"], found["messages"]) == (None, None, [])
        assert found["stages"]["dense"]
        problem(client.post("/v1/ask", json={**ASK, "conversation": "c"}), 400)
        client.post(f"/v1/answers/{answer['id']}/feedback", json={"rating": "up", "comment": "Secret."})
        assert explained(client, answer["id"])["feedback"][0]["comment"] is None
