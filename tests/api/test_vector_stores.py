"""Searches of a collection as OpenAI's client makes them of a vector store; its filters mean what ours mean."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.vector_store_schemas import translated
from ingest.worker import accept_file
from rag.errors import BadInput
from rag.filters import Facts, matches, parse_filter
from tests.api.live import read_all, serving
from tests.api.openai_clients import connected

QUERY = "hotel limit"


@pytest.fixture(params=["/v1", "/v2"])
def client(request: pytest.FixtureRequest, reading: httpx.Client) -> Iterator[openai.OpenAI]:
    with connected(reading, request.param) as opened:
        yield opened


def ids(page: Any) -> list[str]:
    return [result.citewell["chunk_id"] for result in page.data]


def test_passages_are_those_of_a_search(client, reading, indexed):
    """The same chunks in the same order, with their documents, texts, metadata, scores and places."""
    page = client.vector_stores.search("demo", query=QUERY, max_num_results=5)
    found = reading.post(
        "/v1/search",
        json={"query": QUERY, "collections": ["demo"], "top_k": 5, "parts": {"rewrite": False, "decompose": False}},
    ).json()["passages"]
    assert (page.object, page.search_query) == ("vector_store.search_results.page", [QUERY])
    assert (page.has_more, page.next_page) == (False, None)
    assert ids(page) == [passage["chunk_id"] for passage in found]
    for result, passage in zip(page.data, found, strict=True):
        assert (result.file_id, result.filename) == (passage["document_id"], passage["document"])
        assert [(part.type, part.text) for part in result.content] == [("text", passage["text"])]
        assert result.score == pytest.approx(min(passage["score"], 1.0))
        metadata = indexed.store.catalog.version(passage["version_id"]).metadata
        assert result.attributes == {key: value for key, value in metadata.items() if not isinstance(value, list)}
        place = result.citewell
        text = indexed.store.catalog.source_text(passage["version_id"])
        assert text[place["source_start"] : place["source_end"]] == passage["text"]


def test_filters_scores_and_ranking_can_be_chosen(client):
    """A document by its name; only what scores as much; candidates as they were found."""
    here = {"type": "eq", "key": "document", "value": "2026/travel-policy.pdf"}
    elsewhere = {"type": "ne", "key": "document", "value": "2026/travel-policy.pdf"}
    assert {r.filename for r in client.vector_stores.search("demo", query=QUERY, filters=here)} == {here["value"]}
    assert here["value"] not in {
        r.filename for r in client.vector_stores.search("demo", query=QUERY, filters=elsewhere)
    }
    every = client.vector_stores.search("demo", query=QUERY, max_num_results=50)
    best = client.vector_stores.search(
        "demo", query=QUERY, max_num_results=50, ranking_options={"score_threshold": every.data[2].score}
    )
    assert ids(best) == ids(every)[:3]
    plain = client.vector_stores.search("demo", query=QUERY, max_num_results=50, ranking_options={"ranker": "none"})
    assert sorted(ids(plain)) == sorted(ids(every))
    assert ids(plain) != ids(every)


def test_several_queries_are_looked_for_together(client):
    """A passage has its best score of them; what is found for each alone is among the first."""
    queries = ["hotel limit", "welcome on the first day"]
    both = client.vector_stores.search("demo", query=queries, max_num_results=20)
    assert both.search_query == queries
    for query in queries:
        alone = client.vector_stores.search("demo", query=query, max_num_results=1)
        assert ids(alone)[0] in ids(both)[:3]
        assert client.vector_stores.search("demo", query=[query], max_num_results=1).data == alone.data


def test_without_a_language_model_a_query_is_looked_for_as_it_is(client):
    """`rewrite_query` changes nothing then, and the reply says what was looked for."""
    page = client.vector_stores.search("demo", query=QUERY, rewrite_query=True)
    assert page.search_query == [QUERY]
    assert ids(page) == ids(client.vector_stores.search("demo", query=QUERY))


def test_attributes_are_the_metadata_that_came_with_a_document(citewell):
    """And filters look at them; lists can be asked for and are not shown."""
    catalog, store = citewell.store.catalog, citewell.store
    collection = catalog.create_collection("c")
    for name, metadata in (
        ("a.txt", {"year": 2025, "draft": False, "tags": ["hr", "it"]}),
        ("b.txt", {"year": 2026, "draft": True, "owner": "Mara"}),
    ):
        path = store.settings.data / name
        path.write_text(f"The buoy {name} floats in the harbour.")
        accept_file(store, collection, name, path, metadata)
    read_all(citewell)
    with serving(citewell) as http, connected(http) as client:

        def names(asked: dict[str, Any]) -> list[str]:
            return sorted(r.filename for r in client.vector_stores.search("c", query="buoy", filters=asked))

        results = {r.filename: r.attributes for r in client.vector_stores.search("c", query="buoy")}
        assert results["a.txt"].items() >= {"year": 2025, "draft": False}.items()
        assert "tags" not in results["a.txt"]
        assert results["b.txt"].items() >= {"year": 2026, "draft": True, "owner": "Mara"}.items()
        assert names({"type": "gte", "key": "year", "value": 2026}) == ["b.txt"]
        assert names({"type": "in", "key": "tags", "value": ["it", "pr"]}) == ["a.txt"]
        assert names({"type": "nin", "key": "tags", "value": ["pr"]}) == ["a.txt"]
        years = [{"type": "eq", "key": "year", "value": year} for year in (2025, 2026)]
        assert names({"type": "or", "filters": years}) == ["a.txt", "b.txt"]
        assert names({"type": "and", "filters": years}) == []


VALUES = st.one_of(st.booleans(), st.integers(-3, 3), st.sampled_from(["a", "b", "2026-01-31"]))
KEYS = st.sampled_from(["year", "owner", "tag"])
LEAVES = st.one_of(
    st.fixed_dictionaries({"type": st.sampled_from(["eq", "ne"]), "key": KEYS, "value": VALUES}),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["gt", "gte", "lt", "lte"]), "key": KEYS, "value": st.integers(-3, 3)}
    ),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["in", "nin"]), "key": KEYS, "value": st.lists(VALUES, min_size=1, max_size=3)}
    ),
)
FILTERS = st.recursive(
    LEAVES,
    lambda parts: st.fixed_dictionaries(
        {"type": st.sampled_from(["and", "or"]), "filters": st.lists(parts, min_size=1, max_size=3)}
    ),
    max_leaves=6,
)
METADATA = st.dictionaries(KEYS, VALUES, max_size=3)


def holds(asked: dict[str, Any], metadata: dict[str, Any]) -> bool:
    """What OpenAI's filter says of a document, in plain Python: types differ, and what is missing satisfies nothing."""
    kind = asked["type"]
    if kind in {"and", "or"}:
        return (all if kind == "and" else any)(holds(part, metadata) for part in asked["filters"])
    if asked["key"] not in metadata:
        return False
    value = metadata[asked["key"]]

    def same(other: object) -> bool:
        return type(value) is type(other) and value == other

    if kind in {"in", "nin"}:
        return any(map(same, asked["value"])) is (kind == "in")
    if kind in {"eq", "ne"}:
        return same(asked["value"]) is (kind == "eq")
    if type(value) is not int:
        return False
    return {
        "gt": value > asked["value"],
        "gte": value >= asked["value"],
        "lt": value < asked["value"],
        "lte": value <= asked["value"],
    }[kind]


@given(FILTERS, METADATA)
def test_a_translated_filter_means_what_it_says(asked, metadata):
    """Whatever is joined in whatever way, over metadata of every type."""
    facts = Facts("c", "d", "i", datetime.now(UTC), "text", metadata=metadata)
    assert matches(parse_filter(translated(asked)), facts) is holds(asked, metadata)


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        (5, "filters"),
        ({"type": "or", "filters": [{"type": "eq", "key": "a", "value": 1}, 5]}, "filters.filters.1"),
        ({"type": "and", "filters": {}}, "filters.filters"),
        ({"type": "like", "key": "a", "value": 1}, "filters.type"),
        ({"type": "eq", "key": "a"}, "filters"),
    ],
)
def test_a_filter_that_is_none_is_refused_by_its_place(asked, place):
    """One sentence that says where."""
    with pytest.raises(BadInput, match=rf"^{place}: must .*\.$"):
        translated(asked)
