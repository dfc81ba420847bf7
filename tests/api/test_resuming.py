"""Resumable answers: a client that was cut off reads on where it was, from any process of the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from rag.assembly import Citewell, open_citewell
from rag.errors import GeneratorFailed
from rag.records import Delta, Prompt
from rag.schema import answers
from rag.settings import AnswerSettings, ServerSettings
from tests.api.live import HOTEL, events, problem, serving

WORDS = [f"word{n} " for n in range(30)]
TEXT = "".join(WORDS) + "[1]"


@dataclass
class Slow:
    """A language model that writes a word, and then waits until it is let on, or for ``pause`` seconds."""

    pause: float = 0.02
    held_at: int | None = None
    fails: bool = False
    name: str = "slow"
    quotes: bool = False
    asked: int = 0
    closed: int = 0
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        del prompt
        self.asked += 1
        try:
            for number, word in enumerate([*WORDS, "[1]"]):
                if number == self.held_at:
                    await self.go_on.wait()
                await asyncio.sleep(self.pause)
                yield Delta(word)
            if self.fails:
                raise GeneratorFailed("It went away.")
        except (GeneratorExit, asyncio.CancelledError):
            self.closed += 1
            raise

    async def aclose(self) -> None:
        """Nothing is open."""


@contextmanager
def served(
    indexed: Citewell, generator: object, server: ServerSettings | None = None, **answers: object
) -> Iterator[tuple[httpx.Client, Citewell]]:
    chosen = {"answers": AnswerSettings(**{"cache": False, **answers}), "server": server or ServerSettings()}
    chosen["generator"] = indexed.store.settings.generator.model_copy(update={"fall_back": False})
    settings = indexed.store.settings.model_copy(update=chosen)
    with (
        open_citewell(settings, embedder=indexed.embedder, generator=generator) as opened,
        serving(opened) as client,
    ):
        yield client, opened


def begin(client: httpx.Client, most: int, **more: object) -> list[tuple[str, str, Any]]:
    """Ask, and leave after so many events."""
    body = {"question": HOTEL, "collections": ["demo"], "stream": True, "resumable": True, **more}
    found: list[tuple[str, str, Any]] = []
    with client.stream("POST", "/v1/ask", json=body) as response:
        assert response.status_code == 200, response.read()
        for event in events(response.iter_lines()):
            found.append(event)
            if len(found) == most:
                break
    return found


def go_on(client: httpx.Client, last_id: str) -> list[tuple[str, str, Any]]:
    answer_id = last_id.split(":")[0]
    with client.stream("GET", f"/v1/answers/{answer_id}/events", headers={"Last-Event-ID": last_id}) as response:
        assert response.status_code == 200, response.read()
        return list(events(response.iter_lines()))


def text_of(told: list[tuple[str, str, Any]]) -> str:
    return "".join(data["text"] for _, name, data in told if name == "token")


def until(what: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


@pytest.mark.parametrize("cut", [1, 2, 9])
def test_what_was_cut_off_is_read_on_to_the_end(indexed, cut):
    """The two halves together are every event once, in order, and the text of the whole answer."""
    slow = Slow()
    with served(indexed, slow) as (client, _):
        first = begin(client, cut)
        second = go_on(client, first[-1][0])
        answer_id = first[0][0].split(":")[0]
        told = first + second
        assert [number for number, _, _ in told] == [f"{answer_id}:{n}" for n in range(1, len(told) + 1)]
        assert told[-1][1] == "done"
        answer = told[-1][2]
        assert text_of(told) == answer["text"]
        assert answer["text"].startswith(TEXT[:-3])
        assert (answer["id"], slow.asked, slow.closed) == (answer_id, 1, 0)
        assert client.get(f"/v1/answers/{answer_id}").json()["answer"] == answer


def test_another_process_reads_what_one_writes(indexed):
    """A second server on the same data folder hands out the events while the first one writes them."""
    with served(indexed, Slow(held_at=10)) as (client, opened), served(indexed, Slow()) as (other, _):
        first = begin(client, 5)
        answer_id = first[0][0].split(":")[0]
        with other.stream("GET", f"/v1/answers/{answer_id}/events?after=3") as response:
            lines = response.iter_lines()
            found = [next(events(lines)) for _ in range(2)]
            assert [number for number, _, _ in found] == [f"{answer_id}:{n}" for n in (4, 5)]
            opened.generator.go_on.set()
            rest = list(events(lines))
        assert rest[-1][1] == "done"
        assert text_of(first[:3] + found + rest) == rest[-1][2]["text"]


def test_who_stays_gets_all_and_can_read_it_again(indexed):
    """The whole stream has the same events as what is kept of it; a question that is not resumable keeps its ids."""
    with served(indexed, Slow(pause=0.0)) as (client, _):
        told = begin(client, 10_000)
        answer_id = told[-1][2]["id"]
        assert told[-1][1] == "done"
        until(lambda: client.get(f"/v1/answers/{answer_id}/events").text.count("event: ") == len(told))
        assert go_on(client, f"{answer_id}:0") == told
        assert go_on(client, told[-1][0]) == []
        assert go_on(client, told[3][0]) == told[4:]
        plain = begin(client, 10_000, resumable=False)
        assert [number for number, _, _ in plain] == [str(n) for n in range(1, len(plain) + 1)]
        problem(client.get(f"/v1/answers/{plain[-1][2]['id']}/events"), 404)


@pytest.mark.parametrize("last", ["x", f"{'0' * 32}:1", "1:2:3", "-1", "99999999999999"])
def test_what_is_no_id_of_its_events_is_refused(indexed, last):
    with served(indexed, Slow(pause=0.0)) as (client, _):
        answer_id = begin(client, 10_000)[-1][2]["id"]
        problem(client.get(f"/v1/answers/{answer_id}/events", headers={"Last-Event-ID": last}), 400)


def test_an_answer_goes_on_no_longer_than_the_time_of_grace(indexed):
    """Who comes back too late reads that it was broken off; the generator was ended."""
    slow = Slow(held_at=8)
    with served(indexed, slow, grace_seconds=0.2) as (client, _):
        first = begin(client, 4)
        rest = go_on(client, first[-1][0])
        assert (rest[-1][1], rest[-1][2]["error"]["code"]) == ("error", "broken_off")
        until(lambda: slow.closed == 1)
        answer_id = first[0][0].split(":")[0]
        assert client.get(f"/v1/answers/{answer_id}").json()["state"] == "unfinished"


def test_who_follows_no_resumable_answer_ends_it_by_leaving(indexed):
    """Without `resumable` all is as before: the client leaves, and the generator's work ends."""
    slow = Slow(held_at=8)
    with served(indexed, slow) as (client, _):
        begin(client, 4, resumable=False)
        until(lambda: slow.closed == 1)


def test_a_server_that_stops_says_so_to_who_comes_back(indexed):
    """The answer in hand ends with an error event that another server hands out."""
    slow = Slow(held_at=8)
    with served(indexed, Slow()) as (other, _):
        with served(indexed, slow) as (client, _):
            first = begin(client, 4)
        assert slow.closed == 1
        assert go_on(other, first[-1][0])[-1][2]["error"]["code"] == "broken_off"


def test_a_failure_is_the_last_event_there_too(indexed):
    with served(indexed, Slow(fails=True)) as (client, _):
        rest = go_on(client, begin(client, 4)[-1][0])
        assert (rest[-1][1], rest[-1][2]["error"]["message"]) == ("error", "It went away.")


def test_an_answer_whose_process_died_ends_with_a_sentence(indexed):
    """Nobody has written for long: who follows is told so instead of being left to wait."""
    with served(indexed, Slow(held_at=8), grace_seconds=0.0) as (client, opened):
        first = begin(client, 4)
        go_on(client, first[-1][0])
        catalog, answer_id = opened.store.catalog, first[0][0].split(":")[0]
        with catalog._write() as connection:
            connection.exec_driver_sql("DELETE FROM answer_events WHERE name = 'error'")
            connection.execute(answers.update().values(seen_at=datetime(2026, 1, 1, tzinfo=UTC)))
        error = go_on(client, f"{answer_id}:4")[-1][2]["error"]
        assert "process" in error["message"]


def test_an_answer_without_its_client_keeps_its_place(indexed):
    """What goes on counts among the answers in hand until it ends: one more than the settings allow is refused."""
    slow = Slow(held_at=8)
    with served(indexed, slow, ServerSettings(max_answers=1)) as (client, _):
        first = begin(client, 4)
        problem(client.post("/v1/ask", json={"question": HOTEL, "collections": ["demo"]}), 429)
        slow.go_on.set()
        assert go_on(client, first[-1][0])[-1][1] == "done"
        until(lambda: client.post("/v1/ask", json={"question": HOTEL, "collections": ["demo"]}).status_code == 200)


def test_events_of_a_purged_or_removed_answer_are_gone(indexed):
    with served(indexed, Slow(pause=0.0)) as (client, _):
        told = begin(client, 10_000)
        answer_id = told[-1][2]["id"]
        assert client.delete(f"/v1/answers/{answer_id}").status_code == 204
        problem(client.get(f"/v1/answers/{answer_id}/events"), 404)
