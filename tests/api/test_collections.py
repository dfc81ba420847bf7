from __future__ import annotations

import pytest

from rag.catalog import Accepted
from tests.api.live import problem, read_all, upload


def test_a_collection_lives_from_creation_to_deletion(client):
    """POST creates, GET shows, DELETE removes, and nothing is found afterwards."""
    created = client.post("/v1/collections", json={"name": "handbook"})
    assert created.status_code == 201
    assert created.json()["name"] == "handbook"
    shown = client.get("/v1/collections/handbook").json()
    assert (shown["id"], shown["documents"], shown["passages"]) == (created.json()["id"], 0, 0)
    assert client.get("/v1/collections").json() == {"collections": [shown]}
    assert client.delete("/v1/collections/handbook").status_code == 204
    assert client.get("/v1/collections").json() == {"collections": []}
    problem(client.get("/v1/collections/handbook"), 404)
    problem(client.delete("/v1/collections/handbook"), 404)


def test_a_name_is_taken_once(client, demo):
    """A second collection of the same name is a conflict, and the first is untouched."""
    assert problem(client.post("/v1/collections", json={"name": demo}), 409)["code"] == "conflict"
    assert len(client.get("/v1/collections").json()["collections"]) == 1


@pytest.mark.parametrize("name", ["", " ", "-x", "a/b", "a b", "x" * 101, "é", "a\nb"])
def test_a_bad_name_is_refused_with_the_rule(client, name):
    """The sentence says what a name may hold."""
    assert "letters, digits" in problem(client.post("/v1/collections", json={"name": name}), 400)["message"]


def test_a_deleted_collection_takes_its_documents_along(client, citewell, demo, travel_policy):
    """Documents, originals and search are gone; a new collection of that name begins empty."""
    document = upload(client, demo, ("p.pdf", travel_policy)).json()["documents"][0]
    read_all(citewell)
    assert client.get(f"/v1/collections/{demo}").json()["documents"] == 1
    assert client.delete(f"/v1/collections/{demo}").status_code == 204
    problem(client.get(f"/v1/documents/{document['id']}"), 404)
    problem(client.get(f"/v1/documents/{document['id']}/content"), 404)
    problem(client.post("/v1/search", json={"query": "hotel", "collections": [demo]}), 404)
    client.post("/v1/collections", json={"name": demo})
    assert client.post("/v1/search", json={"query": "hotel", "collections": [demo]}).json()["passages"] == []
    again = upload(client, demo, ("p.pdf", travel_policy)).json()["documents"][0]
    assert again["outcome"] == Accepted.ADDED
