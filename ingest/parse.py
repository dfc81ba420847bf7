"""The door of parsing: a stored file to a `ParsedDocument`, or one clear reason why not.

Chooses the reader by the file's content, and translates what the readers' libraries raise. Knows no format itself:
each has its own file beside this one. It trusts nothing about the file; limits on time and memory are set around it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from ingest.detect import Format, detect
from ingest.draft import Draft
from ingest.language import detect_language
from rag.errors import DamagedDocument, DocumentRejected, EmptyDocument
from rag.records import Kind, ParsedDocument
from rag.settings import IngestSettings

#: Names how files are read: what was parsed under another name is parsed again when it is needed.
READERS = "2026-11-22"


def parse(path: Path, name: str, limits: IngestSettings, draft: Draft | None = None) -> ParsedDocument:
    """Return what the file at ``path`` says: its elements in reading order, title, pages and metadata.

    ``name`` is what the user calls it: a hint between kinds of text, never a path. Raises `EmptyDocument`,
    `EncryptedDocument`, `UnsupportedDocument`, `DamagedDocument` or `DocumentTooLarge`, whose message says what to do,
    and nothing else that comes from the content of the file. Writes nothing but the files inside the document, and
    those only into the folder of a ``draft`` that was given, and reaches no network.
    """
    content = detect(path, name, limits)
    draft, read = draft or Draft(limits), _reader(content.format)
    draft.note(**content.facts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries, about odd files: what matters of it is raised
        try:
            read(path if content.text is None else content.text, draft)
        except (DocumentRejected, MemoryError, ImportError):
            raise
        # The readers stand on a dozen libraries that raise whatever their code runs into on a damaged file (KeyError,
        # IndexError, RecursionError, struct.error, their own kinds); no list of these is ever complete.
        except Exception as error:
            raise DamagedDocument(
                f"The document ({content.format.name}) can not be read, it is probably damaged: "
                "open it in its own program and save it anew.",
                cause=f"{type(error).__name__}: {error}"[:500],
            ) from error
    if not draft.blocks and not draft.members:
        raise EmptyDocument("The document holds no text: there is nothing to index.")
    return _finished(draft, content.format)


def _finished(draft: Draft, found: Format) -> ParsedDocument:
    headings = (block.text for block in draft.blocks if block.kind is Kind.TITLE)
    prose = "\n".join(block.text for block in draft.blocks if block.kind not in {Kind.CODE, Kind.HIDDEN})
    return ParsedDocument.from_blocks(
        draft.blocks,
        media_type=found.value,
        title=draft.title or next(headings, None),
        pages=draft.pages,
        metadata=draft.metadata,
        language=detect_language(prose),
        members=tuple(draft.members),
    )


def _reader(found: Format) -> Callable[[Any, Draft], None]:
    """Import the reader of a format when its first document comes: a worker that reads PDFs needs no unstructured."""
    module, function = _READERS[found].split(":")
    return cast(Callable[[Any, Draft], None], getattr(import_module(module), function))


#: Where the reader of each format is. Those of text formats take the decoded text, the others the path.
_READERS: Mapping[Format, str] = {
    Format.HTML: "ingest.partition:read_html",
    Format.MARKDOWN: "ingest.partition:read_markdown",
    Format.RST: "ingest.restructured:read_rst",
    Format.TEXT: "ingest.text:read_text",
    Format.CSV: "ingest.sheets:read_csv",
    Format.TSV: "ingest.sheets:read_tsv",
    Format.JSON: "ingest.text:read_json",
    Format.JSONL: "ingest.text:read_json_lines",
    Format.XML: "ingest.text:read_xml",
    Format.PDF: "ingest.pdf:read_pdf",
    Format.DOCX: "ingest.partition:read_docx",
    Format.PPTX: "ingest.partition:read_pptx",
    Format.XLSX: "ingest.sheets:read_xlsx",
    Format.XLS: "ingest.sheets:read_xls",
    Format.DOC: "ingest.legacy:read_doc",
    Format.PPT: "ingest.legacy:read_ppt",
    Format.RTF: "ingest.legacy:read_rtf",
    Format.ODT: "ingest.opendocument:read_odt",
    Format.ODS: "ingest.opendocument:read_ods",
    Format.ODP: "ingest.opendocument:read_odp",
    Format.EPUB: "ingest.epub:read_epub",
    Format.EMAIL: "ingest.mail:read_eml",
    Format.MSG: "ingest.mail:read_msg",
    Format.CODE: "ingest.source_code:read_code",
    Format.NOTEBOOK: "ingest.source_code:read_notebook",
    Format.PNG: "ingest.image:read_image",
    Format.JPEG: "ingest.image:read_image",
    Format.TIFF: "ingest.image:read_image",
    Format.HEIC: "ingest.image:read_image",
    Format.WEBP: "ingest.image:read_image",
    Format.BMP: "ingest.image:read_image",
    Format.GIF: "ingest.image:read_image",
    Format.ZIP: "ingest.archive:read_zip",
    Format.TAR: "ingest.archive:read_tar",
    Format.COMPRESSED: "ingest.archive:read_compressed",
}
