"""Keys and the audit log, for admins; and who one is, for everybody.

A secret is in the reply to the request that made it, and nowhere else.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from api.access import caller_of
from api.key_schemas import (
    AuditPage,
    CallerKey,
    KeyList,
    KeyReply,
    MeReply,
    NewKey,
    NotedReply,
    Rotation,
    SecretReply,
)
from api.keyring import Keyring
from api.routes.parts import Whole, problems
from api.schemas import MOST_EXACT

router = APIRouter(prefix="/v1", tags=["access"])

KeyId = Annotated[str, Path(description="Id of the key.", examples=["5f1d0c9e8b7a"])]


@router.get("/me", summary="Who am I", responses=problems(503))
def show_me(request: Request, citewell: Whole) -> MeReply:
    """Shows the key that the request came with, and what it is good for."""
    caller, keyring = caller_of(request), _keyring(request)
    if keyring.was_open or caller.role is None:
        return MeReply(open=keyring.was_open, key=None)
    key = citewell.store.catalog.key(caller.key_id) if caller.key_id else None
    seen = None if caller.collections is None else sorted(caller.collections)
    told = CallerKey(
        id=caller.key_id, name=caller.name, role=caller.role, collections=seen, expires_at=key and key.expires_at
    )
    return MeReply(open=False, key=told)


@router.get("/keys", summary="List the keys", responses=problems(503))
def list_keys(citewell: Whole) -> KeyList:
    """Lists all keys, those that are revoked or have expired too."""
    return KeyList(keys=[KeyReply.of(key) for key in citewell.store.catalog.list_keys()])


@router.post("/keys", status_code=201, summary="Make a key", responses=problems(400, 409, 422, 503))
def create_key(body: NewKey, request: Request, citewell: Whole) -> SecretReply:
    """Makes a key and tells its secret, this once.

    The first key of a server closes it: from then on every request needs one.
    """
    made = citewell.store.catalog.create_key(
        body.name, body.role, body.collections, expires_at=body.expires_at, limits=body.limits
    )
    _keyring(request).forget()
    return SecretReply.made(*made)


@router.post("/keys/{key_id}/rotate", summary="Rotate a key", responses=problems(404, 409, 422, 503))
def rotate_key(key_id: KeyId, body: Rotation, request: Request, citewell: Whole) -> SecretReply:
    """Gives a key a new secret. The one before it holds for a while longer, so that nobody need stop."""
    made = citewell.store.catalog.rotate_key(key_id, timedelta(seconds=body.overlap_seconds))
    _keyring(request).forget()
    return SecretReply.made(*made)


@router.delete("/keys/{key_id}", status_code=204, summary="Revoke a key", responses=problems(404, 422, 503))
def revoke_key(key_id: KeyId, request: Request, citewell: Whole) -> None:
    """Ends a key for good, in every process within a second."""
    citewell.store.catalog.revoke_key(key_id)
    _keyring(request).forget()


@router.get("/audit", summary="Read the audit log", responses=problems(422, 503))
def show_audit(
    citewell: Whole,
    limit: Annotated[int, Query(ge=1, le=1000, description="Most lines on a page.")] = 100,
    before: Annotated[int | None, Query(ge=0, le=MOST_EXACT, description="The `next` of the page before.")] = None,
    who: Annotated[str | None, Query(max_length=200, description="Only of this key, by name or id.")] = None,
    action: Annotated[str | None, Query(max_length=50, description="Only of this kind.")] = None,
) -> AuditPage:
    """Shows who wrote or deleted what, when, and with which request, the newest first."""
    found = citewell.store.catalog.audit_log(limit=limit + 1, before=before, who=who, action=action)
    more = found[limit - 1].number if len(found) > limit else None
    return AuditPage(entries=[NotedReply.of(noted) for noted in found[:limit]], next=more)


def _keyring(request: Request) -> Keyring:
    found: Keyring = request.app.state.keyring
    return found
