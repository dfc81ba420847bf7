"""Pictures: PNG, JPEG, TIFF, HEIC, WebP, BMP and GIF, read by OCR. Owns pillow and pi-heif.

Opens a picture, sets it upright as its camera says, and makes it grey; what stands in it is for `ingest.ocr`. A picture
that would unpack to more pixels than the limits allow is refused by what its head says, before it is unpacked.
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import numpy as np
import pi_heif
from PIL import ExifTags, Image, ImageOps

from ingest.draft import Draft, meaningful_title
from ingest.layout import Line, compose
from ingest.ocr import Grey, cure, engine, read_picture
from rag.errors import DocumentTooLarge, EmptyDocument, UnsupportedDocument
from rag.settings import IngestSettings

_FORMATS = ("PNG", "JPEG", "TIFF", "HEIF", "WEBP", "BMP", "GIF")
_INCHES = 11.0  # the longer side of a picture that does not say how large it is: a sheet of paper
_PLAUSIBLE = (50, 1200)  # dots per inch; other values are what programs write that know none
_FINE = 150  # dots per inch below which letters are too small for OCR, so that the picture is enlarged
_MOST_PIXELS = 40_000_000  # for OCR: a sheet of A4 in 600 dpi; what is larger is made smaller
# What cameras and programs write where nobody has described the picture.
_NO_DESCRIPTION = re.compile(
    r".*digital (still )?camera.*|sony dsc|minolta dsc|created (with|by) .*|.*screenshot.*|dcim.*|dsc\w*|img[\W_]*\d*"
    r"|scan\w*[\W_]*\d*|[^\s]+\.(png|jpe?g|tiff?|heic|webp|bmp|gif)",
    re.IGNORECASE,
)

pi_heif.register_heif_opener(thumbnails=False)


def read_image(path: Path, draft: Draft) -> None:
    """Add the text in a picture to ``draft``; each page of a TIFF is a page.

    Raises `UnsupportedDocument` where no OCR is installed, `DocumentTooLarge` for a picture of more pixels or pages
    than the limits allow, and `EmptyDocument` if no text is to be seen. ``metadata["ocr_pages"]`` counts the pages.
    """
    if engine(draft.limits) is None:
        raise UnsupportedDocument(f"The document is a picture, and {cure(draft.limits)}", needs="ocr")
    Image.MAX_IMAGE_PIXELS = draft.limits.max_pixels
    try:
        with Image.open(path, formats=_FORMATS) as image:
            pages = _read(image, draft)
    except Image.DecompressionBombError as error:
        raise _too_large(draft.limits) from error
    if not any(pages):
        raise EmptyDocument("The picture shows no text that OCR can read: there is nothing to index.")
    draft.note(ocr_pages=len(pages))
    compose(pages, {}, draft)


def _read(image: Image.Image, draft: Draft) -> list[list[Line]]:
    _check_size(image, draft.limits)
    _note_properties(image, draft)
    draft.take_time()
    draft.pages = count = _count_pages(image, draft.limits)
    pages = []
    for number in range(count):
        image.seek(number)
        _check_size(image, draft.limits)
        grey, dpi = _grey(image)
        pages.append(read_picture(grey, dpi, draft.limits))
        draft.tell(len(pages) / count)
    return pages


def _check_size(image: Image.Image, limits: IngestSettings) -> None:
    if image.width * image.height > limits.max_pixels:
        raise _too_large(limits)


def _too_large(limits: IngestSettings) -> DocumentTooLarge:
    return DocumentTooLarge(
        f"The picture has more than {limits.max_pixels:,} pixels, which is the limit: make it smaller, or raise "
        "ingest.max_pixels."
    )


def _count_pages(image: Image.Image, limits: IngestSettings) -> int:
    """Return how many pages a TIFF has, or one more than are allowed; 1 of other formats, whose rest is no page."""
    count = 1
    while image.format == "TIFF" and count <= limits.max_pages:
        try:
            image.seek(count)
        except EOFError:
            break
        count += 1
    return count


def _grey(image: Image.Image) -> tuple[Grey, float]:
    """Return the pixels of a picture, upright and on white, in a size fit for OCR, and their number per inch."""
    dpi = _dpi(image)
    upright = _on_white(ImageOps.exif_transpose(image)).convert("L")
    scale = min(1.0 if dpi >= _FINE else 200 / dpi, (_MOST_PIXELS / (upright.width * upright.height)) ** 0.5)
    if scale != 1.0:
        size = max(1, round(upright.width * scale)), max(1, round(upright.height * scale))
        upright = upright.resize(size, Image.Resampling.LANCZOS)
    return np.asarray(upright), dpi * scale


def _dpi(image: Image.Image) -> float:
    """Return the dots per inch that the file tells, if that can be, else what makes the picture a sheet of paper."""
    told = image.info.get("dpi", (0, 0))
    least, most = _PLAUSIBLE
    number = float(told[0]) if isinstance(told, tuple) and len(told) == 2 else 0.0
    guess = max(image.size) / _INCHES
    # A camera tells 72 of a picture of 4,000 pixels: no sheet is longer than 40 inches.
    return number if least <= number <= most and guess / number < 4 else max(guess, 1.0)


def _on_white(image: Image.Image) -> Image.Image:
    """Return a picture in at most 8 bits for each colour, without anything to be seen through."""
    if image.mode[0] in "IF":
        values = np.asarray(image, dtype=np.float64)
        low, high = float(values.min()), float(values.max())
        return Image.fromarray(((values - low) * (255 / ((high - low) or 1.0))).astype(np.uint8))
    if not image.has_transparency_data:
        return image
    colours = image.convert("RGBA")
    ground = Image.new("RGBA", colours.size, "white")
    ground.alpha_composite(colours)
    return ground.convert("RGB")


def _note_properties(image: Image.Image, draft: Draft) -> None:
    """Keep what camera, scanner or program wrote about the picture."""
    exif = image.getexif()
    told = {name.lower(): value for name, value in image.info.items() if isinstance(name, str)}
    title = meaningful_title(told.get("title") or exif.get(ExifTags.Base.ImageDescription) or told.get("description"))
    if title and not _NO_DESCRIPTION.fullmatch(title):
        draft.title = title
    shot = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime)
    draft.note(author=exif.get(ExifTags.Base.Artist) or told.get("author"), created=_date(shot))


def _date(value: object) -> datetime | None:
    try:
        return datetime.strptime(str(value), "%Y:%m:%d %H:%M:%S")  # noqa: DTZ007 -- Exif has no time zone
    except ValueError:  # none, or spaces, or zeros
        return None
