"""Title, author and dates of an Office document of today (DOCX, PPTX, XLSX), read where they are stored.

The libraries that read these documents make them up where they are missing: "Word Document", created just now.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from ingest.draft import Draft, meaningful_title
from ingest.text import parse_xml

_PART = "docProps/core.xml"
_DC = "{http://purl.org/dc/elements/1.1/}"
_TERMS = "{http://purl.org/dc/terms/}"
_CORE = "{http://schemas.openxmlformats.org/package/2006/metadata/core-properties}"
_BETWEEN_KEYWORDS = re.compile(r"\s*[,;]\s*")


def note_properties(path: Path, draft: Draft) -> None:
    """Set title and metadata of ``draft`` from the core properties in the file at ``path``, if it has any."""
    with zipfile.ZipFile(path) as archive:
        if _PART not in archive.namelist():
            return
        core = parse_xml(archive.read(_PART))
    draft.title = meaningful_title(core.findtext(f"{_DC}title"))
    draft.note(
        author=core.findtext(f"{_DC}creator"),
        created=core.findtext(f"{_TERMS}created"),
        modified=core.findtext(f"{_TERMS}modified"),
        subject=core.findtext(f"{_DC}subject"),
        keywords=split_keywords(core.findtext(f"{_CORE}keywords")),
    )


def split_keywords(text: str | None) -> list[str]:
    """Return the keywords in a list that people have written with commas or semicolons between them."""
    return [word for word in _BETWEEN_KEYWORDS.split((text or "").strip()) if word]
