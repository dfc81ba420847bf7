"""Pictures in each format are made here and read through the door of parsing, by whichever engine is installed."""

import importlib.util
import io
import shutil
import struct
import zlib
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, PngImagePlugin

from ingest.draft import Draft
from ingest.parse import parse
from ingest.sandbox import Sandbox
from rag.errors import DamagedDocument, DocumentRejected, DocumentTooLarge, EmptyDocument, UnsupportedDocument
from rag.records import ParsedDocument
from rag.settings import IngestSettings
from tests.ingest.test_ocr import STORY, drawn

LIMITS = IngestSettings()
STORY_TEXT = " ".join(STORY)
needs_ocr = pytest.mark.skipif(
    shutil.which("tesseract") is None and importlib.util.find_spec("rapidocr") is None,
    reason="neither tesseract nor rapidocr is installed",
)


@pytest.fixture
def read(tmp_path):
    def _read(data: bytes, limits: IngestSettings = LIMITS, **hooks) -> ParsedDocument:
        path = tmp_path / "0123abcd"
        path.write_bytes(data)
        return parse(path, "scan", limits, Draft(limits, **hooks))

    return _read


def _story() -> Image.Image:
    return drawn(*((60, 50 + 60 * row, text) for row, text in enumerate(STORY)))


def _saved(picture: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, dpi=(200, 200), **options)
    return file.getvalue()


def _told(document: ParsedDocument) -> list[tuple[str, int | None, str]]:
    return [(element.kind.value, element.page, element.text) for element in document.elements]


@needs_ocr
@pytest.mark.parametrize(
    ("form", "mode", "media_type"),
    [
        ("PNG", "P", "image/png"),
        ("PNG", "I;16", "image/png"),
        ("JPEG", "CMYK", "image/jpeg"),
        ("TIFF", "1", "image/tiff"),
        ("WEBP", "RGB", "image/webp"),
        ("BMP", "RGB", "image/bmp"),
        ("GIF", "L", "image/gif"),
    ],
)
def test_each_format_and_kind_of_pixels_is_read(read, form, mode, media_type):
    """The text of the picture is the text of the document, on page 1, as one paragraph."""
    picture = _story()
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture, dtype=np.uint16) * 200)
    document = read(_saved(picture if mode == "I;16" else picture.convert(mode), form))
    assert _told(document) == [("text", 1, STORY_TEXT)]
    assert (document.media_type, document.pages, document.metadata) == (media_type, 1, {"ocr_pages": 1})


@needs_ocr
def test_heic_is_read(read):
    """What a telephone saves: a sample is kept beside the tests, because no free package writes this format."""
    document = read((Path(__file__).parent / "samples" / "picture.heic").read_bytes())
    assert _told(document) == [("text", 1, "Lighthouse keeper counts 17 ships")]
    assert document.media_type == "image/heic"


@needs_ocr
def test_what_is_to_be_seen_through_stands_on_white(read):
    ground = Image.new("RGBA", (900, 330), (0, 0, 0, 0))
    ground.paste("black", mask=_story().point(lambda value: 255 - value))
    assert _told(read(_saved(ground, "PNG"))) == [("text", 1, STORY_TEXT)]


@needs_ocr
def test_the_turn_that_the_camera_tells_is_made(read):
    """A telephone held upright saves the picture lying, and says so in Exif."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    document = read(_saved(_story().rotate(90, expand=True), "JPEG", exif=exif))
    assert _told(document) == [("text", 1, STORY_TEXT)]


@needs_ocr
def test_pages_of_a_tiff_are_pages_and_told_as_they_are_done(read):
    """An engine's time is asked for once, and each page that is done moves the share."""
    first, second, *_ = (drawn((60, 50, text), size=(900, 150)) for text in STORY)
    told: list[float | str] = []
    data = _saved(first, "TIFF", save_all=True, append_images=[Image.new("L", (300, 200), 255), second])
    document = read(data, tell=told.append, take_time=lambda: told.append("time"))
    assert _told(document) == [("text", 1, STORY[0]), ("text", 3, STORY[1])]
    assert document.pages == 3
    assert told == ["time", 1 / 3, 2 / 3, 1.0]


@needs_ocr
def test_what_is_written_about_the_picture_is_kept(read):
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "Notice at the harbour"
    exif[ExifTags.Base.Artist] = "Ada"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2026:01:02 03:04:05"
    document = read(_saved(_story(), "JPEG", exif=exif))
    assert document.title == "Notice at the harbour"
    assert document.metadata == {
        "author": "Ada",
        "created": datetime(2026, 1, 2, 3, 4, 5).isoformat(),  # noqa: DTZ001 -- Exif has no time zone
        "ocr_pages": 1,
    }


@needs_ocr
@pytest.mark.parametrize("title", ["OLYMPUS DIGITAL CAMERA", "IMG_1234.HEIC", "Created with GIMP", "scan0001"])
def test_what_cameras_write_is_no_title(read, title):
    about = PngImagePlugin.PngInfo()
    about.add_text("Title", title)
    assert read(_saved(_story(), "PNG", pnginfo=about)).title is None


@needs_ocr
def test_a_picture_without_text_says_so(read):
    with pytest.raises(EmptyDocument, match="no text that OCR can read"):
        read(_saved(Image.new("L", (300, 200), 200), "PNG"))


def test_without_ocr_a_picture_is_refused_with_the_cure(read):
    with pytest.raises(UnsupportedDocument, match=r"is a picture, and OCR is switched off here \(ingest\.ocr\)"):
        read(_saved(_story(), "PNG"), IngestSettings(ocr="off"))


def _png_head(width: int, height: int) -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(1000))
    chunks = (
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (head, data)
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@needs_ocr
@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (11_000, 10_000), (2_000_000_000, 1)])
def test_a_pixel_bomb_is_refused_by_its_head(read, width, height):
    """The picture is never unpacked: a head of a few bytes asks for gigabytes."""
    with pytest.raises(DocumentTooLarge, match=r"more than 100,000,000 pixels.*ingest\.max_pixels"):
        read(_png_head(width, height))


@needs_ocr
def test_each_page_of_a_tiff_is_measured_before_it_is_unpacked(read):
    data = _saved(Image.new("1", (10, 10)), "TIFF", save_all=True, append_images=[Image.new("1", (3000, 3000))])
    with pytest.raises(DocumentTooLarge, match="more than 1,000,000 pixels"):
        read(data, IngestSettings(max_pixels=1_000_000))


@needs_ocr
def test_a_tiff_of_too_many_pages_is_refused_before_any_is_read(read):
    data = _saved(_story(), "TIFF", save_all=True, append_images=[_story()] * 3)
    with pytest.raises(DocumentTooLarge, match="pages"):
        read(data, IngestSettings(max_pages=2))


@needs_ocr
@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP"])
def test_a_picture_that_is_cut_off_is_damaged(read, form):
    data = _saved(Image.effect_noise((200, 100), 90), form)
    with pytest.raises(DamagedDocument, match="save it anew"):
        read(data[: len(data) // 2])


@needs_ocr
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    head=st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"GIF89a", b"\0\0\0\x18ftypheic"]),
    rest=st.binary(max_size=300),
)
def test_whatever_follows_the_first_bytes_of_a_picture_is_read_or_refused(tmp_path, head, rest):
    (tmp_path / "a").write_bytes(head + rest)
    with pytest.raises(DocumentRejected):
        parse(tmp_path / "a", "a", LIMITS)


@needs_ocr
def test_a_picture_is_read_behind_the_walls_of_the_sandbox(tmp_path):
    """The engine runs with the memory, the files and the lack of a network that parsing has."""
    (tmp_path / "a").write_bytes(_saved(_story(), "PNG"))
    with Sandbox(LIMITS) as sandbox:
        assert _told(sandbox.parse(tmp_path / "a", "a.png")) == [("text", 1, STORY_TEXT)]
