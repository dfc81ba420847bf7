"""Sign-in by OpenID Connect: tokens of one issuer become callers. Owns PyJWT.

The issuer's keys are fetched from its own origin and from nowhere else, without redirects or proxies of the
environment. A claim says the role, another one the collections. Knows no key of ours and no route.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

import httpx
import jwt

from rag.access import Caller, Role
from rag.errors import Unauthorized, Unavailable
from rag.settings import AccessSettings

#: Signatures that are taken: none with a secret that the issuer and its clients share.
ALGORITHMS: Final = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
#: Seconds for which the issuer's keys hold; before they are asked for again for one that is not among them; and for it
#: to answer. Seconds by which clocks may differ.
FRESH, EAGER, PATIENCE, LEEWAY = 3600.0, 10.0, 5.0, 30


class Issuer:
    """An issuer of tokens as the settings name it. For the thread of one event loop."""

    def __init__(self, settings: AccessSettings) -> None:
        self._settings = settings
        self._url = httpx.URL((settings.oidc_issuer or "").rstrip("/"))
        self._keys: dict[str, jwt.PyJWK] = {}
        self._read_at = -float("inf")
        self._reading = asyncio.Lock()

    async def caller_of(self, token: str, request_id: str | None) -> Caller:
        """Return who a token is for; raises `Unauthorized`, and `Unavailable` while the issuer does not answer."""
        try:
            key = await self._key(str(jwt.get_unverified_header(token).get("kid", "")))
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm_name] if key.algorithm_name in ALGORITHMS else ALGORITHMS,
                audience=self._settings.oidc_audience,
                issuer=[str(self._settings.oidc_issuer), str(self._url)],
                leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise Unauthorized(f"The token is not valid ({type(error).__name__}).") from error
        return self._caller(claims, request_id)

    def _caller(self, claims: Mapping[str, Any], request_id: str | None) -> Caller:
        said = claims.get(self._settings.oidc_role_claim)
        values = said if isinstance(said, list) else [said]
        known = self._settings.oidc_roles
        roles = [Role(known[value]) for value in values if isinstance(value, str) and value in known]
        if not roles:
            raise Unauthorized(f"The token's claim {self._settings.oidc_role_claim} names no role here.")
        role = max(roles, key=list(Role).index)
        seen = claims.get(self._settings.oidc_collections_claim)
        names = frozenset(name for name in (seen if isinstance(seen, list) else [seen]) if isinstance(name, str))
        sees_all = role is Role.ADMIN or "*" in names
        return Caller(role, f"oidc:{claims['sub']}"[:200], None if sees_all else names, None, request_id)

    async def _key(self, kid: str) -> jwt.PyJWK:
        for age in (FRESH, EAGER):  # keys are changed at times
            if time.monotonic() - self._read_at > age:
                async with self._reading:
                    if time.monotonic() - self._read_at > age:
                        await self._read()
            if kid in self._keys:
                return self._keys[kid]
        raise Unauthorized("The token is signed with a key that its issuer does not name.")

    async def _read(self) -> None:
        try:
            async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False, follow_redirects=False) as client:
                described = await _fetched(client, f"{self._url}/.well-known/openid-configuration")
                place = httpx.URL(str(described["jwks_uri"]))
                if (place.scheme, place.host, place.port) != (self._url.scheme, self._url.host, self._url.port):
                    raise Unavailable("The issuer of tokens names keys at another host, which are not fetched.")
                found = jwt.PyJWKSet.from_dict(await _fetched(client, str(place)))
        except (httpx.HTTPError, httpx.InvalidURL, KeyError, TypeError, ValueError, jwt.PyJWTError) as error:
            raise Unavailable(f"The issuer of tokens does not answer ({type(error).__name__}).") from error
        self._keys = {str(key.key_id): key for key in found.keys if key.key_id}
        self._read_at = time.monotonic()


async def _fetched(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    response = await client.get(url)
    if response.status_code != httpx.codes.OK:
        raise ValueError(response.status_code)
    found: dict[str, Any] = response.json()
    return found
