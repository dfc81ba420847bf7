"""Pictures are drawn here and read by the engines that are installed, each of which has to keep the same promises."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from ingest.layout import HYPHEN, Line, Piece, arranged
from ingest.ocr import cure, engine, read_picture
from rag.errors import UnsupportedDocument
from rag.settings import IngestSettings

REPOSITORY = Path(__file__).parents[2]
STORY = ["The lighthouse keeper counts", "seventeen ships each morning", "and writes the number down."]


def drawn(*lines: tuple[float, float, str], size: tuple[int, int] = (900, 330), font: float = 40) -> Image.Image:
    """Return a white picture with ``lines`` of (x, y, text) in black."""
    picture = Image.new("L", size, 255)
    pen = ImageDraw.Draw(picture)
    for x, y, text in lines:
        pen.text((x, y), text, fill=0, font=ImageFont.load_default(font))
    return picture


@pytest.fixture(
    params=[
        pytest.param(
            "tesseract",
            marks=pytest.mark.skipif(shutil.which("tesseract") is None, reason="tesseract is not installed"),
        ),
        pytest.param(
            "rapidocr",
            marks=pytest.mark.skipif(importlib.util.find_spec("rapidocr") is None, reason="rapidocr is not installed"),
        ),
    ]
)
def limits(request):
    return IngestSettings(ocr=request.param)


def _read(picture: Image.Image, limits: IngestSettings) -> list[tuple[str, ...]]:
    return [line.cells for line in read_picture(np.asarray(picture), 200, limits)]


@pytest.mark.parametrize("turned", [0, 90, 180, 270])
def test_a_picture_is_read_whichever_way_it_lies(limits, turned):
    """A page that went through the scanner sideways or upside down gives the same lines in the same order."""
    story = drawn(*((60, 50 + 80 * row, text) for row, text in enumerate(STORY)))
    assert _read(story.rotate(turned, expand=True), limits) == [(text,) for text in STORY]


def test_lines_tell_their_size_and_place(limits):
    """A line twice as large is told to be so, and places are in points: 72 to the inch of the picture."""
    picture = drawn((60, 40, "Annual report"), (60, 220, "Nothing happened this year."), font=30)
    ImageDraw.Draw(picture).rectangle((0, 0, 900, 150), fill=255)
    ImageDraw.Draw(picture).text((60, 30), "Annual report", fill=0, font=ImageFont.load_default(70))
    title, text = read_picture(np.asarray(picture), 200, limits)
    assert (title.text, text.text) == ("Annual report", "Nothing happened this year.")
    assert title.size / text.size == pytest.approx(70 / 30, rel=0.25)
    assert text.left == pytest.approx(60 * 72 / 200, abs=4)
    assert title.baseline > text.baseline


LEFT = ["The harbour opens at six", "and closes when the last", "boat has come back from", "the sea in the evening."]
RIGHT = ["Tickets are sold beside", "the old customs house by", "a friendly woman whose", "name nobody remembers."]


def test_columns_are_read_one_after_the_other(limits):
    left = [(60, 60 + 60 * row, text) for row, text in enumerate(LEFT)]
    right = [(760, 60 + 60 * row, text) for row, text in enumerate(RIGHT)]
    assert _read(drawn(*left, *right, size=(1400, 380)), limits) == [(text,) for text in LEFT + RIGHT]


def test_rows_of_a_table_are_read_across(limits):
    rows = [("Year", "Ships", "Storms"), ("2024", "1250", "17"), ("2025", "1380", "23")]
    cells = [(60 + 350 * x, 60 + 80 * y, text) for y, row in enumerate(rows) for x, text in enumerate(row)]
    assert _read(drawn(*cells, size=(1200, 350)), limits) == rows


def test_white_on_black_is_read(limits):
    story = drawn((60, 50, STORY[0]), size=(900, 150))
    assert _read(story.point(lambda value: 255 - value), limits) == [(STORY[0],)]


@pytest.mark.parametrize(
    "picture",
    [
        pytest.param(np.full((200, 300), 255, np.uint8), id="white"),
        pytest.param(np.zeros((1, 5000), np.uint8), id="a line of one pixel"),
        pytest.param(np.random.default_rng(7).integers(0, 255, (300, 300), np.uint8), id="noise"),
        pytest.param(np.eye(400, dtype=np.uint8) * 255, id="a stroke"),
    ],
)
def test_nothing_is_read_where_there_is_nothing(limits, picture):
    """OCR that invents text in an empty picture would have it cited."""
    assert read_picture(picture, 200, limits) == []


def test_without_an_engine_the_error_says_what_to_install_or_to_set():
    off = IngestSettings(ocr="off")
    assert engine(off) is None
    with pytest.raises(UnsupportedDocument, match=r"OCR is switched off here \(ingest\.ocr\)"):
        read_picture(np.zeros((50, 50), np.uint8), 200, off)
    assert "Debian's tesseract-ocr, or the extra" in cure(IngestSettings())
    assert "citewell[ocr]" in cure(IngestSettings(ocr="rapidocr"))
    assert "citewell[ocr]" not in cure(IngestSettings(ocr="tesseract"))


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="tesseract is not installed")
def test_a_language_that_tesseract_has_not_is_named():
    limits = IngestSettings(ocr="tesseract", ocr_languages="eng+xxx_yyy")
    with pytest.raises(UnsupportedDocument, match=r"language xxx_yyy .*tesseract-ocr-xxx-yyy"):
        read_picture(np.asarray(drawn((60, 50, STORY[0]))), 200, limits)


@pytest.mark.skipif(importlib.util.find_spec("rapidocr") is None, reason="rapidocr is not installed")
def test_rapidocr_says_nothing_and_calls_nobody(tmp_path):
    """Its models are in its package; it prints and logs nothing, and opens no connection."""
    drawn((60, 50, STORY[0]), size=(900, 150)).save(tmp_path / "a.png")
    code = f"""
import sys
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        sys.exit(f"{{event}} {{args}}")
sys.addaudithook(watch)
import numpy as np
from PIL import Image
from ingest.ocr import read_picture
from rag.settings import IngestSettings
lines = read_picture(np.asarray(Image.open({str(tmp_path / "a.png")!r})), 200, IngestSettings(ocr="rapidocr"))
sys.exit(lines[0].text != {STORY[0]!r})
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


# -------------------------------------------------------------------------------------- what pieces mean to each other


def _piece(text: str, left: float, baseline: float, size: float = 10.0) -> Piece:
    return Piece(text, left, left + 5.0 * len(text), baseline, size)


def test_a_heading_above_two_columns_comes_first_and_a_footer_below_them_last():
    wide = [_piece("A heading that goes over the whole of the page and both of its columns", 50, 700)]
    foot = [_piece("A note at the foot of the page that goes over both of its columns as well", 50, 500)]
    left = [_piece(f"left {row}: words enough for prose", 50, 660 - 12 * row) for row in range(5)]
    right = [_piece(f"right {row}: words enough for prose", 250, 657 - 12 * row) for row in range(7)]
    texts = [line.text for line in arranged([*foot, *right, *left, *wide])]
    assert texts == [piece.text for piece in wide + left + right + foot]


def _column(name: str, left: float) -> list[Piece]:
    return [_piece(f"{name} {row} and words enough", left, 700 - 12 * row) for row in range(4)]


def test_three_columns_are_read_from_left_to_right_and_arabic_ones_from_right_to_left():
    a, b, c = (_column(name, left) for name, left in (("a", 50), ("b", 250), ("c", 450)))
    assert [line.text for line in arranged([*b, *a, *c])] == [piece.text for piece in [*a, *b, *c]]
    first, second = (
        _column("تحسين الإنتاجية وحل المشكلات من خلال", 400),
        _column("تعتبر البرمجة بلغة من الأدوات القوية", 50),
    )
    assert [line.text for line in arranged([*second, *first])] == [piece.text for piece in [*first, *second]]


def test_cells_that_stand_side_by_side_are_one_line_and_sizes_measured_twice_are_one():
    cells = [_piece("2024", 300, 700.5, 10.6), _piece("Year", 50, 700, 9.8), _piece("of", 72, 699.8, 10.0)]
    assert arranged(cells) == [Line(("Year of", "2024"), (50, 300), 10.0, False, 50, 320, 700.5)]


def test_a_hyphen_that_ends_a_line_of_print_is_told_from_others():
    """The layout makes the word whole; a dash after a number, and one in a table, stay what they are."""
    pieces = [_piece("the experi-", 50, 700), _piece("of 1914-", 50, 688), _piece("A-", 50, 676), _piece("b", 300, 676)]
    assert [line.cells for line in arranged(pieces)] == [(f"the experi{HYPHEN}",), ("of 1914-",), ("A-", "b")]


@given(
    st.lists(
        st.builds(
            Piece,
            text=st.text("abc", min_size=1, max_size=40),
            left=st.floats(0, 600),
            right=st.floats(0, 600),
            baseline=st.floats(-800, 0),
            size=st.floats(1, 50),
        ),
        max_size=30,
    )
)
def test_no_piece_is_lost_or_read_twice(pieces):
    """Whatever stands on the page in whatever order, all of it is in the lines, once."""
    lines = arranged(pieces)
    assert sorted(" ".join(line.text for line in lines).split()) == sorted(piece.text for piece in pieces)
    assert all(len(line.cells) == len(line.starts) for line in lines)
