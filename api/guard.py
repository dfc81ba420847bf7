"""What stands before and around every route: request ids, safe headers, the log line, and who is turned away.

`Envelope` is the outermost layer: every response leaves through it, the one for an unexpected error too.
`Doorkeeper` refuses hosts that are not this machine, writes from foreign pages, and bodies that are too large.
`Places` bounds how much of one kind is done at once.
Plain ASGI, so that streams pass through untouched. Knows no resource and logs no text of questions or documents.
"""

from __future__ import annotations

import math
import re
import secrets
import time
from collections.abc import Collection as Some
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.keyring import Keyring
from api.problems import problem, refusal
from rag.errors import Busy, Unavailable
from rag.log_lines import describe, note_place, noting
from rag.settings import AccessSettings
from rag.telemetry import SILENT, Fact, Span, Telemetry

log = structlog.get_logger(__name__)

JSON_BYTES = 1 << 20
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
#: Those that have a name where requests are counted and traced.
METHODS = SAFE_METHODS | {"POST", "PUT", "PATCH", "DELETE"}
UPLOADS = {
    "POST": re.compile(r"/v1/collections/[^/]+/documents"),
    "PUT": re.compile(r"/v1/collections/[^/]+/documents/.*", re.DOTALL),
}
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class BrokenOff(Exception):
    """A response ended before it was complete; the log has the reason."""


class Envelope:
    """Gives every response an ``X-Request-Id`` and safe headers, logs it, and answers for unexpected errors.

    A client may bring an id of its own; one that is not plain is replaced.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry = SILENT) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        brought = headers.get("x-request-id", "")
        request_id = brought if REQUEST_ID.fullmatch(brought) else secrets.token_hex(16)
        scope.setdefault("state", {})["request_id"] = request_id
        sent = _Sent(send, request_id)
        started = time.perf_counter()
        with noting(request_id=request_id), self._telemetry.span("request", headers.get("traceparent")) as span:
            note_place(span.place)
            try:
                await self._app(scope, receive, sent)
            except ClientDisconnect:
                log.info("client left", method=scope["method"])
            except Exception as error:  # noqa: BLE001 - the outermost edge: nobody else can tell the client or the log
                await _last_resort(error, sent, scope, receive)
            finally:
                seconds = round(time.perf_counter() - started, 4)
                route = getattr(scope.get("route"), "path", None)
                self._telemetry.meters.requested(scope["method"], route, sent.status, seconds)
                _tell(span, scope["method"], route, sent.status)
                log.info("request", method=scope["method"], route=route, status=sent.status, seconds=seconds)


def _tell(span: Span, method: str, route: str | None, status: int) -> None:
    """Tell of a request as the conventions of OpenTelemetry name it; what has no route is named by its method."""
    method = method if method in METHODS else "_OTHER"
    span.rename(f"{method} {route}" if route else method)
    facts: dict[str, Fact] = {"http.request.method": method, "http.response.status_code": status}
    span.tell(**facts | ({"http.route": route} if route else {}))
    if status >= 500:
        span.end(str(status))


@dataclass(slots=True)
class _Sent:
    """Sends on, adding headers, and remembers the status. 0: nothing has gone out yet."""

    send: Send
    request_id: str
    status: int = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.request_id
            for name, value in SAFE_HEADERS.items():
                headers.setdefault(name, value)
        await self.send(message)


async def _last_resort(error: Exception, sent: _Sent, scope: Scope, receive: Receive) -> None:
    error_id = secrets.token_hex(8)
    log.error("unexpected error", error_id=error_id, exception=describe(error))
    if sent.status:
        raise BrokenOff from None
    message = "Something went wrong inside Citewell; the log has the reason under the id in the details."
    await refusal(scope["path"], 500, problem("internal", message, {"error_id": error_id}))(scope, receive, sent)


class Doorkeeper:
    """Lets in what is addressed to this machine, comes from no foreign page, and is not too large.

    While there are no keys the server listens on loopback: a page on the web that lets its own name point to this
    machine (DNS rebinding), or posts to it from a visitor's browser, is turned away here. With keys any name of the
    machine is good, since such a page has none. Pages of other ``origins`` may write if a setting says so.
    """

    def __init__(self, app: ASGIApp, upload_bytes: int, keyring: Keyring, access: AccessSettings) -> None:
        self._app = app
        self._upload_bytes = upload_bytes
        self._keyring = keyring
        self._origins = frozenset(origin.lower() for origin in access.origins)
        self._hosts = frozenset(host.lower() for host in access.hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        uploads = UPLOADS.get(scope["method"])
        limit = self._upload_bytes if uploads and uploads.fullmatch(scope["path"]) else JSON_BYTES
        refused = (
            await self._foreign_host(headers)
            or _foreign_origin(scope, headers, self._origins)
            or _too_large(headers.get("content-length", ""), limit)
        )
        if refused is not None:
            status, body = refused
            await refusal(scope["path"], status, body, {"Connection": "close"})(scope, receive, send)
            return
        await self._app(scope, _Watched(receive, limit), send)

    async def _foreign_host(self, headers: Headers) -> tuple[int, dict[str, Any]] | None:
        host = _host(headers.getlist("host"))
        if is_loopback(host) or host in self._hosts:
            return None
        is_open = True
        with suppress(Unavailable):  # as long as nobody knows better
            is_open = await self._keyring.is_open()
        if host and not is_open and not self._hosts:
            return None
        cure = "use a name of access.hosts" if self._hosts else "use http://127.0.0.1 or localhost"
        return 403, problem("foreign_host", f"The Host header names another machine; {cure}.")


@dataclass(slots=True)
class _Watched:
    """Receives on, but no more than ``limit`` bytes."""

    receive: Receive
    limit: int
    size: int = 0

    async def __call__(self) -> Message:
        message = await self.receive()
        self.size += len(message.get("body", b""))
        if self.size > self.limit:
            raise HTTPException(413, _over(self.limit), {"Connection": "close"})
        return message


class Places:
    """So many places; who finds none is refused at once, before any work. For the thread of one event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self._seconds = 0.0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Take a place, and give it back at the end; raises `Busy` if all are taken.

        The time after which to come again is that which the last ones took before one place was free.
        """
        if self._taken >= self._most:
            raise Busy(retry_after=max(1, math.ceil(self._seconds / self._most)))
        self._taken += 1
        started = time.monotonic()
        try:
            yield
        finally:
            self._taken -= 1
            self._seconds += 0.2 * (time.monotonic() - started - self._seconds)


def is_loopback(host: str) -> bool:
    """Say whether ``host``, without a port, is a name or address of this machine that no one else can use."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _foreign_origin(scope: Scope, headers: Headers, others: Some[str]) -> tuple[int, dict[str, Any]] | None:
    if scope["method"] in SAFE_METHODS or "origin" not in headers:
        return None
    own = f"{scope['scheme']}://{headers.get('host', '')}".lower()
    if [origin.lower() for origin in headers.getlist("origin")] in [[allowed] for allowed in {own, *others}]:
        return None
    return 403, problem("foreign_origin", "Pages of another origin may not send this; only Citewell's own pages may.")


def _host(values: Sequence[str]) -> str:
    """Return the host name of a Host header without its port; empty if there is none, several, or a malformed one."""
    if len(values) != 1 or not re.fullmatch(r"[A-Za-z0-9.:\[\]-]+", values[0]):
        return ""
    try:
        return urlsplit(f"//{values[0]}").hostname or ""
    except ValueError:
        return ""


def _too_large(length: str, limit: int) -> tuple[int, dict[str, Any]] | None:
    if length.isdecimal() and int(length[:20]) > limit:
        return 413, problem("too_large", f"{_over(limit)}.")
    return None


def _over(limit: int) -> str:
    return f"The request is larger than the limit of {limit:,} bytes; send less at a time"
