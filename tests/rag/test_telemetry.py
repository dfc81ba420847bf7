"""What is told of the work: seconds once and for all, and places in a trace that follow the work wherever it goes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from rag.answers import Answer
from rag.protocols import Role
from rag.telemetry import SILENT, Clock, Fact, Telemetry, here


@dataclass
class Heard:
    """Meters that remember the stages they were told of."""

    stages: list[tuple[str, str, float]] = field(default_factory=list)

    def staged(self, journey: str, stage: str, seconds: float) -> None:
        self.stages.append((journey, stage, seconds))

    def requested(self, method: str, route: str | None, status: int, seconds: float) -> None: ...

    def answered(self, answer: Answer) -> None: ...

    def looked_up(self, *, found: bool) -> None: ...

    def fell_back(self, code: str) -> None: ...

    def embedded(self, role: Role, texts: int) -> None: ...

    def ingested(self, state: str, passages: int) -> None: ...


@dataclass
class Noted:
    """A span that remembers all: its place is its name."""

    name: str
    within: str | None
    failed: str | None = None
    ended: bool = False

    @property
    def place(self) -> str:
        return self.name

    def rename(self, name: str) -> None:
        self.name = name

    def tell(self, **facts: Fact) -> None: ...

    def end(self, failed: str | None = None, *, ago: float = 0.0) -> None:  # noqa: ARG002
        assert not self.ended
        self.failed, self.ended = failed, True


@dataclass
class Notes:
    """A tracer that keeps its spans."""

    spans: list[Noted] = field(default_factory=list)

    def begin(self, name: str, within: str | None, _: Mapping[str, Fact], ago: float = 0.0) -> Noted:  # noqa: ARG002
        self.spans.append(Noted(name, within))
        return self.spans[-1]

    def named(self, name: str) -> Noted:
        [found] = [span for span in self.spans if span.name == name]
        return found


def test_a_stage_is_measured_once_for_all_who_want_to_know() -> None:
    """The clock adds up the very seconds that the meters are told; what holds other stages is told of alone."""
    heard = Heard()
    clock = Clock("search", Telemetry(heard))
    for _ in range(3):
        with clock.stage("dense"):
            sum(range(1000))
    with clock.stage("whole", kept=False):
        pass
    clock.add("understand", 2.5)
    clock.add("busy", 7.0, told=False)
    clock.begin("embed").end()
    assert clock.seconds["dense"] == pytest.approx(sum(s for _, stage, s in heard.stages if stage == "dense"))
    assert [stage for _, stage, _ in heard.stages] == ["dense"] * 3 + ["whole", "understand", "embed"]
    assert {journey for journey, _, _ in heard.stages} == {"search"}
    assert {"whole", "embed"}.isdisjoint(clock.seconds)
    assert (clock.seconds["understand"], clock.seconds["busy"]) == (2.5, 7.0)


def test_a_stage_that_fails_is_measured_and_says_of_what_kind() -> None:
    """The error goes through; who leaves a generator has not failed."""
    heard, notes = Heard(), Notes()
    clock = Clock("answer", Telemetry(heard, notes))
    with pytest.raises(ValueError, match="why"), clock.stage("generate"):
        raise ValueError("why")
    with pytest.raises(asyncio.CancelledError), clock.stage("cite"):
        raise asyncio.CancelledError
    assert [span.failed for span in notes.spans] == ["ValueError", None]
    assert [stage for _, stage, _ in heard.stages] == ["generate", "cite"]


def test_spans_of_a_clock_belong_where_it_was_made_whichever_thread_they_are_in() -> None:
    """A search goes on in another thread than the one that asked for it."""
    notes = Notes()
    telemetry = Telemetry(tracer=notes)

    def work(clock: Clock) -> None:
        with clock.stage("embed"):
            seen.append(here())

    seen: list[str | None] = []
    with telemetry.span("request", "client"):
        thread = threading.Thread(target=work, args=(Clock("search", telemetry),))
        thread.start()
        thread.join()
        assert here() == "request"
    assert here() is None
    assert notes.named("request").within == "client"
    assert notes.named("search embed").within == "request"
    assert seen == ["search embed"]
    assert all(span.ended for span in notes.spans)


def test_a_generator_that_goes_on_in_another_task_leaves_its_place_behind() -> None:
    """Its first event in one task, the others in another one, and the end in a third: no error, and no place left."""
    notes = Notes()
    telemetry = Telemetry(tracer=notes)

    async def events() -> AsyncGenerator[str | None, None]:
        with telemetry.span("answer"):
            yield here()
            with telemetry.span("generate"):
                yield here()
            yield here()

    async def run() -> list[str | None]:
        told = events()
        async with aclosing(told):
            seen = [await asyncio.ensure_future(anext(told)) for _ in range(2)]
        return [*seen, here()]

    assert asyncio.run(run()) == ["answer", "generate", None]
    assert all(span.ended and span.failed is None for span in notes.spans)


def test_without_anybody_who_wants_to_know_nothing_is_told() -> None:
    """No place, no span, and the clock goes on."""
    with SILENT.span("request", "client") as span:
        assert here() is None
        assert span.place is None
        span.rename("x")
        span.tell(a=1)
    clock = Clock()
    with clock.stage("dense"):
        pass
    assert clock.seconds["dense"] > 0
    assert SILENT.begin("x").place is None
