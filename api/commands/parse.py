"""``citewell parse``: what the parser makes of one file, without any data folder.

Knows how elements are shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.commands.options import AsJson
from api.commands.terminal import clean, counted, place, say, say_json, wrapped
from rag.errors import BadInput

if TYPE_CHECKING:
    from rag.records import Element, Member, ParsedDocument


def parse_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to read.")],
    as_json: AsJson = False,
) -> None:
    """Show what the parser makes of a file.

    Prints its elements in order, each with kind, page and section. Nothing is stored. The exit status is 2 if the file
    can not be read.
    """
    parsed = _parse(file)
    if as_json:
        say_json(_as_json(parsed))
        return
    parts = [parsed.media_type, counted(len(parsed.elements), "element")]
    if parsed.pages is not None:
        parts.append(counted(parsed.pages, "page"))
    if parsed.members:
        parts.append(f"{counted(len(parsed.members), 'file')} inside, each a document of its own")
    say([*wrapped(", ".join(parts)), *([clean(parsed.title)] if parsed.title else []), ""])
    say(line for element in parsed.elements for line in element_lines(element))
    say(line for member in parsed.members for line in wrapped(clean(_member_line(member)), hanging=4))


def _parse(file: Path) -> ParsedDocument:
    from api.logs import configure_logging
    from ingest.sources import find_files
    from rag.quiet import silence_dependencies
    from rag.settings import load_settings

    if file.is_dir():
        raise BadInput(f"{clean(str(file))} is a folder; name one file.")
    found, problems = find_files([file])
    if problems:
        raise BadInput(problems[0].reason)
    settings = load_settings()
    configure_logging(settings)
    silence_dependencies()
    from ingest.sandbox import Sandbox

    with Sandbox(settings.ingest) as sandbox:
        return sandbox.parse(found[0].path, found[0].name)


def _member_line(member: Member) -> str:
    return f"file, {member.name}: {member.error or f'{member.size:,} bytes'}"


def _as_json(parsed: ParsedDocument) -> dict[str, Any]:
    return {
        "media_type": parsed.media_type,
        "title": parsed.title,
        "pages": parsed.pages,
        "language": parsed.language,
        "metadata": dict(parsed.metadata),
        "elements": [
            {"kind": element.kind, "text": element.text, "page": element.page, "section": list(element.section)}
            for element in parsed.elements
        ],
        "members": [{"name": m.name, "size": m.size, "error": m.error} for m in parsed.members],
    }


def element_lines(element: Element) -> list[str]:
    """Return an element as lines: what and where it is, then its text."""
    where = place(element.page, element.section)
    return [
        *wrapped(f"{element.kind}, {where}" if where else element.kind, hanging=4),
        *wrapped(element.text, indent=4),
        "",
    ]
