"""What a file is, by its content, and in what encoding its text is written. Owns magika.

The name is only a hint: its extension decides between kinds of text that look alike, and is never believed against
the content. This module reads no document and trusts no declared size.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import json
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from rag.errors import DamagedDocument, DocumentTooLarge, EmptyDocument, EncryptedDocument, UnsupportedDocument
from rag.quiet import silence_dependencies
from rag.settings import IngestSettings


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
    ODP = "application/vnd.oasis.opendocument.presentation"
    EPUB = "application/epub+zip"
    RTF = "application/rtf"
    HTML = "text/html"
    MARKDOWN = "text/markdown"
    RST = "text/x-rst"
    CSV = "text/csv"
    TSV = "text/tab-separated-values"
    EMAIL = "message/rfc822"
    JSON = "application/json"
    JSONL = "application/jsonl"
    XML = "application/xml"
    NOTEBOOK = "application/x-ipynb+json"
    CODE = "text/x-source-code"
    TEXT = "text/plain"
    PNG = "image/png"
    JPEG = "image/jpeg"
    TIFF = "image/tiff"
    HEIC = "image/heic"
    WEBP = "image/webp"
    BMP = "image/bmp"
    GIF = "image/gif"
    ZIP = "application/zip"
    TAR = "application/x-tar"
    COMPRESSED = "application/gzip"


@dataclass(frozen=True, slots=True)
class Content:
    """What a file is; ``text`` is the decoded text of a text format, None if the file is to be read itself.

    ``facts`` are what else its name and content say at once, and go into the document's metadata: ``code_language``
    of source code, and ``holds``, the name of the one file in a compressed file.
    """

    format: Format
    text: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)


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
    ".ipynb": Format.NOTEBOOK,
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".xml": Format.XML,
    ".xsd": Format.XML,
    ".svg": Format.XML,
    ".rss": Format.XML,
    ".atom": Format.XML,
    ".html": Format.HTML,
    ".htm": Format.HTML,
    ".xhtml": Format.HTML,
}
_LANGUAGES = {
    "ada": ".ada .adb .ads",
    "assembly": ".asm .s",
    "awk": ".awk",
    "batch": ".bat .cmd",
    "c": ".c .h",
    "clojure": ".clj .cljs .edn",
    "cmake": ".cmake",
    "cobol": ".cbl .cob",
    "cpp": ".cc .cpp .cxx .hh .hpp .hxx .cu .cuh",
    "csharp": ".cs",
    "css": ".css .scss .sass .less",
    "dart": ".dart",
    "elixir": ".ex .exs",
    "erlang": ".erl .hrl",
    "fortran": ".f .f90 .f95 .for",
    "fsharp": ".fs .fsx",
    "go": ".go",
    "graphql": ".graphql .gql",
    "groovy": ".groovy .gradle",
    "haskell": ".hs",
    "hcl": ".tf .hcl",
    "ini": ".ini .cfg .conf .properties .env",
    "java": ".java",
    "javascript": ".js .jsx .mjs .cjs",
    "julia": ".jl",
    "kotlin": ".kt .kts",
    "lua": ".lua",
    "makefile": ".mk",
    "matlab": ".m",
    "nim": ".nim",
    "objectivec": ".mm",
    "ocaml": ".ml .mli",
    "pascal": ".pas .pp",
    "perl": ".pl .pm",
    "php": ".php",
    "powershell": ".ps1 .psm1",
    "protobuf": ".proto",
    "python": ".py .pyi .pyw",
    "r": ".r",
    "ruby": ".rb",
    "rust": ".rs",
    "scala": ".scala .sc",
    "shell": ".sh .bash .zsh .ksh",
    "solidity": ".sol",
    "sql": ".sql",
    "swift": ".swift",
    "tcl": ".tcl",
    "toml": ".toml",
    "typescript": ".ts .tsx .mts",
    "vba": ".bas .vb .vbs",
    "verilog": ".v .sv",
    "vhdl": ".vhd .vhdl",
    "vue": ".vue .svelte",
    "yaml": ".yaml .yml",
    "zig": ".zig",
}
_LANGUAGE_BY_EXTENSION = {end: language for language, ends in _LANGUAGES.items() for end in ends.split()}
_LANGUAGE_BY_NAME = {"makefile": "makefile", "dockerfile": "dockerfile", "jenkinsfile": "groovy", "rakefile": "ruby"}
#: What magika calls source code, where that is not our name of the language; not what is mostly words or data.
_LANGUAGE_BY_LABEL = {name: name for name in _LANGUAGES if name not in {"ini", "yaml", "toml", "matlab"}} | {
    "cs": "csharp",
    "dockerfile": "dockerfile",
    "objectivec": "objectivec",
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
_PICTURES = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), Format.PNG),
    (re.compile(rb"\xff\xd8\xff"), Format.JPEG),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), Format.TIFF),
    (re.compile(rb"....ftyp(?:hei[cxms]|hev[cx]|mif1|msf1)", re.DOTALL), Format.HEIC),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), Format.WEBP),
    (re.compile(rb"BM.{4}\0{4}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0{3}", re.DOTALL), Format.BMP),
    (re.compile(rb"GIF8[79]a"), Format.GIF),
)
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
_HEAD = 1 << 16
#: Of each compression of a single file: how it begins, what opens it, and how its names end.
COMPRESSIONS: tuple[tuple[bytes, Callable[..., Any], str], ...] = (
    (b"\x1f\x8b", gzip.open, ".gz .gzip .tgz"),
    (b"BZh", bz2.open, ".bz2 .tbz2 .tbz"),
    (b"\xfd7zXZ\0", lzma.open, ".xz .txz"),
)
_LONGEST_MIMETYPE = 200
#: What unpacks to less is taken whatever it was packed to: a few lines of zeros are no bomb.
SMALL_ARCHIVE = 10_000_000
#: What a part of a zip container may unpack to, in bytes per character of text that the settings allow.
_UNPACKED_PER_CHAR = 8


def detect(path: Path, name: str, limits: IngestSettings) -> Content:
    """Return what the file at ``path`` is, whatever its ``name`` says.

    Raises `EmptyDocument`, `EncryptedDocument`, `UnsupportedDocument`, `DamagedDocument` or `DocumentTooLarge`.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if (found := _binary_format(path, name, head, limits)) is not None:
        return found
    data = path.read_bytes()
    if not data.strip(b"\0 \t\r\n"):
        raise EmptyDocument("The file is empty: there is nothing to index.")
    if b"%PDF-" in data[:1024] and b" obj" in data:
        return Content(Format.PDF)
    if not _looks_like_text(data):
        raise _not_read(data)
    text = decode(data)
    found_format, language = _text_format(text, name)
    if found_format is Format.EMAIL:
        return Content(Format.EMAIL)  # the parts of a mail have encodings of their own
    return Content(found_format, text, {"code_language": language} if language else {})


def _binary_format(path: Path, name: str, head: bytes, limits: IngestSettings) -> Content | None:
    """Return what the first bytes say clearly, if they do."""
    if head.startswith(_OLE):
        return Content(_ole_format(path))
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return Content(_zip_format(path, limits))
    for magic, opener, endings in COMPRESSIONS:
        if head.startswith(magic):
            return _compressed_format(path, name, opener, endings.split())
    found = next((picture for begin, picture in _PICTURES if begin.match(head)), None) or _plain_format(head)
    return Content(found) if found else None


def _plain_format(head: bytes) -> Format | None:
    if head.lstrip()[:5] == b"%PDF-":
        return Format.PDF
    if head.startswith(b"{\\rtf"):
        return Format.RTF
    return Format.TAR if _is_tar(head) else None


def _is_tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:  # the header has a sum of itself, which nothing else has by chance
        return False
    return True


def _compressed_format(path: Path, name: str, opener: Callable[..., Any], endings: list[str]) -> Content:
    try:
        with opener(path) as file:
            head = file.read(tarfile.BLOCKSIZE)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise DamagedDocument(
            "The file begins like a compressed one but can not be unpacked: compress it anew, or ingest what is in it."
        ) from error
    if _is_tar(head):
        return Content(Format.TAR)
    held = PurePosixPath(name.replace("\\", "/")).name
    ending = next((end for end in endings if held.lower().endswith(end)), "")
    return Content(Format.COMPRESSED, facts={"holds": held.removesuffix(held[len(held) - len(ending) :]) or "content"})


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
def _magika() -> Any:
    silence_dependencies()  # onnxruntime, under which it runs, reports its use
    from magika import Magika

    return Magika()  # loads its model of 3 MB, 0.3 s


def _is_known_binary(data: bytes) -> bool:
    result = _magika().identify_bytes(data)
    return result.ok and not result.output.is_text and result.score >= _SURE


def _not_read(data: bytes) -> UnsupportedDocument:
    output = _magika().identify_bytes(data).output
    if output.group == "image":
        return UnsupportedDocument(
            f"The file is an image of a type that is not read ({output.description}): "
            "save it as PNG, JPEG or TIFF and ingest that.",
            found=output.label,
        )
    if output.group == "archive":
        return UnsupportedDocument(
            f"The file is an archive of a type that is not opened ({output.description}): "
            "pack its files as ZIP or TAR, or unpack it and ingest them.",
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


def _zip_format(path: Path, limits: IngestSettings) -> Format:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            mimetype = _mimetype(archive)
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, zlib.error) as error:
        raise DamagedDocument(
            "The file begins like an Office document or another zip archive but can not be unpacked: "
            "open it in its own program and save it anew."
        ) from error
    found = _zip_content({member.filename for member in members}, mimetype)
    if found is not Format.ZIP:
        _check_members(members, path.stat().st_size, limits)
    return found


def _mimetype(archive: zipfile.ZipFile) -> bytes:
    """Return what an archive says that it is, as OpenDocument and EPUB do in their first file."""
    member = archive.NameToInfo.get("mimetype")
    if member is None or member.flag_bits & 1:
        return b""
    with archive.open(member) as file:
        return file.read(_LONGEST_MIMETYPE).strip()


def _zip_content(names: set[str], mimetype: bytes) -> Format:
    for part, found in _ZIP_PARTS:
        if part in names:
            return found
    for found in (Format.ODT, Format.ODS, Format.ODP, Format.EPUB):
        if mimetype.startswith(found.value.encode()):
            return found
    if "[Content_Types].xml" in names or mimetype.startswith(b"application/vnd."):
        raise UnsupportedDocument(
            "The file is an Office file of a type that is not read: convert it to DOCX, XLSX, PPTX or PDF."
        )
    return Format.ZIP


def _check_members(members: list[zipfile.ZipInfo], size: int, limits: IngestSettings) -> None:
    """Refuse a document of ``size`` bytes that unpacks to too much; no member gives more bytes than it announces."""
    if any(member.flag_bits & 1 for member in members):
        raise EncryptedDocument("The archive is protected by a password: remove the password and ingest it again.")
    unpacked = sum(m.file_size for m in members if m.filename.endswith((".xml", ".rels", ".opf", "html", ".htm")))
    if unpacked > _UNPACKED_PER_CHAR * limits.max_text_chars:
        raise DocumentTooLarge(
            f"The document unpacks to {unpacked:,} bytes of XML, more than {limits.max_text_chars:,} characters of "
            "text can need: split it, or raise ingest.max_text_chars.",
            bytes=unpacked,
        )
    if sum(member.file_size for member in members) > max(SMALL_ARCHIVE, limits.archive_ratio * size):
        raise DocumentTooLarge(
            f"The document unpacks to more than {limits.archive_ratio:,} times its size: open it in its own program "
            "and save it anew, or raise ingest.archive_ratio.",
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


def _text_format(text: str, name: str) -> tuple[Format, str]:
    """Return what kind of text this is: what content shows clearly, else what the extension says, else magika.

    The second value is the language of source code, else nothing.
    """
    start = text[:8192].lstrip("\ufeff")
    file_name = PurePosixPath(name.replace("\\", "/")).name.lower()
    extension = PurePosixPath(file_name).suffix
    hint = _BY_EXTENSION.get(extension)
    language = _LANGUAGE_BY_EXTENSION.get(extension) or (not hint and _LANGUAGE_BY_NAME.get(file_name.split(".")[0]))
    if markup := Format.HTML if _HTML_START.match(start) else Format.XML if _XML_START.match(start) else None:
        return markup, ""
    if language:
        return Format.CODE, language
    if hint is Format.EMAIL or (
        hint in {None, Format.TEXT} and _MAIL_START.match(start) and _MAIL_FIELDS.search(start)
    ):
        return Format.EMAIL if ":" in start else Format.TEXT, ""
    if hint in {None, Format.JSON, Format.JSONL, Format.TEXT} and (data := _json_format(text)):
        return data, ""
    return _text_format_by_statistics(text, hint)


def _text_format_by_statistics(text: str, hint: Format | None) -> tuple[Format, str]:
    result = _magika().identify_bytes(text[:1_000_000].encode("utf-8", "replace"))
    label = _BY_LABEL.get(result.output.label)
    if label in {Format.HTML, Format.CSV, Format.TSV} and result.score >= _SURE and hint in {None, Format.TEXT}:
        return label, ""
    if hint in {Format.JSON, Format.JSONL}:  # it is not
        return Format.TEXT, ""
    language = _LANGUAGE_BY_LABEL.get(result.output.label, "")
    if hint is None and language and result.score >= _SURE:
        return Format.CODE, language
    sure = label if result.score >= _SURE and label not in {None, Format.RTF} else None
    return hint or sure or Format.TEXT, ""


def _json_format(text: str) -> Format | None:
    return Format.JSONL if _is_json_lines(text) else Format.JSON if _is_json(text) else None


def _is_json_lines(text: str) -> bool:
    """Tell whether the first lines, at least two, are each an object or a list."""
    if text.lstrip()[:1] not in {"{", "["}:
        return False
    lines = [line for line in text[:_HEAD].splitlines(keepends=True) if line.strip()]
    if len(text) > _HEAD and len(lines) > 2:
        lines.pop()  # it may be cut
    return len(lines) > 1 and all(line.lstrip()[0] in "{[" and _is_json(line) for line in lines[:20])


def _is_json(text: str) -> bool:
    if text.lstrip()[:1] not in {"{", "["}:
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
