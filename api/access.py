"""Who asks, and whether they may: the one place through which every request to every route goes.

`Gatekeeper` stands before the routes: it turns a key into a `Caller`, and away who has none. `admit` is asked by the
application for every route: each needs the role that stands in ``ROLES``, or else its method says. What exists for a
caller is not decided here but where names and ids are looked up: `Citewell.seen_by`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.guard import SAFE_METHODS
from api.keyring import Keyring, anybody, caller_with, nobody
from api.problems import refuse
from rag.access import Caller, Limits, Role, id_in
from rag.errors import CitewellError, Unauthorized
from rag.settings import Settings

if TYPE_CHECKING:
    from api.limits import Meter
    from api.oidc import Issuer

#: Addresses that need no key: pages, the description of the API, and whether the process runs.
PUBLIC: Final = re.compile(r"/|/docs|/pages/[^/]*|/openapi\.json|/health/(live|ready)")
#: The numbers of the server, which need none where a setting says so.
METRICS: Final = "/metrics"
#: What routes need, by name: those whose method would say something else.
ROLES: Final = {
    "search": Role.READER,
    "ask": Role.READER,
    "complete": Role.READER,
    "embed": Role.READER,
    "rank": Role.READER,
    "search_vector_store": Role.READER,
    "rate_answer": Role.READER,
    "metrics": Role.ADMIN,
    "list_keys": Role.ADMIN,
    "create_key": Role.ADMIN,
    "rotate_key": Role.ADMIN,
    "revoke_key": Role.ADMIN,
    "show_audit": Role.ADMIN,
}


class Gatekeeper:
    """Lets in who has a key, as that key's caller; everybody where there are no keys. Plain ASGI."""

    def __init__(self, app: ASGIApp, keyring: Keyring, issuer: Issuer | None, settings: Settings) -> None:
        self._app = app
        self._keyring = keyring
        self._issuer = issuer
        self._held = Limits(documents=settings.access.collection_documents, bytes=settings.access.collection_bytes)
        self._open_metrics = settings.observe.open_metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        with ExitStack() as held:
            try:
                caller, limits = await self._caller(scope, state.get("request_id"))
                if limits is not None:
                    meter: Meter = scope["app"].state.meter
                    held.enter_context(meter.one(caller.key_id or caller.name, limits))
            except CitewellError as error:
                await refuse(scope["path"], error)(scope, receive, send)
                return
            state["caller"] = replace(caller, held=self._held)
            await self._app(scope, receive, send)

    async def _caller(self, scope: Scope, request_id: str | None) -> tuple[Caller, Limits | None]:
        """Return who asks and how much they may, None: as much as they like; raises `Unauthorized`."""
        path = scope["path"]
        is_public = bool(PUBLIC.fullmatch(path))
        if path == METRICS and self._open_metrics:
            return anybody(request_id), None
        secret = presented(Headers(scope=scope))
        if is_public and (secret is None or self._keyring.was_open):
            return (anybody if self._keyring.was_open else nobody)(request_id), None
        try:
            return await self._known(secret, request_id)
        except CitewellError:
            if is_public:
                return nobody(request_id), None
            raise

    async def _known(self, secret: str | None, request_id: str | None) -> tuple[Caller, Limits | None]:
        if await self._keyring.is_open(secret):
            return anybody(request_id), None
        if secret is None:
            raise Unauthorized
        if self._issuer is not None and id_in(secret) is None:
            return await self._issuer.caller_of(secret, request_id), Limits()
        key = await self._keyring.key_of(secret)
        return caller_with(key, request_id), key.limits


def presented(headers: Headers) -> str | None:
    """Return the secret that a request brings: as a bearer token, as OpenAI's clients do, or in `X-API-Key`."""
    kind, _, secret = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and secret.strip():
        return secret.strip()
    return headers.get("x-api-key") or None


def caller_of(request: Request) -> Caller:
    """Return who asks."""
    found: Caller = request.state.caller
    return found


async def admit(request: Request) -> None:
    """Refuse a caller whose role is too low for the route, with `Forbidden`. A dependency of the whole application."""
    if PUBLIC.fullmatch(request.scope["path"]):
        return
    needed = ROLES.get(request.scope["route"].name)
    usual = Role.READER if request.method in SAFE_METHODS else Role.WRITER
    caller_of(request).need(needed or usual)


def require(role: Role) -> Callable[[Request], Coroutine[Any, Any, None]]:
    """Return a dependency by which a route needs a role besides what `admit` asks for."""

    async def needed(request: Request) -> None:
        caller_of(request).need(role)

    return needed
