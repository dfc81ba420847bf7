"""Asking in a real browser: the answer as it is written, its sources beside it, and what happens when it breaks off."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest

from tests.browser.wire import Wire
from tests.scripted_llm import Pause, stream

HOTEL = "What is the hotel limit for domestic travel?"
QUOTE = "The hotel limit for domestic travel is 145 euros per night from 1 January 2026."


@pytest.fixture
def expect():
    return pytest.importorskip("playwright.sync_api").expect


def ask(page, question):
    page.get_by_label("Question").fill(question)
    page.keyboard.press("Enter")


def test_a_question_is_answered_with_sources_and_a_follow_up_is_understood(library, open_page, expect):
    """Sentence, mark, quote, document and support are there; the second question is looked for with the first."""
    seen = open_page(library)
    page = seen.page
    expect(page.get_by_text("Ask about the 4 documents in handbook.")).to_be_visible()
    ask(page, HOTEL)
    turn = page.get_by_role("article").first
    expect(turn.get_by_role("heading", name=HOTEL)).to_be_visible()
    expect(turn.locator(".prose")).to_contain_text("145 euros per night")
    source = turn.get_by_role("listitem").first
    expect(source.get_by_role("button", name="2026/travel-policy.pdf")).to_be_visible()
    expect(source.get_by_role("blockquote")).to_have_text(QUOTE)
    expect(source.locator(".support")).to_have_text(re.compile(r"Support \d+ %"))
    ask(page, "And abroad?")
    expect(page.get_by_role("article").nth(1).locator(".prose")).to_contain_text("190 euros")
    expect(page.get_by_role("status")).to_contain_text("The answer is complete")
    page.get_by_role("button", name="New conversation").click()
    expect(page.get_by_role("article")).to_have_count(0)
    assert seen.console == []
    assert seen.hosts == {urlsplit(library).netloc}


def test_a_citation_of_a_pdf_opens_its_page_with_the_quote_marked(library, open_page, expect):
    """The picture of the page stands beside the answer; its mark is where the letters of the quote are."""
    seen = open_page(library)
    page = seen.page
    ask(page, HOTEL)
    with page.expect_response(re.compile(r"/pages/2\?start=")) as reply:
        page.get_by_role("button", name="Source 1: 2026/travel-policy.pdf, page 2").click()
    assert reply.value.headers["citewell-marks"].startswith("[[0.")
    dialog = page.get_by_role("dialog", name="2026/travel-policy.pdf")
    picture = dialog.get_by_role("img", name="Page 2 of 2026/travel-policy.pdf, with the quote marked")
    expect(picture).to_be_visible()
    assert page.evaluate("picture => picture.naturalWidth", picture.element_handle()) > 1000
    expect(dialog.get_by_role("blockquote")).to_have_text(QUOTE)
    dialog.get_by_role("button", name="Next page").click()
    expect(dialog.get_by_text("Page 3 of 3")).to_be_visible()
    dialog.get_by_role("button", name="Text").click()
    expect(dialog.get_by_role("mark")).to_have_text(QUOTE)
    assert seen.console == []
    assert seen.hosts == {urlsplit(library).netloc, ""}  # "": the picture is shown from memory


def test_a_citation_of_text_opens_it_with_the_quote_marked(library, open_page, expect):
    """The text around the quote is shown, and the quote is in view."""
    seen = open_page(library)
    page = seen.page
    ask(page, "Which TW-Buoy has the part number TW-B400?")
    page.get_by_role("button", name="Source 1: products/price-list.csv").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("mark")).to_contain_text("TW-B400 | TW-Buoy 400")
    expect(dialog.get_by_role("mark")).to_be_in_viewport()
    expect(dialog.get_by_role("region", name="Text of the document")).to_contain_text("part_number")
    assert seen.console == []


def test_where_the_documents_do_not_say_the_page_says_so(library, open_page, expect):
    """Nothing is cited; the nearest passages can be read, and opened like sources."""
    page = open_page(library).page
    ask(page, "Who won the chess cup?")
    turn = page.get_by_role("article")
    expect(turn.get_by_text("The documents do not say.")).to_be_visible()
    expect(turn.locator(".cite")).to_have_count(0)
    turn.get_by_text("The nearest passages").click()
    turn.get_by_role("listitem").first.get_by_role("button").click()
    expect(page.get_by_role("dialog")).to_be_visible()


def test_a_slow_answer_is_shown_as_it_comes_and_can_be_stopped(scripted, open_page, expect):
    """The words so far are there while the model thinks; after stopping they stay, and can be asked for again."""
    words = "The hotel limit for domestic travel is 145 euros per night from 1 January 2026. [1]"
    address = scripted(stream("The hotel limit ", Pause(600)), stream(words))
    seen = open_page(address)
    page = seen.page
    ask(page, HOTEL)
    turn = page.get_by_role("article")
    expect(turn.locator(".prose")).to_have_text("The hotel limit")
    expect(turn.locator(".answer")).to_have_attribute("aria-busy", "true")
    expect(turn.get_by_text(re.compile(r"Writing… \d+ s"))).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(turn.get_by_role("alert")).to_contain_text("Stopped.")
    expect(turn.locator(".prose")).to_have_text("The hotel limit")
    turn.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("article").locator(".prose")).to_contain_text("from 1 January 2026.")
    expect(page.get_by_role("article")).to_have_count(1)
    expect(page.get_by_role("article").locator(".cite").first).to_be_visible()
    assert seen.console == []


def test_a_connection_that_is_cut_is_said_and_the_question_can_be_tried_again(scripted, open_page, expect):
    """What had come stays; while the wire is cut trying again says that, and once it is mended it answers."""
    whole = "The hotel limit for domestic travel is 145 euros per night from 1 January 2026. [1]"
    address = scripted(stream("The hotel limit ", Pause(600)), stream(whole))
    with Wire.to(urlsplit(address).port) as wire:
        page = open_page(f"http://127.0.0.1:{wire.port}").page
        ask(page, HOTEL)
        turn = page.get_by_role("article")
        expect(turn.locator(".prose")).to_have_text("The hotel limit")
        wire.cut()
        broke = "The connection to the server broke off before the answer was complete."
        expect(turn.get_by_role("alert")).to_contain_text(broke)
        expect(turn.locator(".prose")).to_have_text("The hotel limit")
        page.get_by_role("button", name="Try again").click()
        expect(turn.get_by_role("alert")).to_contain_text("The server can not be reached.")
        wire.mend()
        page.get_by_role("button", name="Try again").click()
        expect(turn.locator(".prose")).to_contain_text("145 euros per night")
        expect(turn.get_by_role("alert")).to_have_count(0)


def test_a_sentence_that_nothing_supports_is_marked(scripted, open_page, expect):
    """It stands as it was written, with the words that the documents do not support it."""
    page = open_page(scripted(stream("Every guest is given a purple elephant by the mayor."))).page
    ask(page, HOTEL)
    expect(page.get_by_role("article").locator(".prose")).to_contain_text("purple elephant")
    expect(page.get_by_text("not supported by the documents")).to_be_visible()


def test_everything_can_be_done_with_the_keyboard(library, open_page, expect):
    """From the skip link over question, mark and source and back again: no pointer, and the focus is never lost."""
    page = open_page(library).page
    expect(page.get_by_label("Question")).to_be_visible()

    def focused():
        return page.evaluate(
            "() => document.activeElement.ariaLabel || document.activeElement.id || document.activeElement.textContent"
        )

    page.keyboard.press("Tab")
    assert focused() == "skip"
    page.keyboard.press("Enter")
    assert focused() == "main"
    page.keyboard.press("Tab")
    assert focused() == "question"
    page.keyboard.type(HOTEL)
    page.keyboard.press("Enter")
    expect(page.locator(".cite").first).to_be_visible()
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_visible()
    assert focused() == "question"
    for _ in range(30):
        if focused().startswith("Source 1:"):
            break
        page.keyboard.press("Shift+Tab")
    mark = focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("img")).to_be_visible()
    assert focused() == "source-name"
    page.keyboard.press("Tab")
    assert focused() == "Close the source"
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert focused() == mark


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="light"),
        pytest.param({"color_scheme": "dark"}, id="dark"),
        pytest.param({"viewport": {"width": 390, "height": 780}}, id="phone"),
    ],
)
def test_nothing_serious_stands_in_anybodys_way(library, open_page, expect, options):
    """axe finds nothing with an answer and its source open, nor on any other view; nothing is wider than the screen."""
    seen = open_page(library, **options)
    page = seen.page
    ask(page, HOTEL)
    page.locator(".cite").first.click()
    expect(page.get_by_role("dialog").get_by_role("img")).to_be_visible()
    assert seen.findings() == []
    page.keyboard.press("Escape")
    ask(page, "Who won the chess cup?")
    page.get_by_text("The nearest passages").click()
    for view in ("Ask", "Documents", "Reports", "Keys"):
        page.get_by_role("navigation").get_by_role("link", name=view).click()
        expect(page.locator(f"#view-{view.lower()}")).to_be_visible()
        assert seen.findings() == [], view
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), view
    page.get_by_role("navigation").get_by_role("link", name="API").click()
    expect(page.get_by_role("heading", name="Answers")).to_be_visible()
    assert seen.findings() == []
