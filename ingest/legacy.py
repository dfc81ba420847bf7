"""Formats that only an office program reads well (DOC, PPT, RTF): LibreOffice turns them into today's, if installed.

Owns that program: a fresh profile for each run, no window, a time limit, and nothing of it left behind. Owns striprtf
too, which reads the words of RTF, but not its headings and lists, where LibreOffice is not installed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path

from ingest.draft import Draft, table_text
from ingest.partition import read_docx, read_pptx
from ingest.text import read_text
from rag.errors import DamagedDocument, UnsupportedDocument
from rag.records import Kind

_PROGRAM = "soffice"
_SECONDS = 180


def read_doc(path: Path, draft: Draft) -> None:
    """Add a Word 97 document to ``draft``. Raises what `_converted` raises."""
    with _converted(path, "doc", "docx") as copy:
        read_docx(copy, draft)


def read_rtf(path: Path, draft: Draft) -> None:
    """Add an RTF document to ``draft``; its words and tables alone where LibreOffice is not installed.

    Raises what `_converted` raises.
    """
    if shutil.which(_PROGRAM) is None:
        _read_rtf_words(path, draft)
        return
    with _converted(path, "rtf", "docx") as copy:
        read_docx(copy, draft)


def read_ppt(path: Path, draft: Draft) -> None:
    """Add a PowerPoint 97 presentation to ``draft``. Raises what `_converted` raises."""
    with _converted(path, "ppt", "pptx") as copy:
        read_pptx(copy, draft)


def _read_rtf_words(path: Path, draft: Draft) -> None:
    from striprtf.striprtf import rtf_to_text

    text = rtf_to_text(path.read_bytes().decode("cp1252", "replace"), errors="replace")
    for is_row, lines in groupby(text.split("\n"), lambda line: line.count("|") > 1 or line.endswith("|")):
        if is_row:
            draft.add(Kind.TABLE, table_text(line.removesuffix("|").split("|") for line in lines))
        else:
            read_text("\n\n".join(lines), draft)  # a line is a paragraph here


@contextmanager
def _converted(path: Path, extension: str, target: str) -> Iterator[Path]:
    """Give the path of a copy of the document at ``path`` in the format ``target`` ("docx", "pptx"), while it is used.

    ``extension`` says what it is now. Raises `UnsupportedDocument` where LibreOffice is not installed or can not make
    sense of the document, and `DamagedDocument` if it does not finish.
    """
    program = shutil.which(_PROGRAM)
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
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # it is a script that starts others: they end together
    )
    try:
        process.wait(_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise DamagedDocument(
            f"LibreOffice did not finish reading the document within {_SECONDS} seconds: "
            f"open it in its own program and save it as {target.upper()}."
        ) from error
    finally:
        _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End a program with all that it has started, also what has outlived it."""
    with suppress(ProcessLookupError):  # nothing is left of it
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
