"""The one shape of an error, and the table from kinds of errors to HTTP statuses.

    {"error": {"code": "not_found", "message": "One clear sentence.", "details": {...}}}

On the addresses of OpenAI's API it has what the clients of that look for besides, see `api.dialects`.
Everything that refuses a request uses it: routes, the framework's own checks, the guard before them, the last resort
behind them. Knows no route and never repeats what a client sent, but for names that an error's sentence quotes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Match

from api.dialects import worded
from rag.errors import (
    BadInput,
    Busy,
    CitewellError,
    Conflict,
    DocumentRejected,
    DocumentTooLarge,
    Forbidden,
    GeneratorFailed,
    IndexDamaged,
    Misconfigured,
    NotFound,
    QuotaExceeded,
    Unauthorized,
    Unavailable,
    UnsupportedDocument,
)

ModelT = TypeVar("ModelT", bound=BaseModel)
#: The nearest kind counts: an error that is not listed has the status of what it is derived from.
STATUS: Mapping[type[CitewellError], int] = {
    BadInput: 400,
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    DocumentTooLarge: 413,
    QuotaExceeded: 413,
    UnsupportedDocument: 415,
    DocumentRejected: 422,
    Busy: 429,
    CitewellError: 500,
    Misconfigured: 500,
    IndexDamaged: 500,
    Unavailable: 503,
    GeneratorFailed: 503,
}

METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
#: Codes for what the framework itself refuses.
CODES = {400: "bad_input", 404: "not_found", 405: "method_not_allowed", 413: "too_large", 422: "invalid"}


def status_of(error: CitewellError) -> int:
    """Return the status for an error, by the nearest of its kinds in the table."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def problem(code: str, message: str, details: Mapping[str, object] | None = None) -> dict[str, Any]:
    """Return the one shape of an error, without its envelope."""
    return {"code": code, "message": message} | ({"details": dict(details)} if details else {})


def problem_of(error: CitewellError) -> dict[str, Any]:
    """Return the shape for an error of ours; its plain facts become the details."""
    facts = {name: fact for name, fact in error.facts.items() if isinstance(fact, str | int | float | bool | list)}
    return problem(error.code, error.message, facts)


def refusal(path: str, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """Return the response for a `problem` with a request to an address, see `api.dialects`.

    Written in ASCII, so that no half of a character pair can break it.
    """
    content = json.dumps({"error": worded(path, status, body)}, ensure_ascii=True)
    return Response(content, status, headers=dict(headers or {}), media_type="application/json")


def refuse(path: str, error: CitewellError) -> Response:
    """Return the response for an error of ours; `Busy` says when to come again, `Unauthorized` what is missing."""
    after = error.facts.get("retry_after")
    headers = {"Retry-After": str(after)} if after else {}
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return refusal(path, status_of(error), problem_of(error), headers)


async def on_citewell_error(request: Request, error: CitewellError) -> Response:
    """The framework's hook for our own errors."""
    return refuse(request.scope["path"], error)


async def on_http_error(request: Request, error: HTTPException) -> Response:
    """The framework's hook for what it refuses itself: unknown addresses, wrong methods, bodies it can not read."""
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = _methods(request) or headers.get("Allow", "")
    allowed = headers.get("Allow", "")
    sentences = {
        404: "There is nothing at this address; the routes are listed at /docs.",
        405: f"This address does not take that method; it takes {allowed}.",
    }
    message = sentences.get(error.status_code, f"{error.detail.rstrip('.')}.")
    body = problem(CODES.get(error.status_code, "error"), message)
    return refusal(request.scope["path"], error.status_code, body, headers)


def _methods(request: Request) -> str:
    """Return the methods that an address takes: the framework names those of its first route alone."""
    routes: list[BaseRoute] = request.app.routes
    taken = (
        method
        for method in METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    )
    return ", ".join(taken)


async def on_invalid_request(request: Request, error: RequestValidationError) -> Response:
    """The framework's hook for values of the wrong type: one sentence for the first, all of them in the details."""
    found = error.errors()
    if any(item["type"] == "json_invalid" for item in found):
        return refusal(request.scope["path"], 400, problem("bad_input", "The body is not valid JSON."))
    fields = [{"field": _field(item["loc"]), "problem": _sentence(item)} for item in found]
    first = fields[0]
    more = f" ({len(fields) - 1} more in the details.)" if len(fields) > 1 else ""
    message = f"{first['field']}: {first['problem']}{more}" if first["field"] else first["problem"]
    return refusal(request.scope["path"], 422, problem("invalid", message, {"fields": fields}))


def validated(kind: type[ModelT], values: Mapping[str, Any]) -> ModelT:
    """Return the model of these values; raises `BadInput` with one sentence for the first that is wrong."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(str(step)[:100] for step in first["loc"])
        raise BadInput(f"{field}: {_sentence(first)}" if field else _sentence(first)) from error


def _field(place: Sequence[str | int]) -> str:
    """Name the field as a client knows it: without the ``body`` or ``query`` in front."""
    return ".".join(str(step)[:100] for step in place[1:])


def _sentence(item: Mapping[str, Any]) -> str:
    if item["loc"] == ("body",):
        return "The body must be a JSON object, sent as application/json."
    if "UploadFile" in item["msg"]:
        return "Must be a part with a file name."
    text = str(item["msg"]).removeprefix("Value error, ")
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
