"""What the commands share: their common options, the settings they run under, and how examples are shown.

The only way from a command to `rag.settings`. Knows no single command.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rag.errors import BadInput, NotFound

if TYPE_CHECKING:
    from rag.queries import Message
    from rag.settings import Settings

#: Trace-backs of what nobody foresaw are kept in this file of the data folder.
LOG_FILE = "citewell.log"

Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="FOLDER", help="The data folder; `citewell doctor` shows the one in use."),
]
CollectionName = Annotated[
    str, typer.Option("--collection", "-c", metavar="NAME", help="The collection of the documents.")
]
CollectionNames = Annotated[
    list[str],
    typer.Option("--collection", "-c", metavar="NAME", help="Where to look; give it again for one more."),
]
FilterOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        metavar="KEY=VALUE|JSON",
        help="Only documents with this metadata, or document=NAME; give it again for one more condition. "
        "A value that reads as a number, true or false is one: quote it, year='\"2026\"', to mean text. "
        'Comparisons, and, or and not are written in JSON: {"year": {"gte": 2024}}.',
    ),
]
TopK = Annotated[
    int | None, typer.Option("--top-k", metavar="N", help="How many passages to find; by default the setting's.")
]
Around = Annotated[
    int | None,
    typer.Option(
        "--around", metavar="N", help="Add so many chunks on either side of each passage; by default the setting's."
    ),
]
Section = Annotated[
    bool | None,
    typer.Option("--section/--no-section", help="Add all of each passage's section; by default the setting's."),
]
Diversity = Annotated[
    float | None,
    typer.Option(
        "--diversity",
        metavar="X",
        help="From 0 to 1: how much passages that say the like are kept apart; by default the setting's.",
    ),
]
With = Annotated[
    list[str] | None,
    typer.Option("--with", metavar="PART", help="Switch on a part of retrieval; give it again for one more."),
]
Without = Annotated[
    list[str] | None,
    typer.Option("--without", metavar="PART", help="Switch off a part of retrieval; give it again for one more."),
]
History = Annotated[
    Path | None,
    typer.Option(
        "--history",
        metavar="FILE",
        help='The conversation before the question, a JSON list: [{"role": "user", "content": "..."}, ...].',
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
NoWait = Annotated[
    bool,
    typer.Option("--no-wait", help="Return when the files are safe in the queue, for a worker to read."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


class Interrupted(Exception):
    """Work that was stopped from the keyboard; the message says what is left to do."""


@dataclass
class Session:
    """What the outermost edge has to know: the data folder given before the command, and the settings once read."""

    data: Path | None = None
    settings: Settings | None = None


def examples(*lines: str) -> str:
    """Return the end of a help page: commands to copy."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def read_settings(
    ctx: typer.Context, data: Path | None, *, log_default: str | None = None, server: dict[str, Any] | None = None
) -> Settings:
    """Read the settings for a command and set up its log. Raises `Misconfigured`.

    A command that runs on and on names a ``log_default`` and logs trace-backs; the others keep these in the data
    folder, out of the user's sight. ``server`` overrides settings of that part.
    """
    from api.logs import configure_logging
    from rag.settings import load_settings

    session = ctx.ensure_object(Session)
    folder = data or session.data
    overrides: dict[str, Any] = {"data": folder.absolute()} if folder else {}
    settings = load_settings(**overrides, **({"server": server} if server else {}))
    session.settings = settings
    tracebacks = None if log_default else settings.data / LOG_FILE
    configure_logging(settings, default=log_default, tracebacks=tracebacks)
    return settings


def read_used_settings(ctx: typer.Context, data: Path | None, *, log_default: str | None = None) -> Settings:
    """Read the settings for a command that only makes sense on a data folder that is there; raises `NotFound`."""
    settings = read_settings(ctx, data, log_default=log_default)
    if not settings.data.is_dir():
        raise NotFound(f"There is no data folder {settings.data}; `citewell ingest` makes it, --data names another.")
    return settings


def read_filters(given: list[str] | None) -> dict[str, Any]:
    """Return the conditions of ``--filter``, which must all hold, as one filter in JSON; raises `BadInput`."""
    from rag.filters import SHARED, TEXTS

    texts = TEXTS | SHARED - {"pages"}  # never numbers, whatever they look like
    equal: dict[str, Any] = {}
    others: list[Any] = []
    for condition in given or []:
        if condition.lstrip().startswith("{"):
            others.append(_filter(condition))
            continue
        key, equals, value = condition.partition("=")
        if not (key and equals):
            raise BadInput(f"--filter is {condition[:100]!r}; write it as key=value or as a JSON object.")
        if key in equal:
            raise BadInput(f'--filter names {key[:100]!r} twice; write {{"{key[:100]}": {{"in": [...]}}}} for several.')
        equal[key] = value if key in texts else _scalar(value)
    parts = [equal, *others] if equal else others
    return {"and": parts} if len(parts) > 1 else next(iter(parts), {})


def read_parts(on: list[str] | None, off: list[str] | None) -> dict[str, bool]:
    """Return what ``--with`` and ``--without`` switch; raises `BadInput` if both name a part."""
    if twice := {*(on or [])} & {*(off or [])}:
        raise BadInput(f"--with and --without both name {min(twice)[:50]!r}; leave one of them out.")
    return dict.fromkeys(on or [], True) | dict.fromkeys(off or [], False)


def read_history(file: Path | None) -> list[Message]:
    """Return the conversation in the file of ``--history``; raises `BadInput`."""
    import json

    from rag.queries import Message, Speaker

    if file is None:
        return []
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        found = [Message(Speaker(row["role"]), row["content"]) for row in rows]
    except OSError as error:
        raise BadInput(f"--history {file} can not be read ({error.strerror}).") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadInput(f"--history {file} is no JSON list of objects with role and content.") from error
    if not all(isinstance(message.content, str) for message in found):
        raise BadInput(f"--history {file} has a content that is no text.")
    return found


def _filter(text: str) -> Any:
    import json

    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, json.JSONDecodeError) else "a number or its depth is out of bounds"
        raise BadInput(f'--filter is not JSON ({reason}); an example is \'{{"year": {{"gte": 2024}}}}\'.') from error


def _scalar(text: str) -> str | int | float | bool:
    import json

    try:
        value = json.loads(text, parse_constant=str)
    except ValueError:
        return text
    return value if isinstance(value, str | int | float) else text
