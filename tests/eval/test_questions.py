"""The questions of a report: sampled by stratum and seed, made of passages, and never mixed with golden ones."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from eval.questions import WEAK, Level, Sizes, allocate, gather, generated, level_of, sample, traffic
from eval.runs import Source
from rag.answers import Answer, Claim
from rag.assembly import Citewell, open_citewell
from rag.golden import GoldenDocument, Proposed
from rag.logged import Entry, Exchange, Facts, Logged, Texts, least_support
from rag.records import Collection, Plan
from rag.settings import load_settings
from rag.testing import ScriptedGenerator, WordEmbedder
from tests.eval.test_tuning import put

NOW = datetime.now(UTC)
YESTERDAY = NOW - timedelta(days=1)

exchanges = st.lists(
    st.builds(
        Exchange,
        st.uuids().map(lambda found: found.hex),
        st.sampled_from([f"Question {n}?" for n in range(30)]),
        st.booleans(),
        st.none() | st.sampled_from([0.1, 0.5, 0.9]),
        st.sampled_from([("a",), ("b",), ("a", "b")]),
        st.booleans(),
    ),
    max_size=80,
    unique_by=lambda exchange: exchange.id,
)


def same(exchange: Exchange) -> object:
    return exchange.id if exchange.follows else (exchange.question.casefold(), exchange.collections)


# -- sampling ----------------------------------------------------------------------------------------------------------


@given(
    sizes=st.dictionaries(st.integers(0, 20), st.integers(0, 40), max_size=8),
    count=st.integers(0, 200),
    weights=st.lists(st.floats(0.1, 10), min_size=21, max_size=21),
)
def test_places_are_given_out_whole(sizes, count, weights):
    """As many as there are, none beyond a stratum's size, one for each as long as there are any; more for more."""
    places = allocate(sizes, count, lambda key: weights[key])
    assert sum(places.values()) == min(count, sum(sizes.values()))
    assert all(0 <= places[key] <= sizes[key] for key in sizes)
    if count >= len([size for size in sizes.values() if size]):
        assert all(places[key] for key in sizes if sizes[key])
    for key in sizes:
        for other in sizes:
            if weights[key] * sizes[key] > weights[other] * sizes[other] and places[key] < sizes[key]:
                assert places[key] >= places[other]


def test_places_by_hand():
    """Places for 60, 30 and 10: one each, then to the largest of 60/2, 30/2 and 10/2, then of 60/3, 30/2 and so on."""
    assert allocate({"a": 60, "b": 30, "c": 10}, 5, lambda _: 1.0) == {"a": 3, "b": 1, "c": 1}
    assert allocate({"a": 60, "b": 30, "c": 10}, 7, lambda _: 1.0) == {"a": 4, "b": 2, "c": 1}
    assert allocate({"a": 60, "b": 30}, 2, lambda key: 9.0 if key == "b" else 1.0) == {"a": 1, "b": 1}
    assert allocate({"a": 60, "b": 30}, 1, lambda key: 9.0 if key == "b" else 1.0) == {"a": 0, "b": 1}
    assert allocate({}, 5, lambda _: 1.0) == {}


@given(asked=exchanges, count=st.integers(0, 60), seed=st.text(max_size=5))
def test_a_sample_repeats_nothing_and_stands_for_all(asked, count, seed):
    """Sizes by stratum, no question twice, the same for the same seed; weights add up to what was asked in it."""
    drawn = sample(asked, count, 0.6, seed)
    distinct = {same(exchange): exchange for exchange in asked}
    assert len(drawn) == min(count, len(distinct))
    assert len({same(exchange) for exchange, _, _ in drawn}) == len(drawn)
    assert all(distinct[same(exchange)] is exchange for exchange, _, _ in drawn), "the last answer to a question"
    assert drawn == sample(asked, count, 0.6, seed)
    assert all(level is level_of(exchange, 0.6) for exchange, _, level in drawn)
    sizes = Counter((exchange.collections, level_of(exchange, 0.6)) for exchange in distinct.values())
    expected = allocate(dict(sorted(sizes.items())), count, lambda key: 1.0 if key[1] is Level.SUPPORTED else WEAK)
    places = Counter((exchange.collections, level) for exchange, _, level in drawn)
    assert places == {key: number for key, number in expected.items() if number}
    if count >= len(distinct):
        assert sum(weight for _, weight, _ in drawn) == pytest.approx(len(asked))


def test_the_draw_goes_by_the_seed_and_an_answer_that_leaves_changes_its_own_place_alone():
    asked = [Exchange(f"{n:032x}", f"Question {n}?", False, 0.9, ("a",), False) for n in range(200)]
    first, other = ([one.id for one, _, _ in sample(asked, 20, 0.6, seed)] for seed in ("1", "2"))
    assert len({*first} & {*other}) < 10
    left = [one for one in asked if one.id != first[3]]
    again = [one.id for one, _, _ in sample(left, 20, 0.6, "1")]
    assert {*first} - {*again} == {first[3]}
    assert [weight for _, weight, _ in sample(asked, 20, 0.6, "1")] == [10.0] * 20


def test_weak_answers_are_drawn_more_often_than_their_share():
    """Of 90 supported answers and 10 weak ones, twelve places give the weak ones three, not one."""
    asked = [Exchange(f"{n:032x}", f"Q{n}", False, 0.1 if n < 10 else 0.9, ("a",), False) for n in range(100)]
    assert Counter(level for _, _, level in sample(asked, 12, 0.6, "s")) == {Level.SUPPORTED: 9, Level.WEAK: 3}


def test_the_support_of_an_answer_is_that_of_its_weakest_sentence():
    """Withheld sentences count as not supported at all; what no document could support does not count."""
    claims = (
        Claim("a", 0, 1, (), together=0.9),
        Claim("b", 1, 2, (), together=0.4),
        Claim("Hi!", 2, 3, (), checkable=False),
    )
    answer = Answer("x", "q", "ab", False, claims, (), "scripted", NOW)
    assert least_support(answer) == 0.4
    assert least_support(replace(answer, withheld=1)) == 0
    assert least_support(replace(answer, claims=claims[2:])) is None


# -- out of the catalog ------------------------------------------------------------------------------------------------


@pytest.fixture
def citewell(tmp_path: Path) -> Iterator[Citewell]:
    with opened(tmp_path) as found:
        yield found


def opened(folder: Path, generator: ScriptedGenerator | None = None, **settings: object):
    made = load_settings(data=folder / "data", judge={"kind": "words"}, **settings)
    return open_citewell(made, embedder=WordEmbedder(), generator=generator)


def ask(
    citewell: Citewell,
    collection: Collection,
    question: str,
    *,
    hours: float = 12,
    support: float = 0.9,
    reported: bool = False,
) -> str:
    """Log an answer of one sentence that was given some hours ago; return its id."""
    at = NOW - timedelta(hours=hours)
    claim = Claim("So it is.", 0, 9, (), together=support)
    answer = Answer(secrets.token_hex(16), question, "So it is.", False, (claim,), (), "scripted", at)
    texts = Texts(answer, Plan(question, (collection,), {"year": 2026}, 9, 3))
    logged = Logged(answer.id, at, False, None, "scripted", False, texts, Facts({}, {}, (), ""))
    citewell.store.catalog.add_answers([Entry(logged, (collection.id,), frozenset(), reported=reported)])
    return answer.id


def test_traffic_is_that_of_the_time_and_the_collections(citewell):
    """With where it looked, what it said before, and its level as a tag; nothing of another time or collection."""
    here, other = (citewell.store.catalog.create_collection(name) for name in ("here", "other"))
    kept = [ask(citewell, here, "When?"), ask(citewell, here, "Where?", support=0.1)]
    ask(citewell, here, "Long ago?", hours=40)
    ask(citewell, here, "Just now?", hours=-1)
    ask(citewell, other, "Elsewhere?")
    found, reason = traffic(citewell, [here], YESTERDAY, NOW, 9, "s")
    assert reason is None
    assert {(one.answer_id, one.text, one.tags) for one in found} == {
        (kept[0], "When?", ("supported",)), (kept[1], "Where?", ("weak",))
    }  # fmt: skip
    assert {(one.source, one.collection, one.filters["year"], one.weight) for one in found} == {
        (Source.TRAFFIC, "here", 2026, 1.0)
    }


def test_what_a_report_asked_is_no_traffic(citewell):
    catalog = citewell.store.catalog
    here = catalog.create_collection("here")
    asked = ask(citewell, here, "When?")
    ask(citewell, here, "Where?", reported=True)
    assert [one.answer_id for one in traffic(citewell, [here], YESTERDAY, NOW, 9, "s")[0]] == [asked]


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        ({"keep": False}, "keep no answers"),
        ({"redact": "question"}, "keep no questions"),
        ({"redact": "all"}, "keep no questions"),
        ({"retention_days": 0.1}, "Nobody asked anything"),
    ],
)
def test_traffic_respects_what_the_settings_keep(tmp_path, answers, sentence):
    """Also of what was logged before they said so and is not yet swept away."""
    with opened(tmp_path) as citewell:
        here = citewell.store.catalog.create_collection("here")
        ask(citewell, here, "When?")
        assert len(traffic(citewell, [here], YESTERDAY, NOW, 9, "s")[0]) == 1
    with opened(tmp_path, answers=answers) as citewell:
        found, reason = traffic(citewell, [here], YESTERDAY, NOW, 9, "s")
        assert (found, sentence in reason) == ([], True)
        assert traffic(citewell, [here], YESTERDAY, NOW, 0, "s") == ([], None)


PROSE = (
    "In 1911 the harbour of Norden got 14 iron lamps from Karin Lindqvist. "
    "The keeper Jonas Haas cleaned every lamp of the harbour with warm vinegar on Sundays."
)


def filled(citewell: Citewell, name: str = "docs", documents: int = 12) -> Collection:
    for number in range(documents):
        text = PROSE.replace("1911", str(1911 + number)).replace("Norden", f"Nor{chr(97 + number)}en")
        put(citewell, f"{name}-{number}", text, name)
    return citewell.store.catalog.collection(name)


def test_questions_are_made_by_templates_where_there_is_no_model(citewell):
    """Marked as generated, each of a document of its collection with its content; the same for the same seed."""
    docs, other = filled(citewell), filled(citewell, "other", 3)
    found, failure = generated(citewell, [docs, other], 9, "s")
    assert failure is None
    assert len({one.text for one in found}) == len(found) == 9
    assert {one.source for one in found} == {Source.GENERATED}
    assert {one.made for one in found} == {"cloze", "sentence"}
    assert Counter(one.collection for one in found) == {"docs": 8, "other": 1}
    live = citewell.store.catalog.live_contents(docs.id, {f"docs-{n}" for n in range(12)})
    for one in found:
        [relevant] = one.relevant
        assert relevant.document.startswith(one.collection)
        if one.collection == "docs":
            assert relevant.sha256 == live[relevant.document].sha256
        if one.made == "cloze":
            assert one.answers[0] in relevant.text
            assert one.answers[0] not in one.text
    assert generated(citewell, [docs, other], 9, "s")[0] == found
    assert generated(citewell, [docs, other], 9, "t")[0] != found
    assert generated(citewell, [docs], 0, "s") == ([], None)


def test_a_language_model_writes_the_questions_where_there_is_one(tmp_path):
    writer = ScriptedGenerator(("Who cleaned the harbour lamps with vinegar?",))
    with opened(tmp_path, writer) as citewell:
        [only], failure = generated(citewell, [filled(citewell)], 4, "s")
    assert (only.text, only.made, failure) == ("Who cleaned the harbour lamps with vinegar?", "generator", None)
    assert only.relevant[0].text.startswith("In 19")


def test_templates_stand_in_for_a_model_that_fails(tmp_path):
    with opened(tmp_path, ScriptedGenerator((), failure="It is off.")) as citewell:
        found, failure = generated(citewell, [filled(citewell)], 4, "s")
    assert len(found) == 4
    assert failure == "Questions are made by templates, since the language model failed: It is off."


def test_all_that_is_asked_in_a_night_is_marked_with_its_source(citewell):
    """Golden ones first and with their drift, then traffic, then generated ones; what is missing is told."""
    docs = filled(citewell)
    documents = (GoldenDocument("docs-1", "warm vinegar"), GoldenDocument("nowhere"))
    citewell.store.catalog.add_golden(
        docs.id,
        [
            Proposed("With what?", "Vinegar.", documents=documents, tags=frozenset({"b", "a"})),
            Proposed("Who owns a casino?", answerable=False),
        ],
    )
    gathered = gather(citewell, [docs], YESTERDAY, NOW, Sizes(generated=3))
    assert [one.source.value for one in gathered.questions] == ["golden"] * 2 + ["generated"] * 3
    assert gathered.left_out == ("Nobody asked anything in this time that the log still has.",)
    first, second = gathered.questions[:2]
    assert (first.text, first.answers, first.tags, first.collection) == (
        "With what?",
        ("Vinegar.",),
        ("a", "b"),
        "docs",
    )
    assert [(one.document, one.text, one.sha256 is None) for one in first.relevant] == [
        ("docs-1", "warm vinegar", False), ("nowhere", None, True)
    ]  # fmt: skip
    assert first.drift == ("nowhere is not in the collection.",)
    assert (second.answerable, second.drift) == (False, ())
    fewer = gather(citewell, [docs], YESTERDAY, NOW, Sizes(golden=1, traffic=0, generated=0))
    assert len(fewer.questions) == 1
    assert fewer.left_out == ("1 golden questions are beyond the limit.",)


@given(night=st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)))  # noqa: DTZ001
@examples(max_examples=5)
def test_the_same_night_asks_the_same(tmp_path_factory, night):
    """Whatever the hour: the seed is the date."""
    folder = tmp_path_factory.mktemp("night")
    at = night.replace(tzinfo=UTC)
    with opened(folder) as citewell:
        docs = filled(citewell, documents=6)
        first, second = (
            gather(citewell, [docs], at - timedelta(days=1), hour, Sizes(traffic=0, generated=4)).questions
            for hour in (at.replace(hour=0), at.replace(hour=23))
        )
    assert first == second
