"""Before a server listens: whether it may be reached from elsewhere, and the first key, where a file holds one.

Without a key only this machine is served, since everybody who reaches the server may do everything then. Opens the
catalog alone; knows no socket and no model.
"""

from __future__ import annotations

from rag.access import SECRET, Role
from rag.catalog import Catalog
from rag.errors import Misconfigured
from rag.settings import Settings
from rag.store import open_store

#: What the key of `access.first_key_file` is called.
FIRST = "first"


def check_address(settings: Settings) -> None:
    """Make the first key if a file holds its secret, and raise `Misconfigured` for an address that needs a key."""
    from api.guard import is_loopback

    if settings.access.first_key_file is not None:
        with open_store(settings) as store:
            _make_first_key(store.catalog, settings)
    if is_loopback(settings.server.host) or settings.access.oidc_issuer or _has_key(settings):
        return
    raise Misconfigured(
        f"server.host is {settings.server.host!r}, but there is no key, and without one only this machine is served: "
        "run `citewell keys create NAME --role admin` first, or use --host 127.0.0.1."
    )


def _has_key(settings: Settings) -> bool:
    """Say whether there was ever a key; a catalog is not made for the question."""
    if settings.database is None and not (settings.data / "catalog.sqlite3").is_file():
        return False
    with open_store(settings) as store:
        return bool(store.catalog.list_keys())


def _make_first_key(catalog: Catalog, settings: Settings) -> None:
    file = settings.access.first_key_file
    if file is None or catalog.list_keys():
        return
    try:
        secret = file.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise Misconfigured(f"access.first_key_file {file} can not be read.") from error
    if not SECRET.fullmatch(secret):
        raise Misconfigured(
            f"access.first_key_file {file} holds no secret of a key; that is cw_, 12 hexadecimal digits, _ and 43 "
            "letters, digits, - or _, as `python -c 'import secrets; print(secrets.token_urlsafe(32))'` writes them."
        )
    catalog.create_key(FIRST, Role.ADMIN, secret=secret)
