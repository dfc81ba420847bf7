from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.document_text import MOST_CHARS
from tests.api.live import HOTEL, problem, upload


@pytest.fixture(scope="module")
def document(indexed):
    """A document's id and its whole parsed text."""
    collection = indexed.store.catalog.collection("demo")
    found = indexed.store.catalog.find_document(collection.id, "2026/travel-policy.pdf")
    return found.id, indexed.store.catalog.source_text(found.live_version_id)


@pytest.fixture(scope="module")
def part(reading, document):
    return lambda start, length: reading.get(
        f"/v1/documents/{document[0]}/text", params={"start": start, "length": length}
    )


@given(data=st.data())
def test_any_part_is_a_slice_of_the_text(data, document, part):
    """Wherever it begins and however long it is, with where it ends and how long the whole is."""
    text = document[1]
    start = data.draw(st.integers(0, len(text) - 1))
    length = data.draw(st.integers(1, MOST_CHARS))
    reply = part(start, length).json()
    assert reply["text"] == text[start : start + length]
    assert (reply["start"], reply["end"]) == (start, start + len(reply["text"]))
    assert reply["length"] == len(text)


def test_a_citation_is_found_at_its_place(reading):
    """Document id and offsets of a citation lead to its quote, under its name, version and collection."""
    answer = reading.post("/v1/ask", json={"question": HOTEL, "collections": ["demo"]}).json()
    [citation] = answer["citations"]
    place = {"start": citation["source_start"], "length": citation["source_end"] - citation["source_start"]}
    reply = reading.get(f"/v1/documents/{citation['document_id']}/text", params=place).json()
    assert reply["text"] == citation["quote"]
    assert reply["collection"] == "demo"
    for field in ("document", "document_id", "version", "version_id"):
        assert reply[field] == citation[field]


def test_what_is_not_there_is_refused(reading, document, part, client, demo):
    """Behind the end, too much at once, no such document, and one that nobody has read yet."""
    behind = problem(part(len(document[1]), 1), 400)
    assert (
        behind["message"]
        == f"start is {len(document[1])}; the text has {len(document[1]):,} characters, counted from 0."
    )
    problem(part(0, MOST_CHARS + 1), 422)
    problem(part(-1, 1), 422)
    assert problem(reading.get("/v1/documents/none/text"), 404)["code"] == "not_found"
    [waiting] = upload(client, demo, ("note.txt", b"The cat is grey.")).json()["documents"]
    told = problem(client.get(f"/v1/documents/{waiting['id']}/text"), 404)
    assert told["message"] == "Nothing of the document 'note.txt' is searched; look at its state."
