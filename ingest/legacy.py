"""Formats that only an office program reads well (DOC, PPT, RTF): LibreOffice turns them into today's, if installed.

Owns that program: a fresh profile for each run, no window, a time limit, and nothing of it left behind.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingest.draft import Draft
from ingest.partition import read_docx, read_pptx
from rag.errors import DamagedDocument, UnsupportedDocument

_SECONDS = 180


def read_doc(path: Path, draft: Draft) -> None:
    """Add a Word 97 document to ``draft``. Raises what `_converted` raises."""
    with _converted(path, "doc", "docx") as copy:
        read_docx(copy, draft)


def read_rtf(path: Path, draft: Draft) -> None:
    """Add an RTF document to ``draft``. Raises what `_converted` raises."""
    with _converted(path, "rtf", "docx") as copy:
        read_docx(copy, draft)


def read_ppt(path: Path, draft: Draft) -> None:
    """Add a PowerPoint 97 presentation to ``draft``. Raises what `_converted` raises."""
    with _converted(path, "ppt", "pptx") as copy:
        read_pptx(copy, draft)


@contextmanager
def _converted(path: Path, extension: str, target: str) -> Iterator[Path]:
    """Give the path of a copy of the document at ``path`` in the format ``target`` ("docx", "pptx"), while it is used.

    ``extension`` says what it is now. Raises `UnsupportedDocument` where LibreOffice is not installed or can not make
    sense of the document, and `DamagedDocument` if it does not finish.
    """
    program = shutil.which("soffice")
    if program is None:
        raise UnsupportedDocument(
            f"Reading {extension.upper()} needs LibreOffice, which is not installed here: "
            f"install it (Debian: libreoffice-writer-nogui, libreoffice-impress-nogui), or save the document as "
            f"{target.upper()} and ingest that.",
            needs="libreoffice",
        )
    with tempfile.TemporaryDirectory(prefix="citewell-") as folder:
        source = Path(folder, f"document.{extension}")
        shutil.copyfile(path, source)
        _run(program, source, target)
        result = source.with_suffix(f".{target}")
        if not result.is_file():
            raise UnsupportedDocument(
                f"LibreOffice can not read the {extension.upper()} document (it is damaged, or a part of LibreOffice "
                "is not installed: Debian's libreoffice-writer-nogui and libreoffice-impress-nogui): "
                f"open it in its own program and save it as {target.upper()}."
            )
        yield result


def _run(program: str, source: Path, target: str) -> None:
    command = [
        program,
        f"-env:UserInstallation={(source.parent / 'profile').as_uri()}",
        "--headless",
        "--norestore",
        "--convert-to",
        target,
        "--outdir",
        str(source.parent),
        str(source),
    ]
    try:
        subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise DamagedDocument(
            f"LibreOffice did not finish reading the document within {_SECONDS} seconds: "
            f"open it in its own program and save it as {target.upper()}."
        ) from error
