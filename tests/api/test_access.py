"""Keys: who has one comes in, and may what its role says; nobody else does, and what was done is noted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.access import PUBLIC, ROLES
from api.keyring import Keyring
from api.limits import FOLDER, Meter
from api.opening import check_address
from rag.access import SECRET, Limits, Role, digest_of
from rag.assembly import Citewell, open_citewell
from rag.catalog import Catalog
from rag.errors import BadInput, Conflict, Misconfigured, NotFound, RateLimited, Unauthorized
from rag.settings import AccessSettings, Settings, load_settings
from rag.testing import WordEmbedder
from tests.api.live import problem, serving, upload
from tests.cli_process import Cli


@contextmanager
def served(settings: Settings) -> Iterator[tuple[Citewell, httpx.Client]]:
    with open_citewell(settings, embedder=WordEmbedder()) as opened, serving(opened) as client:
        yield opened, client


def key(citewell: Citewell, role: str, *collections: str, **limits: Any) -> dict[str, str]:
    """Make a key and return the header that holds its secret."""
    name = f"{role} {len(citewell.store.catalog.list_keys())}"
    made = citewell.store.catalog.create_key(name, Role(role), list(collections) or None, limits=Limits(**limits))
    return {"Authorization": f"Bearer {made[1]}"}


class TestKeysInTheCatalog:
    def test_only_a_hash_is_kept(self, tmp_path: Path) -> None:
        """The secret stands in no file of the data folder, and has 256 random bits."""
        catalog = Catalog.in_folder(tmp_path)
        made, secret = catalog.create_key("bot", Role.READER)
        catalog.close()
        assert SECRET.fullmatch(secret)
        assert len(secret.rpartition(f"{made.id}_")[2]) == 43
        files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
        assert not any(secret.encode() in content or secret[-43:].encode() in content for content in files)
        assert any(digest_of(secret).encode() in content for content in files)

    def test_a_rotated_secret_holds_until_its_time_is_over(self, catalog: Catalog) -> None:
        """Both open meanwhile; then, and after a second rotation, the new one alone."""
        _, first = catalog.create_key("bot", Role.READER)
        rotated, second = catalog.rotate_key("bot", timedelta(hours=1))
        now = datetime.now(UTC)
        assert rotated.opens_for(first, now)
        assert rotated.opens_for(second, now)
        assert not rotated.opens_for(first, now + timedelta(hours=1, seconds=1))
        assert rotated.opens_for(second, now + timedelta(days=9))
        again, third = catalog.rotate_key("bot", timedelta(0))
        assert [again.opens_for(secret, datetime.now(UTC)) for secret in (first, second, third)] == [False, False, True]

    def test_a_key_ends(self, catalog: Catalog) -> None:
        """By its time, and by being revoked; its name is free again then, and it is listed all the same."""
        until = datetime.now(UTC) + timedelta(days=1)
        made, secret = catalog.create_key("bot", Role.WRITER, ["a", "b"], expires_at=until)
        assert made.opens_for(secret, datetime.now(UTC))
        assert not made.opens_for(secret, until)
        with pytest.raises(Conflict):
            catalog.create_key("bot", Role.READER)
        assert not catalog.revoke_key("bot").opens_for(secret, datetime.now(UTC))
        with pytest.raises(NotFound):
            catalog.revoke_key("bot")
        catalog.create_key("bot", Role.READER)
        assert [(k.role, k.collections) for k in catalog.list_keys()] == [
            (Role.WRITER, frozenset("ab")), (Role.READER, None),
        ]  # fmt: skip

    def test_what_can_not_be_a_key(self, catalog: Catalog) -> None:
        """An admin of some collections, a name of nothing, none of the collections, a time that is over."""
        for wrong in (
            {"name": "a", "role": Role.ADMIN, "collections": ["c"]},
            {"name": " ", "role": Role.READER},
            {"name": "a", "role": Role.READER, "collections": []},
            {"name": "a", "role": Role.READER, "expires_at": datetime.now(UTC)},
        ):
            with pytest.raises(BadInput):
                catalog.create_key(**wrong)
        assert catalog.list_keys() == []

    def test_use_is_written_down_once_a_minute(self, catalog: Catalog) -> None:
        made, _ = catalog.create_key("bot", Role.READER)
        assert made.used_at is None
        catalog.note_use(made.id)
        first = catalog.key(made.id).used_at
        assert first is not None
        catalog.note_use(made.id)
        assert catalog.key(made.id).used_at == first

    def test_lines_of_the_audit_log_come_in_pages_and_go(self, catalog: Catalog) -> None:
        """The newest first, of one key or kind; what is older than a moment can be forgotten."""
        for name in ("a", "b", "c"):
            catalog.create_collection(name)
        catalog.create_key("bot", Role.READER)
        noted = catalog.audit_log(limit=2)
        assert [n.action for n in noted] == ["key.create", "collection.create"]
        assert [n.collection for n in catalog.audit_log(before=noted[-1].number)] == ["b", "a"]
        assert [n.who for n in catalog.audit_log(action="key.create")] == ["command line"]
        assert catalog.audit_log(who="nobody") == []
        assert catalog.forget_audit(datetime.now(UTC)) == 4
        assert catalog.audit_log() == []


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    opened = Catalog(catalog_url)
    yield opened
    opened.close()


def test_nobody_with_a_key_is_taken_for_everybody(settings: Settings) -> None:
    """Not even in the moment in which the first key was made beside the server."""
    with served(settings) as (citewell, client):
        for name in ("a", "b"):
            assert client.post("/v1/collections", json={"name": name}).status_code == 201
        reader = key(citewell, "reader", "a")
        assert client.delete("/v1/collections/a", headers=reader).status_code == 403
        assert client.get("/v1/collections/b", headers=reader).status_code == 404


def test_the_first_key_closes_the_server(settings: Settings) -> None:
    """Before it everybody may do everything; then nothing but pages and health, and what is wrong is 401 in one shape.

    That stays so when the last key is revoked.
    """
    with served(settings) as (citewell, client):
        assert client.get("/v1/me").json() == {"open": True, "key": None}
        made = client.post("/v1/keys", json={"name": "boss", "role": "admin"}).json()
        boss = {"Authorization": f"Bearer {made['secret']}"}
        for headers in (
            {},
            {"Authorization": "Bearer any"},
            {"X-API-Key": made["secret"] + "x"},
            {"Authorization": "Basic x"},
        ):
            refused = client.get("/v1/collections", headers=headers)
            assert problem(refused, 401)["code"] == "unauthorized"
            assert refused.headers["www-authenticate"] == "Bearer"
        for path in ("/", "/docs", "/pages/index.js", "/openapi.json", "/health/live", "/health/ready"):
            assert client.get(path).status_code == 200, path
        assert client.get("/health/ready").json()["queue"] is None
        assert client.get("/health/ready", headers=boss).json()["queue"] == 0
        assert client.get("/v1/collections", headers={"X-API-Key": made["secret"]}).status_code == 200
        me = client.get("/v1/me", headers=boss).json()
        assert me == {
            "open": False,
            "key": {"id": made["id"], "name": "boss", "role": "admin", "collections": None, "expires_at": None},
        }
        assert client.delete(f"/v1/keys/{made['id']}", headers=boss).status_code == 204
        assert client.get("/v1/collections", headers=boss).status_code == 401
        assert client.get("/v1/collections").status_code == 401
        assert [n.action for n in citewell.store.catalog.audit_log()] == ["key.revoke", "key.create"]


def test_each_role_may_what_it_says(settings: Settings) -> None:
    """Readers ask, writers write, admins see keys and the log; every route that writes needs a writer by default."""
    with served(settings) as (citewell, client):
        reader, writer, admin = (key(citewell, role) for role in ("reader", "writer", "admin"))
        assert client.post("/v1/collections", json={"name": "c"}, headers=reader).status_code == 403
        assert client.post("/v1/collections", json={"name": "c"}, headers=writer).status_code == 201
        asked = {"question": "Who?", "collections": ["c"]}
        assert client.post("/v1/ask", json=asked, headers=reader).status_code == 200
        for path in ("/v1/keys", "/v1/audit"):
            assert problem(client.get(path, headers=writer), 403)["code"] == "forbidden"
            assert client.get(path, headers=admin).status_code == 200
        described = client.get("/openapi.json").json()["paths"]
        named = {operation["operationId"] for methods in described.values() for operation in methods.values()}
        assert set(ROLES) <= named
        for path, methods in described.items():
            for method, operation in methods.items():
                if not PUBLIC.fullmatch(path):
                    assert {"401", "403", "429"} <= set(operation["responses"]), (method, path)
                if method != "get" and operation["operationId"] not in ROLES:
                    address = path.replace("{", "").replace("}", "")
                    assert client.request(method, address, headers=reader, json={}).status_code == 403, (method, path)


def test_what_is_written_is_noted(settings: Settings) -> None:
    """With who, when and which request; a name of a document is shown as long as there is one."""
    with served(settings) as (citewell, client):
        writer, admin = key(citewell, "writer"), key(citewell, "admin")
        client.post("/v1/collections", json={"name": "c"}, headers=writer)
        sent = client.put(
            "/v1/collections/c/documents/a.txt", content=b"x", headers={**writer, "X-Request-Id": "mine-1"}
        )
        document = sent.json()["documents"][0]["id"]
        client.delete(f"/v1/documents/{document}", headers={**writer, "X-Request-Id": "no\tgood"})
        [deleted, accepted, created] = client.get("/v1/audit?who=writer 0", headers=admin).json()["entries"]
        assert (created["action"], created["collection"]) == ("collection.create", "c")
        assert (accepted["action"], accepted["subject"], accepted["request_id"]) == (
            "document.accept",
            document,
            "mine-1",
        )
        assert (deleted["action"], deleted["document"], deleted["who"]) == ("document.delete", "a.txt", "writer 0")
        assert "\t" not in deleted["request_id"]


def test_a_key_made_elsewhere_works_at_once_and_a_revoked_one_ends_within_a_second(tmp_path: Path) -> None:
    """A ring reads the keys anew when it meets one that it does not know, and when a second is over."""
    import asyncio

    catalog, at = Catalog.in_folder(tmp_path), [0.0]
    ring = Keyring(catalog, clock=lambda: at[0])

    async def story() -> None:
        assert await ring.is_open()
        made, secret = catalog.create_key("bot", Role.READER)
        at[0] = 0.1
        assert (await ring.key_of(secret)).id == made.id
        catalog.revoke_key("bot")
        at[0] = 0.5
        assert (await ring.key_of(secret)).id == made.id
        at[0] = 1.2
        with pytest.raises(Unauthorized):
            await ring.key_of(secret)
        assert not await ring.is_open()
        await ring.aclose()

    asyncio.run(story())
    catalog.close()


class TestLimits:
    def test_a_server_says_when_to_come_again(self, settings: Settings) -> None:
        """429 with Retry-After, and the other keys and the health are not concerned."""
        access = AccessSettings(burst=2)
        with served(settings.model_copy(update={"access": access})) as (citewell, client):
            slow, quick = key(citewell, "reader", requests_per_minute=1), key(citewell, "reader")
            replies = [client.get("/v1/collections", headers=slow) for _ in range(3)]
            assert [reply.status_code for reply in replies] == [200, 200, 429]
            assert problem(replies[2])["code"] == "rate_limited"
            assert 1 <= int(replies[2].headers["retry-after"]) <= 60
            assert client.get("/v1/collections", headers=quick).status_code == 200
            assert {client.get("/health/live").status_code for _ in range(5)} == {200}
            limits = citewell.store.catalog.key("reader 0")
            with closing(Meter(access, settings.data / FOLDER)) as another, pytest.raises(RateLimited):
                another.one(limits.id, limits.limits).__enter__()


class TestQuotas:
    def test_a_key_may_bring_so_much(self, settings: Settings) -> None:
        """What goes beyond is refused whole with 413, by bytes and by documents; unchanged files count once."""
        with served(settings) as (citewell, client):
            citewell.store.catalog.create_collection("c")
            client.headers.update(key(citewell, "writer", bytes=10, documents=2))
            assert upload(client, "c", ("a.txt", b"12345")).status_code == 202
            refused = upload(client, "c", ("b.txt", b"123"), ("d.txt", b"456"))
            assert problem(refused, 413)["code"] == "quota_exceeded"
            assert problem(client.put("/v1/collections/c/documents/e.txt", content=b"1234567"), 413)
            listed = client.get("/v1/collections/c/documents").json()["documents"]
            assert [document["name"] for document in listed] == ["a.txt"]
            assert upload(client, "c", ("a.txt", b"12345")).status_code == 202
            assert upload(client, "c", ("b.txt", b"1")).status_code == 202
            assert upload(client, "c", ("f.txt", b"1")).status_code == 413
            used = citewell.store.catalog.key("writer 0")
            assert (used.documents, used.bytes) == (2, 6)

    def test_a_collection_holds_so_much(self, settings: Settings) -> None:
        """Whoever uploads, and as many as do so at once: none is half there, and deleting makes room."""
        access = AccessSettings(collection_documents=3, collection_bytes=100)
        with served(settings.model_copy(update={"access": access})) as (citewell, client):
            citewell.store.catalog.create_collection("c")
            client.headers.update(key(citewell, "writer"))
            assert upload(client, "c", ("big.txt", b"1" * 101)).status_code == 413
            with ThreadPoolExecutor(6) as pool:
                replies = list(pool.map(lambda n: upload(client, "c", (f"{n}.txt", b"1")).status_code, range(6)))
            assert sorted(replies) == [202, 202, 202, 413, 413, 413]
            listed = client.get("/v1/collections/c/documents").json()["documents"]
            assert len(listed) == 3
            client.delete(f"/v1/documents/{listed[0]['id']}")
            assert upload(client, "c", ("more.txt", b"1")).status_code == 202


class TestOtherOrigins:
    def test_pages_of_other_origins_are_strangers_by_default(self, settings: Settings) -> None:
        """No header lets them read anything, and none of their writes goes through."""
        with served(settings) as (_, client):
            foreign = {"Origin": "https://evil.example"}
            reply = client.get("/v1/collections", headers=foreign)
            assert not [name for name in reply.headers if name.startswith("access-control")]
            assert client.post("/v1/collections", json={"name": "c"}, headers=foreign).status_code == 403
            preflight = client.options("/v1/ask", headers={**foreign, "Access-Control-Request-Method": "POST"})
            assert preflight.status_code in {404, 405}

    def test_a_setting_lets_some_in(self, settings: Settings) -> None:
        """Those alone, with their keys, preflight requests without one."""
        access = AccessSettings(origins=["https://wiki.example"])
        with served(settings.model_copy(update={"access": access})) as (citewell, client):
            writer, wiki = key(citewell, "writer"), {"Origin": "https://wiki.example"}
            asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
            preflight = client.options("/v1/collections", headers=wiki | asked)
            assert preflight.headers["access-control-allow-origin"] == "https://wiki.example"
            reply = client.post("/v1/collections", json={"name": "c"}, headers=wiki | writer)
            assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (201, "https://wiki.example")
            other = client.post(
                "/v1/collections", json={"name": "d"}, headers=writer | {"Origin": "https://evil.example"}
            )
            assert other.status_code == 403

    def test_other_names_of_the_machine_need_keys(self, settings: Settings) -> None:
        """Without keys a foreign Host is refused; with keys any is taken, or those that a setting names."""
        with served(settings) as (citewell, client):
            away = {"Host": "api.example"}
            assert problem(client.get("/v1/collections", headers=away), 403)["code"] == "foreign_host"
            reader = key(citewell, "reader")
            citewell.store.catalog.audit_log()
            client.get("/v1/collections", headers=reader)
            threading.Event().wait(1.1)  # every process knows of the first key within a second
            assert client.get("/v1/collections", headers=reader | away).status_code == 200
        access = AccessSettings(hosts=["api.example"])
        with served(settings.model_copy(update={"access": access})) as (citewell, client):
            assert client.get("/v1/collections", headers=reader | away).status_code == 200
            assert client.get("/v1/collections", headers=reader | {"Host": "else.example"}).status_code == 403


class TestAddress:
    def test_any_address_with_a_key(self, tmp_path: Path) -> None:
        """None but loopback without one: the sentence says what to do, and no catalog is made for it."""
        settings = load_settings(data=tmp_path / "data", server={"host": "0.0.0.0"})
        with pytest.raises(Misconfigured, match="citewell keys create"):
            check_address(settings)
        assert not settings.data.exists()
        (settings.data).mkdir()
        catalog = Catalog.in_folder(settings.data)
        with pytest.raises(Misconfigured, match="citewell keys create"):
            check_address(settings)
        catalog.create_key("boss", Role.ADMIN)
        catalog.close()
        check_address(settings)

    def test_the_first_key_may_come_from_a_file(self, tmp_path: Path) -> None:
        """Once, and only while there is no key; what is no secret is refused."""
        file = tmp_path / "secret"
        settings = load_settings(data=tmp_path / "data", access={"first_key_file": file}, server={"host": "::"})
        file.write_text("hunter2")
        with pytest.raises(Misconfigured, match="first_key_file"):
            check_address(settings)
        secret = f"cw_{'0a' * 6}_{'x' * 43}"
        file.write_text(f"{secret}\n")
        check_address(settings)
        check_address(settings)
        catalog = Catalog.in_folder(settings.data)
        [made] = catalog.list_keys()
        catalog.close()
        assert (made.name, made.role, made.id) == ("first", Role.ADMIN, "0a" * 6)
        assert made.opens_for(secret, datetime.now(UTC))


def test_keys_on_the_command_line(tmp_path: Path) -> None:
    """Made on an empty data folder, the secret alone on standard output; listed, rotated, revoked; the log shows it."""
    cli = Cli(tmp_path / "data", tmp_path)
    made = cli("keys", "create", "wiki bot", "--role", "writer", "-c", "handbook", "--days", "30")
    assert SECRET.fullmatch(made.out.strip())
    assert made.out.strip() not in made.err
    rotated = cli("keys", "rotate", "wiki bot", "--overlap-hours", "2", "--json").json
    assert SECRET.fullmatch(rotated["secret"])
    [listed] = cli("keys", "list", "--json").json["keys"]
    assert (listed["role"], listed["collections"], "secret" in listed) == ("writer", ["handbook"], False)
    assert "in use" in cli("keys", "list").out
    cli("keys", "revoke", "wiki bot", "--yes")
    assert "revoked" in cli("keys", "list").out
    entries = cli("audit", "--json").json["entries"]
    assert [entry["action"] for entry in entries] == ["key.revoke", "key.rotate", "key.create"]
    assert "command line" in cli("audit").out
    assert "citewell keys list" in cli("keys", "revoke", "nobody", "--yes", status=2).err
