"""What others write and we read, at the mercy of whoever writes it: a model's markers, a client's filters.

Neither ever raises what is not its own error, hangs, or names what there is not. `--examples N` makes up more.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.worker import accept_file
from rag.assembly import open_citewell
from rag.claims import ClaimParser
from rag.errors import BadInput
from rag.filters import Facts, matches, parse_filter
from rag.markers import MarkerScanner
from rag.records import Delta, Kind
from rag.settings import load_settings
from tests.api.live import SAMPLES, problem, read_all, serving

EXAMPLES = 400
PASSAGES = 9

odd_letters = st.text(st.characters(exclude_categories=[]), max_size=8)
marks = st.sampled_from([
    *"[]【】［］〔〕`*#>|\n\t .!?。-–~†^&,;:", "[1]", "[9]", "[10]", "[0]", "[1-9]", "[3-1]", "[0-9]", "[999-1]",
    "[1,2;3]",
    "【2†source】", "[^3]", "[Source 4]", "[[5]]", "[5][5]", "```", "```py\n", "``", "[", "[1", "[doc", "\u0661",
    "[\u0661]",
    "[²]", "[１]", "[1\u200b]", "[\u202e1]", "\U000e0031", "\ufe0f", "\r\n", "\u2028", "\x00", "\ud800", "1. ",
    "- ", "(1)",
    "The limit is 145 euros", " e.g. ", "Dr. ", "https://a.example/[1]?q=[2]", "<script>", "</passage-1>",
    '{"claims":[',
])  # fmt: skip
texts = st.lists(st.one_of(marks, odd_letters), max_size=40).map("".join)


def _in_pieces(text: str, cuts: list[int]) -> list[str]:
    places = sorted(cut % (len(text) + 1) for cut in cuts)
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


@settings(max_examples=EXAMPLES)
@given(text=texts, cuts=st.lists(st.integers(0, 1000), max_size=10))
def test_markers_and_claims_of_any_text_are_in_range_however_it_is_cut(text, cuts):
    """Letters of every kind, halves of pairs too: nothing raises, nothing is lost, no passage is named that is not."""
    scanner = MarkerScanner(PASSAGES)
    pieces = [piece for part in _in_pieces(text, cuts) for piece in scanner.feed(part)] + scanner.finish()
    assert "".join(piece.text for piece in pieces) == text
    whole, cut = ClaimParser(PASSAGES), ClaimParser(PASSAGES)
    whole.feed(Delta(text))
    whole.finish()
    for part in _in_pieces(text, cuts):
        cut.feed(Delta(part))
    cut.finish()
    assert (cut.text, cut.claims()) == (whole.text, whole.claims())
    for claim in whole.claims():
        assert 0 <= claim.begin <= claim.start < claim.end <= claim.until <= len(whole.text)
        assert set(claim.passages) <= {*range(1, PASSAGES + 1)}


@pytest.mark.parametrize(
    "unit", ["[", "[1", "[1]", "`", "`` ", "```\n", ". ", "。", "a.", "1. ", "[passage ", "\n", "\u200b", "- ", "| "]
)
def test_the_work_for_a_long_text_grows_with_its_length_and_not_its_square(unit):
    """Twice as much of the same makes about twice as many steps of the interpreter, whatever it is."""
    short, long = (_steps(unit * (size // len(unit))) for size in (2_000, 8_000))
    assert long < 4 * short * 1.6


def _steps(text: str) -> int:
    """Count the lines that are run to parse a text, which no other load on the machine changes."""
    count = 0

    def counted(frame, what, _):
        nonlocal count
        count += what == "line"
        return counted

    parser = ClaimParser(PASSAGES)
    before = sys.gettrace()
    sys.settrace(counted)
    try:
        parser.feed(Delta(text))
        parser.finish()
    finally:
        sys.settrace(before)
    return count


keys = st.one_of(
    st.sampled_from([
        "and", "or", "not", "eq", "ne", "lt", "lte", "gt", "gte", "in", "prefix", "exists", "document", "kind", "page",
        "collection", "ingested_at", "pages", "title", "metadata.kind", "metadata.", "a'b", 'a"b', "a.b.c", "$ne",
        "", "\0",
        "__proto__", "; DROP TABLE chunks", "year",
    ]),
    odd_letters,
)  # fmt: skip
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(2**70), 2**70), st.floats(), odd_letters,
    st.sampled_from(
        ["hidden", "2026-01-31", "2026-02-30", "0000-01-01", "9999-12-31T23:59:59-15:00", "%", "_", "' OR 1=1 --"]
    ),
)  # fmt: skip
filters = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=25,
)
FACTS = Facts(
    collection="c", document="a.txt", document_id="d", title="T", language="en", media_type="text/plain", pages=3,
    ingested_at=datetime(2026, 1, 31, tzinfo=UTC), page=1, kind=Kind.TEXT, metadata={"year": 2026, "a.b.c": [1,
    "x", None]},
)  # fmt: skip


@settings(max_examples=EXAMPLES)
@given(given_filter=st.one_of(filters, st.dictionaries(keys, filters, max_size=4)))
def test_any_filter_is_read_or_refused_in_one_sentence(given_filter):
    """Whatever JSON comes: a filter with a meaning, or `BadInput`; no other error, here or where it is applied."""
    refused = ""
    try:
        asked = parse_filter(given_filter)
        assert matches(asked, FACTS) in {True, False}
    except BadInput as error:
        refused = error.message
    assert not refused or re.fullmatch(r"[^\n]+\.", refused)


@settings(max_examples=EXAMPLES // 4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_filter=st.dictionaries(keys, filters, max_size=3))
def test_a_database_takes_any_filter_that_was_read(filled, given_filter):
    """What is read can be asked of SQL as well, and no letter in it is taken for SQL."""
    catalog = filled.store.catalog
    try:
        parse_filter(given_filter)
    except BadInput:
        return
    every = catalog.allowed_rows(catalog.collection("demo").id, {"kind": {"exists": True}})
    rows = catalog.allowed_rows(catalog.collection("demo").id, given_filter)
    assert rows is None or {*rows.tolist()} <= {*every.tolist()}


@pytest.fixture(scope="module")
def filled(tmp_path_factory, embedder):
    """A whole Citewell with one document in the collection ``demo``."""
    with open_citewell(load_settings(data=tmp_path_factory.mktemp("filled")), embedder=embedder) as citewell:
        collection = citewell.store.catalog.create_collection("demo")
        accept_file(citewell.store, collection, "a.md", SAMPLES / "handbook" / "onboarding.md")
        read_all(citewell)
        yield citewell


def test_filters_nested_beyond_reason_are_refused_at_the_door(filled):
    """Ten thousand deep, or as wide: 400 or 422 in the one shape, and the next request is answered."""
    with serving(filled) as client:
        _check_door(client)


def _check_door(client):
    deep = '{"not":' * 10_000 + "{}" + "}" * 10_000
    wide = json.dumps({"or": [{"year": number} for number in range(5_000)]})
    for filters_text in (
        deep,
        wide,
        "[" * 10_000 + "]" * 10_000,
        '{"year": 1e999}',
        '{"year": NaN}',
        '{"a": "\\ud800"}',
    ):
        body = f'{{"query": "hotel", "collections": ["demo"], "filters": {filters_text}}}'
        response = client.post("/v1/search", content=body, headers={"Content-Type": "application/json"})
        assert response.status_code in {400, 422}, filters_text[:40]
        problem(response)
    assert client.post("/v1/search", json={"query": "hotel", "collections": ["demo"]}).status_code == 200
