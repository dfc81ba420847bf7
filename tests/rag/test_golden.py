"""Golden questions in the catalog, on both databases: kept in their order, confirmed, and cleared of what is purged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rag.catalog import Catalog
from rag.errors import Conflict, NotFound
from rag.golden import Content, GoldenDocument, Outcome, Proposed, Standing
from tests.contracts.strategies import put

ADDED, REPLACED, UNCHANGED = Outcome.ADDED, Outcome.REPLACED, Outcome.UNCHANGED


def asked(question: str, *documents: str, **more: object) -> Proposed:
    return Proposed(question, documents=tuple(GoldenDocument(name) for name in documents), **more)


def add(catalog, collection: str, *proposed: Proposed) -> list[str]:
    return [found.id for _, found in catalog.add_golden(collection, proposed)]


def standings(catalog, question_id: str) -> list[Standing]:
    found = catalog.golden(question_id)
    live = catalog.live_contents(found.collection_id, {one.name for one in found.documents})
    return [one.stands(live.get(one.name)) for one in found.documents]


def test_what_was_added_is_read_as_it_was(catalog, collection):
    """Question, reference, documents with the content that is searched now and with words, and tags."""
    document = put(catalog, collection, "a.txt", ["storm"])
    content = catalog.live_contents(collection, {"a.txt", "b.txt"})["a.txt"]
    assert (content.document_id, content.version) == (document, 1)
    wanted = Proposed(
        "What  comes\nin winter?", "A storm.", True,
        (GoldenDocument("a.txt", "the storm"), GoldenDocument("b.txt")), frozenset({"sea", "winter"}),
    )  # fmt: skip
    [(outcome, found)] = catalog.add_golden(collection, [wanted])
    assert outcome is ADDED
    assert catalog.golden(found.id) == found
    assert (found.question, found.reference, found.tags) == ("What comes in winter?", "A storm.", wanted.tags)
    assert found.documents == (GoldenDocument("a.txt", "the storm", content), GoldenDocument("b.txt"))
    assert catalog.list_golden() == [found]


def test_an_equal_question_is_replaced_and_keeps_its_place(catalog, collection):
    """Spaces and capitals make no other question; one that says the same stays as it was confirmed."""
    first, second = add(catalog, collection, asked("One?"), asked("Two?"))
    assert [o for o, _ in catalog.add_golden(collection, [asked("one ?"), asked("  ONE?", tags=frozenset("t"))])] == [
        ADDED, REPLACED
    ]  # fmt: skip
    assert [found.question for found in catalog.list_golden()] == ["ONE?", "Two?", "one ?"]
    assert catalog.golden(first).tags == {"t"}
    before = catalog.golden(second)
    assert [outcome for outcome, _ in catalog.add_golden(collection, [asked("Two?")])] == [UNCHANGED]
    assert catalog.golden(second) == before


def test_what_is_there_already_is_not_confirmed_by_being_added_again(catalog, collection):
    put(catalog, collection, "a.txt", ["storm"])
    [found] = add(catalog, collection, asked("What?", "a.txt"))
    put(catalog, collection, "a.txt", ["tide"])
    assert [outcome for outcome, _ in catalog.add_golden(collection, [asked("What?", "a.txt")])] == [UNCHANGED]
    assert standings(catalog, found) == [Standing.CHANGED]
    assert [o for o, _ in catalog.add_golden(collection, [asked("What?", "a.txt", reference="the tide")])] == [REPLACED]
    assert standings(catalog, found) == [Standing.CONFIRMED]


def test_pages_follow_each_other(catalog, collection):
    """Of one collection or of all, with a tag or without, each question once and in its order."""
    other = catalog.create_collection("other").id
    ids = add(catalog, collection, *(asked(f"q{n}", tags=frozenset({f"t{n % 2}"})) for n in range(7)))
    elsewhere = add(catalog, other, asked("q0"))
    assert [found.id for found in catalog.list_golden(collection)] == ids
    assert [found.id for found in catalog.list_golden(collection, tag="t1")] == ids[1::2]
    assert {found.id for found in catalog.list_golden()} == {*ids, *elsewhere}
    seen, last = [], None
    while page := catalog.list_golden(after=last, limit=3):
        seen += [found.id for found in page]
        last = seen[-1]
    assert seen == [found.id for found in catalog.list_golden()]


def test_a_document_stands_as_it_was_confirmed_until_its_content_changes(catalog, collection):
    """The same content again is no change; a new one is until it is confirmed; a deleted one is gone."""
    put(catalog, collection, "a.txt", ["storm"])
    [found] = add(catalog, collection, asked("What?", "a.txt", "later.txt"))
    assert standings(catalog, found) == [Standing.CONFIRMED, Standing.GONE]
    with pytest.raises(Conflict, match=r"'later\.txt' is not in the collection"):
        catalog.confirm_golden(found)
    document = put(catalog, collection, "a.txt", ["tide"])
    put(catalog, collection, "later.txt", ["buoy"])
    assert standings(catalog, found) == [Standing.CHANGED, Standing.CHANGED]
    put(catalog, collection, "a.txt", ["storm"])
    assert standings(catalog, found) == [Standing.CONFIRMED, Standing.CHANGED]
    before = catalog.golden(found)
    after = catalog.confirm_golden(found)
    assert standings(catalog, found) == [Standing.CONFIRMED, Standing.CONFIRMED]
    assert after == catalog.golden(found)
    assert (after.confirmed_at > before.confirmed_at, after.created_at) == (True, before.created_at)
    assert after.documents[0].confirmed.version == 3
    catalog.delete_document(document)
    assert standings(catalog, found) == [Standing.GONE, Standing.CONFIRMED]


def test_a_question_is_removed_for_good(catalog, collection):
    first, second = add(catalog, collection, asked("One?", "a", tags=frozenset("t")), asked("Two?"))
    catalog.remove_golden(first)
    assert [found.id for found in catalog.list_golden()] == [second]
    for ask in (catalog.golden, catalog.remove_golden, catalog.confirm_golden):
        with pytest.raises(NotFound, match="no golden question"):
            ask(first)


def test_questions_go_with_their_collection(catalog, collection):
    add(catalog, collection, asked("One?", "a", tags=frozenset("t")))
    catalog.delete_collection(collection)
    assert catalog.list_golden() == []
    with pytest.raises(NotFound):
        add(catalog, collection, asked("Two?"))


def test_what_is_quoted_goes_with_the_document_that_is_purged(catalog, collection):
    """Words that name a passage, and a reference made of an answer's sentences; what people wrote stays.

    Of another document, and of a version that is still searched, nothing goes.
    """
    document = put(catalog, collection, "a.txt", ["storm"])
    put(catalog, collection, "b.txt", ["buoy"])
    old = GoldenDocument("a.txt", "the storm", catalog.live_contents(collection, {"a.txt"})["a.txt"])
    other = GoldenDocument("b.txt", "a buoy")
    answered, written, apart = add(
        catalog, collection, Proposed("One?", "A storm.", documents=(old,), quoting=True),
        Proposed("Two?", "Bad weather.", documents=(old, other)), Proposed("Three?", "B.", documents=(other,)),
    )  # fmt: skip
    put(catalog, collection, "a.txt", ["tide"])
    fresh = add(catalog, collection, Proposed("Four?", "Tide.", documents=(GoldenDocument("a.txt", "tide"),)))[0]
    catalog.purge(collection, [document])
    assert (catalog.golden(answered).reference, catalog.golden(written).reference) == (None, "Bad weather.")
    assert [one.text for one in catalog.golden(written).documents] == [None, "a buoy"]
    assert catalog.golden(answered).purged_at is not None
    for untouched in (apart, fresh):
        assert catalog.golden(untouched).purged_at is None
        assert catalog.golden(untouched).documents[0].text is not None
    assert standings(catalog, written) == [Standing.CHANGED, Standing.CONFIRMED]


def test_nothing_of_a_purged_quote_is_left_on_the_disk(tmp_path):
    """Neither in the database nor in its log, after a purge and after a removal."""
    catalog = Catalog.in_folder(tmp_path)
    collection = catalog.create_collection("c").id
    document = put(catalog, collection, "a.txt", ["storm"])
    content = catalog.live_contents(collection, {"a.txt"})["a.txt"]
    quote = GoldenDocument("a.txt", "zanzibarquartz words", content)
    add(catalog, collection, Proposed("One?", "A zanzibarquartz reference.", documents=(quote,), quoting=True))
    [removed] = add(catalog, collection, Proposed("Two?", "A calypsobeacon reference."))
    catalog.delete_document(document)
    catalog.purge(collection)
    catalog.remove_golden(removed)
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    catalog.close()
    assert b"One?" in written
    assert b"zanzibarquartz" not in written
    assert b"calypsobeacon" not in written


def test_an_answer_is_not_quoted_after_its_document_was_purged(catalog, collection):
    """Whoever read the answer before the purge adds nothing of it after."""
    put(catalog, collection, "a.txt", ["storm"])
    gone = GoldenDocument("a.txt", None, Content("0" * 32, 1, "0" * 64))
    with pytest.raises(NotFound, match="purged meanwhile"):
        add(catalog, collection, Proposed("One?", "A storm.", documents=(gone,), quoting=True))
    assert catalog.list_golden() == []


def test_texts_that_no_database_can_keep_are_kept_without_what_it_can_not(catalog, collection):
    strange = "zero\0 half\ud800 whole\U0001f30a"
    wanted = Proposed(strange, strange, documents=(GoldenDocument(strange, strange),), tags=frozenset({strange}))
    [found] = add(catalog, collection, wanted)
    clean = "zero half whole\U0001f30a"
    read = catalog.golden(found)
    assert (read.question, read.reference, read.tags) == (clean, clean, {clean})
    assert read.documents == (GoldenDocument(clean, clean),)
    assert [outcome for outcome, _ in catalog.add_golden(collection, [wanted])] == [UNCHANGED]


def test_many_questions_are_added_at_once(catalog, collection):
    """More than go into one query, in one transaction, in their order."""
    wanted = [asked(f"Question {n}?", f"d{n}.txt", tags=frozenset({f"t{n % 3}"})) for n in range(2_500)]
    ids = add(catalog, collection, *wanted)
    assert [found.id for found in catalog.list_golden(collection)] == ids
    again = [replace(one, reference="yes") for one in wanted[:2_100]]
    assert {outcome for outcome, _ in catalog.add_golden(collection, again)} == {REPLACED}
