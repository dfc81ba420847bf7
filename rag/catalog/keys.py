"""API keys in the catalog, and the audit log.

A secret is shown once, when it is made; the catalog has its hash. Keys are never removed: one that is revoked goes on
to say that this catalog has keys. Knows no request and asks nobody for a key.
"""

from __future__ import annotations

from collections.abc import Collection as Some
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from rag.access import Key, Limits, Noted, Role, digest_of, id_in, new_id, new_secret
from rag.catalog.part import Part, now
from rag.database import readable
from rag.errors import BadInput, Conflict, NotFound
from rag.schema import audit, documents, keys

#: The use of a key is written down at most once in so many seconds.
USE_SECONDS = 60.0
#: Most characters of a key's name, and most collections that one is limited to.
NAME_CHARS, MOST_COLLECTIONS = 100, 1000


class Keys(Part):
    """The part of the catalog that knows keys."""

    def create_key(
        self,
        name: str,
        role: Role,
        collections: Some[str] | None = None,
        *,
        expires_at: datetime | None = None,
        limits: Limits | None = None,
        secret: str | None = None,
    ) -> tuple[Key, str]:
        """Make a key and return it with its secret, which nobody can be told again.

        ``collections`` are names, also of some that are not there yet; None: all. ``secret`` is one that was made
        before, see `rag.access.SECRET`. Raises `BadInput`, and `Conflict` for the name of a key in use.
        """
        clean = " ".join(str(readable(name)).split())
        if not clean.isprintable() or not 1 <= len(clean) <= NAME_CHARS:
            raise BadInput(f"A key's name has 1 to {NAME_CHARS} characters that can be shown.")
        if role is Role.ADMIN and collections is not None:
            raise BadInput("An admin sees every collection; leave the collections out, or make a writer.")
        if collections is not None and not 1 <= len(collections) <= MOST_COLLECTIONS:
            raise BadInput(f"A key is limited to 1 to {MOST_COLLECTIONS:,} collections, or to none.")
        if expires_at is not None and expires_at <= now():
            raise BadInput("The key would have expired already.")
        key_id = new_id() if secret is None else id_in(secret)
        if key_id is None:
            raise BadInput("The secret does not look like one of a key; leave it out.")
        chosen, secret = limits or Limits(), secret or new_secret(key_id)
        row = {
            "id": key_id, "name": clean, "role": role.value, "created_at": now(), "digest": digest_of(secret),
            "collections": None if collections is None else sorted(set(collections)), "expires_at": expires_at,
            "requests_per_minute": chosen.requests_per_minute, "in_flight": chosen.in_flight,
            "most_documents": chosen.documents, "most_bytes": chosen.bytes, "documents": 0, "bytes": 0,
        }  # fmt: skip
        with self._write() as connection:
            same = sa.select(keys.c.id).where((keys.c.name == clean) & keys.c.revoked_at.is_(None))
            if connection.scalar(same.limit(1)) is not None:
                raise Conflict(f"There is a key named {clean!r} already; `citewell keys rotate` gives it a new secret.")
            connection.execute(keys.insert(), row)
            self._note(connection, "key.create", key_id)
        return self.key(key_id), secret

    def list_keys(self) -> list[Key]:
        """Return all keys, revoked and expired ones too, the oldest first."""
        with self._read() as connection:
            return [_key(row) for row in connection.execute(sa.select(keys).order_by(keys.c.created_at, keys.c.id))]

    def key(self, id_or_name: str) -> Key:
        """Return the key of an id, or else the one in use of a name; raises `NotFound`."""
        with self._read() as connection:
            return _key(_found(connection, id_or_name))

    def revoke_key(self, id_or_name: str) -> Key:
        """End a key for good; raises `NotFound`."""
        with self._write() as connection:
            found = _found(connection, id_or_name)
            mine = (keys.c.id == found.id) & keys.c.revoked_at.is_(None)
            if connection.execute(keys.update().where(mine).values(revoked_at=now())).rowcount:
                self._note(connection, "key.revoke", found.id)
        return self.key(found.id)

    def rotate_key(self, id_or_name: str, overlap: timedelta) -> tuple[Key, str]:
        """Give a key a new secret and return both; the one before it holds for ``overlap`` longer, and none older.

        Raises `NotFound`, and `Conflict` for a key that is revoked or has expired.
        """
        with self._write() as connection:
            found = _found(connection, id_or_name)
            if not _key(found).is_valid(now()):
                raise Conflict(f"The key {found.name!r} is revoked or has expired; make a new one.")
            secret = new_secret(found.id)
            held = {"earlier_digest": found.digest, "earlier_until": now() + overlap, "digest": digest_of(secret)}
            connection.execute(keys.update().where(keys.c.id == found.id).values(held))
            self._note(connection, "key.rotate", found.id)
        return self.key(found.id), secret

    def note_use(self, key_id: str) -> None:
        """Write down that a key is used now, unless that was written less than a minute ago."""
        at = now()
        old = keys.c.used_at.is_(None) | (keys.c.used_at < at - timedelta(seconds=USE_SECONDS))
        with self._write() as connection:
            connection.execute(keys.update().where((keys.c.id == key_id) & old).values(used_at=at))

    # -- the audit log -----------------------------------------------------------------------------------------------

    def audit_log(
        self, *, limit: int = 100, before: int | None = None, who: str | None = None, action: str | None = None
    ) -> list[Noted]:
        """Return lines of the audit log, the newest first: those before a number, of a key's id or name, of a kind."""
        query = sa.select(audit, documents.c.name.label("document")).outerjoin(
            documents, documents.c.id == audit.c.subject
        )
        if before is not None:
            query = query.where(audit.c.number < before)
        if who is not None:
            query = query.where((audit.c.who == who) | (audit.c.key_id == who))
        if action is not None:
            query = query.where(audit.c.action == action)
        with self._read() as connection:
            rows = connection.execute(query.order_by(audit.c.number.desc()).limit(limit)).all()
        return [
            Noted(r.number, r.at, r.who, r.key_id, r.action, r.collection, r.subject, r.request_id, r.document)
            for r in rows
        ]

    def forget_audit(self, before: datetime) -> int:
        """Remove the lines of the audit log from before a moment; return how many."""
        with self._read() as connection:
            if connection.scalar(sa.select(audit.c.number).where(audit.c.at < before).limit(1)) is None:
                return 0
        with self._write() as connection:
            return connection.execute(audit.delete().where(audit.c.at < before)).rowcount


def _found(connection: sa.Connection, id_or_name: str) -> sa.Row[Any]:
    by_id = connection.execute(sa.select(keys).where(keys.c.id == id_or_name)).one_or_none()
    named = (keys.c.name == id_or_name) & keys.c.revoked_at.is_(None)
    found = by_id or connection.execute(sa.select(keys).where(named)).first()
    if found is None:
        raise NotFound(f"There is no key {id_or_name[:100]!r}; `citewell keys list` shows what there is.")
    return found


def _key(row: sa.Row[Any]) -> Key:
    return Key(
        row.id, row.name, Role(row.role), row.created_at, row.digest,
        None if row.collections is None else frozenset(row.collections), row.expires_at, row.revoked_at, row.used_at,
        row.earlier_digest, row.earlier_until,
        Limits(row.requests_per_minute, row.in_flight, row.most_documents, row.most_bytes), row.documents, row.bytes,
    )  # fmt: skip
