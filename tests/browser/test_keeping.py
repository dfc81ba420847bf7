"""Documents and reports in a real browser: uploads with a file that fails, deleting, names that want to be more."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx
import pytest

from eval.nightly import Nightly
from ingest.worker import accept_file
from rag.assembly import open_citewell
from rag.golden import Proposed
from rag.settings import ReportSettings
from tests.api.live import HOTEL, SAMPLES, read_all, serving
from tests.browser.conftest import fill

NOTE = b"# The cat\n\nThe cat of the office is grey and sleeps on the printer.\n"
BROKEN = b"%PDF-1.4\nthis is no PDF"
#: Runs, loads, turns the reading direction around and leaves attributes, wherever it is taken for more than text.
HOSTILE = "\"'><img src=x onerror=alert(1)><script>alert(2)<\u202efdp.txt"


@pytest.fixture
def expect():
    return pytest.importorskip("playwright.sync_api").expect


def file(name, content):
    return {"name": name, "mimeType": "application/octet-stream", "buffer": content}


def row(page, name):
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=name))


def create(page, name):
    page.get_by_role("link", name="Documents").click()
    page.get_by_text("New collection", exact=True).click()
    page.get_by_role("textbox", name="Name").fill(name)
    page.get_by_role("button", name="Create").click()
    page.get_by_text("There are no documents here yet.").wait_for()


def test_from_nothing_to_an_answer(workshop, open_page, expect):
    """A collection is made, files are uploaded with one that fails beside them, and what was read is asked about."""
    seen = open_page(workshop)
    page = seen.page
    expect(page.get_by_text("There is no collection yet.")).to_be_visible()
    create(page, "office")
    page.get_by_label("Choose files").set_input_files([file("cat.md", NOTE), file("broken.pdf", BROKEN)])
    batch = page.get_by_role("region", name="Upload")
    expect(batch.get_by_role("heading", name="2 of 2 files done, 1 failed")).to_be_visible()
    expect(batch.get_by_role("listitem").filter(has_text="cat.md")).to_contain_text("Ready, 1 passage")
    failed = batch.get_by_role("listitem").filter(has_text="broken.pdf")
    expect(failed).to_contain_text("The PDF is damaged or cut off: open it in a PDF program and save it anew.")
    expect(row(page, "broken.pdf")).to_contain_text("Failed")
    expect(row(page, "cat.md")).to_contain_text("Ready")
    with page.expect_download() as download:
        batch.get_by_role("button", name="Report as CSV").click()
    assert b"broken.pdf,failed" in download.value.path().read_bytes()
    failed.get_by_role("button", name="Retry broken.pdf").click()
    expect(failed.get_by_role("button", name="Retry broken.pdf")).to_be_visible()
    page.get_by_role("link", name="Ask").click()
    page.get_by_label("Question").fill("What colour is the cat of the office?")
    page.keyboard.press("Enter")
    expect(page.get_by_role("article").locator(".prose")).to_contain_text("grey")
    assert seen.console == []
    assert seen.hosts == {urlsplit(workshop).netloc, ""} or seen.hosts == {urlsplit(workshop).netloc}


def test_files_and_folders_can_be_dropped(workshop, open_page, expect):
    """What is dropped on the place for it is uploaded; what misses it does not take the page away."""
    page = open_page(workshop).page
    create(page, "office")
    drop = """(place) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File(["The door code is 4711."], "door.txt"));
        place.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
    }"""
    expect(page.get_by_text("Drop files or folders here")).to_be_visible()
    page.locator("body").evaluate(drop)
    page.locator("#drop").evaluate(drop)
    expect(page.get_by_role("heading", name="1 of 1 file done")).to_be_visible()
    expect(row(page, "door.txt")).to_contain_text("Ready")


def test_a_document_is_opened_saved_and_deleted_with_a_question_before(workshop, open_page, expect):
    """Its text is shown beside the list, the original comes back byte by byte, and only a yes deletes it."""
    page = open_page(workshop).page
    create(page, "office")
    page.get_by_label("Choose files").set_input_files([file("cat.md", NOTE)])
    expect(row(page, "cat.md")).to_contain_text("Ready")
    page.get_by_role("button", name="cat.md", exact=True).click()
    expect(page.get_by_role("dialog")).to_contain_text("sleeps on the printer")
    page.keyboard.press("Escape")
    with page.expect_download() as download:
        page.get_by_role("button", name="Original cat.md").click()
    assert download.value.suggested_filename == "cat.md"
    assert download.value.path().read_bytes() == NOTE
    page.get_by_role("button", name="Delete cat.md").click()
    question = page.get_by_role("dialog", name="Delete cat.md?")
    expect(question.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(row(page, "cat.md")).to_be_visible()
    page.get_by_role("button", name="Delete cat.md").click()
    question.get_by_label("Remove its text, vectors and original from the disk as well").check()
    question.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("There are no documents here yet.")).to_be_visible()
    assert httpx.get(f"{workshop}/v1/collections/office").json()["documents"] == 0


def test_hostile_names_quotes_and_questions_are_inert(workshop, open_page, expect):
    """They are shown as the text that they are, in the list, the answer, its source and the dialogs; nothing runs."""
    seen = open_page(workshop)
    page = seen.page
    create(page, "office")
    text = f"The password of the gate is {HOSTILE} and nothing else.\n".encode()
    page.get_by_label("Choose files").set_input_files([file(HOSTILE.replace("/", ""), text)])
    shown = HOSTILE.replace("\u202e", "\ufffd")
    expect(page.get_by_role("rowheader").get_by_role("button")).to_have_text(shown)
    expect(page.get_by_role("row").last).to_contain_text("Ready")
    page.get_by_role("row").last.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog")).to_contain_text(shown)
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Ask").click()
    page.get_by_label("Question").fill("What is the password of the gate?")
    page.keyboard.press("Enter")
    expect(page.get_by_role("article").locator(".prose")).to_contain_text("<script>alert(2)<")
    page.locator(".cite").first.click()
    expect(page.get_by_role("dialog").get_by_role("mark")).to_contain_text("<img src=x onerror=alert(1)>")
    page.keyboard.press("Escape")
    page.get_by_label("Question").fill(HOSTILE)
    page.keyboard.press("Enter")
    expect(page.get_by_role("article").last.get_by_role("heading").first).to_contain_text(
        "<img src=x onerror=alert(1)>"
    )
    assert page.locator("img:not([src='/pages/icon.svg'])").count() == 0
    assert page.locator("script").count() == 1
    assert seen.console == []
    assert seen.hosts == {urlsplit(workshop).netloc}


def test_the_policy_stops_what_would_slip_through(library, open_page):
    """Even if a text were once taken for HTML or for a script, the browser would not do it."""
    page = open_page(library).page
    refused = page.evaluate(
        """() => ["innerHTML", "outerHTML"].map((way) => {
            try { document.createElement("p")[way] = "<b>x</b>"; return way; } catch (error) { return error.name; }
        })"""
    )
    assert refused == ["TypeError", "TypeError"]
    page.evaluate(
        "() => { const s = document.createElement('style'); s.textContent = 'x{}'; document.head.append(s); }"
    )
    assert page.evaluate("() => document.styleSheets.length") == 1


def test_reports_are_asked_for_and_their_history_is_read(settings, embedder, open_page, expect):
    """One is asked for, made, opened as a page, its scores shown beside it, and removed."""
    few = settings.model_copy(update={"report": ReportSettings(traffic=0, generated=0)})
    with open_citewell(few, embedder=embedder) as opened, serving(opened) as client:
        fill(opened, "2026/travel-policy.pdf")
        catalog = opened.store.catalog
        catalog.add_golden(catalog.collection("handbook").id, [Proposed(HOTEL, "145 euros", True, ())])
        seen = open_page(f"{client.base_url}/#reports")
        page = seen.page
        expect(page.get_by_text("There is no report yet.")).to_be_visible()
        page.get_by_label("Label").fill(HOSTILE)
        page.get_by_role("button", name="Make a report").click()
        expect(page.get_by_role("listitem")).to_contain_text("Waiting")
        expect(page.get_by_role("heading", level=3)).to_contain_text("<img src=x onerror=alert(1)>")
        with ThreadPoolExecutor(1) as worker:  # the loop of playwright runs in this thread
            made = worker.submit(Nightly(opened).step, datetime.now(UTC), threading.Event())
            assert made.result() is not None
        expect(page.get_by_role("listitem").get_by_text("Done", exact=True)).to_be_visible()
        page.get_by_text("Scores").click()
        expect(page.get_by_role("table")).to_contain_text("correctness")
        assert seen.findings() == []
        with page.context.expect_page() as popup:
            page.get_by_role("link", name="Open the report").click()
        expect(popup.value.get_by_role("heading", level=1)).to_contain_text("<img src=x onerror=alert(1)>")
        page.get_by_role("button", name="Remove the report").click()
        page.get_by_role("dialog").get_by_role("button", name="Remove").click()
        expect(page.get_by_text("There is no report yet.")).to_be_visible()
        assert seen.console == []


def test_a_document_that_has_changed_since_is_said_to_have(settings, embedder, open_page, expect):
    """The words of the answer are still shown, apart from what the document says now."""
    with open_citewell(settings, embedder=embedder) as opened, serving(opened) as client:
        name = "2026/travel-policy.pdf"
        fill(opened, name)
        page = open_page(str(client.base_url)).page
        page.get_by_label("Question").fill(HOTEL)
        page.keyboard.press("Enter")
        expect(page.locator(".cite").first).to_be_visible()
        quote = page.get_by_role("listitem").first.get_by_role("blockquote").inner_text()
        older = SAMPLES / "2025" / "travel-policy.pdf"
        accept_file(opened.store, opened.store.catalog.collection("handbook"), name, older)
        read_all(opened)
        page.locator(".cite").first.click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("The document has changed since this answer.")
        expect(dialog.get_by_role("blockquote").first).to_have_text(quote)
        expect(dialog.get_by_role("mark")).to_have_count(0)
