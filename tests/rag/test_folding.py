"""Folding: a passage is listed once however many documents say it, and the places where it also stands are named."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import pytest

from rag.assembly import Citewell, open_citewell
from rag.records import Passage
from rag.settings import Settings
from rag.testing import WordEmbedder
from tests.contracts.strategies import chunks_of, parsed_of

RULE = (
    "the keeper of the harbour checks every buoy and every mooring chain before the winter storms arrive from the "
    "north and writes what was found into the book of the station so that the pilot who comes next can read it there"
)


@pytest.fixture
def words(settings: Settings) -> Iterator[Citewell]:
    with open_citewell(settings, embedder=WordEmbedder()) as opened:
        yield opened


def put(citewell: Citewell, name: str, texts: Sequence[str]) -> None:
    catalog, embedder = citewell.store.catalog, citewell.embedder
    version, _ = catalog.accept(catalog.ensure_collection("c").id, name, name.rjust(64, "0"), 1)
    catalog.claim("t", 60)
    parsed = parsed_of(texts)
    vectors = embedder.encode(texts).vectors
    assert catalog.commit(version.id, "t", parsed, chunks_of(parsed), vectors, embedder.fingerprint)


def found(citewell: Citewell, question: str, top_k: int) -> tuple[Passage, ...]:
    return citewell.search(citewell.plan(question, ["c"], top_k=top_k)).passages


def test_copies_are_listed_once_and_named(words):
    """The same words again are an exact copy, the same with other case, commas or one more word a near one."""
    put(words, "a", [RULE])
    put(words, "b", [RULE])
    put(words, "c", [RULE.capitalize().replace(" and", ", and") + "."])
    put(words, "d", [f"{RULE} today", "the tide is high"])
    listed = found(words, RULE, 5)
    assert [(p.document, p.text[:8]) for p in listed] == [(listed[0].document, listed[0].text[:8]), ("d", "the tide")]
    best = listed[0]
    said = {copy.document: copy.exact for copy in best.also_in} | {best.document: True}
    same = {"a": True, "b": True, "c": False, "d": False}
    assert said == {name: same[name] == same[best.document] and (same[name] or name == best.document) for name in same}
    assert all(copy.version == 1 and copy.page is None for copy in best.also_in)


def test_rules_that_differ_in_one_number_are_both_listed(words):
    put(words, "2025", [f"{RULE} and the fee is 40 pounds"])
    put(words, "2026", [f"{RULE} and the fee is 45 pounds"])
    listed = found(words, RULE, 5)
    assert {p.document for p in listed} == {"2025", "2026"}
    assert [p.also_in for p in listed] == [(), ()]


def test_a_deleted_copy_is_named_no_more_and_the_other_is_listed(words):
    put(words, "a", [RULE])
    put(words, "b", [RULE])
    first = found(words, RULE, 1)[0]
    words.store.catalog.delete_document(first.document_id)
    listed = found(words, RULE, 5)
    assert [(p.document, p.also_in) for p in listed] == [(({"a", "b"} - {first.document}).pop(), ())]


@pytest.mark.parametrize("top_k", [1, 3, 7, 20])
def test_it_is_what_the_plain_twin_lists(words, top_k):
    """Many copies before the others: still ``top_k`` that differ, in the order of their best row, copies in order."""
    chance = random.Random(top_k)
    common = "storm warning"
    texts = [f"{common} {' '.join(chance.sample(RULE.split(), 12))} place{n}" for n in range(12)]
    for n in range(40):
        chosen = chance.choice(texts[: 3 if n < 25 else 12])
        put(words, f"d{n}", [chosen if chance.random() < 0.5 else chosen.upper()])
    plan = words.plan(f"{common} {texts[0]}", ["c"], top_k=top_k)
    ranking = words.search(plan, trace=True)
    collection = plan.collections[0].id
    rows = words.store.catalog.passages(collection, range(1, 41)).values()
    by_id = {row.chunk_id: row for row in rows}
    groups: dict[int, list[str]] = {}
    for chunk_id in ranking.stages["fused"]:
        groups.setdefault(int(by_id[chunk_id].like_id or 0), []).append(chunk_id)
    expected = list(groups.values())[:top_k]
    assert [p.chunk_id for p in ranking.passages] == [ids[0] for ids in expected]
    for passage, ids in zip(ranking.passages, expected, strict=True):
        named = [copy.chunk_id for copy in passage.also_in]
        assert named == ids[1 : 1 + len(named)]
        assert all(copy.exact == (by_id[copy.chunk_id].text == passage.text) for copy in passage.also_in)
    if len(groups) < top_k:  # then all was read, and every copy is named
        assert [len(p.also_in) + 1 for p in ranking.passages] == [len(ids) for ids in expected]
