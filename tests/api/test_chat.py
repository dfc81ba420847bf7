"""OpenAI's own client over a real socket: answers as chats, whole and in chunks, with citations that it reads back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest

from rag.assembly import Citewell, open_citewell
from rag.prompt import ABSTENTION, estimate_tokens
from rag.protocols import Generator
from rag.settings import GeneratorSettings, Settings
from rag.testing import ScriptedGenerator
from tests.api.live import HOTEL, serving
from tests.api.openai_clients import CHAT, MODEL, asked, base_url, connected, openai_problem
from tests.scripted_llm import CHAT as LLM_CHAT
from tests.scripted_llm import DONE, Pause, Reset, ScriptedLLM, delta, event, event_stream, stream

ASK = {"question": HOTEL, "collections": ["demo"]}
TWO = [
    "Hotels in the country are paid up to 145 euros per night [1].",
    " Hotel limits include taxes and exclude breakfast [1].",
]


@pytest.fixture
def client(reading: httpx.Client) -> Iterator[openai.OpenAI]:
    with connected(reading) as opened:
        yield opened


def chosen(indexed: Citewell, max_answers: int = 64, **generator: Any) -> Settings:
    """The settings of the indexed documents with another generator, and without a cache of answers."""
    usual = indexed.store.settings
    return usual.model_copy(
        update={
            "generator": GeneratorSettings(**generator),
            "answers": usual.answers.model_copy(update={"cache": False}),
            "server": usual.server.model_copy(update={"max_answers": max_answers}),
        }
    )


@contextmanager
def writing(indexed: Citewell, generator: Generator, **values: Any) -> Iterator[openai.OpenAI]:
    """OpenAI's client of a server over the indexed documents whose answers ``generator`` writes."""
    with (
        open_citewell(chosen(indexed, **values), embedder=indexed.embedder, generator=generator) as opened,
        serving(opened) as http,
        connected(http) as client,
    ):
        yield client


@contextmanager
def answered_by(indexed: Citewell, llm: ScriptedLLM, **values: Any) -> Iterator[openai.OpenAI]:
    """OpenAI's client of a server whose answers a language model writes, which another server plays."""
    settings = chosen(indexed, kind="openai", base_url=llm.base_url, **values)
    with open_citewell(settings, embedder=indexed.embedder) as opened, serving(opened) as http:  # noqa: SIM117
        with connected(http) as client:
            yield client


@pytest.fixture
def llm() -> Iterator[ScriptedLLM]:
    with ScriptedLLM() as server:
        yield server


def check_annotations(annotations: list[Any], content: str, indexed: Citewell) -> None:
    """Every annotation is a file citation whose quote stands at its place in the document, and in that chunk's text."""
    catalog = indexed.store.catalog
    assert annotations
    for annotation in annotations:
        assert annotation.type == "file_citation"
        document = catalog.document(annotation.file_id)
        assert document.name == annotation.filename
        assert document.newest.number == annotation.version
        text = catalog.source_text(str(document.live_version_id))
        assert text[annotation.source_start : annotation.source_end] == annotation.quote
        assert content[annotation.start_index : annotation.end_index].strip()
        assert 0 <= annotation.support_score <= 1


def test_an_answer_is_that_of_ask_with_its_citations_as_annotations(client, reading, indexed):
    """Text, spans, quotes, pages and scores: the same as `POST /v1/ask` gives, read back by OpenAI's client."""
    chat = client.chat.completions.create(**asked())
    answer = reading.post("/v1/ask", json=ASK).json()
    message = chat.choices[0].message
    assert (chat.object, chat.model, message.role) == ("chat.completion", MODEL, "assistant")
    assert (message.content, chat.choices[0].finish_reason) == (answer["text"], "stop")
    assert [
        (a.start_index, a.end_index, a.file_id, a.filename, a.version, a.chunk_id, a.page_number, a.section)
        for a in message.annotations
    ] == [
        (
            c["answer_start"],
            c["answer_end"],
            c["document_id"],
            c["document"],
            c["version"],
            c["chunk_id"],
            c["page"],
            c["section"],
        )
        for c in answer["citations"]
    ]
    assert [(a.quote, a.source_start, a.source_end, a.support_score) for a in message.annotations] == [
        (c["quote"], c["source_start"], c["source_end"], c["score"]) for c in answer["citations"]
    ]
    check_annotations(message.annotations, message.content, indexed)
    assert chat.id == f"chatcmpl-{chat.citewell['answer_id']}"
    assert chat.citewell["abstained"] is False
    assert [claim["citations"] for claim in chat.citewell["claims"]] == [c["citations"] for c in answer["claims"]]
    assert chat.citewell["threshold"] == answer["threshold"]
    assert chat.system_fingerprint == f"fp_{indexed.store.settings.digest()}"
    assert chat.usage.total_tokens == chat.usage.prompt_tokens + chat.usage.completion_tokens
    assert chat.usage.completion_tokens == estimate_tokens(answer["text"])


def test_chunks_add_up_to_the_whole_answer(client, indexed):
    """The role first, then text, annotations with their places, the reason of the end; usage where it is asked for."""
    whole = client.chat.completions.create(**asked())
    chunks = list(client.chat.completions.create(**asked(stream=True, stream_options={"include_usage": True})))
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    *spoken, last = chunks
    deltas = [chunk.choices[0].delta for chunk in spoken]
    assert (deltas[0].role, deltas[0].content) == ("assistant", "")
    assert not any(delta.role for delta in deltas[1:])
    assert "".join(delta.content or "" for delta in deltas) == whole.choices[0].message.content
    annotations = [one for delta in deltas for one in (delta.model_extra or {}).get("annotations", [])]
    assert [one.pop("index") for one in annotations] == list(range(len(annotations)))
    expected = [a.model_dump(exclude={"url_citation"}) for a in whole.choices[0].message.annotations]
    assert annotations == expected
    assert [chunk.choices[0].finish_reason for chunk in spoken] == [None] * (len(spoken) - 1) + ["stop"]
    assert spoken[-1].citewell["abstained"] is False
    assert spoken[-1].id == f"chatcmpl-{spoken[-1].citewell['answer_id']}"
    assert (last.choices, last.usage) == ([], whole.usage)
    assert {chunk.usage for chunk in spoken} == {None}


def test_the_wire_is_that_of_openai(reading):
    """`data:` lines of JSON with nothing else, [DONE] at the end, and no usage that nobody asked for."""
    with reading.stream("POST", CHAT, json=asked(stream=True)) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert not any("usage" in chunk for chunk in chunks)
    assert all(len(chunk["choices"]) == 1 for chunk in chunks)


def test_the_clients_own_accumulation_holds_every_annotation(indexed):
    """Its `stream` helper joins lists by their index: two sentences, two citations, in order."""
    with writing(indexed, ScriptedGenerator(TWO)) as client:
        with client.chat.completions.stream(**asked()) as events:
            message = events.get_final_completion().choices[0].message
        whole = client.chat.completions.create(**asked()).choices[0].message
    assert message.content == whole.content
    check_annotations(message.annotations, message.content, indexed)
    assert len(message.annotations) == len(whole.annotations) >= 2
    assert [a.model_dump(exclude={"index"}) for a in message.annotations] == [a.model_dump() for a in whole.annotations]


def test_the_asynchronous_client_works_too(reading):
    """Both ways of asking."""

    async def talk() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=base_url(reading), api_key="x", max_retries=0) as client:
            whole = await client.chat.completions.create(**asked())
            chunks = [chunk async for chunk in await client.chat.completions.create(**asked(stream=True))]
        return whole.choices[0].message.content, "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    whole, streamed = asyncio.run(talk())
    assert whole == streamed
    assert "145" in whole


@pytest.mark.parametrize(
    ("model", "extra"),
    [
        pytest.param("citewell/demo", {}, id="the model"),
        pytest.param("citewell/empty,demo", {}, id="two in the model"),
        pytest.param("citewell", {"collections": ["demo"]}, id="extra_body"),
        pytest.param("citewell", {"citewell": {"collections": ["empty", "demo"]}}, id="the citewell object"),
        pytest.param("citewell/empty", {"collections": ["demo"]}, id="in place of the model's"),
        pytest.param(
            "citewell/empty", {"collections": ["empty"], "citewell": {"collections": ["demo"]}}, id="innermost"
        ),
    ],
)
def test_collections_are_named_by_the_model_or_beside_it(client, model, extra):
    """All ways lead to the same passage."""
    chat = client.chat.completions.create(**asked() | {"model": model}, extra_body=extra)
    assert chat.choices[0].message.annotations[0].filename == "2026/travel-policy.pdf"
    assert chat.model == model


def test_fields_of_ask_are_taken_at_the_top_and_in_the_citewell_object(client):
    """A filter keeps the one document out that answers."""
    elsewhere = {"filters": {"document": {"ne": "2026/travel-policy.pdf"}}}
    for extra in (elsewhere, {"citewell": elsewhere}, {"filters": {}, "citewell": elsewhere}):
        chat = client.chat.completions.create(**asked(), extra_body=extra)
        found = {annotation.filename for annotation in chat.choices[0].message.annotations}
        assert "2026/travel-policy.pdf" not in found
    for extra in ({"policy": "report", "top_k": 3}, {"citewell": {"policy": "report", "parts": {"late": False}}}):
        chat = client.chat.completions.create(**asked(), extra_body=extra)
        assert "145" in chat.choices[0].message.content


def test_earlier_messages_are_the_conversation(client, reading):
    """A follow-up is understood as `POST /v1/ask` understands it; a reply of the client can be sent back whole."""
    first = client.chat.completions.create(**asked())
    messages = [
        {"role": "system", "content": "Answer like a pirate."},
        {"role": "user", "content": HOTEL},
        first.choices[0].message,
        {"role": "user", "content": [{"type": "text", "text": "And for it abroad?"}]},
    ]
    chat = client.chat.completions.create(model=MODEL, messages=messages)
    history = [{"role": "user", "content": HOTEL}, {"role": "assistant", "content": first.choices[0].message.content}]
    answer = reading.post("/v1/ask", json={**ASK, "question": "And for it abroad?", "history": history}).json()
    assert chat.choices[0].message.content == answer["text"]
    assert chat.citewell["ignored"] == ["messages (system)"]


def test_what_changes_nothing_is_told_back(client):
    """Harmless fields of OpenAI's API are accepted by name; values that say what is done anyway too."""
    chat = client.chat.completions.create(
        **asked(), user="me", seed=1, top_p=0.5, presence_penalty=0.1, metadata={"a": "b"}, stop=["."], n=1, tools=[],
        response_format={"type": "text"}, logprobs=False, modalities=["text"], store=True, tool_choice="none",
    )  # fmt: skip
    assert chat.citewell["ignored"] == ["metadata", "presence_penalty", "seed", "stop", "top_p", "user"]
    assert "145" in chat.choices[0].message.content


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("tools", [{"type": "function", "function": {"name": "f", "parameters": {}}}]),
        ("response_format", {"type": "json_object"}),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("functions", [{"name": "f"}]),
        ("audio", {"voice": "alloy", "format": "wav"}),
        ("modalities", ["text", "audio"]),
        ("web_search_options", {}),
    ],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_what_can_not_be_done_is_refused_by_name(client, field, value, streamed):
    """One sentence, and the field as `param`, before anything is streamed."""
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**asked(stream=streamed), **{field: value})
    assert (refused.value.param, refused.value.type, refused.value.code) == (
        field,
        "invalid_request_error",
        "bad_input",
    )
    assert refused.value.body["message"].startswith(f"{field} is not supported: ")


def test_a_wish_for_length_and_temperature_reaches_the_generator(indexed):
    """`max_completion_tokens` goes before `max_tokens`."""
    generator = ScriptedGenerator(TWO)
    with writing(indexed, generator) as client:
        client.chat.completions.create(**asked(max_tokens=7, temperature=0.5))
        client.chat.completions.create(**asked(max_tokens=7, max_completion_tokens=9))
        client.chat.completions.create(**asked())
    assert [(prompt.max_tokens, prompt.temperature) for prompt in generator.prompts] == [
        (7, 0.5),
        (9, None),
        (None, None),
    ]


def test_what_the_model_says_of_its_tokens_is_the_usage(indexed, llm):
    """Where a server counts, its numbers are told."""
    usage = {"prompt_tokens": 321, "completion_tokens": 12, "total_tokens": 333}
    last = event(
        {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [], "usage": usage}
    )
    llm.on(LLM_CHAT, event_stream(delta("The hotel limit is 145 euros [1]."), delta(finish="stop"), last, DONE))
    with answered_by(indexed, llm) as client:
        chat = client.chat.completions.create(**asked())
    assert (chat.usage.prompt_tokens, chat.usage.completion_tokens, chat.usage.total_tokens) == (321, 12, 333)


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_that_reached_its_tokens_ends_by_length(indexed, llm, streamed):
    """As OpenAI's clients expect it, with a notice for people; such an answer stands for no later one."""
    llm.on(LLM_CHAT, stream("The hotel limit is 145 euros [1]. And it", finish="length"))
    with answered_by(indexed, llm) as client:
        for _ in range(2):
            answer = client.chat.completions.create(**asked(stream=streamed))
            last = list(answer)[-1] if streamed else answer
            assert last.choices[0].finish_reason == "length"
            assert last.citewell["notice"].startswith("The answer is not at its end")
            assert not last.citewell["cached"]


def test_an_answer_is_in_the_log_unless_it_is_not_to_be_stored(client, reading):
    """By the id that the reply tells."""
    kept, left = (client.chat.completions.create(**asked(), **more).citewell for more in ({}, {"store": False}))
    assert reading.get(f"/v1/answers/{kept['answer_id']}").status_code == 200
    assert reading.get(f"/v1/answers/{left['answer_id']}").status_code == 404


def test_what_the_documents_do_not_support_is_withheld_where_that_is_wished(indexed):
    """`filter` leaves the sentence out, `strict` the answer; a stream ends with the same text and annotations."""
    with writing(indexed, ScriptedGenerator([*TWO, " Camels drink rum at midnight [1]."])) as client:
        for policy, withheld in (("report", 0), ("filter", 1), ("strict", None)):
            extra = {"citewell": {"policy": policy}}
            whole = client.chat.completions.create(**asked(), extra_body=extra)
            content = whole.choices[0].message.content
            with client.chat.completions.stream(**asked(), extra_body=extra) as events:
                message = events.get_final_completion().choices[0].message
            assert message.content == content
            assert ("Camels" in content) is (policy == "report")
            assert whole.citewell["abstained"] is (content == ABSTENTION) is (policy == "strict")
            assert withheld in {None, whole.citewell["withheld"]}
            assert len(getattr(message, "annotations", None) or []) == len(whole.choices[0].message.annotations)


def test_documents_that_do_not_say_are_an_answer(client):
    """The sentence, a usual end, no annotation, and the flag, whole and streamed."""
    chat = client.chat.completions.create(**asked() | {"model": "citewell/empty"})
    assert (chat.choices[0].message.content, chat.choices[0].finish_reason) == (ABSTENTION, "stop")
    assert (chat.choices[0].message.annotations, chat.citewell["abstained"]) == ([], True)
    chunks = list(client.chat.completions.create(**asked(stream=True) | {"model": "citewell/empty"}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ABSTENTION
    assert chunks[-1].citewell["abstained"] is True


def test_a_generator_that_fails_before_its_first_word_is_stood_in_for(indexed):
    """The built-in reader's answer, marked as such; nothing has to be taken back."""
    with writing(indexed, ScriptedGenerator([], "It is down.")) as client:
        whole = client.chat.completions.create(**asked())
        chunks = list(client.chat.completions.create(**asked(stream=True)))
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert streamed == whole.choices[0].message.content
    for extra in (whole.citewell, chunks[-1].citewell):
        assert extra["generator"] == "reader"
        assert "It is down." in extra["notice"]


def test_a_generator_that_fails_half_way_ends_the_stream_with_an_error(indexed, llm):
    """What has gone out stays, no other answer comes behind it; the whole answer is the built-in reader's."""
    llm.on(LLM_CHAT, stream("The hotel limit was once ", Reset()))
    with answered_by(indexed, llm) as client:
        chunks = client.chat.completions.create(**asked(stream=True))
        assert next(chunks).choices[0].delta.role == "assistant"
        assert "The hotel limit was once ".startswith(next(chunks).choices[0].delta.content)
        with pytest.raises(openai.APIError, match=r"What was sent is not all of an answer; ask again\.") as failed:
            list(chunks)
        assert (failed.value.type, failed.value.code) == ("server_error", "generator_failed")
        assert client.chat.completions.create(**asked()).citewell["generator"] == "reader"


def test_a_failure_that_nobody_stands_in_for_is_an_error(indexed):
    """503 for the whole, an error as the last event of a stream, without [DONE]."""
    with writing(indexed, ScriptedGenerator(["Half "], "It is down."), fall_back=False) as client:
        with pytest.raises(openai.InternalServerError) as failed:
            client.chat.completions.create(**asked())
        assert (failed.value.status_code, failed.value.code, failed.value.type) == (
            503,
            "generator_failed",
            "server_error",
        )
        http = httpx.Client(base_url=str(client.base_url), trust_env=False)
        with http, http.stream("POST", "chat/completions", json=asked(stream=True), timeout=60) as response:
            lines = [line for line in response.iter_lines() if line]
    assert json.loads(lines[-1].removeprefix("data: "))["error"]["message"] == "It is down."


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
def test_a_client_that_leaves_ends_the_work_for_it(indexed, llm, streamed):
    """The model's server sees its connection close."""
    llm.on(LLM_CHAT, stream("The hotel limit is 145 euros. ", Pause(300), "Never sent."))
    with answered_by(indexed, llm, total_timeout=200) as client:
        if streamed:
            with client.chat.completions.create(**asked(stream=True)) as chunks:
                assert next(chunks).choices[0].delta.role == "assistant"
                assert next(chunks).choices[0].delta.content
        else:
            with pytest.raises(openai.APITimeoutError):
                client.with_options(timeout=httpx.Timeout(10, read=3)).chat.completions.create(**asked())
        assert llm.hung_up.wait(60)


def test_too_many_answers_are_refused_as_openai_does(indexed, llm):
    """429 with the seconds to wait, while the one place is taken; any key is accepted."""
    llm.on(LLM_CHAT, stream("The hotel limit is 145 euros. ", Pause(300)))
    with (
        answered_by(indexed, llm, max_answers=1, total_timeout=200) as client,
        client.chat.completions.create(**asked(stream=True)) as chunks,
    ):
        next(chunks)
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(**asked())
        assert (refused.value.code, refused.value.type) == ("busy", "rate_limit_error")
        assert int(refused.value.response.headers["retry-after"]) >= 1


def test_errors_have_openais_shape_wherever_they_come_from(reading):
    """The guard, the framework and the routes: `type` and `param` stand beside our code and details."""
    assert openai_problem(reading.post(CHAT, content=b"x" * 2_000_000), 413)["code"] == "too_large"
    assert openai_problem(reading.post(CHAT, json=asked(), headers={"Host": "evil.example"}), 403)["param"] is None
    assert openai_problem(reading.put(CHAT), 405)["code"] == "method_not_allowed"
    assert openai_problem(reading.get("/v1/models/nope"), 404)["code"] == "not_found"
    assert openai_problem(reading.post(CHAT, content=b"{", headers={"Content-Type": "application/json"}), 400)
    wrong = openai_problem(reading.post(CHAT, json=asked(colour=1, stream="yes")), 422)
    assert wrong["param"] == wrong["details"]["fields"][0]["field"]
    assert openai_problem(reading.post("/v2/vector_stores/nope/search", json={"query": "cat"}), 404)
    plain = reading.post("/v1/search", json={"query": "cat", "collections": ["nope"]}).json()["error"]
    assert set(plain) == {"code", "message"}
