"""Keys, callers and the audit log as they go over the wire, see ``api.schemas``.

This module knows no route and no database.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from api.schemas import Text
from rag.access import Key, Limits, Noted, Role
from rag.catalog.keys import MOST_COLLECTIONS, NAME_CHARS

#: The largest number that goes into a column of the catalog, and the longest overlap of two secrets in seconds.
MOST, MOST_SECONDS = 2**31 - 1, 365 * 86_400

Count = Annotated[int, Field(ge=1, le=MOST, strict=True)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True)


class NewKey(_Request):
    """A key to make."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "wiki bot", "role": "reader", "collections": ["handbook"]}]}
    )

    name: Text = Field(min_length=1, max_length=NAME_CHARS, description="Who or what will have it.")
    role: Role = Field(description="reader: searches and asks. writer: uploads and deletes too. admin: everything.")
    collections: list[Annotated[Text, Field(min_length=1, max_length=100)]] | None = Field(
        None, min_length=1, max_length=MOST_COLLECTIONS, description="Names of those that it sees; by default all."
    )
    expires_at: AwareDatetime | None = Field(None, description="By default it holds until it is revoked.")
    requests_per_minute: Count | None = Field(None, description="By default what the settings say.")
    in_flight: Count | None = Field(None, description="Most requests at once; by default what the settings say.")
    most_documents: Count | None = Field(None, description="Most documents that can be uploaded with it.")
    most_bytes: Annotated[int, Field(ge=1, le=2**53, strict=True)] | None = Field(
        None, description="Most bytes that can be uploaded with it."
    )

    @property
    def limits(self) -> Limits:
        return Limits(self.requests_per_minute, self.in_flight, self.most_documents, self.most_bytes)


class Rotation(_Request):
    """How long the secret before holds on."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"overlap_seconds": 86400}]})

    overlap_seconds: int = Field(86_400, ge=0, le=MOST_SECONDS, strict=True)


class KeyReply(_Reply):
    """A key, without its secret. ``documents`` and ``bytes`` count what was uploaded with it."""

    id: str
    name: str
    role: Role
    collections: list[str] | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")
    earlier_until: datetime | None = Field(description="Until when the secret before the last rotation holds.")
    requests_per_minute: int | None
    in_flight: int | None
    most_documents: int | None
    most_bytes: int | None
    documents: int
    bytes: int

    @classmethod
    def of(cls, key: Key) -> Self:
        return cls(**facts_of(key))


class SecretReply(KeyReply):
    """A key with its secret, which is told this once."""

    secret: str = Field(examples=["cw_5f1d0c9e8b7a_..."])

    @classmethod
    def made(cls, key: Key, secret: str) -> Self:
        return cls(**facts_of(key), secret=secret)


class KeyList(_Reply):
    """All keys, the oldest first; those that are revoked too."""

    keys: list[KeyReply]


class CallerKey(_Reply):
    """The key that a request came with."""

    id: str | None = Field(description="Null for a token of the issuer.")
    name: str
    role: Role
    collections: list[str] | None
    expires_at: datetime | None


class MeReply(_Reply):
    """Who asks. ``open``: there are no keys, and everybody may do everything."""

    open: bool
    key: CallerKey | None


class NotedReply(_Reply):
    """A line of the audit log."""

    number: int
    at: datetime
    who: str = Field(description="Name of the key; 'anybody' where there were none, 'command line' for its owner.")
    key_id: str | None
    action: str = Field(examples=["document.delete"])
    collection: str | None
    subject: str | None = Field(description="Id of what was written or deleted.")
    document: str | None = Field(description="Name of the document, as long as it is known.")
    request_id: str | None

    @classmethod
    def of(cls, noted: Noted) -> Self:
        return cls(
            number=noted.number, at=noted.at, who=noted.who, key_id=noted.key_id, action=noted.action,
            collection=noted.collection, subject=noted.subject, document=noted.document, request_id=noted.request_id,
        )  # fmt: skip


class AuditPage(_Reply):
    """A page of the audit log, the newest lines first."""

    entries: list[NotedReply]
    next: int | None = Field(description="The `before` of the next page; null on the last one.")


def facts_of(key: Key) -> dict[str, object]:
    """Return what is told of a key, by the names of the API: nothing of its secret."""
    return {
        "id": key.id, "name": key.name, "role": key.role,
        "collections": None if key.collections is None else sorted(key.collections), "created_at": key.created_at,
        "expires_at": key.expires_at, "revoked_at": key.revoked_at, "last_used_at": key.used_at,
        "earlier_until": key.earlier_until, "requests_per_minute": key.limits.requests_per_minute,
        "in_flight": key.limits.in_flight, "most_documents": key.limits.documents, "most_bytes": key.limits.bytes,
        "documents": key.documents, "bytes": key.bytes,
    }  # fmt: skip
