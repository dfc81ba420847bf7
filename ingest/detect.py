"""What a file is, by its content, and in what encoding its text is written. Owns magika.

The name is only a hint: its extension decides between kinds of text that look alike, and is never believed against
the content. This module reads no document and trusts no declared size.
"""

from __future__ import annotations

import codecs
import json
import re
import zipfile
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path, PurePosixPath

from magika import Magika

from rag.errors import DamagedDocument, DocumentTooLarge, EmptyDocument, EncryptedDocument, UnsupportedDocument


class Format(StrEnum):
    """The formats that are read; the value is the media type that the catalog keeps."""

    PDF = "application/pdf"
    DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
    PPTX = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
    XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    XLS = "application/vnd.ms-excel"
    DOC = "application/msword"
    PPT = "application/vnd.ms-powerpoint"
    MSG = "application/vnd.ms-outlook"
    ODT = "application/vnd.oasis.opendocument.text"
    ODS = "application/vnd.oasis.opendocument.spreadsheet"
    EPUB = "application/epub+zip"
    RTF = "application/rtf"
    HTML = "text/html"
    MARKDOWN = "text/markdown"
    RST = "text/x-rst"
    CSV = "text/csv"
    TSV = "text/tab-separated-values"
    EMAIL = "message/rfc822"
    JSON = "application/json"
    XML = "application/xml"
    TEXT = "text/plain"


@dataclass(frozen=True, slots=True)
class Content:
    """What a file is; ``text`` is the decoded text of a text format, None if the file is to be read itself."""

    format: Format
    text: str | None = None


_BY_EXTENSION = {
    ".md": Format.MARKDOWN,
    ".markdown": Format.MARKDOWN,
    ".rst": Format.RST,
    ".csv": Format.CSV,
    ".tsv": Format.TSV,
    ".tab": Format.TSV,
    ".txt": Format.TEXT,
    ".text": Format.TEXT,
    ".log": Format.TEXT,
    ".eml": Format.EMAIL,
    ".mht": Format.EMAIL,
    ".mhtml": Format.EMAIL,
    ".json": Format.JSON,
    ".xml": Format.XML,
    ".html": Format.HTML,
    ".htm": Format.HTML,
    ".xhtml": Format.HTML,
}
_BY_LABEL = {
    "html": Format.HTML,
    "xml": Format.XML,
    "markdown": Format.MARKDOWN,
    "rst": Format.RST,
    "csv": Format.CSV,
    "tsv": Format.TSV,
    "eml": Format.EMAIL,
    "mht": Format.EMAIL,
    "rtf": Format.RTF,
}
_SURE = 0.9
_BOMS = (  # the longer first: the mark of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_DECLARED = re.compile(
    rb"""(?:<\?xml[^>]{0,200}?encoding|<meta[^>]{0,200}?charset)\s*=\s*["']?\s*([A-Za-z0-9_.:-]+)""", re.IGNORECASE
)
_HTML_START = re.compile(
    r"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL
)
_XML_START = re.compile(r"\s*<\?xml\b|\s*<!DOCTYPE\s+(?!html)\w", re.IGNORECASE)
_MAIL_START = re.compile(r"\s*(?:[!-9;-~]+:.*\n(?:[ \t].*\n)*){2,}")
_MAIL_FIELDS = re.compile(r"^(from|date|received|mime-version|message-id|return-path):", re.IGNORECASE | re.MULTILINE)
_TAG = re.compile(rb"<[^<>]{1,500}>")
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_ZIP_PARTS = (
    ("word/document.xml", Format.DOCX),
    ("ppt/presentation.xml", Format.PPTX),
    ("xl/workbook.xml", Format.XLSX),
)
_OLE_STREAMS = (
    ("WordDocument", Format.DOC),
    ("PowerPoint Document", Format.PPT),
    ("Workbook", Format.XLS),
    ("Book", Format.XLS),
    ("__properties_version1.0", Format.MSG),
)
#: What a part of a zip container may unpack to, in bytes per character of text that the settings allow.
_UNPACKED_PER_CHAR = 8


def detect(path: Path, name: str, max_text_chars: int) -> Content:
    """Return what the file at ``path`` is, whatever its ``name`` says.

    Raises `EmptyDocument`, `EncryptedDocument`, `UnsupportedDocument`, `DamagedDocument` or `DocumentTooLarge`.
    """
    data = path.read_bytes()
    if not data.strip(b"\0 \t\r\n"):
        raise EmptyDocument("The file is empty: there is nothing to index.")
    if data.lstrip()[:5] == b"%PDF-" or (b"%PDF-" in data[:1024] and b" obj" in data):
        return Content(Format.PDF)
    if data.startswith(_OLE):
        return Content(_ole_format(path))
    if data.startswith(b"{\\rtf"):
        return Content(Format.RTF)
    if data.startswith(b"PK\x03\x04"):
        return Content(_zip_format(path, max_text_chars))
    if not _looks_like_text(data):
        raise _not_read(data)
    text = decode(data)
    found = _text_format(text, name)
    return Content(found, None if found is Format.EMAIL else text)  # the parts of a mail have encodings of their own


def decode(data: bytes, declared: str | None = None) -> str:
    """Return ``data`` as text: by its byte order mark, else UTF-8, else what it or ``declared`` says, else a guess.

    Never raises: bytes that mean nothing in the encoding become U+FFFD.
    """
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return data.decode(encoding, errors="replace")
    if wide := _wide_encoding(data):
        return data.decode(wide, errors="replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    lenient = data.decode("utf-8", errors="replace")
    wrong = lenient.count("\ufffd")
    if sum(1 for char in lenient if char > "\x7f") > 10 * wrong:  # UTF-8 with a few damaged characters
        return lenient
    return data.decode(_narrow_encoding(data, declared), errors="replace")


def _wide_encoding(data: bytes) -> str | None:
    """Return the encoding of UTF-16 without its mark, which shows in zero bytes on every other place."""
    sample = data[:4096]
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    few, many = len(sample) // 50, len(sample) // 5
    if len(sample) >= 4 and odd > many and even <= few:
        return "utf-16-le"
    return "utf-16-be" if len(sample) >= 4 and even > many and odd <= few else None


def _narrow_encoding(data: bytes, declared: str | None) -> str:
    """Return the likeliest encoding of one byte a character (or East Asian) for bytes that are not UTF-8."""
    in_content = _DECLARED.search(data[:4096])
    for candidate in (declared, in_content.group(1).decode("ascii") if in_content else None):
        if candidate and _known(candidate) and _known(candidate) != "utf-8":
            return candidate
    sample = _TAG.sub(b" ", data[:200_000])
    if sum(byte > 0x7F for byte in sample) >= 20:  # fewer say nothing about the language
        return _guessed(sample)
    return "cp1252"


def _guessed(sample: bytes) -> str:
    """Return the guess of charset_normalizer, but cp1252 where that fits about as well: it is by far the commonest."""
    from charset_normalizer import from_bytes

    guesses = from_bytes(sample)
    best = guesses.best()
    if best is None or best.encoding in {"ascii", "utf_8"}:
        return "cp1252"
    western = (guess for guess in guesses if guess.encoding == "cp1252")
    as_good = any(g.chaos <= best.chaos + 0.02 and g.coherence >= best.coherence - 0.1 for g in western)
    return "cp1252" if as_good else best.encoding


def _known(encoding: str) -> str | None:
    """Return the canonical name of a text encoding, or None if Python has none of that name."""
    try:
        info = codecs.lookup(encoding)
    except LookupError:
        return None
    return info.name if info._is_text_encoding else None  # noqa: SLF001 -- the only way to tell utf-8 from rot13


def _looks_like_text(data: bytes) -> bool:
    """Tell text, with the stray control bytes of real files, from what is none."""
    if any(data.startswith(bom) for bom, _ in _BOMS) or _wide_encoding(data):
        return True
    sample = data[:65536]
    controls = len(_CONTROLS.findall(sample))
    return controls <= 2 + len(sample) // 20 and not (controls and _is_known_binary(data))


@lru_cache(maxsize=1)
def _magika() -> Magika:
    return Magika()  # loads its model of 3 MB, 0.3 s


def _is_known_binary(data: bytes) -> bool:
    result = _magika().identify_bytes(data)
    return result.ok and not result.output.is_text and result.score >= _SURE


def _not_read(data: bytes) -> UnsupportedDocument:
    output = _magika().identify_bytes(data).output
    if output.group == "image":
        return UnsupportedDocument(
            f"The file is an image ({output.description}), and reading its text needs OCR, which comes later: "
            "run OCR yourself and ingest the result as PDF or text.",
            found=output.label,
        )
    found = (
        "of an unknown binary type"
        if output.is_text or output.label == "unknown"
        else f"of a type that is not read: {output.label}"
    )
    return UnsupportedDocument(
        f"The file is {found}; convert it to PDF, DOCX, HTML, Markdown or text.", found=output.label
    )


def _zip_format(path: Path, max_text_chars: int) -> Format:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            mimetype = archive.read("mimetype").strip() if "mimetype" in archive.namelist() else b""
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise DamagedDocument(
            "The file begins like an Office document or another zip archive but can not be unpacked: "
            "open it in its own program and save it anew."
        ) from error
    _check_members(members, max_text_chars)
    names = {member.filename for member in members}
    for part, found in _ZIP_PARTS:
        if part in names:
            return found
    for found in (Format.ODT, Format.ODS, Format.EPUB):
        if mimetype.startswith(found.value.encode()):
            return found
    raise UnsupportedDocument(
        "The file is an archive, or an Office file of a type that is not read: "
        "unpack it and ingest the files, or convert it to DOCX, XLSX or PPTX."
    )


def _check_members(members: list[zipfile.ZipInfo], max_text_chars: int) -> None:
    if any(member.flag_bits & 1 for member in members):
        raise EncryptedDocument("The archive is protected by a password: remove the password and ingest it again.")
    unpacked = sum(m.file_size for m in members if m.filename.endswith((".xml", ".rels", "html", ".htm")))
    if unpacked > _UNPACKED_PER_CHAR * max_text_chars:
        raise DocumentTooLarge(
            f"The document unpacks to {unpacked:,} bytes of XML, more than {max_text_chars:,} characters of text "
            "can need: split it, or raise ingest.max_text_chars.",
            bytes=unpacked,
        )


def _ole_format(path: Path) -> Format:
    """Return the format in an OLE container, which Office files before 2007 and encrypted ones of today are."""
    import olefile  # type: ignore[import-untyped]

    try:
        with olefile.OleFileIO(path) as container:
            streams = {"/".join(entry) for entry in container.listdir()}
    except (OSError, ValueError, IndexError) as error:
        raise DamagedDocument(
            "The file begins like an older Office document but can not be opened: "
            "open it in its own program and save it anew."
        ) from error
    if "EncryptedPackage" in streams:
        raise EncryptedDocument(
            "The Office document is protected by a password: remove the password and ingest it again."
        )
    for stream, found in _OLE_STREAMS:
        if stream in streams:
            return found
    raise UnsupportedDocument("The file is an OLE container of a type that is not read: convert it to DOCX or PDF.")


def _text_format(text: str, name: str) -> Format:
    """Return what kind of text this is: what content shows clearly, else what the extension says, else magika."""
    start = text[:8192].lstrip("\ufeff")
    hint = _BY_EXTENSION.get(PurePosixPath(name.replace("\\", "/")).suffix.lower())
    if _HTML_START.match(start):
        return Format.HTML
    if _XML_START.match(start):
        return Format.XML
    if hint is Format.EMAIL or (_MAIL_START.match(start) and _MAIL_FIELDS.search(start)):
        return Format.EMAIL if ":" in start else Format.TEXT
    if hint in {None, Format.JSON, Format.TEXT} and _is_json(text):
        return Format.JSON
    return _text_format_by_statistics(text, hint)


def _text_format_by_statistics(text: str, hint: Format | None) -> Format:
    result = _magika().identify_bytes(text[:1_000_000].encode("utf-8", "replace"))
    label = _BY_LABEL.get(result.output.label)
    if label in {Format.HTML, Format.CSV, Format.TSV} and result.score >= _SURE and hint in {None, Format.TEXT}:
        return label
    if hint is Format.JSON:  # not JSON, or JSON lines
        return Format.TEXT
    return hint or (label if result.score >= _SURE and label not in {None, Format.RTF} else None) or Format.TEXT


def _is_json(text: str) -> bool:
    if text.lstrip()[:1] not in {"{", "["}:
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
