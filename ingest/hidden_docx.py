"""What a Word document says and its reader does not see: hidden, white or tiny letters, as its styles have it.

White letters count where nothing behind them is coloured as far as the file tells: not in a text box, and not in a
table whose style fills cells. Knows the XML of a document as python-docx opens it, and no unstructured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import groupby
from typing import Any

from ingest.hidden import LEAST_SIZE, WHITE, hexadecimal

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_VAL, _OFF = f"{_W}val", {"0", "false", "off", "none"}
_DEEPEST = 20


def take_hidden(document: Any) -> list[str]:
    """Take the letters that a reader does not see out of a document and return them, a paragraph in one piece."""
    styles = _Styles(document.styles.element, document.element)
    sections = document.sections
    roots = [document.element.body, *(part._element for part in _heads(sections))]  # noqa: SLF001
    taken: list[tuple[Any, str]] = []
    for root in roots:
        for run in root.iter(f"{_W}r"):
            letters = run.findall(f"{_W}t")
            text = "".join(letter.text or "" for letter in letters)
            if text.strip() and styles.is_hidden(run):
                taken.append((next(run.iterancestors(f"{_W}p"), run), text))
                for letter in letters:
                    run.remove(letter)
    return ["".join(text for _, text in group) for _, group in groupby(taken, key=lambda pair: pair[0])]


def _heads(sections: Iterable[Any]) -> Iterator[Any]:
    """Yield the headers and footers that sections have of their own."""
    for section in sections:
        for head in (
            section.header, section.footer, section.first_page_header, section.first_page_footer,
            section.even_page_header, section.even_page_footer,
        ):  # fmt: skip
            if not head.is_linked_to_previous:
                yield head


class _Styles:
    """What the styles of a document say of its letters."""

    def __init__(self, styles: Any, document: Any) -> None:
        self._root = styles
        page = document.find(f"{_W}background")
        self._page_is_white = page is None or not _is_coloured(page.get(f"{_W}color"))

    @cached_property
    def _by_id(self) -> Mapping[str, Any]:
        return {style.get(f"{_W}styleId"): style for style in self._root.iter(f"{_W}style")}

    @cached_property
    def _usual(self) -> str:
        """The id of the paragraph style that a paragraph without one has."""
        usual = (
            s for s in self._root.iter(f"{_W}style") if s.get(f"{_W}type") == "paragraph" and s.get(f"{_W}default")
        )
        return next((style.get(f"{_W}styleId") or "" for style in usual), "")

    def is_hidden(self, run: Any) -> bool:
        """Say whether a reader of the document does not see the letters of a run."""
        told = list(self._told(run))
        vanish = _first(told, "vanish")
        if vanish is not None and vanish.get(_VAL) not in _OFF:
            return True
        size = _first(told, "sz")
        if size is not None and _number(size.get(_VAL)) < 2 * LEAST_SIZE:  # in half points
            return True
        colour = _first(told, "color")
        shown = hexadecimal((colour.get(_VAL) or "") if colour is not None else "")
        return shown is not None and shown.looks_like(WHITE) and self._is_on_white(run, told)

    def _told(self, run: Any) -> Iterator[Any]:
        """Yield what is said of the letters of a run, what counts most first: `rPr` of the run and of its styles."""
        own = run.find(f"{_W}rPr")
        paragraph = next(run.iterancestors(f"{_W}p"), None)
        if own is not None:
            yield own
        yield from self._chain(_style_of(own, "rStyle"))
        named = None if paragraph is None else _style_of(paragraph.find(f"{_W}pPr"), "pStyle")
        yield from self._chain(named or self._usual)
        usual = self._root.find(f"{_W}docDefaults/{_W}rPrDefault/{_W}rPr")
        if usual is not None:
            yield usual

    def _chain(self, style: str | None) -> Iterator[Any]:
        for _ in range(_DEEPEST):
            found = self._by_id.get(style or "")
            if found is None:
                return
            if (told := found.find(f"{_W}rPr")) is not None:
                yield told
            style = _style_of(found, "basedOn")

    def _is_on_white(self, run: Any, told: Iterable[Any]) -> bool:
        if not self._page_is_white or any(_fills(rules) for rules in told):
            return False
        for above in run.iterancestors():
            if above.tag == f"{_W}txbxContent":
                return False
            own = [part for part in above if part.tag in {f"{_W}pPr", f"{_W}tcPr", f"{_W}tblPr"}]
            styles = [
                self._by_id.get(name)
                for part in own
                for kind in ("pStyle", "tblStyle")
                if (name := _style_of(part, kind))
            ]
            if any(_fills(part) for part in own) or any(s is not None and _fills(s) for s in styles):
                return False
        return True


def _style_of(rules: Any, kind: str) -> str | None:
    named = None if rules is None else rules.find(f"{_W}{kind}")
    return None if named is None else named.get(_VAL)


def _first(told: Iterable[Any], name: str) -> Any:
    return next((found for rules in told if (found := rules.find(f"{_W}{name}")) is not None), None)


def _fills(rules: Any) -> bool:
    """Say whether there is colour behind what these rules are about, or about parts of it."""
    if any(_is_coloured(shade.get(f"{_W}fill")) for shade in rules.iter(f"{_W}shd")):
        return True
    return any(mark.get(_VAL) not in {*_OFF, "white"} for mark in rules.iter(f"{_W}highlight"))


def _is_coloured(fill: str | None) -> bool:
    colour = hexadecimal(fill or "")
    return colour is not None and not colour.looks_like(WHITE)


def _number(value: str | None) -> float:
    return float(value) if value and value.isascii() and value.isdigit() else 1e9
