"""Nobody learns of a collection that a key does not see: what is foreign is answered as what never was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag.access import Role
from rag.settings import load_settings
from tests.api.served import until
from tests.api.two_houses import QUESTION, House, Village, counted, village

#: Headers that differ between any two replies.
OWN = {"date", "x-request-id", "content-length"}
#: Of a body whose `{collection}` or other id is put in: what a route takes.
BODIES: dict[str, list[dict[str, Any]]] = {
    "search": [
        {"query": QUESTION, "collections": ["{collection}"]},
        {"query": QUESTION, "collections": ["ours", "{collection}"]},
    ],
    "ask": [
        {"question": QUESTION, "collections": ["{collection}"]},
        {"question": QUESTION, "collections": ["{collection}"], "stream": True},
    ],
    "complete": [{"model": "citewell/{collection}", "messages": [{"role": "user", "content": QUESTION}]}],
    "search_vector_store": [{"query": QUESTION}],
    "create_collection": [{"name": "{collection}"}],
    "add_golden": [
        {"collection": "{collection}", "questions": [{"question": QUESTION}]},
        {"collection": "ours", "answers": ["{answer_id}"]},
    ],
    "ask_for_report": [{"collections": ["{collection}"]}, {"collections": ["ours", "{collection}"]}],
    "purge_documents": [{}, {"documents": ["{document_id}"]}],
    "rate_answer": [{"score": 1}],
    "create_key": [{"name": "mine", "role": "reader", "collections": ["{collection}"]}],
    "rotate_key": [{}],
    "embed": [{"model": "citewell/{collection}", "input": "a"}],
    "rank": [{"model": "citewell/{collection}", "query": {"text": "a"}, "passages": [{"text": "b"}]}],
}
#: What query parameters may name.
QUERIES = {"collection": "{collection}", "batch": "{batch_id}"}
PATHS = {"key_id": "0123456789ab", "page": "1", "model": "citewell/{collection}", "name": "{collection}.txt"}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def houses(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Village]:
    """Two collections, over SQLite and over PostgreSQL."""
    folder = tmp_path_factory.mktemp("village")
    if request.param == "sqlite":
        chosen = load_settings(data=folder)
    else:
        server = request.getfixturevalue("postgresql")
        from tests.postgres import _fresh

        urls = _fresh(server, "template1")
        chosen = load_settings(data=folder, database=next(urls))
    with village(chosen) as made:
        yield made


def calls(description: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield every way in which a collection, or something in it, can be named to any route: with `{...}` for names."""
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            names = [p for p in operation.get("parameters", []) if p["in"] == "query" and p["name"] in QUERIES]
            asked = [{}, *({p["name"]: QUERIES[p["name"]]} for p in names)]
            address = path
            for parameter, value in PATHS.items():
                address = address.replace(f"{{{parameter}}}", value)
            for body in BODIES.get(operation["operationId"], [None]):
                for params in asked:
                    yield method.upper(), address, {"json": body, "params": params}
                    if params and "{collection}" in address:
                        yield method.upper(), address.replace("{collection}", "ours"), {"json": body, "params": params}


def filled(value: Any, house: dict[str, str]) -> Any:
    text = json.dumps(value)
    for name, own in house.items():
        text = text.replace(f"{{{name}}}", own)
    return json.loads(text)


def told(client: httpx.Client, call: tuple[str, str, dict[str, Any]], house: dict[str, str]) -> tuple[Any, ...]:
    """Return a reply with placeholders for the names that were put in."""
    method, path, sent = filled(list(call), house)
    content = b"The cat is grey." if method == "PUT" else None
    response = client.request(
        method, path, content=content, **({} if content else {"json": sent["json"]}), params=sent["params"]
    )
    text = response.text
    for name, own in house.items():
        text = text.replace(own, f"{{{name}}}")
    headers = {name: value for name, value in response.headers.items() if name not in OWN}
    return response.status_code, headers, text


def never(theirs: House, seed: int) -> dict[str, str]:
    """Return names of the same shape as those of a collection, of something that never was."""
    ids = ("document_id", "batch_id", "answer_id", "question_id", "report_id")
    there = {name: f"{seed + place:032x}" for place, name in enumerate(ids)}
    return asdict(theirs) | there | {"collection": f"t{seed}"}


def test_what_is_foreign_is_answered_as_what_never_was(houses: Village) -> None:
    """Over all routes of the description, all ways to name something, readers and writers: byte for byte the same."""
    description = houses.clients[Role.ADMIN].get("/openapi.json").json()
    every = [call for call in calls(description) if "{" in json.dumps(call[:2]) or "{" in json.dumps(call[2])]
    assert len({call[1] for call in every}) > 30
    before = counted(houses)

    @settings(max_examples=400, suppress_health_check=list(HealthCheck), deadline=None, database=None)
    @given(
        call=st.sampled_from(every),
        role=st.sampled_from([Role.READER, Role.WRITER]),
        seed=st.integers(2**100, 2**127),
    )
    def same(call: tuple[str, str, dict[str, Any]], role: Role, seed: int) -> None:
        client = houses.clients[role]
        assert told(client, call, asdict(houses.theirs)) == told(client, call, never(houses.theirs, seed)), call

    same()
    assert counted(houses) == before


@pytest.mark.parametrize("role", [Role.READER, Role.WRITER])
def test_no_list_names_what_is_foreign(houses: Village, role: Role) -> None:
    """Every route without a name in its address, and every one about our own collection, is silent about the other."""
    client, theirs = houses.clients[role], asdict(houses.theirs)
    description = client.get("/openapi.json").json()
    ours = asdict(houses.ours) | {"key_id": "0123456789ab", "page": "1", "model": "citewell/ours", "name": "x.txt"}
    for path, methods in description["paths"].items():
        if "get" not in methods or path.endswith("/events"):
            continue
        for name, own in ours.items():
            path = path.replace(f"{{{name}}}", own)  # noqa: PLW2901
        reply = client.get(path)
        assert reply.status_code < 500
        assert not [name for name, own in theirs.items() if own in reply.text], path


def test_a_question_finds_nothing_foreign(houses: Village) -> None:
    """Search, ask and vector stores give what is in our collection; a foreign conversation is an empty one."""
    client = houses.clients[Role.READER]
    found = client.post("/v1/search", json={"query": QUESTION, "collections": ["ours"]}).json()
    assert {passage["document"] for passage in found["passages"]} == {"ours.txt"}
    answer = client.post(
        "/v1/ask", json={"question": QUESTION, "collections": ["ours"], "conversation": houses.theirs.conversation}
    )
    assert "theirs" not in answer.json()["text"]
    listed = houses.citewell.store.catalog.list_answers
    until(lambda: answer.json()["id"] in {line.id for line in listed()})  # no answer waits for a slow disk
    logged = houses.citewell.store.catalog.answer(answer.json()["id"])
    assert logged.texts is not None
    assert logged.texts.plan is not None
    assert logged.texts.plan.history == ()


def test_an_admin_sees_both(houses: Village) -> None:
    """What is hidden from others is there."""
    client = houses.clients[Role.ADMIN]
    assert [c["name"] for c in client.get("/v1/collections").json()["collections"]] == ["ours", "theirs"]
    assert client.get(f"/v1/answers/{houses.theirs.answer_id}").status_code == 200
    assert client.get(f"/v1/reports/{houses.theirs.report_id}").status_code == 200
