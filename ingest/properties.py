"""Title, author and dates of an Office document of today (DOCX, PPTX, XLSX), read where they are stored.

The libraries that read these documents make them up where they are missing: "Word Document", created just now.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from ingest.draft import Draft, meaningful_title
from ingest.text import parse_xml

_PART = "docProps/core.xml"
_DC = "{http://purl.org/dc/elements/1.1/}"
_TERMS = "{http://purl.org/dc/terms/}"


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
    )
