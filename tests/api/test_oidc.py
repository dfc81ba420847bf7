"""Sign-in by OpenID Connect, with a real issuer over real HTTP: tokens it signed come in, and no others do."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from rag.assembly import open_citewell
from rag.settings import AccessSettings, Settings
from rag.testing import WordEmbedder
from tests.api.live import problem, serving


class LocalIssuer:
    """An issuer on loopback with RSA keys of its own; ``asked`` are the addresses that were fetched."""

    def __init__(self) -> None:
        self.keys = {"k1": rsa.generate_private_key(public_exponent=65537, key_size=2048)}
        self.asked: list[str] = []
        self.jwks_uri: str | None = None
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                body = json.dumps(issuer.reply(self.path)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/realms/staff"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def reply(self, path: str) -> dict[str, Any]:
        if path.endswith("/.well-known/openid-configuration"):
            return {"issuer": self.url, "jwks_uri": self.jwks_uri or f"{self.url}/certs"}
        named = [
            (kid, jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)) for kid, key in self.keys.items()
        ]
        return {"keys": [{**public, "kid": kid, "alg": "RS256", "use": "sig"} for kid, public in named]}

    def token(self, kid: str = "k1", key: Any = None, algorithm: str = "RS256", **claims: Any) -> dict[str, str]:
        told = {"iss": self.url, "aud": "citewell", "sub": "ada", "exp": time.time() + 600, "citewell_role": "reader"}
        signed = jwt.encode({**told, **claims}, key or self.keys[kid], algorithm=algorithm, headers={"kid": kid})
        return {"Authorization": f"Bearer {signed}"}


@pytest.fixture(scope="module")
def issuer() -> Iterator[LocalIssuer]:
    made = LocalIssuer()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def client(settings: Settings, issuer: LocalIssuer) -> Iterator[httpx.Client]:
    """A client of a server that takes the issuer's tokens, with the collections `ours` and `theirs`."""
    access = AccessSettings(oidc_issuer=issuer.url, oidc_audience="citewell")
    with open_citewell(settings.model_copy(update={"access": access}), embedder=WordEmbedder()) as opened:
        for name in ("ours", "theirs"):
            opened.store.catalog.create_collection(name)
        with serving(opened) as connected:
            yield connected


def test_claims_say_the_role_and_the_collections(client: httpx.Client, issuer: LocalIssuer) -> None:
    """A reader of some collections, a writer of all, an admin; without any key the server is not open."""
    assert problem(client.get("/v1/me"), 401)["code"] == "unauthorized"
    reader = issuer.token(citewell_collections=["ours"])
    me = client.get("/v1/me", headers=reader).json()
    assert me == {
        "open": False,
        "key": {"id": None, "name": "oidc:ada", "role": "reader", "collections": ["ours"], "expires_at": None},
    }
    assert [c["name"] for c in client.get("/v1/collections", headers=reader).json()["collections"]] == ["ours"]
    assert client.get("/v1/collections/theirs", headers=reader).status_code == 404
    assert client.post("/v1/collections", json={"name": "x"}, headers=reader).status_code == 403
    assert client.get("/v1/collections", headers=issuer.token()).json() == {"collections": []}
    writer = issuer.token(citewell_role=["staff", "writer"], citewell_collections=["*"])
    assert client.post("/v1/collections", json={"name": "x"}, headers=writer).status_code == 201
    assert client.get("/v1/audit", headers=writer).status_code == 403
    [noted] = client.get("/v1/audit?limit=1", headers=issuer.token(citewell_role="admin")).json()["entries"]
    assert (noted["who"], noted["key_id"]) == ("oidc:ada", None)
    assert {path.rsplit("/", 1)[1] for path in issuer.asked} == {"openid-configuration", "certs"}


def test_no_other_token_comes_in(client: httpx.Client, issuer: LocalIssuer) -> None:
    """Of another key, issuer or audience, without signature, signed with a shared secret, too old, of no role."""
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    unsigned = jwt.encode(
        {"iss": issuer.url, "aud": "citewell", "sub": "a", "exp": time.time() + 9}, "", algorithm="none"
    )
    shared = issuer.token(key="s" * 64, algorithm="HS256")
    wrong = [
        issuer.token(key=stranger),
        issuer.token(kid="k1", iss="https://else.example"),
        issuer.token(aud="other"),
        issuer.token(exp=time.time() - 3600),
        issuer.token(citewell_role="king"),
        issuer.token(citewell_role=None),
        issuer.token(citewell_role={"reader": 1}),
        shared,
        {"Authorization": f"Bearer {unsigned}"},
        {"Authorization": "Bearer a.b.c"},
        {"Authorization": f"Bearer cw_{'0' * 12}_{'x' * 43}"},
    ]
    for headers in wrong:
        assert problem(client.get("/v1/collections", headers=headers), 401)["code"] == "unauthorized", headers
    assert client.get("/v1/collections", headers=issuer.token()).status_code == 200


def test_keys_at_another_host_are_not_fetched(settings: Settings, issuer: LocalIssuer) -> None:
    """An issuer that names them there can not be used, and says so with 503."""
    elsewhere = LocalIssuer()
    elsewhere.jwks_uri = f"{issuer.url}/certs"
    access = AccessSettings(oidc_issuer=elsewhere.url, oidc_audience="citewell")
    before = len(issuer.asked)
    chosen = settings.model_copy(update={"access": access})
    with open_citewell(chosen, embedder=WordEmbedder()) as opened, serving(opened) as client:
        problem(client.get("/v1/collections", headers=elsewhere.token()), 503)
    assert len(issuer.asked) == before
    elsewhere.server.shutdown()
    elsewhere.server.server_close()
