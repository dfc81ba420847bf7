"""What stands around passages, through REST and with real documents: shown, read, cited, held against the source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from rag.assembly import Citewell, open_citewell
from rag.protocols import Generator
from rag.testing import ScriptedGenerator
from tests.api.live import HOTEL, problem, serving

ASK = {"question": HOTEL, "collections": ["demo"], "filters": {"document": "2026/travel-policy.pdf"}, "top_k": 1}
#: Which sentence of the travel policy a model may rest on, and where it stands: section, and page.
SENTENCES = [
    pytest.param("The hotel limit for travel abroad is 190 euros per night", "3. Accommodation", 2, id="the passage"),
    pytest.param("Head of Field Operations, whatever the cost", "2. Approval before booking", 1, id="before"),
    pytest.param("Domestic, the capital | 175 euros | Pai", "3. Accommodation", 2, id="after"),
]  # fmt: skip


@contextmanager
def answering(indexed: Citewell, generator: Generator | None = None, **usual: object) -> Iterator[httpx.Client]:
    """A client of a server over the indexed documents with a generator and settings of retrieval of its own."""
    settings = indexed.store.settings
    settings = settings.model_copy(update={"retrieval": settings.retrieval.model_copy(update=usual)})
    with (
        open_citewell(settings, embedder=indexed.embedder, generator=generator) as opened,
        serving(opened) as client,
    ):
        yield client


def check_citations(answer: dict, indexed: Citewell) -> None:
    """Each quote stands at its offsets, in the chunk that is named, which is the numbered passage or one around it."""
    assert answer["citations"]
    for citation in answer["citations"]:
        source = indexed.store.catalog.source_text(citation["version_id"])
        assert source[citation["source_start"] : citation["source_end"]] == citation["quote"]
        passage = answer["passages"][citation["number"] - 1]
        [chunk] = [c for c in [passage, *passage["around"]] if c["chunk_id"] == citation["chunk_id"]]
        assert chunk["start"] <= citation["source_start"] < citation["source_end"] <= chunk["end"]
        assert (chunk["page"], chunk["section"]) == (citation["page"], citation["section"])
        assert (passage["document"], passage["version_id"]) == (citation["document"], citation["version_id"])


@pytest.mark.parametrize(("words", "section", "page"), SENTENCES)
def test_a_citation_names_the_chunk_where_its_quote_really_stands(indexed, words, section, page):
    """A model reads the window under one number, and each of its chunks is cited by its own page, section and id."""
    with answering(indexed, ScriptedGenerator([f"It says: {words}. [1]"])) as client:
        answer = client.post("/v1/ask", json={**ASK, "around": 1}).json()
    check_citations(answer, indexed)
    [citation] = answer["citations"]
    assert words in citation["quote"]
    assert (citation["section"][-1], citation["page"], citation["number"]) == (section, page, 1)


def test_each_chunk_of_a_section_can_be_cited(indexed):
    with answering(indexed) as client:
        [passage] = client.post("/v1/search", json={"query": HOTEL, **_place(ASK), "section": True}).json()["passages"]
    assert [chunk["section"] for chunk in passage["around"]] == [passage["section"]] * 2
    for chunk in passage["around"]:
        line = chunk["text"].splitlines()[-1]
        with answering(indexed, ScriptedGenerator([f"{line} [1]"])) as client:
            answer = client.post("/v1/ask", json={**ASK, "section": True}).json()
        check_citations(answer, indexed)
        assert {c["chunk_id"] for c in answer["citations"]} == {chunk["chunk_id"]}


def test_the_model_is_shown_the_window_once_and_in_order(indexed):
    """Windows of all passages overlap; no chunk is in the prompt twice, and each block is in the document's order."""
    generator = ScriptedGenerator(["Yes. [1]"])
    with answering(indexed, generator) as client:
        answer = client.post("/v1/ask", json={**ASK, "top_k": 6, "around": 3}).json()
    message = generator.prompts[0].messages[1]["content"]
    windows = [sorted([p, *p["around"]], key=lambda chunk: chunk["start"]) for p in answer["passages"]]
    shown = [chunk for window in windows for chunk in window]
    assert len({chunk["chunk_id"] for chunk in shown}) == len(shown) > 6
    assert {message.count(chunk["text"]) for chunk in shown if "\n" in chunk["text"]} == {1}  # the others are headings
    cursor = 0
    for chunk in shown:
        cursor = message.index(chunk["text"], cursor) + len(chunk["text"])


def test_the_reader_reads_what_stands_around(indexed):
    """Found is a heading alone; what answers stands under it, and is cited from there."""
    asked = {
        **ASK,
        "question": "When may employees book first class rail travel?",
        "filters": {**ASK["filters"], "kind": "title"},
    }
    with answering(indexed) as client:
        assert client.post("/v1/ask", json=asked).json()["abstained"]
        answer = client.post("/v1/ask", json={**asked, "around": 1}).json()
    assert "longer than three hours. [1]" in answer["text"]
    assert answer["passages"][0]["text"] == "4. Transport"
    assert {c["section"][-1] for c in answer["citations"]} == {"4.1 Rail"}
    check_citations(answer, indexed)


def test_the_settings_choose_for_all_and_a_request_for_itself(indexed):
    query = {"query": HOTEL, **_place(ASK)}
    with answering(indexed, around=1) as client:
        usual = client.post("/v1/search", json=query).json()["passages"][0]
        none = client.post("/v1/search", json={**query, "around": 0}).json()["passages"][0]
        two = client.post("/v1/search", json={**query, "around": 2}).json()["passages"][0]
        same = client.post("/v1/search", json={**query, "around": None, "section": None}).json()["passages"][0]
        answer = client.post("/v1/ask", json=ASK).json()["passages"][0]
    assert [len(found["around"]) for found in (usual, none, two, same, answer)] == [2, 0, 4, 2, 2]


@pytest.mark.parametrize("wrong", [{"around": 11}, {"around": -1}, {"diversity": 1.01}, {"section": "yes"}])
def test_what_is_out_of_bounds_is_refused(reading, wrong):
    problem(reading.post("/v1/ask", json={**ASK, **wrong}), 422)


def _place(asked: dict) -> dict:
    return {name: value for name, value in asked.items() if name != "question"}
