"""The second hop: by numbers made by hand, and through a search where one passage is found by what another names."""

from __future__ import annotations

import numpy as np
import pytest

from rag.assembly import open_citewell
from rag.hop import GAIN, hopped, names_of
from rag.records import Block, Chunk, Kind, ParsedDocument
from rag.testing import WordEmbedder
from tests.rag.test_retrieval import EMBEDDER


def matches(**rows: list[float]) -> dict[str, np.ndarray]:
    return {key: np.array(row, dtype=np.float32) for key, row in rows.items()}


def names(**rows: str) -> dict[str, frozenset[str]]:
    return {key: frozenset([name]) for key, name in rows.items()}


WEIGHTS = np.array([3, 1], dtype=np.float32)


def test_what_is_named_gains_what_it_adds():
    """b matches the second token by .8 better than a, which is a quarter of the weight: .2 of the score of a."""
    found = hopped(
        {"a": 0.9, "b": 0.3, "c": 0.35}, ["a", "c", "b"], {"a": "Ann was born in Wells.", "c": "Nothing."},
        names(a="Ann Ames", b="Wells", c="Bath Spa"), matches(a=[1, 0], b=[0.5, 0.8], c=[0.1, 0.9]), WEIGHTS,
    )  # fmt: skip
    assert found == pytest.approx({"a": 0.9, "b": 0.3 + GAIN * 0.2 * 0.9, "c": 0.35})


@pytest.mark.parametrize(
    ("text", "gains"),
    [("He left Wells in May.", True), ("Wells", True), ("Wellsby is a hall.", False), ("in wells of old", False)],
)
def test_a_name_is_whole_words_as_they_are_written(text, gains):
    found = hopped(
        {"a": 1.0, "b": 0.1}, ["a", "b"], {"a": text}, names(a="Ann Ames", b="Wells"),
        matches(a=[0, 0], b=[1, 1]), WEIGHTS,
    )  # fmt: skip
    assert (found["b"] > 0.1) == gains


def test_passages_of_one_name_do_not_help_each_other():
    """Two passages of a document that mentions itself."""
    found = hopped(
        {"a": 1.0, "b": 0.1}, ["a", "b"], {"a": "Wells is a city."}, names(a="Wells", b="Wells"),
        matches(a=[0, 0], b=[1, 1]), WEIGHTS,
    )  # fmt: skip
    assert found == {"a": 1.0, "b": 0.1}


def test_a_document_is_called_by_its_title_its_file_or_its_heading():
    assert names_of("2026/travel-policy_v2.pdf", "Travel (draft)", "Hotels > Abroad\nhead") == {
        "Travel", "travel policy v2", "Hotels",
    }  # fmt: skip
    assert names_of("a.md", None, "") == frozenset()


def test_a_search_finds_the_passage_that_the_best_one_names(settings):
    """The passage on the town says little of what is asked, and gains by what the best one says; no other gains."""
    documents = {
        "Ann Ames": "Ann Ames wrote songs and was born in Wells.",
        "Wells": "The river Sheppey flows through it.",
        "Songs": "Songs were sung about the river at night.",
        "River": "A river carries water to the sea.",
        "Town": "The town hall stands by the market.",
    }
    with open_citewell(settings, embedder=WordEmbedder()) as citewell:
        catalog = citewell.store.catalog
        collection = catalog.ensure_collection("c")
        for number, (title, text) in enumerate(documents.items()):
            version, _ = catalog.accept(collection.id, f"{number}.md", f"{number:064d}", 1)
            catalog.claim("t", 60)
            parsed = ParsedDocument.from_blocks([Block(Kind.TEXT, text, None)], "text/plain", title)
            element = parsed.elements[0]
            chunk = Chunk(text, title, element.start, element.end, Kind.TEXT, None, (), 1)
            made = EMBEDDER.encode([chunk.indexed_text], codes=True)
            catalog.commit(version.id, "t", parsed, [chunk], made.vectors, EMBEDDER.fingerprint, codes=made.codes)
        question = "which river flows through the town where Ann Ames was born"
        plain = citewell.search(citewell.plan(question, ["c"], parts={"hop": False}))
        hop = citewell.search(citewell.plan(question, ["c"]))
    assert plain.passages[0].context == "Ann Ames"
    assert {p.context for p in hop.passages[:2]} == {"Ann Ames", "Wells"}
    gained = {p.context: p.score for p in hop.passages}
    before = {p.context: p.score for p in plain.passages}
    assert gained["Wells"] > before["Wells"]
    assert all(gained[name] == before[name] for name in documents if name != "Wells")
