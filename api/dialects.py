"""Errors as the clients of OpenAI's API read them: our shape, and what they look for besides.

    {"error": {"code": "not_found", "message": "...", "details": {...}, "type": "invalid_request_error", "param": null}}

Which addresses speak it is said here, once, since a request may be refused before any route has seen it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: The addresses of OpenAI's and NIM's APIs.
SPOKEN = re.compile(r"/v1/(chat/completions|models|embeddings|ranking)(/.*)?|/v[12]/vector_stores/.*", re.DOTALL)
#: What OpenAI calls the kinds of errors, by status; all others below 500 are faults of the request.
TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def worded(path: str, status: int, problem: Mapping[str, Any]) -> dict[str, Any]:
    """Return a `api.problems.problem` as it is sent from an address; plain where that does not speak OpenAI's API."""
    return in_openai(status, problem) if SPOKEN.fullmatch(path) else dict(problem)


def in_openai(status: int, problem: Mapping[str, Any]) -> dict[str, Any]:
    """Return a problem with ``type`` and ``param``, the first field that is wrong."""
    details = problem.get("details", {})
    param = details.get("param") or next((field["field"] for field in details.get("fields", ())), None)
    kind = "server_error" if status >= 500 else TYPES.get(status, "invalid_request_error")
    return {**problem, "type": kind, "param": param or None}
