"""Keys in a real browser: the first one closes the server, a tab asks for one, and shows what it is good for."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from rag.assembly import open_citewell
from rag.protocols import Embedder
from rag.settings import Settings
from tests.api.live import HOTEL, serving
from tests.browser.conftest import fill


@pytest.fixture
def expect():
    return pytest.importorskip("playwright.sync_api").expect


@pytest.fixture
def opened(settings: Settings, embedder: Embedder) -> Iterator[str]:
    """The address of a server with two collections, that has no keys as yet."""
    with open_citewell(settings, embedder=embedder) as citewell:
        fill(citewell, "2026/travel-policy.pdf")
        citewell.store.catalog.create_collection("secret-plans")
        with serving(citewell) as client:
            yield str(client.base_url)


def make(page, name, role="admin", collection=None):
    """Make a key on the page and return its secret."""
    page.get_by_label("Keys").get_by_label("Name").fill(name)
    page.get_by_label("Role").select_option(role)
    if collection:
        page.get_by_label("Only these collections").select_option(collection)
    page.get_by_role("button", name="Make a key").click()
    page.get_by_role("row").filter(has_text=name).wait_for()
    return page.get_by_label("The new key").input_value()


def unlock(page, key):
    dialog = page.get_by_role("dialog", name="A key, please")
    dialog.get_by_label("Key").fill(key)
    dialog.get_by_role("button", name="Use it").click()


def test_the_first_key_closes_the_server_and_the_tab_goes_on_with_it(opened, open_page, expect):
    """Its secret is shown once and forgotten with the view; whoever comes without one is asked for it."""
    page = open_page(f"{opened}/#keys").page
    expect(page.get_by_text("This server is open")).to_be_visible()
    secret = make(page, "the lead")
    assert secret.startswith("cw_")
    expect(page.get_by_text("This server is open")).to_be_hidden()
    expect(page.get_by_text("the lead (admin)")).to_be_visible()
    assert httpx.get(f"{opened}/v1/collections").status_code == 401
    page.get_by_role("link", name="Documents").click()
    expect(page.get_by_role("rowheader", name="2026/travel-policy.pdf")).to_be_visible()
    page.get_by_role("link", name="Keys").click()
    expect(page.get_by_label("The new key")).to_have_count(0)
    assert secret not in page.content()
    page.get_by_role("button", name="Rotate the key the lead").click()
    renewed = page.get_by_label("The new key").input_value()
    assert renewed != secret
    page.get_by_role("button", name="Forget the key").click()
    expect(page.get_by_role("dialog", name="A key, please")).to_be_visible()


def test_a_reader_of_one_collection_asks_and_sees_nothing_else(opened, open_page, expect):
    """A wrong key is said to be wrong; with the right one there is an answer, its page, and no sign of the rest."""
    admin = open_page(f"{opened}/#keys").page
    make(admin, "the lead")
    secret = make(admin, "wiki", "reader", "handbook")
    seen = open_page(opened)
    page = seen.page
    unlock(page, "cw_wrong")
    expect(page.get_by_role("dialog", name="A key, please")).to_contain_text("The API key is wrong")
    assert seen.findings() == []
    unlock(page, secret)
    expect(page.get_by_label("Collection", exact=True)).to_have_text("handbook")
    expect(page.get_by_role("link", name="Keys")).to_be_hidden()
    page.get_by_label("Question").fill(HOTEL)
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Source 1: 2026/travel-policy.pdf, page 2").click()
    expect(page.get_by_role("img", name=re.compile("with the quote marked"))).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the original").click()
    assert download.value.path().read_bytes().startswith(b"%PDF")
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Documents").click()
    expect(page.get_by_role("rowheader")).to_have_count(1)
    expect(page.get_by_text("Drop files or folders here")).to_be_hidden()
    expect(page.get_by_role("button", name=re.compile("^Delete"))).to_have_count(0)
    assert "secret-plans" not in page.content()

    admin.get_by_role("button", name="Revoke the key wiki").click()
    admin.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(admin.get_by_role("row").filter(has_text="wiki")).to_contain_text("Revoked")
    page.get_by_role("link", name="Ask").click()
    page.get_by_label("Question").fill(HOTEL)
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="A key, please")).to_contain_text("was revoked")
    page.get_by_role("button", name="Cancel").last.click()
    expect(page.get_by_role("article").last.get_by_role("alert")).to_contain_text("was revoked")


def test_a_page_of_a_pdf_is_shown_to_who_sees_its_collection(opened):
    """To all others it is what does not exist."""
    with httpx.Client(base_url=opened) as client:
        first = client.post("/v1/keys", json={"name": "lead", "role": "admin"}).json()["secret"]
        lead = {"Authorization": f"Bearer {first}"}
        narrow = {"name": "other", "role": "reader", "collections": ["secret-plans"]}
        other = {"X-API-Key": client.post("/v1/keys", json=narrow, headers=lead).json()["secret"]}
        listed = client.get("/v1/collections/handbook/documents", headers=lead).json()["documents"]
        path = f"/v1/documents/{listed[0]['id']}/pages/1"
        assert client.get(path, headers=lead).headers["content-type"] == "image/png"
        assert client.get(path).status_code == 401
        hidden, none = (client.get(one, headers=other) for one in (path, "/v1/documents/" + "0" * 32 + "/pages/1"))
        assert hidden.status_code == none.status_code == 404
        assert hidden.json()["error"]["code"] == none.json()["error"]["code"]
