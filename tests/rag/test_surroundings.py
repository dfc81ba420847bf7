"""What is added to a ranking: chunks around a passage, a whole section, and passages that do not repeat each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.assembly import open_citewell
from rag.errors import BadInput
from rag.plan import make_plan
from rag.records import Block, Chunk, Kind, ParsedDocument
from rag.surroundings import diversified
from rag.testing import WordEmbedder

EMBEDDER = WordEmbedder()
SECTIONS = ["Tides"] * 3 + ["Storms"] * 4 + ["Tides"]
TEXTS = [
    "the moon pulls", "neap tide", "spring tide", "a storm warning", "storm surge height", "wind and rain",
    "after the storm", "the moon again",
]  # fmt: skip


@pytest.fixture
def words(settings):
    """One document of eight chunks in three runs of sections, and another document before and after it."""
    with open_citewell(settings, embedder=EMBEDDER) as opened:
        catalog = opened.store.catalog
        collection = catalog.ensure_collection("sea")
        for number, (texts, sections) in enumerate([(["first"], [""]), (TEXTS, SECTIONS), (["last"], ["Tides"])]):
            version, _ = catalog.accept(collection.id, f"{number}.txt", f"{number:064d}", 1)
            catalog.claim("t", 60)
            blocks = [Block(Kind.TEXT, text, 1, (name,)) for text, name in zip(texts, sections, strict=True)]
            parsed = ParsedDocument.from_blocks(blocks, "text/plain")
            chunks = [Chunk(e.text, "", e.start, e.end, e.kind, e.page, e.section, 1) for e in parsed.elements]
            made = EMBEDDER.encode(texts, codes=True)
            catalog.commit(version.id, "t", parsed, chunks, made.vectors, EMBEDDER.fingerprint, codes=made.codes)
        yield opened


def around(opened, question, **options):
    (best, *_) = opened.search(opened.plan(question, ["sea"], **options)).passages
    return best.text, [chunk.text for chunk in best.around]


def test_neighbours_come_in_order_and_end_with_the_document(words):
    assert around(words, "storm surge height", around=1) == ("storm surge height", ["a storm warning", "wind and rain"])
    assert around(words, "moon pulls", around=2) == ("the moon pulls", ["neap tide", "spring tide"])
    assert around(words, "storm surge height") == ("storm surge height", [])


def test_a_section_is_what_can_be_reached_without_leaving_it(words):
    assert around(words, "storm surge height", section=True)[1] == [TEXTS[3], TEXTS[5], TEXTS[6]]
    assert around(words, "neap", section=True)[1] == [TEXTS[0], TEXTS[2]]
    assert around(words, "moon again", section=True)[1] == []


def test_every_neighbour_stands_at_its_place(words):
    (best, *_) = words.search(words.plan("storm surge height", ["sea"], around=3)).passages
    source = words.store.catalog.source_text(best.version_id)
    assert [source[chunk.start : chunk.end] for chunk in best.around] == [chunk.text for chunk in best.around]


def worth(row: int, chosen: list[int], relevance: list[float], vectors: np.ndarray, diversity: float) -> float:
    """What the formula says of a row after others were chosen."""
    nearest = max((float(vectors[row] @ vectors[other]) for other in chosen), default=0.0)
    return (1 - diversity) * relevance[row] - diversity * nearest


@given(st.lists(st.floats(0, 1, width=16), max_size=7), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(0, 8))
def test_each_choice_is_the_best_of_its_moment(relevance, diversity, most):
    rows = np.random.default_rng(len(relevance)).integers(-2, 3, size=(len(relevance), 4)).astype(np.float32) / 4
    chosen = diversified(relevance, rows, diversity, most)
    assert len(set(chosen)) == len(chosen) == min(most, len(relevance))
    for step, row in enumerate(chosen):
        before = chosen[:step]
        others = [other for other in range(len(relevance)) if other not in before]
        best = max(worth(other, before, relevance, rows, diversity) for other in others)
        assert worth(row, before, relevance, rows, diversity) == pytest.approx(best, abs=1e-5)


def test_a_list_that_repeats_itself_is_opened_up(words):
    """Without diversity the storms fill the list; with much of it something else gets in."""
    plain = [p.text for p in words.search(words.plan("storm", ["sea"], top_k=3)).passages]
    mixed = [p.text for p in words.search(words.plan("storm", ["sea"], top_k=3, diversity=0.9)).passages]
    assert all("storm" in text for text in plain)
    assert plain[0] == mixed[0]
    assert any("storm" not in text for text in mixed)


@pytest.mark.parametrize(
    ("usual", "asked", "found"),
    [
        pytest.param({}, {}, (0, False, 0.0), id="nothing is added unless somebody asks"),
        pytest.param({"around": 2, "diversity": 0.3}, {}, (2, False, 0.3), id="the operator asks for all"),
        pytest.param({"around": 2, "diversity": 0.3}, {"around": 0, "diversity": 0.0}, (0, False, 0.0), id="not here"),
        pytest.param({"section": True}, {}, (0, True, 0.0), id="sections for all"),
        pytest.param({"section": True}, {"section": False}, (0, False, 0.0), id="no section here"),
        pytest.param({"section": True}, {"around": 1}, (1, False, 0.0), id="neighbours in the place of a section"),
        pytest.param({"around": 2}, {"section": True}, (2, True, 0.0), id="a section in the place of neighbours"),
    ],
)
def test_a_request_overrides_the_settings(words, usual, asked, found):
    settings = words.store.settings
    chosen = settings.model_copy(update={"retrieval": settings.retrieval.model_copy(update=usual)})
    plan = make_plan("storm", [words.store.catalog.collection("sea")], chosen, **asked)
    assert (plan.around, plan.section, plan.diversity) == found


@pytest.mark.parametrize("options", [{"diversity": 1.5}, {"around": 11}, {"parts": {"dense": False, "lexical": False}}])
def test_what_makes_no_sense_is_refused(words, options):
    with pytest.raises(BadInput):
        words.plan("storm", ["sea"], **options)
