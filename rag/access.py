"""Who may do what: roles, keys, callers, and what is noted of what they did. Records, and how secrets are made.

Knows no database, no web and no clock but the one it is given: `rag.catalog.keys` keeps keys, `api.access` asks for
them.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from rag.errors import Forbidden

#: What secrets look like: ``cw_``, the id of the key, and 256 random bits.
SECRET = re.compile(r"cw_(?P<id>[0-9a-f]{12})_[A-Za-z0-9_-]{43}")
SECRET_BYTES = 32


class Role(StrEnum):
    """What a key is good for; each role may all that the one before it may.

    reader: searches, asks, reads. writer: also uploads and deletes. admin: also keys, audit log and metrics, and every
    collection.
    """

    READER = "reader"
    WRITER = "writer"
    ADMIN = "admin"

    def covers(self, needed: Role) -> bool:
        """Say whether this role may what ``needed`` may."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a key may: None is what the settings say for every key (requests), or no limit (quotas)."""

    requests_per_minute: int | None = None
    in_flight: int | None = None
    documents: int | None = None
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its secret, of which only a SHA-256 hash is kept.

    ``collections`` are the names of those that it sees; None: all. The hash of an earlier secret holds until
    ``earlier_until``. ``documents`` and ``bytes`` count what was uploaded with it.
    """

    id: str
    name: str
    role: Role
    created_at: datetime
    digest: str
    collections: frozenset[str] | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    used_at: datetime | None = None
    earlier_digest: str | None = None
    earlier_until: datetime | None = None
    limits: Limits = Limits()
    documents: int = 0
    bytes: int = 0

    def is_valid(self, at: datetime) -> bool:
        """Say whether it is neither revoked nor expired at a moment."""
        return self.revoked_at is None and (self.expires_at is None or at < self.expires_at)

    def opens_for(self, secret: str, at: datetime) -> bool:
        """Say whether a secret is this key's at a moment; how long that takes does not tell how near it was."""
        given = digest_of(secret)
        is_current = hmac.compare_digest(given, self.digest)
        is_earlier = hmac.compare_digest(given, self.earlier_digest or self.digest)
        may_be_earlier = self.earlier_until is not None and at < self.earlier_until
        return self.is_valid(at) and (is_current or (is_earlier and may_be_earlier))


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks for something: with what role, for which collections (None: all), and under what request id.

    ``role`` None may nothing that needs one; ``key_id`` None is not a key: the command line, an open server. ``held``
    says how many documents and bytes a collection may hold for what this caller adds to it.
    """

    role: Role | None
    name: str
    collections: frozenset[str] | None = None
    key_id: str | None = None
    request_id: str | None = None
    held: Limits = Limits()

    def may_see(self, collection: str) -> bool:
        """Say whether a collection of this name, if there is one, exists for this caller."""
        return self.collections is None or collection in self.collections

    @property
    def sees_all(self) -> bool:
        return self.role is not None and self.collections is None

    def need(self, role: Role) -> None:
        """Raise `Forbidden` if this caller's role does not cover one."""
        if self.role is None or not self.role.covers(role):
            raise Forbidden(f"This needs a key with the role {role}; this one is a {self.role or 'stranger'}.")


@dataclass(frozen=True, slots=True)
class Noted:
    """One line of the audit log: who did what to what, when, and with which request.

    ``document`` is the document's name for as long as the catalog has it.
    """

    number: int
    at: datetime
    who: str
    key_id: str | None
    action: str
    collection: str | None
    subject: str | None
    request_id: str | None
    document: str | None = None


#: The owner of the data folder, who needs no key.
LOCAL = Caller(Role.ADMIN, "command line")


def new_id() -> str:
    """Return an id for a key."""
    return secrets.token_hex(6)


def new_secret(key_id: str) -> str:
    """Return a secret for a key, with 256 random bits."""
    return f"cw_{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"


def digest_of(secret: str) -> str:
    """Return what is kept of a secret: with 256 random bits in it, a plain hash can not be turned around."""
    return hashlib.sha256(secret.encode()).hexdigest()


def id_in(secret: str) -> str | None:
    """Return the id of the key that a secret names; None for what does not look like one."""
    found = SECRET.fullmatch(secret)
    return None if found is None else found["id"]
