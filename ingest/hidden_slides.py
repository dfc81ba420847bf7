"""What a presentation says and its reader does not see: shapes beside the slide, shapes and letters that are not shown.

Slides that are skipped when it is shown are there for who opens it, and are no hidden text. Letters in the colour of
what is behind them are not looked for: a theme, a master and a layout have their say in that. Knows the trees of
python-pptx.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ingest.hidden import LEAST_SIZE

_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_P = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
_FAINT = 5_000  # of 100,000


def take_hidden(presentation: Any) -> list[tuple[int, str]]:
    """Take what a reader does not see off the slides and return it with their numbers."""
    taken: list[tuple[int, str]] = []
    for number, slide in enumerate(presentation.slides, start=1):
        for shape in list(slide.shapes):
            if _is_out_of_sight(shape, presentation):
                taken.append((number, _words(shape._element)))  # noqa: SLF001
                shape._element.getparent().remove(shape._element)  # noqa: SLF001
        for run in list(slide._element.iter(f"{_A}r")):  # noqa: SLF001
            if _is_unseen(run):
                taken.append((number, _words(run)))
                run.getparent().remove(run)
    return [(number, text) for number, text in taken if text.strip()]


def _is_out_of_sight(shape: Any, presentation: Any) -> bool:
    told = next(shape._element.iter(f"{_P}cNvPr"), None)  # noqa: SLF001
    if told is not None and told.get("hidden") in {"1", "true"}:
        return True
    place = shape.left, shape.top, shape.width, shape.height
    if any(side is None for side in place):
        return False
    left, top, width, height = place
    return bool(
        left + width <= 0 or top + height <= 0 or left >= presentation.slide_width or top >= presentation.slide_height
    )


def _is_unseen(run: Any) -> bool:
    told = run.find(f"{_A}rPr")
    if told is None:
        return False
    size = told.get("sz") or ""
    if size.isascii() and size.isdigit() and int(size) < 100 * LEAST_SIZE:
        return True
    opaque = told.find(f"{_A}solidFill/*/{_A}alpha")
    value = "" if opaque is None else opaque.get("val") or ""
    return value.isascii() and value.isdigit() and int(value) < _FAINT


def _words(node: Any) -> str:
    return " ".join(_texts(node))


def _texts(node: Any) -> Iterator[str]:
    for text in node.iter(f"{_A}t"):
        if text.text:
            yield text.text
