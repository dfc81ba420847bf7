"""The log of answers in the catalog, on both databases: kept, listed, followed, forgotten, purged to the last byte."""

from __future__ import annotations

import secrets
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from rag.answers import Answer, Policy, Wish
from rag.errors import NotFound
from rag.logged import Entry, Facts, IndexState, Logged, Redact, Texts, Told, from_json, redacted, to_json
from rag.queries import Message, Query, QueryRole, Speaker
from rag.records import Collection, Plan
from rag.schema import answer_documents, answers
from tests.contracts.strategies import put

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


def entry(
    collection: str, question: str, *documents: str, minutes: int = 0, conversation: str | None = None, **more: object
) -> Entry:
    """An answer that saw the first version of some documents."""
    at = NOON + timedelta(minutes=minutes)
    answer = Answer(secrets.token_hex(16), question, f"Answer to {question}", False, (), (), "scripted", at)
    plan = Plan(question, (Collection(collection, "c", NOON),), {"year": 2026}, 100, 8)
    facts = Facts(
        {"dense": (("d1", 0.5), ("d2", 0.25))}, {"embed": 0.1}, (IndexState(collection, "c", 3, 7),), "digest"
    )
    messages = ({"role": "user", "content": f"Question: {question}"},)
    texts = Texts(answer, plan, Wish(Policy.STRICT, 9, 0.5), messages)
    logged = Logged(answer.id, at, False, conversation, "scripted", False, texts, facts)
    return Entry(logged, (collection,), frozenset((found, 1) for found in documents), **more)


def keep(catalog, *entries: Entry) -> list[str]:
    catalog.add_answers(entries)
    return [one.logged.id for one in entries]


def texts_of(catalog, answer_id: str) -> Texts | None:
    return catalog.answer(answer_id).texts


def test_what_was_logged_is_read_as_it_was(catalog, collection):
    """Every field comes back: plan, wish, answer, messages, scores at each stage, timings, digests."""
    document = put(catalog, collection, "a", ["storm"])
    kept = entry(collection, "Where is the storm?", document)
    [answer_id] = keep(catalog, kept)
    assert catalog.answer(answer_id) == kept.logged
    with pytest.raises(NotFound, match="no answer 'nothing'"):
        catalog.answer("nothing")


def test_texts_that_no_database_can_keep_are_kept_all_the_same(catalog, collection):
    """Halves of character pairs and zero bytes, as a model may write them."""
    strange = "zero \0 half \ud800 whole \U0001f30a"
    kept = entry(collection, "What?")
    answer = replace(kept.logged.texts.answer, text=strange)
    kept = replace(kept, logged=replace(kept.logged, texts=replace(kept.logged.texts, answer=answer)))
    [answer_id] = keep(catalog, kept)
    assert texts_of(catalog, answer_id).answer.text == strange
    assert catalog.list_answers()[0].text == "zero  half  whole \U0001f30a"


def test_a_record_of_an_older_release_is_read_with_defaults():
    """A field that is newer than the record has its default, and one that is gone is passed over."""
    facts = Facts({}, {}, (), "digest")
    older = to_json(facts).replace('"prompt_tokens": 0', '"forgotten": 1')
    assert from_json(Facts, older) == facts


@pytest.mark.parametrize("level", list(Redact), ids=str)
def test_redaction_leaves_out_what_it_says(level):
    """question: nothing of what was asked, all: no text at all."""
    texts = entry("c", "Who is Ada?").logged.texts
    asked = (Query(QueryRole.QUESTION, "Who is Ada?"),)
    texts = replace(texts, answer=replace(texts.answer, text="A countess.", queries=asked))
    left = redacted(texts, level)
    written = "" if left is None else to_json(left)
    expected = {Redact.NONE: (True, True), Redact.QUESTION: (False, True), Redact.ALL: (False, False)}[level]
    assert ("Ada" in written, "countess" in written) == expected


def test_pages_of_the_list_follow_each_other(catalog, collection):
    """Newest first, each answer once, of one collection or of all; what has not ended is left out."""
    other = catalog.create_collection("other").id
    ids = keep(catalog, *(entry(collection, f"q{n}", minutes=n // 2) for n in range(7)))
    elsewhere = keep(catalog, entry(other, "elsewhere", minutes=9))
    opened = entry(collection, "unfinished")
    catalog.open_answer(replace(opened, logged=replace(opened.logged, facts=None)))
    first = catalog.list_answers(collection, limit=3)
    second = catalog.list_answers(collection, limit=9, before=first[-1].id)
    assert {found.id for found in [*first, *second]} == set(ids)
    assert len(first) + len(second) == 7
    times = [found.created_at for found in [*first, *second]]
    assert times == sorted(times, reverse=True)
    assert [found.id for found in catalog.list_answers()][:1] == elsewhere
    assert catalog.list_answers(limit=1)[0].question == "elsewhere"


def test_a_deleted_answer_is_gone_with_all_that_was_said_of_it(catalog, collection):
    [answer_id, other] = keep(catalog, entry(collection, "a"), entry(collection, "b"))
    catalog.add_feedback(answer_id, 1.0, None, "good")
    catalog.delete_answer(answer_id)
    for ask in (catalog.answer, catalog.delete_answer):
        with pytest.raises(NotFound):
            ask(answer_id)
    assert [found.id for found in catalog.list_answers()] == [other]


def test_feedback_is_kept_in_the_order_in_which_it_came(catalog, collection):
    [answer_id] = keep(catalog, entry(collection, "a"))
    catalog.add_feedback(answer_id, 1.0, None, "good\0")
    catalog.add_feedback(answer_id, -0.5, 2, None)
    said = catalog.answer(answer_id).feedback
    assert [(one.rating, one.claim, one.comment) for one in said] == [(1.0, None, "good"), (-0.5, 2, None)]
    with pytest.raises(NotFound):
        catalog.add_feedback("nothing", 1.0, None, None)


def test_old_answers_are_forgotten_and_no_others(catalog, collection):
    """By age, and by number: of ten answers the last four stay."""
    ids = keep(catalog, *(entry(collection, f"q{n}", minutes=n) for n in range(10)))
    assert catalog.forget_answers(NOON) == 0
    assert catalog.forget_answers(NOON + timedelta(minutes=3)) == 3
    assert catalog.forget_answers(NOON, most=4) == 3
    assert [found.id for found in catalog.list_answers()] == ids[:5:-1]


def test_a_conversation_is_its_last_turns(catalog, collection):
    """Oldest first, none of another conversation, and none that lost its texts."""
    keep(catalog, *(entry(collection, f"q{n}", minutes=n, conversation="talk") for n in range(5)))
    keep(catalog, entry(collection, "other", conversation="else"))
    assert catalog.turns("talk", 2) == [
        Message(Speaker.USER, "q3"), Message(Speaker.ASSISTANT, "Answer to q3"),
        Message(Speaker.USER, "q4"), Message(Speaker.ASSISTANT, "Answer to q4"),
    ]  # fmt: skip
    assert catalog.turns("nobody", 5) == []


def test_an_answer_is_known_by_key_basis_generator_and_age(catalog, collection):
    """The newest of those that agree in all of them; counts say how many were cached."""
    first, second = (entry(collection, "q", minutes=n, cache_key="k", basis="b") for n in range(2))
    keep(catalog, first, second)
    assert catalog.known_answer("k", "b", "scripted", NOON).id == second.logged.id
    for key, basis, generator, since in (
        ("x", "b", "scripted", NOON), ("k", "x", "scripted", NOON), ("k", "b", "other", NOON),
        ("k", "b", "scripted", NOON + timedelta(hours=1)),
    ):  # fmt: skip
        assert catalog.known_answer(key, basis, generator, since) is None
    again = entry(collection, "q", minutes=2)
    keep(catalog, replace(again, logged=replace(again.logged, cached=True)))
    assert catalog.answer_counts(NOON) == (3, 1)
    assert catalog.answer_counts(NOON + timedelta(minutes=2)) == (1, 1)


class TestEvents:
    """Events of an answer that is being written, for readers in any process."""

    @pytest.fixture
    def opened(self, catalog, collection) -> Entry:
        made = entry(collection, "q")
        catalog.open_answer(replace(made, logged=replace(made.logged, facts=None, texts=None)))
        return made

    def test_they_are_read_from_any_place_on(self, catalog, opened, open_another):
        told = [Told(n, "token", f'{{"text": "word {n}"}}') for n in range(1, 6)]
        assert catalog.add_events(opened.logged.id, told[:2])
        assert catalog.add_events(opened.logged.id, told[2:])
        reader = open_another()
        assert reader.events(opened.logged.id, 0).events == tuple(told)
        assert reader.events(opened.logged.id, 3).events == tuple(told[3:])
        assert reader.events(opened.logged.id, 5).events == ()
        assert not reader.events(opened.logged.id, 0).over
        catalog.add_events(opened.logged.id, [Told(6, "done", "{}")])
        assert reader.events(opened.logged.id, 6).over
        assert 0 <= reader.events(opened.logged.id, 5).silent < 60

    def test_the_end_takes_the_place_of_the_beginning(self, catalog, opened):
        assert catalog.answer(opened.logged.id).facts is None
        keep(catalog, opened)
        assert catalog.answer(opened.logged.id) == opened.logged

    def test_they_are_forgotten_after_a_while(self, catalog, opened):
        catalog.add_events(opened.logged.id, [Told(1, "done", "{}")])
        keep(catalog, opened)
        assert catalog.forget_events(60) == 0
        assert catalog.forget_events(-60) == 1
        with catalog._write() as connection:
            connection.execute(answers.update().values(seen_at=NOON))
        with pytest.raises(NotFound, match="some minutes"):
            catalog.events(opened.logged.id, 0)

    def test_of_an_answer_that_is_not_there_are_none(self, catalog):
        assert not catalog.add_events("nothing", [Told(1, "token", "{}")])
        with pytest.raises(NotFound):
            catalog.events("nothing", 0)


class TestPurge:
    """A purge takes the texts of the answers that saw what goes, and of no others."""

    def test_answers_lose_their_texts_with_the_documents_that_they_saw(self, catalog, collection):
        a, b = (put(catalog, collection, name, [name]) for name in "ab")
        saw_a, saw_b, saw_both = keep(
            catalog, entry(collection, "a?", a, cache_key="k", basis="b"), entry(collection, "b?", b),
            entry(collection, "both?", a, b),
        )  # fmt: skip
        catalog.add_feedback(saw_a, 1.0, None, "a, rightly")
        catalog.delete_document(a)
        assert texts_of(catalog, saw_a) is not None
        catalog.purge(collection)
        for gone in (saw_a, saw_both):
            found = catalog.answer(gone)
            assert (found.texts, found.facts.timings) == (None, {"embed": 0.1})
            assert found.purged_at is not None
        assert catalog.answer(saw_a).feedback[0].comment is None
        assert texts_of(catalog, saw_b).answer.text == "Answer to b?"
        assert catalog.known_answer("k", "b", "scripted", NOON) is None
        assert {found.question for found in catalog.list_answers()} == {None, "b?"}

    def test_a_replaced_version_takes_only_the_answers_that_saw_it(self, catalog, collection):
        document = put(catalog, collection, "a", ["old"])
        [old] = keep(catalog, entry(collection, "old?", document))
        put(catalog, collection, "a", ["new"])
        later = entry(collection, "new?")
        [new] = keep(catalog, replace(later, saw=frozenset({(document, 2)})))
        catalog.purge(collection)
        assert (texts_of(catalog, old), texts_of(catalog, new).answer.text) == (None, "Answer to new?")

    def test_later_turns_of_a_conversation_rest_on_what_the_earlier_ones_saw(self, catalog, collection):
        """The history of a turn quotes the answers before it; a turn that begins after the purge is free of it."""
        a, b = (put(catalog, collection, name, [name]) for name in "ab")
        first, second = keep(
            catalog, entry(collection, "a?", a, conversation="talk"),
            entry(collection, "and b?", b, minutes=1, conversation="talk"),
        )  # fmt: skip
        catalog.delete_document(a)
        catalog.purge(collection)
        assert texts_of(catalog, first) is texts_of(catalog, second) is None
        assert catalog.turns("talk", 9) == []
        begun_before = entry(collection, "again?", b, minutes=2, conversation="talk")
        soon = timedelta(days=365_000)
        begun_after = replace(begun_before, logged=replace(begun_before.logged, id="z" * 32, created_at=NOON + soon))
        keep(catalog, begun_before, begun_after)
        assert texts_of(catalog, begun_before.logged.id) is None
        assert texts_of(catalog, begun_after.logged.id).plan.question == "again?"

    def test_what_a_client_quotes_goes_with_any_purge_of_the_collection(self, catalog, collection):
        """Nobody knows whose words a conversation holds that came with the request."""
        document = put(catalog, collection, "a", ["a"])
        other = catalog.create_collection("other").id
        quoting, plain, elsewhere = keep(
            catalog, entry(collection, "q", quoting=True), entry(collection, "p"), entry(other, "e", quoting=True)
        )
        catalog.purge(collection)  # nothing to purge
        assert texts_of(catalog, quoting) is not None
        catalog.delete_document(document)
        catalog.purge(collection)
        assert texts_of(catalog, quoting) is None
        assert texts_of(catalog, plain) is not None
        assert texts_of(catalog, elsewhere) is not None

    def test_an_answer_that_was_being_written_loses_its_texts_too(self, catalog, collection):
        """It saw the document before the purge and is logged after it; one that had begun keeps no events either."""
        document = put(catalog, collection, "a", ["a"])
        late, opened = entry(collection, "late?", document), entry(collection, "opened?", document)
        catalog.open_answer(replace(opened, logged=replace(opened.logged, texts=None, facts=None)))
        catalog.add_events(opened.logged.id, [Told(1, "token", '{"text": "a"}')])
        catalog.delete_document(document)
        catalog.purge(collection)
        assert not catalog.add_events(opened.logged.id, [Told(2, "token", '{"text": "b"}')])
        with pytest.raises(NotFound, match="deleted meanwhile"):
            catalog.open_answer(entry(collection, "too late?", document))
        for answer_id in keep(catalog, late, opened):
            assert texts_of(catalog, answer_id) is None
            assert catalog.answer(answer_id).facts is not None

    def test_a_deleted_collection_takes_the_texts_of_its_answers(self, catalog, collection):
        other = catalog.create_collection("other").id
        document = put(catalog, collection, "a", ["a"])
        here, inherited, elsewhere = keep(
            catalog, entry(collection, "here", document), entry(other, "inherited", document), entry(other, "e")
        )
        late = entry(collection, "late")
        catalog.delete_collection(collection)
        keep(catalog, late)
        for gone in (here, inherited, late.logged.id):
            assert texts_of(catalog, gone) is None
        assert texts_of(catalog, elsewhere) is not None

    def test_no_byte_of_them_is_left_in_sqlites_files(self, catalog, collection, tmp_path):
        """Neither the compressed texts and events nor the plain columns, in the database and in its log."""
        if catalog._database.dialect != "sqlite":
            pytest.skip("PostgreSQL keeps deleted rows until its own VACUUM")
        document = put(catalog, collection, "a", ["a"])
        marked = [entry(collection, f"zanzibarquartz {'deep ' * (n * 37 % 211)} {n}?", document) for n in range(40)]
        plain = [entry(collection, f"coral {'wide ' * (n * 31 % 201)} {n}?") for n in range(40)]
        for one, other in zip(marked, plain, strict=True):
            keep(catalog, one, other)
        event = '{"text": "' + secrets.token_hex(3000) + '"}'
        opened = entry(collection, "zanzibarquartz opened", document)
        catalog.open_answer(replace(opened, logged=replace(opened.logged, texts=None, facts=None)))
        catalog.add_events(opened.logged.id, [Told(1, "token", event)])
        with catalog._read() as connection:
            rows = connection.execute(answers.select()).all()
        blobs = [row.texts for row in rows if row.texts and "zanzibar" in row.question]
        pieces = [b"zanzibarquartz", zlib.compress(event.encode(), 6)[100:160], *(blob[30:94] for blob in blobs)]

        def left() -> list[bytes]:
            files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
            return [piece for piece in pieces if any(piece in content for content in files)]

        assert left() == pieces
        assert len(pieces) == 42
        catalog.delete_document(document)
        catalog.purge(collection)
        assert left() == []
        assert sum(found.question is not None for found in catalog.list_answers(limit=200)) == 40


def test_logging_purging_and_forgetting_at_once_end_well(catalog, collection):
    """Whatever waits for whatever, nothing fails, and no text stands that saw a document that is gone."""
    documents = [put(catalog, collection, str(n), [str(n)]) for n in range(8)]

    def log() -> None:
        for n in range(20):
            told = [entry(collection, f"q{n}", documents[(n + m) % 8], minutes=n, conversation="talk") for m in (0, 3)]
            catalog.add_answers(told)
            catalog.add_feedback(told[0].logged.id, 1.0, None, "good")

    def follow() -> None:
        for n in range(20):
            opened = entry(collection, f"o{n}", documents[n % 2])
            with suppress(NotFound):  # of a document that was purged
                catalog.open_answer(replace(opened, logged=replace(opened.logged, texts=None, facts=None)))
            catalog.add_events(opened.logged.id, [Told(1, "token", "{}")])

    def purge() -> None:
        for document in documents[:4]:
            catalog.delete_document(document)
            catalog.purge(collection)

    def forget() -> None:
        for _ in range(5):
            catalog.forget_answers(NOON, most=30)
            catalog.forget_events(60)

    with ThreadPoolExecutor(5) as threads:
        for work in [threads.submit(work) for work in (log, log, follow, purge, forget)]:
            work.result()
    with catalog._read() as connection:
        gone = answer_documents.c.document_id.in_(documents[:4])
        left = select(answers.c.id).join(answer_documents).where(gone & answers.c.texts.is_not(None))
        assert connection.scalars(left).all() == []
