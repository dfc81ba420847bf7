"""The keys of the catalog as a server holds them: read anew every second, so that a request costs a hash and no query.

A key that is revoked, or expires, is refused by every process within that second. Knows no request, no route and no
role that something needs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from rag.access import Caller, Key, Role, id_in
from rag.catalog import Catalog
from rag.catalog.keys import USE_SECONDS
from rag.errors import CitewellError, Unauthorized

log = structlog.get_logger(__name__)

#: Seconds after which keys are read again; and at the earliest where somebody comes with one that is not known.
FRESH, EAGER = 1.0, 0.05


class Keyring:
    """The keys of a catalog. For the thread of one event loop; ``clock`` counts seconds.

    ``closed``: there are other ways in than keys, so that nobody comes in without one even if there is no key.
    """

    def __init__(self, catalog: Catalog, *, closed: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._catalog = catalog
        self._clock = clock
        self._keys: dict[str, Key] = {}
        self._read_at = -float("inf")
        self._reading = asyncio.Lock()
        self._used: dict[str, float] = {}
        self._notes: set[asyncio.Task[None]] = set()
        #: Whether there was never a key, as far as is known; once there was one, that is never true again.
        self.was_open = not closed

    async def is_open(self, secret: str | None = None) -> bool:
        """Say whether the catalog has never had a key, so that everybody may do everything.

        Who comes with the secret of a key says that there is one: then the catalog itself is asked, so that nobody is
        let in as an admin who has a key for less.
        """
        if self.was_open:
            await self._renew(FRESH if id_in(secret or "") is None else 0.0)
        return self.was_open

    async def key_of(self, secret: str) -> Key:
        """Return the key that a secret opens for now; raises `Unauthorized`."""
        at = datetime.now(UTC)
        for age in (FRESH, EAGER):  # it may have been made a moment ago
            await self._renew(age)
            found = self._keys.get(id_in(secret) or "")
            if found is not None and found.opens_for(secret, at):
                self._note_use(found)
                return found
        raise Unauthorized("The API key is wrong, has expired or was revoked.")

    def forget(self) -> None:
        """Read the keys anew for the next request: one of them was changed here."""
        self._read_at = -float("inf")

    async def aclose(self) -> None:
        """Wait for notes that are being written."""
        await asyncio.gather(*self._notes, return_exceptions=True)

    async def _renew(self, age: float) -> None:
        if self._clock() - self._read_at < age:
            return
        async with self._reading:
            begun = self._clock()
            if begun - self._read_at < age:  # another request has done it meanwhile
                return
            found = await asyncio.to_thread(self._catalog.list_keys)
            self._keys, self._read_at = {key.id: key for key in found}, begun
            self.was_open = self.was_open and not found

    def _note_use(self, key: Key) -> None:
        if self._clock() - self._used.get(key.id, -float("inf")) < USE_SECONDS:
            return
        self._used[key.id] = self._clock()
        task = asyncio.create_task(self._noted(key.id))
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    async def _noted(self, key_id: str) -> None:
        try:
            await asyncio.to_thread(self._catalog.note_use, key_id)
        except CitewellError as error:  # the request goes on all the same
            log.warning("use of a key not written down", key=key_id, reason=error.message)


def caller_with(key: Key, request_id: str | None) -> Caller:
    """Return who asks with a key."""
    return Caller(key.role, key.name, key.collections, key.id, request_id)


def anybody(request_id: str | None) -> Caller:
    """Return who asks where there are no keys."""
    return Caller(Role.ADMIN, "anybody", None, None, request_id)


def nobody(request_id: str | None) -> Caller:
    """Return who asks without a key where there are some: for pages and health alone."""
    return Caller(None, "nobody", frozenset(), None, request_id)
