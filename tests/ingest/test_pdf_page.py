"""Pages of PDFs as pictures: what is marked where, what comes out of the drawing process, and what is refused."""

from __future__ import annotations

import io
import os
import signal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ingest.drawing import DEPTH, MOST_MARKS, Drawn, View, as_png, drawn_from
from ingest.pdf_page import DPI, TINT, draw_page, quoted_spans
from ingest.sandbox import Sandbox
from rag.errors import DamagedDocument, DocumentTooSlow, EncryptedDocument, UnsupportedDocument
from rag.settings import IngestSettings
from tests.ingest.test_sandbox import family

LIMITS = IngestSettings(parse_seconds=20.0, max_pixels=2_000_000)
WIDTH, HEIGHT, SIZE = 612, 792, 24
LETTERS = st.text("abcdefg", min_size=12, max_size=60)


def pdf_of(content: str, *, box: str = f"0 0 {WIDTH} {HEIGHT}", more: str = "") -> bytes:
    """A PDF of one page on which ``content`` is drawn; its font is /F1."""
    bodies = [
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Count 1/Kids[4 0 R]>>",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        f"<</Type/Page/Parent 2 0 R/MediaBox[{box}]/Resources<</Font<</F1 3 0 R>>>>/Contents 5 0 R{more}>>",
        f"<</Length {len(content)}>>\nstream\n{content}\nendstream",
    ]
    data = "%PDF-1.4\n" + "".join(f"{number} 0 obj\n{body}\nendobj\n" for number, body in enumerate(bodies, start=1))
    return f"{data}trailer\n<</Root 1 0 R>>\n%%EOF\n".encode()


def at(x: float, y: float, text: str) -> str:
    return f"BT /F1 {SIZE} Tf {x} {y} Td ({text}) Tj ET\n"


@pytest.fixture
def file(tmp_path):
    def written(data: bytes):
        path = tmp_path / "document"
        path.write_bytes(data)
        return path

    return written


@pytest.fixture
def draw(file):
    return lambda data, view, limits=LIMITS: draw_page(file(data), view, limits)


def pixels_of(drawn: Drawn) -> np.ndarray:
    return np.frombuffer(drawn.pixels, dtype=np.uint8).reshape(drawn.height, drawn.width, DEPTH)


# -- where a quote stands --------------------------------------------------------------------------------------------


@given(before=LETTERS, quote=LETTERS, after=LETTERS, data=st.data())
def test_a_quote_is_found_whatever_stands_between_its_letters(before, quote, after, data):
    """Line breaks, hyphens at their ends, spaces and bars on the page, in the quote or in both change nothing."""
    noise = st.sampled_from(["", "", " ", "\r\n", "\x02\r\n", " | ", "-"])
    page = [char for letter in before + quote + after for char in letter + data.draw(noise)]
    asked = "".join(letter + data.draw(noise) for letter in quote.upper())
    [(start, end)] = quoted_spans(page, asked, before)
    shown = [char for char in page[start:end] if char.isalpha()]
    assert "".join(shown) == quote
    assert page[start].isalpha()
    assert page[end - 1].isalpha()
    assert sum(char.isalpha() for char in page[:start]) == len(before)


def test_copies_on_a_page_are_told_apart_by_the_words_before():
    page = list("Abroad: 190 euros a night. Domestic: 190 euros a night.")
    assert quoted_spans(page, "190 euros a night", "Abroad: ") == [(8, 25)]
    assert quoted_spans(page, "190 euros a night", "a night. Domestic: ") == [(37, 54)]
    assert quoted_spans(page, "190 euros a night", "words of another page ") == [(8, 25)]


def test_a_row_whose_cells_stand_apart_is_marked_cell_by_cell():
    page = list("Limit\r\n145 euros\r\nDestination\r\nDomestic travel\r\nBreakfast\r\nincluded")
    spans = quoted_spans(page, "145 euros | Domestic travel | included")
    assert ["".join(page[start:end]) for start, end in spans] == ["145 euros", "Domestic travel", "included"]


def test_of_a_quote_that_goes_on_overleaf_each_page_has_its_part():
    quote = "Receipts are kept for ten years in the archive of the finance department."
    head, tail = list(quote[:40] + "\r\n4"), list("Travel policy\r\n" + quote[40:] + " Next.")
    assert quoted_spans(head, quote) == [(0, 40)]
    [(start, end)] = quoted_spans(tail, quote)
    assert "".join(tail[start:end]) == quote[40:].rstrip(".")


@pytest.mark.parametrize("quote", ["", " .-| ", "not there at all"])
def test_what_is_not_there_is_not_marked(quote):
    assert quoted_spans(list("Hotel limits are shown in Tbble 2"), quote) == []


# -- what is drawn ---------------------------------------------------------------------------------------------------


def test_the_mark_is_where_the_words_are_and_leaves_them_readable(draw):
    """Its place is that of the words in points; the paper below them is tinted, the letters stay black, all else is."""
    content = at(72, 700, "The limit is 145 euros.") + at(72, 500, "Nothing else.")
    drawn = draw(pdf_of(content), View(1, "145 euros"))
    [(left, top, right, bottom)] = drawn.marks
    plain = pixels_of(draw(pdf_of(content), View(1)))
    marked = pixels_of(drawn)
    assert top == pytest.approx((HEIGHT - 700 - SIZE) / HEIGHT, abs=0.015)
    assert bottom == pytest.approx((HEIGHT - 700) / HEIGHT, abs=0.015)
    assert 72 / WIDTH < left < right < 0.5
    inside = (
        slice(int(top * drawn.height), round(bottom * drawn.height)),
        slice(int(left * drawn.width), round(right * drawn.width)),
    )
    assert tuple(marked[inside].reshape(-1, DEPTH).max(axis=0)) == TINT
    assert marked[inside].min() < 40
    outside = np.ones(plain.shape[:2], dtype=bool)
    outside[inside] = False
    assert np.array_equal(marked[outside], plain[outside])
    dark = np.argwhere(plain[:, :, 0] < 100)
    words = [(y, x) for y, x in dark if y < drawn.height / 4]
    assert max(x for _, x in words) <= inside[1].stop + SIZE  # only the full stop follows


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_marks_follow_a_page_that_is_turned_or_cut(draw, turn):
    """Whatever the page's rotation and its visible part: black letters are inside of the mark, white paper outside."""
    content = at(200, 400, "Storm")
    drawn = draw(pdf_of(content, more=f"/Rotate {turn}/CropBox[100 200 500 700]"), View(1, "Storm"))
    [(left, top, right, bottom)] = drawn.marks
    plain = pixels_of(draw(pdf_of(content, more=f"/Rotate {turn}/CropBox[100 200 500 700]"), View(1)))
    rows, columns = np.nonzero(plain[:, :, 0] < 100)
    assert top * drawn.height <= rows.min() + 3
    assert bottom * drawn.height >= rows.max() - 3
    assert left * drawn.width <= columns.min() + 3
    assert right * drawn.width >= columns.max() - 3
    assert (right - left) * (bottom - top) < 0.05


@pytest.mark.parametrize("box", ["0 0 14400 14400", "0 0 10 14400", "0 0 1 1", "0 0 612 792"])
def test_a_page_has_no_more_pixels_than_allowed(draw, box):
    """However large it says that it is; and none needs more than its dots per inch."""
    drawn = draw(pdf_of("", box=box), View(1))
    width, height = (float(side) for side in box.split()[2:])
    assert drawn.width * drawn.height <= LIMITS.max_pixels
    assert drawn.width <= width * DPI / 72 + 1
    assert drawn.height <= height * DPI / 72 + 1
    assert len(drawn.pixels) == drawn.width * drawn.height * DEPTH


def test_a_page_that_is_not_there_is_refused(draw):
    with pytest.raises(DamagedDocument, match="no page 2; its last one is 1"):
        draw(pdf_of(""), View(2))


@given(width=st.integers(1, 40), height=st.integers(1, 40), seed=st.integers(0, 1000))
def test_the_file_shows_exactly_the_pixels(width, height, seed):
    """As another program reads it."""
    pixels = np.random.default_rng(seed).integers(0, 256, width * height * DEPTH, dtype=np.uint8).tobytes()
    with Image.open(io.BytesIO(as_png(Drawn(width, height, pixels, ())))) as image:
        assert image.format == "PNG"
        assert image.size == (width, height)
        assert image.convert("RGB").tobytes() == pixels


# -- the process that draws ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawing():
    with Sandbox(LIMITS, drawing=True) as sandbox:
        yield sandbox


def test_the_process_draws_as_we_would(drawing, file):
    data, view = pdf_of(at(72, 700, "The limit is 145 euros.")), View(1, "145 euros")
    assert drawing.draw(file(data), view) == draw_page(file(data), view, LIMITS)


def test_a_process_for_reading_draws_too(file):
    """What it loads before the first document is all that differs."""
    path = file(pdf_of(at(72, 700, "Storm at sea.")))
    with Sandbox(LIMITS) as sandbox:
        assert sandbox.draw(path, View(1, "Storm")).marks
        assert sandbox.parse(path, "a.pdf").text == "Storm at sea."


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        pytest.param(b"%PDF-1.4 nothing", DamagedDocument, id="damaged"),
        pytest.param(b"<html>no PDF</html>", DamagedDocument, id="html"),
        pytest.param(b"", DamagedDocument, id="empty"),
    ],
)
def test_what_can_not_be_drawn_is_refused_and_the_next_is_drawn(drawing, file, data, kind):
    with pytest.raises(kind):
        drawing.draw(file(data), View(1))
    assert issubclass(kind, DamagedDocument | EncryptedDocument | UnsupportedDocument)
    assert drawing.draw(file(pdf_of("")), View(1)).marks == ()


def test_a_page_without_an_end_is_given_up(file):
    """The process that draws is stopped in its tracks, as one that never ends: it is given up, and replaced."""
    with Sandbox(LIMITS.model_copy(update={"parse_seconds": 2.0}), drawing=True) as sandbox:
        path = file(pdf_of(""))
        sandbox.draw(path, View(1))
        os.kill(family(sandbox.pid)[1], signal.SIGSTOP)
        with pytest.raises(DocumentTooSlow):
            sandbox.draw(path, View(1))
        assert sandbox.draw(path, View(1)).width > 1


@pytest.mark.parametrize(
    "change",
    [
        {"width": 3}, {"height": -2, "width": -2}, {"width": 2.0}, {"width": "2"}, {"marks": None},
        {"marks": [[0, 0, 1, 1]] * (MOST_MARKS + 1)}, {"marks": [[0.5, 0, 0.5, 1]]}, {"marks": [[0, 0, 1.5, 1]]},
        {"marks": [[0, 0, float("nan"), 1]]}, {"marks": [[0, 0, 1]]}, {"marks": [["0", "0", "1", "1"]]},
    ],
    ids=str,
)  # fmt: skip
def test_what_our_own_code_does_not_say_is_not_taken(change):
    """Of a process that a document may have taken over."""
    said = {"width": 2, "height": 2, "marks": [[0.0, 0.0, 0.5, 1.0]]}
    assert drawn_from(said, bytes(12), 4).marks == ((0.0, 0.0, 0.5, 1.0),)
    with pytest.raises((ValueError, TypeError, KeyError)):
        drawn_from(said | change, bytes(12), 4)
    with pytest.raises(ValueError, match="another size"):
        drawn_from(said, bytes(12), 3)
    with pytest.raises(ValueError, match="another size"):
        drawn_from(said, bytes(13), 4)
