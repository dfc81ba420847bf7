"""Rails at every door: what they refuse reaches no client, and each dialect says so in its own words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest
from structlog.testing import capture_logs

from rag.assembly import Citewell, open_citewell
from rag.protocols import Verdict
from tests.api.live import HOTEL, events, problem, serving
from tests.rag.test_refusals import ScriptedRails, failing, let_by, refused

ASK = {"question": HOTEL, "collections": ["demo"]}
CHAT = {"model": "citewell/demo", "messages": [{"role": "user", "content": HOTEL}]}
SAID = "145 euros"


@contextmanager
def railed(indexed: Citewell, **sides: Callable[[str], Verdict]) -> Iterator[httpx.Client]:
    """A client of a server over the indexed documents, whose questions and answers pass these rails."""
    rails = ScriptedRails(**sides)
    with (
        open_citewell(indexed.store.settings, embedder=indexed.embedder, rails=rails) as opened,
        serving(opened) as client,
    ):
        yield client


def chunks_of(response: httpx.Response) -> list[dict]:
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


@pytest.mark.parametrize(
    ("sides", "what"),
    [({"of_question": refused}, "question"), ({"of_answer": refused}, "answer")],
    ids=["question", "answer"],
)
def test_a_refusal_is_an_answer_that_says_who_refused(indexed, sides, what):
    """With status 200, whole and streamed; the log of answers and the line of the log name the rail too."""
    with railed(indexed, **sides) as client, capture_logs() as lines:
        whole = client.post("/v1/ask", json=ASK).json()
        with client.stream("POST", "/v1/ask", json={**ASK, "stream": True}) as response:
            streamed = list(events(response.iter_lines()))
        logged = client.get(f"/v1/answers/{whole['id']}").json()
    expected = ("Not here.", True, "no hotels", f"The {what} was refused by the rail 'no hotels'.", [], [])
    for answer in (whole, streamed[-1][2]):
        names = ("text", "abstained", "refused_by", "notice", "claims", "citations")
        assert tuple(answer[name] for name in names) == expected
    told = [(name, data) for _, name, data in streamed]
    assert [name for name, _ in told] == ["passages", "token", "done"]
    assert SAID not in json.dumps([data for name, data in told if name != "passages"][:1])
    assert logged["answer"]["refused_by"] == "no hotels"
    assert [line["refused_by"] for line in lines if line["event"] == "answered"] == ["no hotels"] * 2


@pytest.mark.parametrize("side", ["of_question", "of_answer"])
def test_openai_s_clients_see_a_content_filter(indexed, side):
    """The one that OpenAI's own API names as the reason of an end; the words of the rail are the content."""
    with railed(indexed, **{side: refused}) as client:
        whole = client.post("/v1/chat/completions", json=CHAT).json()
        streamed = chunks_of(client.post("/v1/chat/completions", json={**CHAT, "stream": True}))
    [choice] = whole["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Not here.", "content_filter")
    assert choice["message"]["annotations"] == []
    assert (whole["citewell"]["refused_by"], whole["citewell"]["abstained"]) == ("no hotels", True)
    deltas = [chunk["choices"][0] for chunk in streamed]
    assert "".join(choice["delta"].get("content", "") for choice in deltas) == "Not here."
    assert deltas[-1]["finish_reason"] == "content_filter"
    assert streamed[-1]["citewell"]["refused_by"] == "no hotels"


def test_a_failing_rail_is_an_error_and_lets_nothing_out(indexed):
    """503 where nothing has gone out; the last event of a stream that has begun, before any word of the answer."""
    with railed(indexed, of_question=failing) as client:
        error = problem(client.post("/v1/ask", json=ASK), 503)
        assert (error["code"], "their model is away" in error["message"]) == ("guardrails_failed", True)
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 503
    with railed(indexed, of_answer=failing) as client:
        assert problem(client.post("/v1/ask", json=ASK), 503)["code"] == "guardrails_failed"
        with client.stream("POST", "/v1/ask", json={**ASK, "stream": True}) as response:
            streamed = [(name, data) for _, name, data in events(response.iter_lines())]
        chunks = chunks_of(client.post("/v1/chat/completions", json={**CHAT, "stream": True}))
    assert [name for name, _ in streamed] == ["passages", "error"]
    assert streamed[1][1]["error"]["code"] == "guardrails_failed"
    assert chunks[-1]["error"]["code"] == "guardrails_failed"
    assert SAID not in json.dumps(chunks)


def test_searches_pass_no_rails(indexed):
    with railed(indexed, of_question=refused, of_answer=let_by) as client:
        found = client.post("/v1/search", json={"query": HOTEL, "collections": ["demo"]})
    assert found.json()["passages"]
