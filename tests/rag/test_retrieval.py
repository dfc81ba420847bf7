"""Retrieval: fusion by numbers, the trace that explains it, filters, several collections, other embedders."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.assembly import Citewell, open_citewell
from rag.catalog import Catalog
from rag.errors import Misconfigured, NotFound
from rag.records import Block, Chunk, Kind, ParsedDocument
from rag.retrieval import fuse, min_max
from rag.testing import WordEmbedder

EMBEDDER = WordEmbedder()
SCORES = st.dictionaries(st.tuples(st.just("c"), st.integers(1, 20)), st.floats(-1, 1, width=32), max_size=10)


@pytest.fixture
def words(settings):
    with open_citewell(settings, embedder=EMBEDDER) as opened:
        yield opened


def put(citewell: Citewell, collection: str, name: str, texts: list[str], **metadata: object) -> None:
    catalog: Catalog = citewell.store.catalog
    version, _ = catalog.accept(catalog.ensure_collection(collection).id, name, name.rjust(64, "0"), 1, metadata)
    catalog.claim("t", 60)
    parsed = ParsedDocument.from_blocks([Block(Kind.TEXT, text, 1) for text in texts], "text/plain", name.title())
    chunks = [Chunk(e.text, "", e.start, e.end, e.kind, e.page, e.section, 1) for e in parsed.elements]
    catalog.commit(version.id, "t", parsed, chunks, EMBEDDER.encode(texts).vectors, EMBEDDER.fingerprint)


def found(citewell: Citewell, question: str, *collections: str, **options: object) -> list[str]:
    return [p.text for p in citewell.search(citewell.plan(question, collections, **options)).passages]  # type: ignore[arg-type]


def test_fusion_by_hand():
    a, b, c = ("c", 1), ("c", 2), ("c", 3)
    assert fuse({a: 0.9, b: 0.5, c: 0.1}, {b: 12.0, c: 2.0}, 0.5) == {a: 0.5, b: 0.75, c: 0.0}
    assert fuse({a: 0.9, b: 0.5}, {b: 3.0}, 0.25) == {a: 0.25, b: 0.75}
    assert fuse({}, {}, 0.5) == {}


@given(SCORES, SCORES, st.floats(0, 1))
def test_fusion_stays_in_range_and_keeps_everyone(dense, lexical, weight):
    fused = fuse(dense, lexical, weight)
    assert fused.keys() == {**dense, **lexical}.keys()
    assert all(-1e-9 <= score <= 1 + 1e-9 for score in fused.values())


@given(SCORES)
def test_stretching_keeps_the_order(scores):
    stretched = min_max(scores)
    for one in scores:
        for other in scores:
            if scores[one] < scores[other]:
                assert stretched[one] <= stretched[other]


def test_the_best_of_both_comes_first_and_the_trace_says_why(words):
    put(words, "c", "a", ["storm at the north buoy", "tide tables for pilots", "north cable"])
    ranking = words.search(words.plan("north buoy storm", ["c"]), trace=True)
    first = ranking.passages[0]
    assert first.text == "storm at the north buoy"
    assert first.score == 1.0
    assert set(first.scores) == {"dense", "lexical"}
    assert ranking.stages["fused"][0] == ranking.stages["dense"][0] == ranking.stages["lexical"][0] == first.chunk_id
    assert len(ranking.stages["dense"]) == 3
    assert len(ranking.stages["lexical"]) == 2
    assert {"embed", "dense", "lexical", "fuse", "read"} <= set(ranking.timings)


def test_top_k_is_kept_and_ties_are_stable(words):
    texts = ["storm buoy north", "buoy storm north", "north storm buoy", "north buoy storm", "storm north buoy"]
    put(words, "c", "a", texts)
    one, two = (found(words, "storm", "c", top_k=3) for _ in range(2))
    assert one == two == texts[:3]


def test_several_collections_are_ranked_as_one(words):
    put(words, "east", "a", ["storm in the east harbour", "nothing here"])
    put(words, "west", "b", ["storm", "another thing"])
    assert found(words, "storm in the east harbour", "east", "west")[0] == "storm in the east harbour"
    assert set(found(words, "storm", "west", "east")) >= {"storm", "storm in the east harbour"}
    assert "storm" not in found(words, "storm", "east")


def test_a_filter_lets_only_its_documents_through(words):
    put(words, "c", "old", ["storm rule of old"], year=2025)
    put(words, "c", "new", ["storm rule"], year=2026)
    assert found(words, "storm rule of old", "c", filters={"year": 2026}) == ["storm rule"]
    assert found(words, "storm rule", "c", filters={"year": 2024}) == []


def test_nothing_found_is_an_empty_ranking_with_every_option(words):
    """Options that choose among passages have nothing to choose from."""
    put(words, "c", "a", ["storm in the harbour"])
    plan = words.plan("storm", ["c"], filters={"document": "other"}, diversity=0.5, around=1, section=True)
    ranking = words.search(plan, trace=True)
    assert ranking.passages == ()
    assert ranking.stages == {"dense": (), "lexical": (), "fused": (), "late": ()}


def test_an_empty_collection_gives_nothing_and_an_unknown_one_an_error(words):
    words.store.catalog.create_collection("empty")
    assert found(words, "storm", "empty") == []
    with pytest.raises(NotFound):
        found(words, "storm", "unknown")


def test_a_collection_of_another_embedder_is_refused_with_the_cure(words, settings):
    put(words, "c", "a", ["storm"])
    with (
        open_citewell(settings, embedder=WordEmbedder(dimension=32)) as other,
        pytest.raises(Misconfigured, match=r"words-64-32.*embedder\.model back"),
    ):
        found(other, "storm", "c")
