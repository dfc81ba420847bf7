"""When many ask at once: nobody waits for the model who needs none, too many are refused, who leaves is dropped.

The embedder is held up where it works, so that what is told here is an order of events and no matter of speed.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
import structlog

from rag.records import Delta, Prompt
from rag.settings import ServerSettings, Settings
from tests.api.live import events, problem, serving
from tests.gate import PATIENCE, Gate, gated


@pytest.fixture
def gate() -> Gate:
    return Gate()


@contextmanager
def held(settings: Settings, gate: Gate, generator: object = None, **server: object) -> Iterator[httpx.Client]:
    """A client of a server in which searches wait at the gate, one of them at it and the others in line."""
    chosen = ServerSettings(search_threads=1, **server)
    settings = settings.model_copy(update={"server": chosen})
    with gated(settings, gate, generator) as opened, serving(opened) as client:
        try:
            yield client
        finally:
            gate.open.set()


def search(client: httpx.Client, query: str, **more: object) -> httpx.Response:
    return client.post("/v1/search", json={"query": query, "collections": ["c"]}, **more)


def ask(client: httpx.Client, question: str, **more: object) -> httpx.Response:
    return client.post("/v1/ask", json={"question": question, "collections": ["c"], **more})


def at_gate(gate: Gate, pool: ThreadPoolExecutor, client: httpx.Client, query: str) -> Future[httpx.Response]:
    """Send a search and return when it is in the model."""
    gate.entered.clear()
    sent = pool.submit(search, client, query)
    assert gate.entered.wait(PATIENCE)
    return sent


def test_nothing_waits_for_the_model(settings, gate):
    """While a question is in the model, health, lists and events of a batch are answered, and then the question is."""
    with held(settings, gate) as client, ThreadPoolExecutor() as pool:
        sent = at_gate(gate, pool, client, "animal1")
        assert client.get("/health/live").json()["status"] == "live"
        assert client.get("/health/ready").json()["status"] == "ready"
        assert [c["name"] for c in client.get("/v1/collections").json()["collections"]] == ["c"]
        batch = client.post("/v1/collections/c/batches").json()["id"]
        with client.stream("GET", f"/v1/batches/{batch}/events") as following:
            lines = following.iter_lines()
            assert next(line for line in lines if line.startswith("event:")) == "event: progress"
        assert not sent.done()
        gate.open.set()
        assert sent.result(PATIENCE).json()["passages"][0]["text"].startswith("animal1 ")


class Paced:
    """A generator that writes one word each time it is let on."""

    name = "paced"
    quotes = False

    def __init__(self) -> None:
        self.words = iter(["Animals ", "live ", "here."])
        self.let = threading.Semaphore(0)

    async def generate(self, _: Prompt) -> AsyncGenerator[Delta, None]:
        for word in self.words:
            await asyncio.to_thread(self.let.acquire, timeout=PATIENCE)
            yield Delta(word)

    async def aclose(self) -> None:
        """Nothing is open."""


def test_events_of_an_answer_go_on_while_the_model_is_held_up(settings, gate):
    """The stream of one answer brings its words while the question of another one is in the model."""
    generator = Paced()
    with held(settings, gate, generator) as client, ThreadPoolExecutor() as pool:
        gate.open.set()
        body = {"question": "animal1", "collections": ["c"], "stream": True}
        with client.stream("POST", "/v1/ask", json=body) as answer:
            told = events(answer.iter_lines())
            assert next(told)[1] == "passages"
            gate.open.clear()
            sent = at_gate(gate, pool, client, "animal2")
            heard = []
            for _ in range(3):
                generator.let.release()
                heard.append(next(told)[2]["text"])
            assert "".join(heard) == "Animals live here."
            assert not sent.done()
            gate.open.set()
            assert [name for _, name, _ in told] == ["citation", "claim", "done"]
        assert sent.result(PATIENCE).status_code == 200


def test_one_search_too_many_is_refused_at_once(settings, gate):
    """429 with Retry-After while the others are in hand; they are answered, and then there is a place again."""
    with held(settings, gate, max_searches=1) as client, ThreadPoolExecutor() as pool:
        first = at_gate(gate, pool, client, "animal1")
        refused = search(client, "animal2")
        assert problem(refused, 429)["code"] == "busy"
        assert int(refused.headers["retry-after"]) == refused.json()["error"]["details"]["retry_after"] >= 1
        answer = ask(client, "animal3")
        assert problem(answer, 429)["code"] == "busy"
        streamed = ask(client, "animal3", stream=True)
        assert problem(streamed, 429)["code"] == "busy"
        assert not first.done()
        gate.open.set()
        assert first.result(PATIENCE).status_code == 200
        assert search(client, "animal4").status_code == 200
    assert {text for call in gate.calls for text in call} == {"animal1", "animal4"}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_one_answer_too_many_is_refused_at_once(settings, gate, stream):
    """Answers have places of their own, held to the last event; searches go on."""
    generator = Paced()
    with held(settings, gate, generator, max_answers=1) as client, ThreadPoolExecutor() as pool:
        gate.open.set()
        first = pool.submit(ask, client, "animal1", stream=stream)
        assert gate.entered.wait(PATIENCE)
        refused = ask(client, "animal2", stream=stream)
        assert problem(refused, 429)["code"] == "busy"
        assert int(refused.headers["retry-after"]) >= 1
        assert search(client, "animal3").status_code == 200
        assert not first.done()
        generator.let.release(3)
        assert "here." in first.result(PATIENCE).text
        generator.words = iter(["Again."])
        generator.let.release()
        assert "Again." in ask(client, "animal4", stream=stream).text


def test_places_are_given_back_by_what_fails(settings, gate):
    """Bad questions and unknown collections, again and again, take no place with them."""
    with held(settings, gate, max_answers=1, max_searches=1) as client:
        gate.open.set()
        for stream in (False, True, False, True):
            assert ask(client, " ", stream=stream).status_code == 400
            body = {"question": "animal1", "collections": ["nope"], "stream": stream}
            assert client.post("/v1/ask", json=body).status_code == 404
            assert client.post("/v1/search", json={"query": " ", "collections": ["c"]}).status_code == 400
        assert ask(client, "animal1").status_code == 200
        assert search(client, "animal1").status_code == 200


@pytest.mark.parametrize("path", ["/v1/search", "/v1/ask", "/v1/ask streamed"])
def test_a_client_that_leaves_is_not_embedded_for(settings, gate, path):
    """It gives up while it waits in line: the log says so, its place is free, and its question is never embedded."""
    address, _, streamed = path.partition(" ")
    body = {"collections": ["c"], "query" if address == "/v1/search" else "question": "animal2"}
    body |= {"stream": True} if streamed else {}
    with (
        structlog.testing.capture_logs() as logged,
        held(settings, gate, max_searches=2) as client,
        ThreadPoolExecutor() as pool,
    ):
        first = at_gate(gate, pool, client, "animal1")
        with pytest.raises(httpx.ReadTimeout):
            client.post(address, json=body, timeout=httpx.Timeout(PATIENCE, read=0.5))
        pause = threading.Event()
        while not any(line["event"] == "client left" for line in logged):
            pause.wait(0.01)
        third = pool.submit(search, client, "animal3")
        gate.open.set()
        assert first.result(PATIENCE).status_code == third.result(PATIENCE).status_code == 200
    assert {text for call in gate.calls for text in call} == {"animal1", "animal3"}
