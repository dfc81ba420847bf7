"""Rails around the answer journey: what they refuse, change or can not check, whatever they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from rag.answers import NO_WISH, Keeping, Policy, Wish
from rag.assembly import Citewell, open_citewell
from rag.errors import GuardrailsFailed, Misconfigured
from rag.grounding import LexicalJudge
from rag.pipeline import Done, Event, Passages, Scored, Token
from rag.protocols import Verdict
from rag.queries import Message, Speaker
from rag.refusals import REFUSAL
from rag.settings import GuardrailsSettings, Settings
from rag.testing import ScriptedGenerator
from tests.rag.test_pipeline import HANDBOOK, ingest

QUESTION = "What is the hotel limit?"
ANSWER = "The hotel limit is 145 euros per night. [1]"


def let_by(text: str) -> Verdict:
    return Verdict(text)


def refused(text: str) -> Verdict:
    del text
    return Verdict("Not here.", "no hotels")


def failing(text: str) -> Verdict:
    raise GuardrailsFailed("The guardrails could not check it: their model is away.")


@dataclass
class ScriptedRails:
    """Rails that do to questions and answers what they were told to, and keep what they were asked."""

    of_question: Callable[[str], Verdict] = let_by
    of_answer: Callable[[str], Verdict] | None = None
    fingerprint: str = "scripted"
    asked: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def holds_answers(self) -> bool:
        return self.of_answer is not None

    async def check_question(self, question: str) -> Verdict:
        self.asked.append((question,))
        return self.of_question(question)

    async def check_answer(self, question: str, answer: str, passages: Sequence[str]) -> Verdict:
        self.asked.append((question, answer, *passages))
        return (self.of_answer or let_by)(answer)


@pytest.fixture
def railed(settings: Settings, embedder):
    """Opens a Citewell over one document, with these rails and a generator that says the right thing."""

    @contextmanager
    def open_railed(rails: ScriptedRails, pieces: Sequence[str] = (ANSWER,), **values: object) -> Iterator[Citewell]:
        chosen = settings.model_copy(update={"guardrails": GuardrailsSettings(**values)})
        generator = ScriptedGenerator(pieces)
        with open_citewell(
            chosen, embedder=embedder, generator=generator, judge=LexicalJudge(), rails=rails
        ) as citewell:
            ingest(citewell, "handbook.md", HANDBOOK)
            yield citewell

    return open_railed


def events_of(citewell: Citewell, question: str = QUESTION, wish: Wish = NO_WISH) -> list[Event]:
    async def all_of_them() -> list[Event]:
        return [event async for event in citewell.stream(citewell.plan(question, ["c"]), wish)]

    return asyncio.run(all_of_them())


def told(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Token))


def test_a_question_that_is_refused_costs_nothing_and_says_why(railed):
    """Nothing is looked for and no model asked; the rail's words stand in the place of an answer, also in the log."""
    rails = ScriptedRails(of_question=refused)
    with railed(rails) as citewell:
        events = events_of(citewell)
        logged = citewell.answering.answer(events[-1].answer.id)
        assert citewell.generator.prompts == []
    assert [type(event) for event in events] == [Passages, Token, Done]
    assert (events[0].ranking.passages, told(events)) == ((), "Not here.")
    answer = events[-1].answer
    assert (answer.text, answer.abstained, answer.refused_by) == ("Not here.", True, "no hotels")
    assert answer.notice == "The question was refused by the rail 'no hotels'."
    assert (answer.claims, answer.passages, answer.citations) == ((), (), ())
    assert (logged.texts.answer.refused_by, logged.texts.answer.notice) == ("no hotels", answer.notice)
    assert rails.asked == [(QUESTION,)]
    assert "rails" in answer.timings


@pytest.mark.parametrize("policy", list(Policy))
def test_no_word_of_an_answer_goes_out_that_a_rail_refuses(railed, policy):
    """Whatever the policy: neither text nor claim; the passages are told before."""
    rails = ScriptedRails(of_answer=refused)
    with railed(rails, ["The hotel limit ", "is 145 euros per night. [1]"]) as citewell:
        events = events_of(citewell, wish=Wish(policy=policy))
    assert [type(event) for event in events] == [Passages, Token, Done]
    answer = events[-1].answer
    assert (told(events), answer.refused_by, answer.abstained) == ("Not here.", "no hotels", True)
    assert answer.notice == "The answer was refused by the rail 'no hotels'."
    assert (answer.claims, answer.short, answer.conflicts) == ((), None, ())
    assert [asked[:2] for asked in rails.asked] == [(QUESTION,), (QUESTION, ANSWER)]
    assert "The hotel limit is 145 euros per night." in rails.asked[1][2]


@pytest.mark.parametrize("policy", list(Policy))
def test_an_answer_that_passes_is_the_same_as_without_rails(railed, policy):
    """Its events are those that it would have had; they come when it is complete."""
    wish = Wish(policy=policy)
    pieces = [f"{ANSWER} Dogs stay for free. [1]"]
    with railed(ScriptedRails(of_answer=let_by), pieces) as citewell:
        held = events_of(citewell, wish=wish)
    with railed(ScriptedRails(), pieces) as citewell:
        free = events_of(citewell, wish=wish)
    assert told(held) == told(free) == held[-1].answer.text
    claims = [[event.claim for event in events if isinstance(event, Scored)] for events in (held, free)]
    assert claims[0] == claims[1] == list(free[-1].answer.claims)
    assert (held[-1].answer.refused_by, held[-1].answer.notice) == (None, free[-1].answer.notice)


def test_an_answer_that_a_rail_changes_is_cited_anew(railed):
    """Offsets, quotes and support are those of the text that goes out."""
    rails = ScriptedRails(of_answer=lambda text: Verdict(text.replace("Hello. ", "")))
    with railed(rails, [f"Hello. {ANSWER} Dogs stay for free."]) as citewell:
        events = events_of(citewell)
    answer = events[-1].answer
    assert answer.text == told(events) == f"{ANSWER} Dogs stay for free."
    assert [(c.text, c.supported) for c in answer.claims] == [
        ("The hotel limit is 145 euros per night.", True), ("Dogs stay for free.", False),
    ]  # fmt: skip
    [citation] = answer.claims[0].citations
    assert answer.text[citation.answer_start : citation.answer_end] == "The hotel limit is 145 euros per night."
    assert citation.quote == "The hotel limit is 145 euros per night."


def test_a_question_that_a_rail_changes_is_looked_for_as_changed(railed):
    rails = ScriptedRails(of_question=lambda text: Verdict(text.replace("Ada's ", "the ")))
    with railed(rails) as citewell:
        events = events_of(citewell, "What is Ada's hotel limit?")
        assert citewell.generator.prompts[0].question == "What is the hotel limit?"
    assert events[-1].answer.question == "What is the hotel limit?"


def test_a_question_is_checked_again_as_it_was_completed_from_its_conversation(railed, settings):
    """What stands in the history could otherwise be asked by leaning on it."""
    rails = ScriptedRails(of_question=lambda text: refused(text) if "forbidden" in text else let_by(text))
    with railed(rails, ["standalone: What is the forbidden hotel limit?"]) as citewell:
        history = [Message(Speaker.USER, "Tell me of the forbidden hotel."), Message(Speaker.ASSISTANT, "Well.")]
        plan = citewell.plan("What is its limit?", ["c"], history=history)
        answer = asyncio.run(citewell.ask(plan))
    assert [asked[0] for asked in rails.asked] == ["What is its limit?", "What is the forbidden hotel limit?"]
    assert (answer.refused_by, answer.question) == ("no hotels", "What is its limit?")


@pytest.mark.parametrize("side", ["of_question", "of_answer"])
def test_rails_that_fail_fail_the_answer(railed, side):
    """By default: nothing goes out that was not checked."""
    rails = ScriptedRails(**{side: failing})
    with railed(rails) as citewell, pytest.raises(GuardrailsFailed, match="their model is away"):
        events_of(citewell)


@pytest.mark.parametrize(("side", "what"), [("of_question", "question"), ("of_answer", "answer")])
def test_rails_that_fail_are_passed_over_where_the_settings_say_so(railed, side, what):
    """The answer says that it was not checked, and stands for no later one."""
    with railed(ScriptedRails(**{side: failing}), on_failure="pass") as citewell:
        answer = events_of(citewell)[-1].answer
        assert answer.text == ANSWER
        assert answer.notice.startswith(f"The {what} was not checked.")
        assert "their model is away" in answer.notice
        assert not events_of(citewell)[-1].answer.cached


def test_an_answer_of_the_log_stands_only_for_the_same_rails(railed):
    """Its question is checked each time; an answer that other rails let by is none."""
    with railed(ScriptedRails(of_answer=let_by)) as citewell:
        assert [events_of(citewell)[-1].answer.cached for _ in range(2)] == [False, True]
    rails = ScriptedRails(of_question=refused)
    with railed(rails) as citewell:
        assert events_of(citewell)[-1].answer.refused_by == "no hotels"
    with railed(ScriptedRails(of_answer=refused, fingerprint="changed")) as citewell:
        assert events_of(citewell)[-1].answer.refused_by == "no hotels"
    with railed(ScriptedRails(of_answer=let_by)) as citewell:
        assert events_of(citewell)[-1].answer.cached


def test_a_rail_without_words_gets_some(railed):
    with railed(ScriptedRails(of_question=lambda _: Verdict(" ", "silent"))) as citewell:
        answer = asyncio.run(citewell.ask(citewell.plan(QUESTION, ["c"]), keeping=Keeping(store=False)))
    assert (answer.text, answer.refused_by) == (REFUSAL, "silent")


def test_rails_are_asked_for_by_a_folder_and_missing_ones_are_an_error_at_the_start(settings, embedder, tmp_path):
    chosen = settings.model_copy(update={"guardrails": GuardrailsSettings(config=tmp_path / "none")})
    with pytest.raises(Misconfigured, match=r"guardrails\.config"), open_citewell(chosen, embedder=embedder):
        pass
