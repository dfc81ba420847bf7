"""The filter language: what it means by hand, what it refuses; both databases find what its plain twin finds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag.catalog import Catalog
from rag.errors import BadInput
from rag.filters import LARGEST, Facts, instant, matches, parse_filter
from rag.records import Block, Chunk, Kind, ParsedDocument
from tests.contracts.strategies import EMBEDDER, put, vectors_for

DAY = datetime(2026, 1, 31, 12, tzinfo=UTC)


def facts(**metadata: Any) -> Facts:
    """A passage of a table on page 2 of a German document, with this metadata."""
    return Facts(
        "handbook", "2026/leave.pdf", "d1", DAY, "table", 2, "Leave", "de", "application/pdf", 4, metadata
    )  # fmt: skip


class TestMeaning:
    @pytest.mark.parametrize(
        ("asked", "metadata", "passes"),
        [
            ({}, {}, True),
            ({"year": 2026}, {"year": 2026}, True),
            ({"year": 2026}, {"year": 2026.0}, True),
            ({"year": 2026}, {"year": "2026"}, False),
            ({"year": 1}, {"year": True}, False),
            ({"year": 2026, "team": "hr"}, {"year": 2026, "team": "it"}, False),
            ({"year": {"gte": 2024, "lt": 2026}}, {"year": 2025}, True),
            ({"year": {"gte": 2024, "lt": 2026}}, {"year": 2026}, False),
            ({"year": {"gt": 2025}}, {"year": "2026"}, False),
            ({"team": {"lt": "b"}}, {"team": "B"}, True),
            ({"team": {"prefix": "Pe"}}, {"team": "People"}, True),
            ({"team": {"prefix": "pe"}}, {"team": "People"}, False),
            ({"team": {"in": ["hr", 7]}}, {"team": 7}, True),
            ({"team": {"in": ["hr", 7]}}, {"team": "7"}, False),
            ({"done": {"ne": True}}, {"done": False}, True),
        ],
        ids=json.dumps,
    )
    def test_comparisons_are_of_values_of_one_type(self, asked, metadata, passes):
        assert matches(parse_filter(asked), facts(**metadata)) is passes

    @pytest.mark.parametrize(
        ("asked", "passes"),
        [
            ({"tags": "a"}, True), ({"tags": 7}, True), ({"tags": "7"}, False), ({"tags": "inner"}, False),
            ({"tags": {"gt": 6}}, True), ({"tags": {"gt": 7}}, False), ({"tags": {"ne": "a"}}, False),
            ({"tags": {"ne": "b"}}, True), ({"tags": {"exists": True}}, True), ({"tags": {"prefix": "in"}}, False),
        ],
        ids=json.dumps,
    )  # fmt: skip
    def test_a_list_has_each_of_its_values(self, asked, passes):
        assert matches(parse_filter(asked), facts(tags=["a", 7, None, ["inner"], {"k": "inner"}])) is passes

    @pytest.mark.parametrize("metadata", [{}, {"year": None}], ids=json.dumps)
    @pytest.mark.parametrize(
        "condition",
        [2026, *({name: 2026} for name in ("eq", "ne", "lt", "lte", "gt", "gte")), {"in": [2026]}, {"prefix": "2"}],
        ids=json.dumps,
    )
    def test_what_is_missing_satisfies_no_comparison_and_not_is_plain_negation(self, metadata, condition):
        assert not matches(parse_filter({"year": condition}), facts(**metadata))
        assert matches(parse_filter({"not": {"year": condition}}), facts(**metadata))
        assert matches(parse_filter({"year": {"exists": False}}), facts(**metadata))

    def test_an_object_is_there_and_equal_to_nothing(self):
        assert matches(parse_filter({"author": {"exists": True, "ne": "Ann"}}), facts(author={"name": "Ann"}))

    @pytest.mark.parametrize(
        "asked",
        [
            {"collection": "handbook"}, {"collection": {"in": ["a", "handbook"]}}, {"document": "2026/leave.pdf"},
            {"document": {"prefix": "2026/"}}, {"document_id": "d1"}, {"title": "Leave"}, {"title": "given"},
            {"language": "de", "media_type": "application/pdf"}, {"pages": {"lte": 4}}, {"page": 2, "kind": "table"},
            {"ingested_at": {"gte": "2026-01-31", "lt": "2026-02-01"}}, {"ingested_at": "2026-01-31T13:00:00+01:00"},
            {"metadata.kind": "memo", "metadata.title": "given"}, {"metadata.document": "x"},
            {"or": [{"page": 3}, {"not": {"or": [{"kind": "text"}, {"kind": "code"}]}}]},
        ],
        ids=json.dumps,
    )  # fmt: skip
    def test_what_citewell_knows_and_metadata_of_the_same_name_are_told_apart(self, asked):
        described = facts(kind="memo", title="given", document="x")
        assert matches(parse_filter(asked), described)
        assert not matches(parse_filter({"not": asked}), described)

    def test_metadata_alone_is_looked_at_where_that_is_asked(self):
        assert not matches(parse_filter({"metadata.title": "Leave"}), facts(title="given"))
        assert not matches(parse_filter({"metadata.language": {"exists": True}}), facts())

    @pytest.mark.parametrize(
        ("kept", "passes"),
        [
            ("2026-01-31", True), ("2026-01-31T00:00:00Z", True), ("2026-01-31 23:59:59.999999", True),
            ("2026-02-01T00:30:00+01:00", True), ("2026-01-30T23:00-0130", True), ("2026-02-01", False),
            ("2026-01-31T00:30:00+01:00", False), ("2026-01-31T25:00", False), ("31.01.2026", False), (20260131, False),
            ("2026-01-32", False),
        ],
    )  # fmt: skip
    def test_dates_are_points_in_time(self, kept, passes):
        asked = parse_filter({"created": {"gte": "2026-01-31", "lt": "2026-02-01"}})
        assert matches(asked, facts(created=kept)) is passes

    def test_text_that_is_no_date_compares_with_dates_as_text(self):
        assert matches(parse_filter({"created": {"gte": "2026", "prefix": "2026-01"}}), facts(created="2026-01-31"))


class TestInstants:
    @given(st.datetimes(timezones=st.sampled_from([UTC])), st.timedeltas(timedelta(hours=-15), timedelta(hours=15)))
    def test_a_moment_is_read_as_the_standard_library_reads_it(self, at, offset):
        zone = timedelta(minutes=offset // timedelta(minutes=1))
        sign, (hours, minutes) = "-" if zone < timedelta(0) else "+", divmod(abs(zone) // timedelta(minutes=1), 60)
        for colon in (":", ""):
            text = f"{at.replace(tzinfo=None).isoformat()}{sign}{hours:02}{colon}{minutes:02}"
            assert instant(text) == (at - datetime(1, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) - (
                zone // timedelta(microseconds=1)
            )

    @pytest.mark.parametrize(
        "text",
        [
            "", "2026", "2026-01", "20260131", "0000-01-01", "2026-13-01", "2026-02-29", "2026-01-31T",
            "2026-01-31T9:00", "2026-01-31T24:00", "2026-01-31T10:00+16:00", "2026-01-31T10:00:60", "2026-01-31Z",
            "2026-01-31\n", "now", "٢٠٢٦-٠١-٣١", None, 20260131,
        ],
        ids=repr,
    )  # fmt: skip
    def test_what_is_no_date(self, text):
        assert instant(text) is None


def deep(levels: int) -> dict[str, Any]:
    nested: dict[str, Any] = {"year": 1}
    for _ in range(levels):
        nested = {"not": nested}
    return nested


WORDS = st.sampled_from(["and", "or", "not", "eq", "in", "exists", "page", "a"])


class TestReading:
    @pytest.mark.parametrize(
        ("asked", "sentence"),
        [
            ([], "filters: must be a JSON object"),
            (None, "filters: must be a JSON object"),
            ({"and": {}}, "filters.and: must be a list of filters"),
            ({"and": []}, "filters.and: must be a list of filters"),
            ({"or": [1]}, "filters.or.0: must be a JSON object"),
            ({"or": [{"a": 1}, {}]}, "filters.or.1: must be a JSON object"),
            ({"not": [{"a": 1}]}, "filters.not: must be a JSON object"),
            (deep(10), "filters.not.not.not.not.not.not.not.not.not.not: filters may lie 10 deep in each other"),
            ({"no good": 1}, "filters: 'no good' is no metadata key; use letters"),
            ({"": 1}, "filters: '' is no metadata key"),
            ({1: 1}, "filters: '1' is no metadata key"),
            ({"metadata.a b": 1}, "filters: 'metadata.a b' is no metadata key"),
            ({"\ud800" * 200: 1}, "is no metadata key"),
            ({"year": None}, 'filters.year: null is no value; {"exists": false} asks'),
            ({"year": [2025, 2026]}, 'filters.year: write {"in": [...]}'),
            ({"year": {}}, "filters.year: no comparison is named; use eq, ne,"),
            ({"year": {"$gt": 1}}, "filters.year: '$gt' is no comparison; use eq, ne, lt, lte, gt, gte, in, prefix"),
            ({"year": {1: 1}}, "filters.year: '1' is no comparison"),
            ({"year": {"eq": [1]}}, "filters.year.eq: must be a text, a number, true or false."),
            ({"year": {"gt": None}}, "filters.year.gt: must be a text, a number"),
            ({"year": {"gt": True}}, "filters.year.gt: true and false have no order; use eq or ne."),
            ({"year": {"in": []}}, "filters.year.in: must be a list of at least one value."),
            ({"year": {"in": [1, None]}}, "filters.year.in.1: must be a text"),
            ({"year": {"exists": 1}}, "filters.year.exists: must be true or false."),
            ({"year": {"prefix": ""}}, "filters.year.prefix: must be a text of at least one character."),
            ({"year": float("nan")}, "filters.year: must be a finite number."),
            ({"year": LARGEST + 1}, "filters.year: is too large a number to be compared exactly"),
            ({"year": -1e300}, "filters.year: is too large a number to be compared exactly"),
            ({"name": "x" * 1001}, "filters.name: has 1,001 characters; the limit is 1,000."),
            ({"name": "a\0b"}, "filters.name: is not valid text"),
            ({"name": {"prefix": "\ud800"}}, "filters.name.prefix: is not valid text"),
            ({"document": 5}, "filters.document: must be a text in quotation marks; metadata of that name is"),
            ({"kind": "invoice"}, "filters.kind: must be one of title, text, list_item, table, code, caption, header"),
            ({"page": "3"}, "filters.page: must be a number; metadata of that name is metadata.page."),
            ({"page": {"in": [1, True]}}, "filters.page.in.1: must be a number"),
            ({"page": {"prefix": "1"}}, "filters.page.prefix: only texts have a prefix; use gte and lt"),
            ({"ingested_at": {"gt": "yesterday"}}, "filters.ingested_at.gt: must be a date like 2026-01-31 or"),
            ({f"k{i}": i for i in range(201)}, "a filter has at most 200 comparisons; use `in` for many values."),
            ({"k": {"in": [*range(1001)]}}, "filters.k.in: a filter has at most 1,000 values; mark the documents"),
        ],
    )  # fmt: skip
    def test_what_is_no_filter_is_refused_in_one_sentence_with_place_and_cure(self, asked, sentence):
        with pytest.raises(BadInput) as refused:
            parse_filter(asked)
        assert sentence in refused.value.message
        assert len(refused.value.message) < 400

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=3), inner, max_size=3),
        )
    )
    def test_any_json_is_a_filter_or_bad_input(self, asked):
        with suppress(BadInput):
            assert matches(parse_filter(asked), facts(a=1)) in {True, False}

    def test_bounds_are_reached(self):
        parse_filter(deep(9))
        parse_filter({"or": [{f"k{i}": {"in": [*range(i * 5, i * 5 + 5)]}} for i in range(200)]})


# -- both databases against the twin -------------------------------------------------------------------------------

KEYS = ("a", "b", "c.d", "title", "language", "pages", "kind", "document", "or")
DATES = (
    "2026-01-31", "2026-01-31T00:00:00Z", "2026-01-31T02:00:00+02:00", "2026-01-31 00:00:00.0000009", "2026-02-30",
    "2024-02-29 23:59:59.9999999 -0130", "2024-03-01T01:29:59.999999Z", "0001-01-01T00:00+14:00", "9999-12-31T23:59-12",
    "2026-01-31T10:00", "2026-01-31T10:00 Z",
)  # fmt: skip
texts = st.sampled_from(
    ("", "a", "A", "ab", "ä", "1", "true", "null", "%", "_", "'", '"', "\\", "de", "2026/b.txt", "𝄞", "ﬀ", *DATES)
)
numbers = st.sampled_from((0, 1, -1, 1.0, 0.5, 0.1, 0.1 + 0.2, 7, LARGEST, -LARGEST, 1e15, 1e-9)) | st.floats(
    -1e6, 1e6, allow_subnormal=False
)
scalars = texts | numbers | st.booleans()
kept_scalars = scalars | st.none() | st.sampled_from((10**30, 1e300, LARGEST + 1, -0.0))
kept = kept_scalars | st.lists(
    kept_scalars | st.lists(scalars, max_size=1) | st.dictionaries(st.just("a"), scalars), max_size=3
)
kept |= st.dictionaries(st.sampled_from(KEYS), scalars, max_size=2)


@st.composite
def documents(draw: st.DrawFn) -> tuple[dict[str, Any], ParsedDocument]:
    """What is said of a document at upload, and what the parser makes of it."""
    said = draw(st.dictionaries(st.sampled_from(KEYS), kept, max_size=4))
    kinds = st.sampled_from([Kind.TEXT, Kind.TABLE, Kind.CODE])
    pieces = draw(st.lists(st.tuples(kinds, st.none() | st.integers(1, 3)), max_size=3))
    blocks = [Block(kind, f"text {number}", page) for number, (kind, page) in enumerate(pieces)]
    title, language = draw(st.none() | texts), draw(st.sampled_from([None, "de", "a"]))
    pages = draw(st.none() | st.integers(0, 2))
    return said, ParsedDocument.from_blocks(blocks, "text/plain", title, pages, {}, language)


def conditions(values: st.SearchStrategy[Any], *others: str) -> st.SearchStrategy[dict[str, Any]]:
    """One or two comparisons with such values."""
    ordered = values.filter(lambda value: not isinstance(value, bool))
    choices = [
        st.fixed_dictionaries({name: values if name in {"eq", "ne"} else ordered}) for name in ("eq", "ne", *others)
    ]
    choices.append(st.fixed_dictionaries({"in": st.lists(values, min_size=1, max_size=4)}))
    choices.append(st.fixed_dictionaries({"exists": st.booleans()}))
    return st.tuples(st.one_of(choices), st.one_of(choices)).map(lambda pair: pair[0] | pair[1]) | st.one_of(choices)


ORDER = ("lt", "lte", "gt", "gte")
names = texts.filter(bool) | st.sampled_from(["0.txt", "1.txt", "2.txt"])
prefixes = names.map(lambda text: {"prefix": text[:2]})
around = st.sampled_from((-1, 0, 1, 10**9)).map(lambda step: timedelta(microseconds=step))
leaves = st.one_of(
    st.dictionaries(
        st.sampled_from((*(f"metadata.{key}" for key in KEYS), "a", "b", "c.d", "title", "language", "pages")),
        scalars | conditions(scalars, *ORDER) | prefixes,
        min_size=1,
        max_size=2,
    ),
    st.fixed_dictionaries({"document": names | conditions(names, *ORDER) | prefixes}),
    st.fixed_dictionaries({"collection": conditions(st.sampled_from(["c", "d", "0"]), *ORDER)}),
    st.fixed_dictionaries({"media_type": st.sampled_from(["text/plain", "text"]) | prefixes}),
    st.fixed_dictionaries({"page": st.integers(1, 3) | conditions(st.sampled_from([1, 2.0, 2.5]), *ORDER)}),
    st.fixed_dictionaries({"kind": st.just("table") | conditions(st.just("code"), *ORDER) | prefixes}),
    st.fixed_dictionaries({"ingested_at": conditions(around | st.sampled_from(DATES[:4]), *ORDER)}),
)
asked = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"and": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"or": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"not": inner}),
    ),
    max_leaves=6,
)


def dated(given: Any, at: datetime) -> Any:
    """Put times around ``at`` in the place of differences."""
    if isinstance(given, timedelta):
        return (at + given).isoformat()
    if isinstance(given, dict):
        return {key: dated(value, at) for key, value in given.items()}
    return [dated(value, at) for value in given] if isinstance(given, list) else given


def taken_in(catalog: Catalog, collection: str, found: list[tuple[dict[str, Any], ParsedDocument]]) -> dict[int, Facts]:
    """Take documents through accept, claim and commit; return the facts of each row."""
    rows: dict[int, Facts] = {}
    for number, (said, parsed) in enumerate(found):
        version, _ = catalog.accept(collection, f"{number}.txt", f"{number}", 1, said)
        catalog.claim("w", 60)
        chunks = [Chunk(e.text, "", e.start, e.end, e.kind, e.page, e.section, 1) for e in parsed.elements]
        vectors = vectors_for([chunk.text for chunk in chunks])
        assert catalog.commit(version.id, "w", parsed, chunks, vectors, EMBEDDER)
        known = catalog.version(version.id)
        for seq, chunk in enumerate(chunks, len(rows) + 1):
            rows[seq] = Facts(
                "c", known.name, known.document_id, known.created_at, chunk.kind.value, chunk.page, known.title,
                known.language, known.media_type, known.pages, known.metadata,
            )  # fmt: skip
    return rows


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(found=st.lists(documents(), min_size=1, max_size=5), filters=st.lists(asked, min_size=8, max_size=8))
def test_a_database_finds_what_the_twin_finds(catalog, found, filters):
    """Whatever stands in the metadata and whatever is asked, the rows are those that pass by plain Python."""
    for old in catalog.list_collections():
        catalog.delete_collection(old.id)
    collection = catalog.create_collection("c").id
    rows = taken_in(catalog, collection, found)
    for given_filter in filters:
        written = dated(given_filter, next(iter(rows.values())).ingested_at if rows else DAY)
        passing = [seq for seq, facts_of in rows.items() if matches(parse_filter(written), facts_of)]
        assert catalog.allowed_rows(collection, written).tolist() == passing, written


def test_rows_that_were_replaced_or_deleted_do_not_pass(catalog, collection):
    """Also not by ``not``, by what asks of passages, or in another collection."""
    put(catalog, collection, "a", ["old"])
    put(catalog, collection, "a", ["new", "newer"])
    gone = put(catalog, collection, "b", ["gone"])
    put(catalog, catalog.create_collection("other").id, "a", ["elsewhere"])
    catalog.delete_document(gone)
    for passes in ({"not": {"year": 1}}, {"document": "a"}, {"kind": "text"}, {"not": {"kind": "table"}}):
        assert catalog.allowed_rows(collection, passes).tolist() == [2, 3], passes


def test_a_collection_that_is_gone_has_no_rows(catalog, collection):
    catalog.delete_collection(collection)
    assert catalog.allowed_rows(collection, {"not": {"year": 1}}).tolist() == []


def widest() -> Iterator[dict[str, Any]]:
    """The largest filters that are taken."""
    yield {"or": [{f"k{i}": {"gt": i}} for i in range(200)]}
    yield {"and": [{"not": {f"k{i}": {"in": [f"{i}", i, "2026-01-31", True]}}} for i in range(200)]}
    yield {"or": [{"page": i} for i in range(100)] + [{"not": {"title": {"prefix": "x" * 1000}}}] * 100}
    yield {"k": {"in": [f"{i}" for i in range(1000)]}}
    yield {"k": {"in": [i + 0.5 for i in range(1000)]}}


@pytest.mark.parametrize("number", range(5))
def test_the_largest_filter_is_answered(catalog, collection, number):
    put(catalog, collection, "a", ["storm"])
    filters = [*widest()][number]
    passes = matches(parse_filter(filters), Facts("c", "a", "", DAY, "text", title=None, metadata={}))
    assert catalog.allowed_rows(collection, filters).tolist() == [1] * passes
