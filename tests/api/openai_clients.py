"""OpenAI's own client, and bad input for the routes that speak its API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest

from tests.api.live import HOTEL, problem

CHAT = "/v1/chat/completions"
MODEL = "citewell/demo"
EMBEDDER = "all-MiniLM-L6-v2"
LATE = "all-MiniLM-L6-v2-late-interaction"
JSON = {"Content-Type": "application/json"}


@contextmanager
def connected(http: httpx.Client, base: str = "/v1") -> Iterator[openai.OpenAI]:
    """Yield OpenAI's client of the server that ``http`` is a client of. It asks once: what fails shall be seen."""
    with openai.OpenAI(base_url=base_url(http, base), api_key="not-needed", max_retries=0) as client:
        yield client


def leaves_sockets(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test of clients that close none of their connections: nothing is told of that, here or in later tests."""
    unheard = ("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
    return pytest.mark.usefixtures("collected")(pytest.mark.filterwarnings(*unheard)(test))


def base_url(http: httpx.Client, base: str = "/v1") -> str:
    return str(http.base_url).rstrip("/") + base


def asked(question: str = HOTEL, **more: Any) -> dict[str, Any]:
    """The body of a chat that asks one question."""
    return {"model": MODEL, "messages": [{"role": "user", "content": question}], **more}


def openai_problem(response: httpx.Response, status: int | None = None) -> dict[str, Any]:
    """Check that a response is an error in OpenAI's shape and in ours, and return what is in it."""
    error = problem(response, status)
    assert {"code", "message", "type", "param"} <= set(error), error
    expected = {403: "permission_error", 429: "rate_limit_error"}.get(response.status_code, "invalid_request_error")
    assert error["type"] == (expected if response.status_code < 500 else "server_error")
    return error


CHATS: list[dict[str, Any]] = [
    {}, {"model": MODEL}, {"messages": [{"role": "user", "content": "cat"}]}, asked(colour=1), asked(""), asked(" ?!"),
    asked("x" * 100_000), asked("\0"), {**asked(), "messages": []}, {**asked(), "messages": "cat"},
    {**asked(), "messages": [{"role": "system", "content": "cat"}]}, {**asked(), "messages": [{"role": "user"}]},
    {**asked(), "messages": [{"role": "wizard", "content": "cat"}]}, {**asked(), "messages": [5]},
    {**asked(), "messages": [{"role": "user", "content": 5}]},
    {**asked(), "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
    {**asked(), "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    {**asked(), "messages": [{"role": "tool", "content": "a"}, {"role": "user", "content": "b"}]},
    {**asked(), "messages": [{"role": "assistant", "tool_calls": [{}]}, {"role": "user", "content": "b"}]},
    *({**asked(), "model": model} for model in ("", "citewell", "citewell/", "citewell/nope", "citewell/,", "gpt-4o", 5,
                                               None, "citewell/" + "x," * 200 + "x", "citewell/\0", "citewell/a/b")),
    *(asked(stream=value) for value in ("true", 1, [])),
    *(asked(max_tokens=value) for value in (0, -1, 1.5, "5", True)), asked(temperature=3), asked(temperature="hot"),
    asked(n=2), asked(n="1"), asked(tools=[{"type": "function"}]), asked(response_format={"type": "json_object"}),
    asked(logprobs=True), asked(audio={}), asked(modalities=["audio"]), asked(functions=[{}]), asked(stream_options=5),
    asked(citewell=5), asked(citewell={"surprise": 1}), asked(citewell={"filters": {"a": None}}),
    asked(filters={"a": []}), asked(top_k=0), asked(top_k="5"), asked(collections=["nope"]), asked(collections=[5]),
    asked(collections=["x"] * 101), asked(policy="lenient"), asked(parts={"magic": True}), asked(history=[]),
]  # fmt: skip
EMBEDDINGS: list[dict[str, Any]] = [
    {}, {"model": EMBEDDER}, {"input": "cat"},
    *({"model": EMBEDDER, "input": text} for text in (
        "", " ", [], [""], [5], [[5]], [True], 5, None, ["cat", None], "\0", "cat " * 500, "x" * 100_001,
        ["cat"] * 2049, {"text": "cat"})),
    *({"model": model, "input": "cat"} for model in ("", "nope", f"{EMBEDDER}-question", MODEL, 5, None)),
    *({"model": EMBEDDER, "input": "cat", **more} for more in (
        {"truncate": "MIDDLE"}, {"truncate": 1}, {"input_type": "question"}, {"encoding_format": "hex"},
        {"dimensions": 128}, {"dimensions": "384"}, {"colour": 1})),
    {"model": f"{EMBEDDER}-query", "input": "cat", "input_type": "passage"},
]  # fmt: skip
_PASSAGES = {"passages": [{"text": "a cat"}]}
RANKINGS: list[dict[str, Any]] = [
    {}, _PASSAGES, {"query": {"text": "cat"}}, {"query": {"text": "cat"}, "passages": []},
    {"query": "cat", **_PASSAGES}, {"query": {"text": ""}, **_PASSAGES}, {"query": {"text": "\0"}, **_PASSAGES},
    {"query": {"text": "cat"}, "passages": ["a cat"]}, {"query": {"text": "cat"}, "passages": [{"text": 5}]},
    {"query": {"text": "cat"}, "passages": [{"text": "a cat", "image": "x"}]},
    {"query": {"text": "cat"}, "passages": [{"text": "a cat"}] * 2049},
    {"query": {"text": "cat"}, "passages": [{"text": "cat " * 500}]}, {"query": {"text": "cat " * 500}, **_PASSAGES},
    *({"query": {"text": "cat"}, **_PASSAGES, **more} for more in (
        {"model": "nope"}, {"model": MODEL}, {"model": 5}, {"truncate": "MIDDLE"}, {"surprise": 1})),
]  # fmt: skip
_YEAR = {"type": "eq", "key": "year", "value": 2026}
_DEEP = {"type": "and", "filters": [{"type": "or", "filters": [_YEAR]}]}
for _ in range(10):
    _DEEP = {"type": "and", "filters": [_DEEP]}
SEARCHES: list[dict[str, Any]] = [
    {}, {"query": ""}, {"query": []}, {"query": [""]}, {"query": 5}, {"query": [5]}, {"query": ["cat"] * 11},
    {"query": "\0"}, {"query": "x" * 100_000}, {"query": "cat", "surprise": 1},
    *({"query": "cat", "max_num_results": number} for number in (0, 51, -1, 1.5, "5", True, None)),
    *({"query": "cat", "rewrite_query": value} for value in ("yes", 1, None)),
    *({"query": "cat", "ranking_options": value} for value in (
        5, {"ranker": "magic"}, {"score_threshold": 2}, {"x": 1})),
    *({"query": "cat", "filters": value} for value in (
        5, [], "x", {"type": "eq"}, {"type": "eq", "key": "year"}, {"type": "like", "key": "year", "value": 1},
        {"type": "eq", "key": 5, "value": 1}, {"type": "eq", "key": "and", "value": []},
        {"type": "in", "key": "a", "value": 1}, {"type": "eq", "key": "a b", "value": 1},
        {"type": "eq", "key": "year", "value": {"gt": 1}}, {"type": "eq", "key": "year", "value": None},
        {"type": "and", "filters": []}, {"type": "and", "filters": _YEAR}, {"type": "or", "filters": [5]},
        {"type": "not", "filters": [_YEAR]}, {**_YEAR, "surprise": 1}, {"year": 2026}, _DEEP)),
]  # fmt: skip
#: Bad bodies for each route.
WRONG = {
    CHAT: CHATS,
    "/v1/embeddings": EMBEDDINGS,
    "/v1/ranking": RANKINGS,
    "/v1/vector_stores/demo/search": SEARCHES,
    "/v2/vector_stores/demo/search": SEARCHES,
}


def openai_cases(bodies: list[bytes], ids: list[str]) -> list[tuple[str, str, dict[str, Any]]]:
    """Bad input for every route of OpenAI's API: ``bodies`` that are wrong anywhere, and bad ``ids``."""
    made: list[tuple[str, str, dict[str, Any]]] = []
    for path, wrong in WRONG.items():
        made += [("POST", path, {"content": body, "headers": JSON}) for body in bodies]
        made += [("POST", path, {"content": json.dumps(body).encode(), "headers": JSON}) for body in wrong]
        made += [("GET", path, {}), ("DELETE", path, {})]
        made += [("POST", path, {"content": b"{}", "headers": {"Content-Type": "text/plain"}})]
    for bad in ids:
        made += [("GET", f"/v1/models/{bad}", {}), ("GET", f"/v1/models/citewell/{bad}", {})]
        made += [("POST", f"/v{n}/vector_stores/{bad}/search", {"json": {"query": "cat"}}) for n in (1, 2)]
    made += [("POST", "/v1/models", {}), ("DELETE", "/v1/models/citewell/demo", {}), ("GET", "/v1/models/", {})]
    return made
