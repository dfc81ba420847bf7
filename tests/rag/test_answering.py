"""Answers between cache and log: what is asked again is found again, and only where it would be written again."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from rag.answers import AS_USUAL, NO_WISH, Answer, Keeping, Wish
from rag.assembly import Citewell, open_citewell
from rag.errors import BadInput, NotFound
from rag.pipeline import Done, Passages, Token
from rag.plan import MOST_MESSAGES
from rag.prompt import estimate_tokens
from rag.queries import Message, Speaker
from rag.records import Delta, Prompt
from rag.schema import answers
from rag.settings import AnswerSettings, GeneratorSettings, Settings, environment_for
from rag.testing import ScriptedGenerator, WordEmbedder
from tests.contracts.strategies import WORDS
from tests.rag.test_purge import MARKER, holding, ingest

UNCACHED = Keeping(cached=False)


@dataclass
class Copying:
    """A language model that copies the beginnings of its passages and counts how often it was asked."""

    name: str = "copying"
    quotes: bool = False
    prompts: list[Prompt] = field(default_factory=list)

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        self.prompts.append(prompt)
        for number, passage in enumerate(prompt.passages[:2], 1):
            yield Delta(f"{passage.text[:60]}")
            yield Delta(f" [{number}] ")

    async def aclose(self) -> None:
        """Nothing is open."""


@contextmanager
def opened(settings: Settings, generator: Any, **kept: object) -> Iterator[Citewell]:
    chosen = settings.model_copy(update={"answers": AnswerSettings(**kept)})
    with open_citewell(chosen, embedder=WordEmbedder(), generator=generator) as citewell:
        citewell.store.catalog.ensure_collection("c")
        yield citewell


@pytest.fixture
def copying() -> Copying:
    return Copying()


@pytest.fixture
def citewell(settings: Settings, copying: Copying) -> Iterator[Citewell]:
    """A Citewell with two documents, whose answers a model copies."""
    with opened(settings, copying) as made:
        put(made, {"a.md": "The keel is made of oak.", "b.md": "The mast is made of pine."})
        yield made


def put(citewell: Citewell, files: dict[str, str]) -> None:
    ingest(citewell, citewell.store.catalog.collection("c"), files)


def delete(citewell: Citewell, name: str) -> None:
    catalog = citewell.store.catalog
    catalog.delete_document(catalog.find_document(catalog.collection("c").id, name).id)


def ask(
    citewell: Citewell, question: str = "What is the keel made of?", *, wish: Wish = NO_WISH,
    keeping: Keeping = AS_USUAL, **plan: Any,
) -> Answer:  # fmt: skip
    return citewell.ask_once(citewell.plan(question, ["c"], **plan), wish, keeping)


def said(answer: Answer) -> tuple[object, ...]:
    """All that an answer says, and how well it is supported: not when, under which id, or how fast."""
    return answer.question, answer.text, answer.abstained, answer.claims, answer.passages, answer.notice, answer.queries


# -- the cache -----------------------------------------------------------------------------------------------------


def test_what_is_asked_again_is_answered_by_the_same_words(citewell, copying):
    """Text, claims, citations and passages are those of the first answer; id, time and timings are its own."""
    first, second = ask(citewell), ask(citewell, "  What is   the keel made of? ")
    assert said(first) == said(second)
    assert first.citations
    assert (first.cached, second.cached, len(copying.prompts)) == (False, True, 1)
    assert first.id != second.id
    assert second.created_at > first.created_at
    assert "cache" in second.timings
    assert "generate" not in second.timings
    assert citewell.store.catalog.answer_counts(datetime(2026, 1, 1, tzinfo=UTC)) == (2, 1)


def test_a_cached_answer_comes_as_a_stream_of_one_piece(citewell):
    async def events() -> list[object]:
        return [event async for event in citewell.stream(citewell.plan("What is the keel made of?", ["c"]))]

    ask(citewell)
    told = asyncio.run(events())
    assert isinstance(told[0], Passages)
    assert isinstance(told[-1], Done)
    assert told[0].answer_id == told[-1].answer.id
    assert [event.text for event in told if isinstance(event, Token)] == [told[-1].answer.text]


def test_a_change_that_touches_no_passage_costs_nothing(citewell, copying):
    """A new document that is not found for the question, and one that goes: the answer stands."""
    ask(citewell, top_k=1)
    put(citewell, {"c.md": "Sails are sewn by hand."})
    delete(citewell, "b.md")
    assert ask(citewell, top_k=1).cached
    assert len(copying.prompts) == 1


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"a.md": "The keel is made of steel."}, id="replaced"),
        pytest.param({"d.md": "What is the keel made of? Of iron, the keel is made."}, id="a_better_one"),
        pytest.param(None, id="deleted"),
    ],
)
def test_a_change_of_what_is_found_is_seen_at_once(citewell, copying, change):
    """A cited document that is replaced or deleted, and a new one that is found before it."""
    first = ask(citewell, top_k=1)
    if change is None:
        delete(citewell, "a.md")
    else:
        put(citewell, change)
    second = ask(citewell, top_k=1)
    assert not second.cached
    assert second.text != first.text
    assert len(copying.prompts) == 2


@pytest.mark.parametrize(
    ("question", "more"),
    [
        pytest.param("What is the keel made of, then?", {}, id="question"),
        pytest.param("What is the keel made of?", {"top_k": 1}, id="top_k"),
        pytest.param("What is the keel made of?", {"filters": {"document": {"exists": True}}}, id="filters"),
        pytest.param("What is the keel made of?", {"parts": {"late": False}}, id="parts"),
        pytest.param(
            "What is the keel made of?", {"history": [Message(Speaker.USER, "What of the mast?")]}, id="history"
        ),
        pytest.param("What is the keel made of?", {"wish": Wish(max_tokens=40)}, id="wish"),
        pytest.param("What is the keel made of?", {"wish": Wish(temperature=0.7)}, id="drawn_by_lot"),
        pytest.param("What is the keel made of?", {"keeping": UNCACHED}, id="not_wanted"),
    ],
)
def test_nothing_stands_for_another_question(citewell, copying, question, more):
    """Whatever differs in what is asked, how it is looked for or how it is written: it is written anew."""
    ask(citewell)
    assert not ask(citewell, question, **more).cached
    assert len([prompt for prompt in copying.prompts if prompt.passages]) >= 2


def test_an_answer_to_one_collection_stands_for_none_to_another(citewell, copying):
    """The same words in two collections are two answers."""
    other = citewell.store.catalog.create_collection("other")
    ingest(citewell, other, {"a.md": "The keel is made of oak."})
    ask(citewell)
    answer = citewell.ask_once(citewell.plan("What is the keel made of?", ["other"]))
    assert (answer.cached, len(copying.prompts)) == (False, 2)
    assert citewell.ask_once(citewell.plan("What is the keel made of?", ["other"])).cached


def test_other_settings_write_anew(citewell, settings, copying):
    ask(citewell)
    generator = GeneratorSettings(max_tokens=77)
    with opened(settings.model_copy(update={"generator": generator}), copying) as other:
        assert not ask(other).cached
    with opened(settings, Copying(name="another model")) as other:
        assert not ask(other).cached
    with opened(settings, copying) as same:
        assert ask(same).cached


def test_an_old_answer_stands_for_none(citewell, settings, copying):
    ask(citewell)
    with opened(settings, copying, cache_seconds=1e-6) as later:
        assert not ask(later).cached


@pytest.mark.parametrize("reader", ["trained", "words"])
@pytest.mark.parametrize("cache", [True, False])
def test_the_built_in_readers_are_cached_unless_the_settings_say_no(settings, cache, reader):
    chosen = settings.model_copy(update={"generator": GeneratorSettings(reader=reader)})
    with opened(chosen, None, cache=cache) as citewell:
        put(citewell, {"a.md": "The keel is made of oak."})
        assert [ask(citewell).cached for _ in range(2)] == [False, cache]
        assert citewell.answering.caches == cache


def test_what_went_wrong_once_is_not_repeated(settings):
    """An answer of the reader in place of a model that failed stands for nothing."""
    failing = ScriptedGenerator(["Half an ans"], failure="It went away.")
    with opened(settings, failing) as citewell:
        put(citewell, {"a.md": "The keel is made of oak."})
        assert [ask(citewell).cached for _ in range(2)] == [False, False]
        assert len(failing.prompts) == 2


def test_a_purged_document_is_served_from_no_cache(citewell, copying):
    ask(citewell)
    delete(citewell, "b.md")
    put(citewell, {"b.md": "The mast is made of pine."})
    citewell.purge(citewell.store.catalog.collection("c"))
    assert not ask(citewell).cached


documents = st.sampled_from(["a", "b", "c", "d"])
texts = st.lists(st.sampled_from(WORDS[:6]), min_size=1, max_size=5).map(" ".join)
asked = st.tuples(st.just("ask"), st.just(""), st.sampled_from([WORDS[0], f"{WORDS[1]} {WORDS[2]}"]))
steps = st.one_of(
    asked,
    asked,
    st.tuples(st.just("put"), documents, texts),
    st.tuples(st.just("delete"), documents, st.just("")),
)


@pytest.mark.long
def test_a_system_with_a_cache_answers_as_one_without(tmp_path_factory, settings, migrated_file):
    """Whatever is put, replaced, deleted and asked in whatever order: the same words, citations and scores."""
    cached = 0

    @given(st.lists(steps, min_size=6, max_size=16))
    @examples(max_examples=12)
    def check(taken: list[tuple[str, str, str]]) -> None:
        nonlocal cached
        folder = tmp_path_factory.mktemp("data")
        shutil.copy(migrated_file, folder)
        with opened(settings.model_copy(update={"data": folder}), Copying()) as citewell:
            alive: dict[str, str] = {}
            for step, name, text in taken:
                if step == "put" and alive.get(name) != text:
                    put(citewell, {f"{name}.md": text})
                    alive[name] = text
                elif step == "delete" and name in alive:
                    delete(citewell, f"{name}.md")
                    del alive[name]
                elif step == "ask":
                    first, fresh = ask(citewell, text, top_k=2), ask(citewell, text, top_k=2, keeping=UNCACHED)
                    assert not fresh.cached
                    assert said(first) == said(fresh)
                    cached += first.cached

    check()
    assert cached > 5


# -- the log -------------------------------------------------------------------------------------------------------


def test_the_log_explains_an_answer(citewell, copying):
    """Plan, candidates and scores at each stage, prompt, generator, timings, index states and settings."""
    answer = ask(citewell, filters={"document": "a.md"}, wish=Wish(max_tokens=50), keeping=Keeping(conversation="t"))
    found = citewell.answering.answer(answer.id)
    plan = found.texts.plan
    assert (plan.question, plan.filters, found.texts.wish.max_tokens) == (answer.question, {"document": "a.md"}, 50)
    assert found.texts.messages == tuple(dict(message) for message in copying.prompts[-1].messages)
    assert replace(found.texts.answer, stages=answer.stages) == answer
    stages = found.facts.stages
    assert {"dense", "lexical", "fused", "late"} <= set(stages)
    for name, stage in stages.items():
        assert tuple(chunk_id for chunk_id, _ in stage) == answer.stages[name]
        assert [score for _, score in stage] == sorted((score for _, score in stage), reverse=True)
    best = answer.passages[0]
    assert {name: dict(stages[name])[best.chunk_id] for name in best.scores} == dict(best.scores)
    [state] = found.facts.indexes
    pulse = citewell.store.catalog.pulse(state.collection_id)
    assert (state.name, state.commits, state.last_seq) == ("c", pulse.commits, pulse.last_seq)
    assert found.facts.settings_digest == citewell.store.settings.digest()
    assert (found.generator, found.abstained, found.conversation) == ("copying", False, "t")
    assert found.facts.prompt_tokens == copying.prompts[-1].tokens


def test_an_index_state_changes_with_the_collection(citewell):
    states = []
    for text in ("one", "two"):
        put(citewell, {"c.md": text})
        states.append(citewell.answering.answer(ask(citewell).id).facts.indexes[0].digest)
    again = citewell.answering.answer(ask(citewell).id).facts.indexes[0].digest
    assert states[0] != states[1] == again


@pytest.mark.parametrize(
    ("keeping", "kept"),
    [
        pytest.param(Keeping(store=False), {}, id="request"),
        pytest.param(AS_USUAL, {"keep": False}, id="settings"),
    ],
)
def test_an_answer_that_is_not_to_be_kept_is_not(settings, keeping, kept):
    with opened(settings, Copying(), **kept) as citewell:
        put(citewell, {"a.md": "The keel is made of oak."})
        answer = ask(citewell, keeping=keeping)
        assert len(answer.id) == 32
        with pytest.raises(NotFound):
            citewell.answering.answer(answer.id)


def test_a_redacted_answer_is_kept_without_its_texts(settings):
    with opened(settings, Copying(), redact="all") as citewell:
        put(citewell, {"a.md": "The keel is made of oak."})
        answers = [ask(citewell) for _ in range(2)]
        assert [answer.cached for answer in answers] == [False, False]
        found = citewell.answering.answer(answers[0].id)
        assert found.texts is None
        assert found.facts.stages["dense"][0][0] == answers[0].passages[0].chunk_id
        assert citewell.store.catalog.list_answers()[0].question is None


def test_an_answer_that_can_not_be_logged_is_given_with_a_notice(citewell):
    """The database refuses the row: the text is whole, and its reader is told."""
    with sqlite3.connect(citewell.store.settings.data / "catalog.sqlite3") as connection:
        connection.execute("CREATE TRIGGER full BEFORE INSERT ON answers BEGIN SELECT RAISE(ABORT, 'no more'); END")
    answer = ask(citewell)
    assert "oak" in answer.text
    assert answer.citations
    assert answer.notice.startswith("This answer could not be kept.")
    with pytest.raises(NotFound):
        citewell.answering.answer(answer.id)


def test_an_answer_does_not_wait_for_a_catalog_that_is_busy(citewell):
    """It is given while another process holds the database, and is in the log as soon as that is over."""
    other = sqlite3.connect(citewell.store.settings.data / "catalog.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    answer = ask(citewell)
    assert (answer.notice, "oak" in answer.text) == (None, True)
    assert citewell.store.catalog.list_answers() == []
    other.execute("COMMIT")
    other.close()
    assert citewell.answering.answer(answer.id).texts.answer.text == answer.text


def test_many_answers_at_once_are_all_logged(citewell):
    async def all_at_once() -> list[Answer]:
        plans = [citewell.plan(f"What is the keel made of, {n}?", ["c"]) for n in range(40)]
        return await asyncio.gather(*(citewell.ask(plan) for plan in plans))

    answers = asyncio.run(all_at_once())
    assert {citewell.answering.answer(answer.id).texts.plan.question for answer in answers} == {
        answer.question for answer in answers
    }


def test_what_is_still_to_be_written_is_written_before_all_ends(settings):
    with opened(settings, Copying()) as citewell:
        put(citewell, {"a.md": "The keel is made of oak."})
        other = sqlite3.connect(settings.data / "catalog.sqlite3", isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        answer = ask(citewell)
        other.execute("COMMIT")
        other.close()
    with opened(settings, Copying()) as later:
        assert later.store.catalog.answer(answer.id).texts.answer.id == answer.id


def test_no_word_of_a_purged_document_is_left_in_the_log(citewell):
    """Answers, cached ones, later turns and prompts: plain words and compressed ones, in no byte of any file."""
    put(citewell, {"secret.md": f"The {MARKER} is made of gold.", "open.md": "The coral is made of lime."})
    for n in range(12):
        ask(citewell, f"What is the {MARKER} made of, {n % 6}?", top_k=1)
        ask(citewell, f"What is the coral made of, {n}?", top_k=1)
        talk(citewell, f"And the {MARKER}, {n}?")
    with citewell.store.catalog._read() as connection:
        rows = connection.execute(answers.select()).all()
    blobs = [row.texts[40:104] for row in rows if MARKER in row.text]
    kept = [row.id for row in rows if "coral" in row.question]
    folder = citewell.store.settings.data
    assert len(blobs) == 24
    assert all(holding(folder, blob) for blob in blobs)
    delete(citewell, "secret.md")
    citewell.purge(citewell.store.catalog.collection("c"))
    assert holding(folder, MARKER.encode()) == []
    assert [blob for blob in blobs if holding(folder, blob)] == []
    assert all("lime" in citewell.answering.answer(found).texts.answer.text for found in kept)
    assert citewell.answering.said("talk") == []


def test_the_log_keeps_answers_as_long_as_the_settings_say(settings):
    """Sweeping, as a worker does each hour, removes what is too old or too much, and nothing else."""
    with opened(settings, Copying(), most_kept=3) as citewell:
        put(citewell, {"a.md": "The keel is made of oak."})
        ids = [ask(citewell, f"What is the keel made of, {n}?").id for n in range(5)]
        assert citewell.store.sweep() == 2
        assert [headline.id for headline in citewell.store.catalog.list_answers()] == ids[:1:-1]
        with citewell.store.catalog._write() as connection:
            old = datetime.now(UTC) - timedelta(days=30, seconds=1)
            connection.execute(answers.update().where(answers.c.id == ids[3]).values(created_at=old))
        assert citewell.store.sweep() == 1
        assert {headline.id for headline in citewell.store.catalog.list_answers()} == {ids[2], ids[4]}


def test_a_worker_beside_a_server_goes_by_the_same_retention(settings):
    """The settings of a server reach its worker, wherever they came from."""
    chosen = settings.model_copy(update={"answers": AnswerSettings(retention_days=2)})
    assert '"retention_days": 2' in environment_for(chosen)["CITEWELL_ANSWERS"]


# -- conversations ---------------------------------------------------------------------------------------------------


def talk(citewell: Citewell, question: str, conversation: str = "talk") -> Answer:
    history = citewell.answering.said(conversation)
    return ask(citewell, question, history=history, keeping=Keeping(conversation=conversation))


def test_a_conversation_remembers_what_was_said(citewell):
    """A follow-up is looked for together with the question before it; another conversation knows nothing of it."""
    first = talk(citewell, "What is the keel made of?")
    second = talk(citewell, "And the mast?")
    assert [(turn.role, turn.content) for turn in citewell.answering.said("talk")[:2]] == [
        (Speaker.USER, first.question), (Speaker.ASSISTANT, first.text)
    ]  # fmt: skip
    assert first.conversation == second.conversation == "talk"
    assert first.question in " ".join(query.text for query in second.queries)
    assert citewell.answering.said("another") == []
    alone = talk(citewell, "And the mast?", "another")
    assert len(alone.queries) == 1


def test_a_conversation_costs_no_more_the_longer_it_is(settings):
    """Of 80 turns at most 100 messages are read, and no more of them is used than the settings allow."""
    with opened(settings, Copying()) as citewell:
        put(citewell, {"a.md": "The keel is made of oak, and nobody knows why it is not made of larch. " * 3})
        longest = 0
        for number in range(80):
            talk(citewell, f"What is the keel made of, asked for the {number}th time?")
            history = citewell.answering.said("talk")
            tokens = sum(estimate_tokens(message.content) + 4 for message in history)
            longest = max(longest, tokens)
            assert len(history) <= MOST_MESSAGES
        assert settings.understanding.history_tokens / 2 < longest <= settings.understanding.history_tokens
        assert len(citewell.store.catalog.turns("talk", MOST_MESSAGES // 2)) == MOST_MESSAGES
        assert history[-2].content.endswith("for the 79th time?")


def test_an_answer_that_abstained_is_a_turn_and_a_failure_is_none(settings):
    failing = ScriptedGenerator([], failure="It went away.")
    chosen = settings.model_copy(update={"generator": settings.generator.model_copy(update={"fall_back": False})})
    with opened(chosen, failing) as citewell:
        put(citewell, {"a.md": "The keel is made of oak."})
        with pytest.raises(Exception, match="went away"):
            talk(citewell, "What is the keel made of?")
        assert citewell.answering.said("talk") == []
        failing.failure = None
        assert talk(citewell, "Who knows?").abstained
        assert citewell.answering.said("talk")[0].content == "Who knows?"


@pytest.mark.parametrize(
    ("keeping", "kept"),
    [
        pytest.param(Keeping(conversation="t", store=False), {}, id="conversation_not_stored"),
        pytest.param(Keeping(conversation="t"), {"redact": "question"}, id="conversation_redacted"),
        pytest.param(Keeping(resumable=True), {"keep": False}, id="resumable_not_kept"),
    ],
)
def test_what_needs_the_log_is_refused_without_it(settings, keeping, kept):
    with opened(settings, Copying(), **kept) as citewell, pytest.raises(BadInput, match="needs the log"):
        ask(citewell, keeping=keeping)


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "ä", "a/b"])
def test_what_is_no_id_of_a_conversation_is_refused(citewell, name):
    with pytest.raises(BadInput, match="conversation is no id"):
        citewell.answering.said(name)
