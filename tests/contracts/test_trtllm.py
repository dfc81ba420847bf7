"""The contract with TensorRT-LLM's trtllm-serve: its documented requests, streams and errors, played back.

What it documents is written down here by hand, from its request and reply models as they stood in 2026: a request with
a field that it does not know is refused as a whole, and three requests that it takes can stop its engine.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from rag.assembly import open_language_model
from rag.errors import GeneratorDown, GeneratorFailed
from rag.generators import OpenAIGenerator
from rag.queries import Parts
from rag.records import Delta, Guided, Plan, Prompt, Usage
from rag.settings import GeneratorSettings, UnderstandingSettings
from rag.understanding import Interpreter
from tests.asking import MESSAGES, PROMPT, ask, failure, settings_for, using
from tests.scripted_llm import CHAT, Close, Pause, Reset, ScriptedLLM, event_stream, json_reply, reply

#: The fields of its chat completion request, without those that only its newest version knows.
FIELDS = frozenset(
    "messages model frequency_penalty logit_bias logprobs top_logprobs max_tokens max_completion_tokens n "
    "presence_penalty response_format seed stop stream stream_options temperature top_p tools tool_choice user "
    "reasoning_effort best_of use_beam_search top_k top_p_min min_p repetition_penalty length_penalty early_stopping "
    "stop_token_ids include_stop_str_in_output ignore_eos min_tokens skip_special_tokens "
    "spaces_between_special_tokens truncate_prompt_tokens prompt_ignore_length lora_request echo "
    "add_generation_prompt add_special_tokens documents chat_template chat_template_kwargs disaggregated_params "
    "cache_salt priority agent_hierarchy prompt_token_ids".split()
)
FORMATS = frozenset({"text", "json", "json_schema", "json_object", "regex", "ebnf", "structural_tag"})
MODEL = "Llama-3.1-8B-Instruct"
SCHEMA = {"type": "object", "properties": {"part": {"type": "string"}}, "required": ["part"]}


@pytest.fixture
def server():
    """A trtllm-serve that is ready, as far as a script can be one."""
    with ScriptedLLM() as running:
        running.on("/health", reply(200, "", "text/plain"))
        card = {"id": MODEL, "object": "model", "created": 1763800000, "owned_by": "tensorrt_llm"}
        running.on("/v1/models", json_reply(200, {"object": "list", "data": [card]}))
        yield running


def chunk(delta: dict[str, Any] | None, finish: str | None = None, **more: Any) -> bytes:
    """One event as trtllm-serve writes it: nulls left out, and a blank before the line ends."""
    choice = {"index": 0, "delta": delta} | ({"finish_reason": finish, "stop_reason": None} if finish else {})
    head = {"id": "chatcmpl-7", "object": "chat.completion.chunk", "created": 1763800000, "model": MODEL}
    body = head | {"choices": [] if delta is None else [choice]} | more
    return f"data: {json.dumps(body)} \n\n".encode()


def usage(prompt: int, completion: int) -> dict[str, Any]:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return counts | {"prompt_tokens_details": {"cached_tokens": 0}}


def answer(*deltas: dict[str, Any], finish: str = "stop") -> Any:
    last = chunk({"content": "", "reasoning_content": ""}, finish)
    counted = chunk(None, usage=usage(31, 7))
    return event_stream(
        chunk({"role": "assistant"}), *map(chunk, deltas), last, counted, b"data: [DONE]\n\n"
    )  # fmt: skip


YES = answer({"content": "Yes."})


# -- requests ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prompt",
    [
        pytest.param(PROMPT, id="plain"),
        pytest.param(Prompt("q", (), MESSAGES, 8000, max_tokens=0, temperature=9.0), id="odd_wishes"),
        pytest.param(Prompt("q", (), MESSAGES, 100, guided=Guided("parts", SCHEMA, MESSAGES)), id="guided"),
    ],
)
def test_a_request_holds_documented_fields_alone(server, prompt):
    """And nothing that can stop the engine: no ``top_k`` at all, at least one token, and all of it in the window."""
    server.on(CHAT, YES)
    ask(server, prompt, model=None, request_fields={"chat_template_kwargs": {"enable_thinking": False}})
    [chat] = server.chats
    sent = chat.json
    assert sent.keys() <= FIELDS
    assert "top_k" not in sent
    assert sent["max_tokens"] >= 1
    assert prompt.tokens + sent["max_tokens"] <= 8192
    assert 0 <= sent["temperature"] <= 1
    assert sent["model"] == MODEL
    assert sent["stream"] is True
    assert sent["stream_options"].keys() <= {"include_usage", "continuous_usage_stats"}
    assert all(message.keys() == {"role", "content"} for message in sent["messages"])
    if form := sent.get("response_format"):
        assert form["type"] in FORMATS
        assert form.keys() <= {"type", "schema", "json_schema", "regex", "ebnf", "format"}
        assert form["json_schema"]["schema"] == SCHEMA


# -- streams -----------------------------------------------------------------------------------------------------------


def test_an_answer_and_its_usage(server):
    """Chunks that bear a token but no text yet are passed over."""
    server.on(CHAT, answer({"content": ""}, {"content": "Three"}, {"content": " months [1]."}))

    async def collect(generator: OpenAIGenerator) -> list[Delta]:
        return [item async for item in generator.generate(PROMPT)]

    said = using(settings_for(server), collect)
    assert said == [Delta("Three"), Delta(" months [1]."), Delta("", usage=Usage(31, 7))]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_what_a_reasoning_parser_sets_apart_is_kept_out(server, field):
    """``reasoning_content`` of its parsers, ``reasoning`` of gpt-oss."""
    server.on(CHAT, answer({"content": "", field: "The passage"}, {field: " says so."}, {"content": "Three months."}))
    assert "".join(ask(server)) == "Three months."


def test_reasoning_that_no_parser_sets_apart_is_kept_out_too(server):
    """trtllm-serve was started without ``--reasoning_parser``."""
    server.on(CHAT, answer({"content": "<think>\nHm"}, {"content": ".</think>\n\n"}, {"content": "Three months."}))
    assert "".join(ask(server)) == "Three months."


def test_a_schema_that_is_ignored_in_silence(server):
    """Without a guided decoding backend the reply is whatever the model writes; it is read as what it is."""
    server.on(CHAT, answer({"content": "part: When was it built?\npart: Who keeps it?"}))
    model = open_language_model(settings_for(server))
    assert model is not None
    asked = Plan("When was the lighthouse built, and who keeps it?", (), {}, 10, 5, Parts(decompose=True))

    async def understood() -> Plan:
        try:
            return await Interpreter(model, UnderstandingSettings(timeout_seconds=60)).understand(asked)
        finally:
            await model.aclose()

    found = asyncio.run(understood())
    assert "response_format" in server.chats[0].json
    assert [query.text for query in found.queries[1:]] == ["When was it built?", "Who keeps it?"]


# -- errors ------------------------------------------------------------------------------------------------------------

VALIDATION = (
    "[{'type': 'extra_forbidden', 'loc': ('body', 'top_q'), 'msg': 'Extra inputs are not permitted', 'input': 5}]"
)
TOO_LONG = "The sum of prompt length (9000.0) and query length (0) should not exceed max_num_tokens (8192)"
NO_GUIDING = "Guided decoding is not supported: guided_decoding_backend is not set"


def error(message: str, kind: str = "BadRequestError", code: int = 400) -> dict[str, Any]:
    return {"object": "error", "message": message, "type": kind, "param": None, "code": code}


@pytest.mark.parametrize(
    ("answered", "kind", "message"),
    [
        (json_reply(400, {"error": VALIDATION}), GeneratorFailed, f"answered 400: {VALIDATION}."),
        (json_reply(400, error(TOO_LONG)), GeneratorFailed, f"answered 400: {TOO_LONG}."),
        (json_reply(501, error("Not here.", "NotImplementedError", 501)), GeneratorDown, "answered 501: Not here."),
        (json_reply(422, {"detail": [{"loc": ["body"], "msg": "Field required"}]}), GeneratorFailed, "Field required."),
        (reply(500, "Internal Server Error", "text/plain"), GeneratorDown, "answered 500: Internal Server Error."),
        # When its engine fails it stops itself, and what it was working on gets this.
        (reply(200, "null"), GeneratorDown, "answered with application/json instead of an event stream."),
        (event_stream(chunk({"content": "Half"}), Close()), GeneratorDown, "closed the connection before the end"),
        (event_stream(chunk({"content": "Half"}), Reset()), GeneratorDown, "closed the connection before the end"),
        (event_stream(chunk({"content": "Half"}), Pause(30)), GeneratorDown, "did not finish its answer within 1 s."),
    ],
)  # fmt: skip
def test_each_error_becomes_one_sentence(server, answered, kind, message):
    """Of the kind that says whether another question would fare better."""
    server.on(CHAT, answered)
    caught = failure(server, total_timeout=1)
    assert type(caught) is kind or issubclass(type(caught), kind) is (kind is GeneratorDown)
    assert isinstance(caught, GeneratorDown) is (kind is GeneratorDown)
    assert message in caught.message


def test_a_schema_that_is_refused_is_left_out(server):
    refused = json_reply(400, error(NO_GUIDING))
    server.on(CHAT, refused, refused, YES)
    assert ask(server, Prompt("q", (), MESSAGES, 100, guided=Guided("parts", SCHEMA, MESSAGES)))[0] == "Yes."
    assert "response_format" not in server.chats[-1].json


# -- readiness ---------------------------------------------------------------------------------------------------------


def test_it_is_ready_by_health_and_tells_its_model(server):
    """It has no ``/v1/health/ready``; its list of models holds the one that it serves, without a window."""

    async def readied(generator: OpenAIGenerator) -> tuple[bool, str, int]:
        return await generator.ready(), generator.name, await generator.prompt_tokens()

    config = GeneratorSettings(kind="openai", base_url=server.base_url, connect_timeout=10)
    assert using(config, readied) == (True, f"openai:{MODEL}", 8192 - 512 - 64)
    assert [request.path for request in server.requests] == ["/v1/health/ready", "/health", "/v1/models"]


def test_it_says_itself_when_it_is_not_ready(server):
    words = "LLM is unavailable. Please check the server logs for more details."
    server.on("/health", reply(503, words, "text/plain"))
    assert using(settings_for(server), OpenAIGenerator.ready) is False
