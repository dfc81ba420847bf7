"""Scanned and mixed PDFs, forms and turned pages, written by hand and read through the door of parsing."""

import zlib

import numpy as np
import pytest
from PIL import Image

from ingest.draft import Draft
from ingest.parse import parse
from ingest.sandbox import Sandbox
from rag.errors import EmptyDocument
from rag.records import ParsedDocument
from rag.settings import IngestSettings
from tests.ingest.test_image import needs_ocr
from tests.ingest.test_ocr import LEFT, RIGHT, STORY, drawn

LIMITS = IngestSettings()
NO_OCR = IngestSettings(ocr="off")
STORY_TEXT = " ".join(STORY)
PAGE, SHEET = (306, 396), (612, 792)


def _pdf(*pages: str, objects: tuple[str | bytes, ...] = (), catalog: str = "") -> bytes:
    """Write a PDF of ``pages``, each the entries of its dictionary, and ``objects``, of which the first is number 4.

    Number 3 is the font Helvetica; pages follow the objects.
    """
    first = 4 + len(objects)
    kids = " ".join(f"{first + number} 0 R" for number in range(len(pages)))
    bodies: list[str | bytes] = [
        f"<</Type/Catalog/Pages 2 0 R{catalog}>>",
        f"<</Type/Pages/Count {len(pages)}/Kids[{kids}]>>",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        *objects,
        *(f"<</Type/Page/Parent 2 0 R {page}>>" for page in pages),
    ]
    data, offsets = b"%PDF-1.6\n", []
    for number, body in enumerate(bodies, start=1):
        offsets.append(len(data))
        data += (
            f"{number} 0 obj\n".encode() + (body.encode("latin-1") if isinstance(body, str) else body) + b"\nendobj\n"
        )
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    end = f"trailer\n<</Size {len(bodies) + 1}/Root 1 0 R>>\nstartxref\n{len(data)}\n%%EOF\n"
    return data + f"xref\n0 {len(bodies) + 1}\n0000000000 65535 f \n{table}{end}".encode()


def _picture(picture: Image.Image) -> bytes:
    pixels = zlib.compress(np.asarray(picture.convert("L")).tobytes())
    head = (
        f"<</Type/XObject/Subtype/Image/Width {picture.width}/Height {picture.height}/ColorSpace/DeviceGray"
        f"/BitsPerComponent 8/Filter/FlateDecode/Length {len(pixels)}>>\nstream\n"
    )
    return head.encode() + pixels + b"\nendstream"


def _stream(content: str) -> str:
    return f"<</Length {len(content)}>>\nstream\n{content}\nendstream"


def _text(*lines: tuple[float, float, str], matrix: str = "1 0 0 1", mode: int = 0) -> str:
    return "\n".join(f"BT {mode} Tr /F1 12 Tf {matrix} {x} {y} Tm ({text}) Tj ET" for x, y, text in lines)


def _page(contents: int, *, picture: int | None = None, box: tuple[float, float] = PAGE, more: str = "") -> str:
    image = f"/XObject<</I {picture} 0 R>>" if picture else ""
    return f"/MediaBox[0 0 {box[0]} {box[1]}]/Resources<</Font<</F1 3 0 R>>{image}>>/Contents {contents} 0 R{more}"


def _scan(picture: Image.Image, text: str = "", box: tuple[float, float] = PAGE) -> bytes:
    """A PDF of one page that ``picture`` covers, with ``text`` over it."""
    content = _stream(f"q {box[0]} 0 0 {box[1]} 0 0 cm /I Do Q\n{text}")
    return _pdf(_page(5, picture=4, box=box), objects=(_picture(picture), content))


@pytest.fixture
def read(tmp_path):
    def _read(data: bytes, limits: IngestSettings = LIMITS, **hooks) -> ParsedDocument:
        path = tmp_path / "0123abcd"
        path.write_bytes(data)
        return parse(path, "a.pdf", limits, Draft(limits, **hooks))

    return _read


def _told(document: ParsedDocument) -> list[tuple[str, int | None, str]]:
    return [(element.kind.value, element.page, element.text) for element in document.elements]


@pytest.fixture(scope="module")
def sheet():
    """A small sheet of paper at 200 dots an inch with three lines on it."""
    return drawn(*((80, 100 + 34 * row, text) for row, text in enumerate(STORY)), size=(850, 1100), font=26)


@needs_ocr
def test_a_scan_is_read(read, sheet):
    document = read(_scan(sheet))
    assert _told(document) == [("text", 1, STORY_TEXT)]
    assert document.metadata == {"ocr_pages": 1}


@needs_ocr
def test_only_pages_without_text_are_read_by_ocr(read, sheet):
    """The first page has text of its own and a picture with other text, which stays unread."""
    words = _text(*((12, 300 - 14 * row, f"line {row} of the text of this page goes on") for row in range(3)))
    over = _stream(f"q 306 0 0 396 0 0 cm /I Do Q\n{words}")
    scan = _stream("q 306 0 0 396 0 0 cm /I Do Q")
    data = _pdf(_page(5, picture=4), _page(6, picture=4), _page(7), objects=(_picture(sheet), over, scan, _stream("")))
    told: list[float | str] = []
    document = read(data, tell=told.append, take_time=lambda: told.append("time"))
    text = " ".join(f"line {row} of the text of this page goes on" for row in range(3))
    assert _told(document) == [("text", 1, text), ("text", 2, STORY_TEXT)]
    assert document.metadata == {"ocr_pages": 1, "pages_without_text": 1}
    assert told == ["time", 1.0]


@needs_ocr
@pytest.mark.parametrize("mode", [pytest.param(3, id="invisible"), pytest.param(0, id="a stamp")])
def test_a_few_letters_over_a_picture_of_the_page_do_not_hide_what_it_shows(read, sheet, mode):
    document = read(_scan(sheet, _text((250, 15, "No. 7"), mode=mode)))
    assert STORY_TEXT in [text for _, _, text in _told(document)]
    assert document.metadata["ocr_pages"] == 1


@needs_ocr
def test_a_scan_that_lies_on_its_side_is_read(read, sheet):
    lying = sheet.rotate(90, expand=True)
    assert _told(read(_scan(lying, box=(396, 306)))) == [("text", 1, STORY_TEXT)]


@needs_ocr
def test_columns_of_a_scan_are_paragraphs_one_after_the_other(read):
    lines = [(60, 100 + 34 * row, text) for row, text in enumerate(LEFT)]
    lines += [(460, 100 + 34 * row, text) for row, text in enumerate(RIGHT)]
    document = read(_scan(drawn(*lines, size=(850, 1100), font=26)))
    assert _told(document) == [("text", 1, " ".join(LEFT)), ("text", 1, " ".join(RIGHT))]


@needs_ocr
def test_a_page_of_acres_is_made_a_small_picture(read):
    """A page of 200 by 200 inches would be 1.6 thousand million pixels at 200 an inch; the limit is 4 million."""
    large = drawn((60, 50, STORY[0]), size=(1000, 1000), font=50)
    document = read(_scan(large, box=(14_400, 14_400)), IngestSettings(max_pixels=4_000_000))
    assert _told(document) == [("text", 1, STORY[0])]


@needs_ocr
def test_a_page_of_pictures_without_text_is_counted_and_alone_is_empty(read):
    noise = Image.new("L", (300, 300), 200)
    noise.paste(0, (100, 100, 200, 200))
    with pytest.raises(EmptyDocument, match="1 page but no text: it shows pictures in which OCR finds nothing"):
        read(_scan(noise))


def test_without_ocr_a_scan_names_the_cure_and_a_mixed_pdf_keeps_its_text(read, sheet):
    with pytest.raises(EmptyDocument, match=r"1 page but no text: it is a scan and needs OCR, but .*\(ingest\.ocr\)"):
        read(_scan(sheet, _text((250, 15, "No. 7"))), NO_OCR)
    text = _stream(_text((12, 300, "A page of text, which is long enough for one")))
    scan = _stream("q 306 0 0 396 0 0 cm /I Do Q")
    document = read(_pdf(_page(5), _page(6, picture=4), objects=(_picture(sheet), text, scan)), NO_OCR)
    assert _told(document) == [("text", 1, "A page of text, which is long enough for one")]
    assert document.metadata == {"pages_without_text": 1}


def test_blank_pages_need_no_ocr(read):
    with pytest.raises(EmptyDocument, match="2 pages but no text: nothing is printed there"):
        read(_pdf(_page(4), _page(4), objects=(_stream(""),)), NO_OCR)


@needs_ocr
def test_a_scan_is_read_behind_the_walls_of_the_sandbox(tmp_path, sheet):
    (tmp_path / "a").write_bytes(_scan(sheet))
    with Sandbox(LIMITS) as sandbox:
        assert _told(sandbox.parse(tmp_path / "a", "a.pdf")) == [("text", 1, STORY_TEXT)]


# ------------------------------------------------------------------------------------------------- forms, turned pages


def _widget(kind: str, name: str, top: int, more: str = "") -> str:
    rect = f"[200 {top - 20} 400 {top}]"
    return f"<</Type/Annot/Subtype/Widget/FT/{kind}/T({name})/Rect{rect}/F 4{more}>>"


def test_what_is_filled_into_a_form_is_text_of_its_page(read):
    """Names as the form shows them, the values that a person sees, boxes as yes or no; no passwords, no buttons."""
    widgets = (
        _widget("Tx", "street", 600, "/TU(Street and number)/V(12 Quay Road)"),
        _widget("Tx", "name", 650, "/V(Ada L\\366vgren)"),
        _widget("Tx", "empty", 580),
        _widget("Tx", "secret", 570, "/Ff 8192/V(hunter2)"),
        _widget("Btn", "member", 550, "/V/Yes/AS/Yes/AP<</N<</Yes 4 0 R/Off 4 0 R>>>>"),
        _widget("Btn", "paid", 530, "/V/Off/AS/Off/AP<</N<</Yes 4 0 R/Off 4 0 R>>>>"),
        _widget("Ch", "country", 500, "/Ff 131072/Opt[[(se)(Sweden)][(no)(Norway)]]/V(no)/I[1]"),
        _widget("Btn", "send", 400, "/Ff 65536"),
    )
    fields = " ".join(f"{6 + number} 0 R" for number in range(len(widgets)))
    empty = "<</Type/XObject/Subtype/Form/BBox[0 0 9 9]/Length 0>>\nstream\n\nendstream"
    text = _stream(_text((72, 720, "Please fill in this form and send it to us.")))
    data = _pdf(
        _page(5, box=SHEET, more=f"/Annots[{fields}]"),
        objects=(empty, text, *widgets),
        catalog=f"/AcroForm<</Fields[{fields}]/DR<</Font<</F1 3 0 R>>>>/DA(/F1 12 Tf)>>",
    )
    document = read(data)
    assert _told(document) == [
        ("text", 1, "Please fill in this form and send it to us."),
        (
            "text",
            1,
            "name: Ada Lövgren\nStreet and number: 12 Quay Road\nmember: yes\npaid: no\ncountry: Norway",
        ),
    ]


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize(
    ("matrix", "places"),
    [
        pytest.param("1 0 0 1", [(72, 700 - 14 * row) for row in range(3)], id="upright"),
        pytest.param("0 1 -1 0", [(100 + 14 * row, 72) for row in range(3)], id="up the page"),
        pytest.param("0 -1 1 0", [(500 - 14 * row, 700) for row in range(3)], id="down the page"),
        pytest.param("-1 0 0 -1", [(500, 100 + 14 * row) for row in range(3)], id="on its head"),
    ],
)
def test_text_is_read_in_order_however_the_page_and_its_letters_are_turned(read, rotation, matrix, places):
    lines = [(x, y, text) for (x, y), text in zip(places, STORY, strict=True)]
    data = _pdf(_page(4, box=SHEET, more=f"/Rotate {rotation}"), objects=(_stream(_text(*lines, matrix=matrix)),))
    assert _told(read(data)) == [("text", 1, STORY_TEXT)]
