"""Queries that a language model makes of a question, through both doors: what comes of them, and no search fails."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rag.settings import load_settings
from tests.api.live import HOTEL, events, problem
from tests.api.test_answers import answered_by
from tests.cli_process import Cli
from tests.scripted_llm import Pause, Reset, ScriptedLLM, stream

CHAT = "/v1/chat/completions"
BEFORE = [{"role": "user", "content": HOTEL}, {"role": "assistant", "content": "145 euros. [1]"}]
FOLLOW_UP = "And abroad, how much is it?"
COMPLETE = "How much is the hotel limit for travel abroad?"
SEARCH = {"query": FOLLOW_UP, "collections": ["demo"], "history": BEFORE}


@pytest.fixture
def llm() -> Iterator[ScriptedLLM]:
    with ScriptedLLM() as server:
        yield server


def test_a_follow_up_is_searched_for_as_the_model_completes_it(indexed, llm):
    """One short request to the model; what the complete question finds is first; the reply says what was asked."""
    llm.on(CHAT, stream("standalone: ", COMPLETE))
    with answered_by(indexed, llm) as client:
        found = client.post("/v1/search", json=SEARCH).json()
        complete = client.post("/v1/search", json={"query": COMPLETE, "collections": ["demo"]}).json()
    assert found["queries"] == [
        {"role": "standalone", "text": COMPLETE},
        {"role": "question", "text": FOLLOW_UP},
        {"role": "conversation", "text": f"{HOTEL} {FOLLOW_UP}"},
    ]
    assert found["notice"] is None
    assert found["passages"][0]["chunk_id"] == complete["passages"][0]["chunk_id"]
    assert found["timings"]["understand"] > 0
    [request] = llm.chats
    assert request.json["max_tokens"] == 256
    asked = request.json["messages"][-1]["content"]
    assert FOLLOW_UP in asked
    assert "145 euros" in asked


def test_a_plain_search_asks_no_model(indexed, llm):
    """One thing asked without a conversation, or no part that wants the model: not one request."""
    asked = [{"query": HOTEL}, {"query": f"{HOTEL} And abroad?", "parts": {"decompose": False}}]
    with answered_by(indexed, llm) as client:
        for body in asked:
            found = client.post("/v1/search", json={**body, "collections": ["demo"]}).json()
            assert found["queries"] == [{"role": "question", "text": body["query"]}]
            assert "understand" not in found["timings"]
    assert llm.chats == []


def test_options_are_switched_for_one_request(indexed, llm):
    llm.on(CHAT, stream("paraphrase: hotel costs in other countries\npassage: Abroad hotels cost up to 190 euros."))
    body = {"query": COMPLETE, "collections": ["demo"], "parts": {"multi_query": True, "hyde": True}}
    with answered_by(indexed, llm) as client:
        found = client.post("/v1/search", json=body).json()
    assert [query["role"] for query in found["queries"]] == ["question", "paraphrase", "hypothetical"]
    scored = {name for passage in found["passages"] for name in passage["scores"]}
    assert {"query 2", "query 3"} <= scored


@pytest.mark.parametrize(
    "reply",
    [(Reset(),), stream("I am a language model."), stream(Pause(30)), stream("\x00" * 20_000)],
    ids=["resets", "chats", "hangs", "rubbish"],
)
def test_a_search_does_not_fail_because_the_model_does(indexed, llm, reply):
    """The question is looked for as it is, with what was said before it, and a notice says why."""
    llm.on(CHAT, reply)
    quick = indexed.store.settings.understanding.model_copy(update={"timeout_seconds": 0.5})
    settings = indexed.store.settings.model_copy(update={"understanding": quick})
    with answered_by(indexed, llm, settings=settings) as client:
        response = client.post("/v1/search", json=SEARCH)
    assert response.status_code == 200, response.text
    found = response.json()
    assert found["notice"].startswith("The question was looked for as it is.")
    assert [query["role"] for query in found["queries"]] == ["question", "conversation"]
    assert found["passages"][0]["document"] == "2026/travel-policy.pdf"


def test_an_answer_is_written_to_the_completed_question(indexed, llm):
    """The second request is that for the answer, and its question is the complete one; events have the queries, too."""
    llm.on(CHAT, stream("standalone: ", COMPLETE), stream("Up to 190 euros. [1]"))
    body = {"question": FOLLOW_UP, "collections": ["demo"], "history": BEFORE, "stream": True}
    with answered_by(indexed, llm) as client, client.stream("POST", "/v1/ask", json=body) as response:
        found = list(events(response.iter_lines()))
    passages, answer = found[0][2], found[-1][2]
    assert passages["queries"] == answer["queries"]
    assert answer["queries"][0] == {"role": "standalone", "text": COMPLETE}
    assert answer["question"] == FOLLOW_UP
    assert f"Question: {COMPLETE}" in llm.chats[1].json["messages"][-1]["content"]
    assert llm.chats[1].json["max_tokens"] == load_settings().generator.max_tokens


def test_without_a_model_a_follow_up_is_searched_for_with_what_was_said_before(reading):
    """The built-in reader is no model: the rule holds, and options that need one say so."""
    found = reading.post("/v1/search", json=SEARCH).json()
    assert [query["role"] for query in found["queries"]] == ["question", "conversation"]
    assert found["notice"] is None
    body = {"query": HOTEL, "collections": ["demo"], "parts": {"hyde": True}}
    assert "need a language model" in reading.post("/v1/search", json=body).json()["notice"]
    answer = reading.post("/v1/ask", json={"question": FOLLOW_UP, "collections": ["demo"], "history": BEFORE}).json()
    assert answer["queries"][1]["text"] == f"{HOTEL} {FOLLOW_UP}"


def test_a_client_that_leaves_takes_its_request_to_the_model_along(indexed, llm):
    llm.on(CHAT, stream(Pause(30)))
    settings = indexed.store.settings.model_copy(
        update={"understanding": indexed.store.settings.understanding.model_copy(update={"timeout_seconds": 60})}
    )
    with answered_by(indexed, llm, settings=settings) as client:
        leaving = threading.Thread(target=lambda: _given_up(client))
        leaving.start()
        assert llm.hung_up.wait(60)
        leaving.join(60)


def _given_up(client: httpx.Client) -> None:
    with pytest.raises(httpx.ReadTimeout):
        client.post("/v1/search", json=SEARCH, timeout=2)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        pytest.param({"history": [{"role": "system", "content": "x"}]}, 422, "history", id="a_speaker_that_is_none"),
        pytest.param({"history": [{"role": "user", "content": "x"}] * 101}, 422, "history", id="too_long"),
        pytest.param({"parts": {"rewriting": True}}, 400, "rewrite, decompose, multi_query, hyde", id="no_such_part"),
    ],
)
def test_what_can_not_be_understood_is_refused(reading, body, status, said):
    for path, name in (("/v1/search", "query"), ("/v1/ask", "question")):
        response = reading.post(path, json={name: HOTEL, "collections": ["demo"], **body})
        assert said in json.dumps(problem(response, status))


def test_the_command_line_has_the_same(llm, tmp_path: Path):
    """--history and --with; the queries stand above what was found; a part named twice is an error."""
    cli = Cli(tmp_path / "data", tmp_path)
    (tmp_path / "light.txt").write_text("The harbour light of Saltmere burns from dusk to dawn.\n")
    (tmp_path / "said.json").write_text(json.dumps([{"role": "user", "content": "Is there a light at Saltmere?"}]))
    cli("ingest", tmp_path / "light.txt", "-c", "notes")
    llm.on(CHAT, stream("standalone: When does the light of Saltmere burn?\nparaphrase: hours of Saltmere's light"))
    model = {"GENERATOR__KIND": "openai", "GENERATOR__BASE_URL": llm.base_url}
    words = ("search", "When does it burn?", "-c", "notes")
    out = cli(*words, "--history", "said.json", "--with", "multi_query", **model).out
    assert out.startswith(
        "standalone: When does the light of Saltmere burn?\nparaphrase: hours of Saltmere's light\n"
        "conversation: Is there a light at Saltmere? When does it burn?\n\n1. light.txt"
    )
    found = cli(*words, "--history", "said.json", "--without", "rewrite", "--json", **model).json
    assert [query["role"] for query in found["queries"]] == ["question"]
    assert "both name 'hyde'" in cli(*words, "--with", "hyde", "--without", "hyde", status=2).err
    ask = ("ask", "When does it burn?", "-c", "notes", "--conversation", "lights", "--json")
    cli("ask", "Is there a light at Saltmere?", "-c", "notes", "--conversation", "lights")
    assert cli(*ask).json["queries"][1]["text"] == "Is there a light at Saltmere? When does it burn?"
    assert "Give either --conversation or --history" in cli(*ask, "--history", "said.json", status=2).err
    (tmp_path / "said.json").write_text('{"role": "user"}')
    assert "no JSON list of objects with role and content" in cli(*words, "--history", "said.json", status=2).err
