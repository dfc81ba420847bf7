"""A document while it is being read: cleaned blocks, the headings above them, and the limits that end the reading.

Every reader writes into a `Draft`, so that text is normalised in one place and a document that is too large is given
up while it is read and not after. Knows no file format.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

from ingest.hidden import parted
from rag.errors import DocumentTooLarge
from rag.records import Block, Kind, Member
from rag.settings import IngestSettings

# C0 and C1 controls but newline and tab, soft hyphen, bidirectional controls, invisible operators, byte order marks,
# annotation marks, lone surrogates and the two noncharacters: none of them is visible, some of them change how the text
# around them reads. What joins and parts letters of other scripts does nothing between those of ASCII.
_UNWANTED = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u061c\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff"
    "\ud800-\udfff]|(?<=[!-~])[\u034f\u200b-\u200d]+(?=[!-~])"
)
_LINE_ENDS = re.compile("\r\n?|[\u2028\u2029\x85]")
_SPACES = re.compile("[ \t\u00a0\u2007\u202f]+")
_BLANK_LINES = re.compile(r"\n{3,}")
_MEANINGLESS_TITLE = re.compile(
    r"(microsoft (office )?(word|powerpoint|excel)\b.*|untitled.*|unbenannt.*|document ?\d*|dokument ?\d*|slide ?\d*"
    r"|powerpoint presentation|pr[aä]sentation ?\d*|presentation ?\d*|title|no title|(un)?known|none|null|\W*|[\d\W]*"
    r"|[^\s]+\.(docx?|pptx?|xlsx?|pdf|indd|qxd|tex|dvi|fm|p65|html?|rtf|odt|ps|eps|tmp))",
    re.IGNORECASE,
)
_MAX_HEADING = 300


def clean(text: str) -> str:
    """Return ``text`` in NFC with plain line ends and without invisible controls and lone surrogates."""
    return unicodedata.normalize("NFC", _UNWANTED.sub("", _LINE_ENDS.sub("\n", text)))


def one_line(text: str) -> str:
    """Return cleaned ``text`` with every run of white space made one space."""
    return " ".join(clean(text).split())


def meaningful_title(text: object) -> str | None:
    """Return ``text`` as a title, or None when it is what programs write where nobody gave one."""
    title = one_line(parted(text)[0]) if isinstance(text, str) else ""
    return None if not title or len(title) > _MAX_HEADING or _MEANINGLESS_TITLE.fullmatch(title) else title


def _prose(text: str) -> str:
    lines = (_SPACES.sub(" ", line).strip() for line in clean(text).split("\n"))
    return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip()


def _code(text: str) -> str:
    return clean(text).expandtabs(4).strip("\n")


def table_text(rows: Iterable[Sequence[str]]) -> str:
    """Return ``rows`` one a line with `` | `` between cells; empty rows, and empty cells at a row's end, are left out.

    White space in a cell becomes one space, and a bar in a cell a broken bar, so that every bar is a border.
    """
    lines = (" | ".join(one_line(cell).replace(" | ", " ¦ ") for cell in row).rstrip(" |") for row in rows)
    return "\n".join(line for line in lines if line)


def _told_to_nobody(*_: object) -> None:
    """What is said of a document that nobody watches."""


class Draft:
    """Collects blocks in reading order. ``title``, ``pages`` and ``metadata`` are set by the reader as it finds them.

    ``depth`` says how many documents this one is inside of (an attachment of a message in an archive: 2). The files
    inside it are written into the folder ``spool``, by number from 0, or only listed if there is none. ``tell`` is
    called with the share done, and ``take_time`` once before work that takes seconds for each page (OCR).
    Raises `DocumentTooLarge` from whichever call passes a limit.
    """

    def __init__(
        self,
        limits: IngestSettings,
        *,
        depth: int = 0,
        spool: Path | None = None,
        tell: Callable[[float], None] = _told_to_nobody,
        take_time: Callable[[], None] = _told_to_nobody,
    ) -> None:
        self.limits = limits
        self.depth = depth
        self.tell = tell
        self.take_time = take_time
        self.members: list[Member] = []
        self._spool = spool
        self._member_bytes = 0
        self.blocks: list[Block] = []
        self.title: str | None = None
        self.metadata: dict[str, Any] = {}
        self._pages: int | None = None
        self._chars = self._hidden_chars = 0
        self._headings: list[tuple[int, str]] = []

    @property
    def pages(self) -> int | None:
        return self._pages

    @pages.setter
    def pages(self, count: int) -> None:
        if count > self.limits.max_pages:
            raise DocumentTooLarge(
                f"The document has {count:,} pages, but the limit is {self.limits.max_pages:,}: "
                "split it, or raise ingest.max_pages.",
                pages=count,
            )
        self._pages = count

    @property
    def section(self) -> tuple[str, ...]:
        """The headings above the next block."""
        return tuple(text for _, text in self._headings)

    def add(self, kind: Kind, text: str, page: int | None = None) -> None:
        """Add a block under the present headings, unless nothing of ``text`` is visible."""
        text = self._seen(_code(text) if kind is Kind.CODE else _prose(text), page)
        if not text.strip():
            return
        self._count_chars(len(text))
        self.blocks.append(Block(kind, text, page, self.section))

    def hide(self, text: str, page: int | None = None) -> None:
        """Add text that a reader of the document does not see, under no heading, see `rag.records.Kind`."""
        text = _prose(parted(text)[0])
        if any(char.isalnum() for char in text):
            self._count_chars(len(text))
            self._hidden_chars += len(text)
            self.metadata["hidden_characters"] = self._hidden_chars
            self.blocks.append(Block(Kind.HIDDEN, text, page))

    def _seen(self, text: str, page: int | None) -> str:
        """Return ``text`` without letters that no program shows; what they spell is hidden text."""
        seen, spelled = parted(text)
        for words in spelled:
            self.hide(words, page)
        return seen

    def _count_chars(self, count: int) -> None:
        self._chars += count
        if self._chars > self.limits.max_text_chars:
            raise DocumentTooLarge(
                f"The document has more than {self.limits.max_text_chars:,} characters of text, which is the limit: "
                "split it, or raise ingest.max_text_chars."
            )

    def heading(self, level: int, text: str, page: int | None = None) -> None:
        """Add a heading of ``level`` (1 is the highest): it stands above what follows, up to the next as high."""
        text = self._seen(one_line(text), page)
        if not text:
            return
        if len(text) > _MAX_HEADING:  # whole paragraphs are set in heading styles, and help nobody as a heading
            self.add(Kind.TEXT, text, page)
            return
        self._headings = [(above, name) for above, name in self._headings if above < level]
        self.add(Kind.TITLE, text, page)
        self._headings.append((level, text))

    def start_section(self, *names: str) -> None:
        """Put what follows under ``names`` that are no text of the document themselves, such as a sheet's name."""
        seen = (one_line(self._seen(name, None)) for name in names)
        self._headings = [(level, text) for level, text in enumerate(seen) if text]

    def member(self, name: str, blocks: Iterable[bytes]) -> None:
        """Take out a file inside this document: ``name`` is its clean relative path, ``blocks`` are its bytes."""
        hasher, size = hashlib.sha256(), 0
        target = self._spool / str(len(self.members)) if self._spool else Path("/dev/null")
        with target.open("wb") as file:
            for block in blocks:
                size += len(block)
                self._count_member_bytes(len(block))
                hasher.update(block)
                file.write(block)
        self._add_member(Member(name, hasher.hexdigest(), size))

    def refuse_member(self, name: str, reason: str) -> None:
        """Note a file inside this document that can not be taken out, and why, in one sentence."""
        self._add_member(Member(name, "", 0, reason))

    def _add_member(self, member: Member) -> None:
        if len(self.members) >= self.limits.archive_members:
            raise DocumentTooLarge(
                f"The document holds more than {self.limits.archive_members:,} files, which is the limit: "
                "split it, or raise ingest.archive_members."
            )
        self.members.append(member)

    def _count_member_bytes(self, size: int) -> None:
        self._member_bytes += size
        if self._member_bytes > self.limits.archive_bytes:
            raise DocumentTooLarge(
                f"The files inside the document unpack to more than {self.limits.archive_bytes:,} bytes, which is the "
                "limit: split it, or raise ingest.archive_bytes."
            )

    def note(self, **facts: object) -> None:
        """Keep the ``facts`` that say something as metadata: plain JSON values, dates in ISO form."""
        for name, fact in facts.items():
            value = _plain(fact)
            if value not in (None, "", []):
                self.metadata[name] = value


def _plain(fact: object) -> Any:
    if isinstance(fact, (datetime, date)):
        return fact.isoformat()
    if isinstance(fact, (bool, int, float)):
        return fact
    if isinstance(fact, (list, tuple)):
        return [value for item in fact if (value := _plain(item)) not in (None, "")]
    return None if fact is None else one_line(parted(str(fact))[0])
