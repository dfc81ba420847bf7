"""Filters through the door: a sealed index under a filter gives what its exact twin gives; the description is true."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest

from api.commands.options import read_filters
from rag.assembly import Citewell, open_citewell
from rag.errors import BadInput
from rag.filters import parse_filter
from rag.lexical import average_length, exact_scores
from rag.records import Block, Chunk, Kind, ParsedDocument
from rag.settings import load_settings
from rag.testing import WordEmbedder
from rag.words import Analyser
from tests.api.live import problem, serving

EMBEDDER = WordEmbedder()
DOCUMENTS, PASSAGES = 50, 40
WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "lmnrst"]
ASK = {"question": "x"}
QUESTION = " ".join(WORDS[::40])


def metadata_of(number: int) -> dict[str, Any]:
    said = {"number": number, "team": ["hr", "it", "law"][number % 3], "tags": [f"t{number % 7}", "all"]}
    return said | ({"due": f"2026-{number % 12 + 1:02}-15T08:00:00+02:00"} if number % 2 else {})


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Citewell]:
    """A collection of a few thousand passages, sealed; the dense part is one that is searched approximately."""
    settings = load_settings(data=tmp_path_factory.mktemp("filled"), index={"flat_rows": 500})
    with open_citewell(settings, embedder=EMBEDDER) as citewell:
        catalog = citewell.store.catalog
        collection = catalog.create_collection("many")
        chance = random.Random(7)
        for number in range(DOCUMENTS):
            name = f"{number // 10}/{number}.txt"
            version, _ = catalog.accept(collection.id, name, f"{number}", 1, metadata_of(number))
            catalog.claim("w", 60)
            texts = [" ".join(chance.sample(WORDS, 12)) for _ in range(PASSAGES)]
            kinds = [Kind.TABLE, *[Kind.TEXT] * 9]
            blocks = [Block(kinds[place % 10], text, place // 10 + 1) for place, text in enumerate(texts)]
            parsed = ParsedDocument.from_blocks(blocks, "text/plain", None, 5, {}, "de" if number % 5 == 0 else "en")
            chunks = [Chunk(e.text, "", e.start, e.end, e.kind, e.page, e.section, 12) for e in parsed.elements]
            vectors = EMBEDDER.encode(texts).vectors
            assert catalog.commit(version.id, "w", parsed, chunks, vectors, EMBEDDER.fingerprint)
        indexes = citewell.indexes_of(collection)
        assert indexes.dense.seal() == indexes.lexical.seal() == DOCUMENTS * PASSAGES
        yield citewell


@pytest.fixture(scope="module")
def door(filled: Citewell) -> Iterator[httpx.Client]:
    with serving(filled) as client:
        yield client


class Row(NamedTuple):
    """What of a passage the filters below ask."""

    number: int
    kind: str
    page: int | None


#: Filters, and the rows that they let through.
FILTERS = [
    pytest.param({"number": 17}, lambda row: row.number == 17, id="one-document"),
    pytest.param({"number": 17, "page": 3}, lambda row: row.number == 17 and row.page == 3, id="one-page"),
    pytest.param({"team": "law", "language": "de"}, lambda row: row.number % 3 == 2 and row.number % 5 == 0, id="and"),
    pytest.param(
        {"or": [{"number": {"lt": 2}}, {"tags": "t6"}]}, lambda row: row.number < 2 or row.number % 7 == 6, id="or"
    ),
    pytest.param({"not": {"tags": {"in": ["t1", "t2", "t3"]}}}, lambda row: row.number % 7 not in {1, 2, 3}, id="not"),
    pytest.param(
        {"kind": "table", "document": {"prefix": "3/"}},
        lambda row: row.kind == "table" and row.number // 10 == 3,
        id="kind",
    ),
    pytest.param(
        {"due": {"gte": "2026-06-15T06:00Z", "lt": "2026-07-01"}}, lambda row: row.number % 12 == 5, id="date"
    ),
    pytest.param(
        {"or": [{"number": 3}, {"and": [{"page": 1}, {"not": {"team": "hr"}}]}], "collection": "many"},
        lambda row: row.number == 3 or (row.page == 1 and row.number % 3 != 0),
        id="both-levels",
    ),
    pytest.param({"collection": {"ne": "many"}}, lambda row: row.number < 0, id="nothing"),
]


class Twin(NamedTuple):
    """All rows of the collection by number, with their exact scores for the question."""

    rows: dict[int, Row]
    dense: dict[int, float]
    lexical: dict[int, float]


@pytest.fixture(scope="module")
def query() -> Any:
    return EMBEDDER.encode([QUESTION], role="query").vectors[0]


@pytest.fixture(scope="module")
def twin(filled: Citewell, query: Any) -> Twin:
    catalog = filled.store.catalog
    collection = catalog.collection("many")
    texts = {row.seq: row.text for row in catalog.text_rows(collection.id, 0, 10**9)}
    found = catalog.passages(collection.id, [*texts])
    rows = {s: Row(int(p.document[2:-4]), p.kind.value, p.page) for s, p in sorted(found.items())}
    seqs, vectors = catalog.vector_rows(collection.id, EMBEDDER.fingerprint, 0, 10**9)
    analyser = Analyser()
    average = average_length(filled.indexes_of(collection).lexical.current())
    scores = exact_scores(analyser.terms(QUESTION), [analyser.terms(text) for text in texts.values()], average)
    dense = dict(zip(seqs.tolist(), (vectors @ query).tolist(), strict=True))
    return Twin(rows, dense, dict(zip(texts, scores, strict=True)))


@pytest.mark.parametrize(("filters", "passes"), FILTERS)
def test_both_indexes_give_the_best_of_what_passes_as_the_exact_twins_do(filled, twin, query, filters, passes):
    """Recall 1.0 under any filter: the k best, by number and score, of the rows that pass by plain Python."""
    right = [seq for seq, row in twin.rows.items() if passes(row)]
    collection = filled.store.catalog.collection("many", counted=False)
    allowed = filled.store.catalog.allowed_rows(collection.id, filters)
    assert allowed.tolist() == right
    indexes = filled.indexes_of(collection)
    check(indexes.dense.search(query, 10, allowed), {seq: twin.dense[seq] for seq in right})
    found = indexes.lexical.search(QUESTION, 10, allowed)
    check(found, {seq: twin.lexical[seq] for seq in right if twin.lexical[seq] > 0})


def check(hits: Any, exact: dict[int, float]) -> None:
    """The hits are the 10 best of ``exact``, where ties may fall either way."""
    best = sorted(exact.values(), reverse=True)[:10]
    np.testing.assert_allclose(hits.scores, best, atol=2e-3, rtol=1e-3)
    np.testing.assert_allclose([exact[int(seq)] for seq in hits.seqs], best, atol=2e-3, rtol=1e-3)
    assert len({*hits.seqs.tolist()}) == len(best)


@pytest.mark.parametrize(("filters", "passes"), FILTERS)
def test_a_search_gives_as_many_passages_as_were_asked_for_and_none_that_does_not_pass(door, filters, passes):
    body = {"query": QUESTION, "collections": ["many"], "filters": filters, "top_k": 8}
    passages = door.post("/v1/search", json=body).json()["passages"]
    assert all(passes(Row(int(p["document"][2:-4]), p["kind"], p["page"])) for p in passages)
    assert len(passages) == (0 if filters == {"collection": {"ne": "many"}} else 8)


def test_the_plan_keeps_what_was_asked(filled):
    asked = {"or": [{"page": 1}, {"team": {"ne": "hr"}}]}
    assert filled.plan(QUESTION, ["many"], asked).filters == asked


@pytest.mark.parametrize(
    ("filters", "sentence"),
    [
        ({"a": {"over": 1}}, "filters.a: 'over' is no comparison; use eq, ne, lt, lte, gt, gte, in, prefix, exists."),
        ({"or": [{"a": 1}, {"page": "2"}]}, "filters.or.1.page: must be a number; metadata of that name is"),
        ({"a": None}, 'filters.a: null is no value; {"exists": false} asks for what does not have the field.'),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_filter_gets_one_sentence(door, filters, sentence):
    """Before anything is embedded, from search and ask alike, streamed or not."""
    asked = {"collections": ["many"], "filters": filters}
    for path, body in ("search", {"query": "x"}), ("ask", ASK), ("ask", {**ASK, "stream": True}):
        reply = door.post(f"/v1/{path}", json=body | asked)
        assert problem(reply, 400)["message"].startswith(sentence)


def test_the_description_shows_filters_that_are_taken(door):
    schemas = door.get("/openapi.json").json()["components"]["schemas"]
    for name in ("SearchRequest", "AskRequest"):
        described = schemas[name]["properties"]["filters"]
        assert len([parse_filter(example) for example in described["examples"]]) == 3
        assert "`prefix`" in described["description"]


@pytest.mark.parametrize(
    ("given", "filters"),
    [
        (None, {}),
        (["year=2026"], {"year": 2026}),
        (["year=2026", "team=hr"], {"year": 2026, "team": "hr"}),
        (["document=2026", "title=true", "pages=3"], {"document": "2026", "title": "true", "pages": 3}),
        (['a="3"'], {"a": "3"}),
        (["a=b=c", "d="], {"a": "b=c", "d": ""}),
        (['{"not": {"a": 1}}'], {"not": {"a": 1}}),
        ([' {"a": 1}', "a=2", '{"b": {"gt": 0}}'], {"and": [{"a": 2}, {"a": 1}, {"b": {"gt": 0}}]}),
    ],
    ids=str,
)  # fmt: skip
def test_the_command_line_takes_both_forms(given, filters):
    assert read_filters(given) == filters


@pytest.mark.parametrize("given", ["{", '{"a": 1} x', "{" * 100_000, '{"a": 1' + "0" * 5000 + "}", "=1", "year"])
def test_the_command_line_refuses_what_is_neither(given):
    with pytest.raises(BadInput, match="--filter is "):
        read_filters([given])
