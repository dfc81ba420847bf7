"""What a page in HTML says and its reader does not see: by attributes, by styles, and in comments.

Styles are those of the page itself: ``style`` attributes, and rules of ``<style>`` that name one tag, class or id. What
other files say is not known, and no script is run; where they could make the text visible, it counts as seen.
Knows lxml's trees. ``aria-hidden`` hides from screen readers alone, and is no matter here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lxml import etree  # type: ignore[import-untyped]

from ingest.hidden import BLACK, LEAST_SIZE, WHITE, Colour, hexadecimal

Style = Mapping[str, str]

_COMMENT = re.compile(r"<!--(?!\[if|>)(.*?)-->", re.DOTALL)
_SCRIPT = re.compile(r"<(script|style)\b.*?</\1\s*>", re.DOTALL | re.IGNORECASE)
_MARKUP = re.compile(r"[<>{}]|=\s*[\"']|://\S*\.(?:js|css)\b|;\s*$", re.MULTILINE)
_LEAST_WORDS = 5
_CSS_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_CSS_PIECE = re.compile(r"[^{}]*[{}]")
_SIMPLE = re.compile(r"[\w-]*(?:[.#][\w-]+)?")
_NAMES = re.compile(r"[.#][\w-]+")
_LENGTH = re.compile(r"(-?\d*\.?\d+)\s*(px|pt|em|rem|%|in|cm|mm|vw|vh)?")
_POINTS = {
    "px": 0.75, "pt": 1.0, "em": 12.0, "rem": 12.0, "%": 0.12, "in": 72.0, "cm": 28.3, "mm": 2.83, "vw": 10.0,
    "vh": 8.0, None: 0.75,
}  # fmt: skip
_RGB = re.compile(r"rgba?\(\s*(\d+)[\s,]+(\d+)[\s,]+(\d+)(?:[\s,/]+([\d.]+%?))?\s*\)")
_COLOURS = {
    "white": WHITE, "black": BLACK, "snow": Colour(255, 250, 250), "ivory": Colour(255, 255, 240),
    "ghostwhite": Colour(248, 248, 255), "whitesmoke": Colour(245, 245, 245), "floralwhite": Colour(255, 250, 240),
}  # fmt: skip
_FAR = -675.0  # points to the left of the page or above it
_LEAST_OPACITY = 0.05
_MOST_RULES = 5_000


@dataclass(frozen=True, slots=True)
class _Look:
    """How text looks: its colour and that behind it, None where it is not known, and whether it is a speck."""

    colour: Colour | None = BLACK
    behind: Colour | None = WHITE
    tiny: bool = False

    @property
    def is_hidden(self) -> bool:
        same = self.colour is not None and self.behind is not None and self.colour.looks_like(self.behind)
        return self.tiny or same


def comments(page: str) -> list[str]:
    """Return the comments of a page that are sentences: not those that mark its parts or hold code."""
    if "<!--" not in page:
        return []
    found = (" ".join(text.split()) for text in _COMMENT.findall(_SCRIPT.sub("", page)))
    return [text for text in found if len(text.split()) >= _LEAST_WORDS and not _MARKUP.search(text)]


def take_hidden(root: Any) -> list[str]:
    """Take what a reader does not see out of a tree and return it, in the order of the page."""
    rules, foreign = _rules(root), root.find(".//link[@rel='stylesheet']") is not None
    found = list(_hidden(root, rules, foreign))
    texts: list[str] = []
    for node, is_whole in found:
        if is_whole:
            etree.strip_elements(node, "script", "style", with_tail=False)
            texts.append(" ".join(node.itertext()))
            node.drop_tree()
        else:
            texts.append(" ".join([node.text or "", *(child.tail or "" for child in node)]))
            node.text = None
            for child in node:
                child.tail = None
    return [text for text in texts if any(char.isalnum() for char in text)]


def _hidden(root: Any, rules: Mapping[str, Style], foreign: bool) -> Iterator[tuple[Any, bool]]:
    """Yield the elements that are not seen: as a whole, or their own text alone (False)."""
    looks: list[_Look] = [_Look()]
    walk = etree.iterwalk(root, events=("start", "end"))
    for event, node in walk:
        if event == "end":
            looks.pop()
            continue
        style = _style(node, rules) if isinstance(node.tag, str) else {}
        if _is_out_of_sight(node, style):
            walk.skip_subtree()
            looks.append(looks[-1])
            yield node, True
            continue
        looks.append(_look(node, style, looks[-1], foreign))
        if looks[-1].is_hidden and node.tag not in {"html", "head", "title", "script", "style"}:
            yield node, False


def _is_out_of_sight(node: Any, style: Style) -> bool:
    if node.tag == "template" or node.get("hidden") not in {None, "until-found"}:
        return True
    if style.get("display") == "none" or style.get("visibility") in {"hidden", "collapse"}:
        return True
    opacity = re.fullmatch(r"(\d*\.?\d+)(%?)", style.get("opacity", ""))
    if opacity and float(opacity[1]) * (0.01 if opacity[2] else 1) < _LEAST_OPACITY:
        return True
    return _is_cut_away(style) or _is_far_away(style)


def _is_cut_away(style: Style) -> bool:
    """Tell what has no room: a box of a pixel, or one of which nothing is shown."""
    clip = re.sub(r"[\s,]|px", "", style.get("clip", "")), re.sub(r"\s", "", style.get("clip-path", ""))
    if clip[0] in {"rect(0000)", "rect(1111)"} or clip[1] in {"inset(50%)", "inset(100%)", "circle(0)", "circle(0px)"}:
        return True
    if re.search(r"scale\(\s*0\s*\)", style.get("transform", "")):
        return True
    sides = (_points(style.get(side)) for side in ("width", "height", "max-width", "max-height"))
    return style.get("overflow", "").startswith("hidden") and any(side is not None and side < 1 for side in sides)


def _is_far_away(style: Style) -> bool:
    if style.get("position") in {"absolute", "fixed"}:
        places = (_points(style.get(side)) for side in ("left", "top", "right", "bottom"))
        if any(place is not None and place <= _FAR for place in places):
            return True
    indent = _points(style.get("text-indent"))
    return indent is not None and indent <= _FAR


def _look(node: Any, style: Style, above: _Look, foreign: bool) -> _Look:
    look = above
    behind = style.get("background-color") or style.get("background") or node.get("bgcolor")
    if style.get("background-image") or node.get("background"):
        look = replace(look, behind=None)
    elif behind is not None and _is_see_through(behind) is False:
        look = replace(look, behind=_colour(behind))
    elif foreign and (node.get("class") or node.get("id")):  # another file may say what is behind it
        look = replace(look, behind=None)
    colour = style.get("color") or (node.get("color") if node.tag == "font" else None)
    if colour not in {None, "inherit", "currentcolor", "initial", "unset"}:
        look = replace(look, colour=look.behind if _is_see_through(colour) else _colour(colour))
    size = _points(style.get("font-size", "").split("/")[0])
    return look if size is None else replace(look, tiny=size < LEAST_SIZE)


def _is_see_through(colour: str) -> bool:
    return colour in {"transparent", "none", "inherit", "initial", "unset"} or bool(
        re.search(r"[,/]\s*0?\.?0+%?\s*\)$", colour)
    )


def _colour(value: str) -> Colour | None:
    """Return a colour, None for one that is not known: a picture, a gradient, a name."""
    value = value.strip()
    if value.startswith("#"):
        return hexadecimal(value[1:])
    if match := _RGB.fullmatch(value):
        return Colour(*(min(int(part), 255) for part in match.groups()[:3]))
    return _COLOURS.get(value)


def _points(value: str | None) -> float | None:
    match = _LENGTH.fullmatch((value or "").strip())
    return float(match[1]) * _POINTS[match[2]] if match else None


def _style(node: Any, rules: Mapping[str, Style]) -> Style:
    style: dict[str, str] = dict(rules.get(node.tag, ()))
    for name in (*(f".{one}" for one in (node.get("class") or "").split()), f"#{node.get('id')}"):
        style |= rules.get(name, {})
        style |= rules.get(f"{node.tag}{name}", {})
    return style | _declarations(node.get("style") or "")


def _declarations(text: str) -> dict[str, str]:
    pairs = (part.partition(":") for part in text.lower().split(";"))
    return {name.strip(): value.replace("!important", "").strip() for name, _, value in pairs if value.strip()}


def _rules(root: Any) -> dict[str, Style]:
    """Return what the page's own rules say of a tag, a class or an id, for all screens.

    What is hidden by one rule and shown by another one about the same name opens and closes, and is not hidden.
    """
    rules: dict[str, dict[str, str]] = {}
    shown: set[str] = set()
    for number, (selector, text) in enumerate(_blocks(root)):
        if number >= _MOST_RULES:
            break
        said = _declarations(text)
        for one in selector.split(","):
            name = one.strip()
            if name and _SIMPLE.fullmatch(name):
                rules.setdefault(name, {}).update(said)
            elif said.get("display", "none") != "none" or said.get("visibility") == "visible":
                shown.update(_NAMES.findall(name))
    for name in shown & rules.keys():
        rules[name].pop("display", None)
        rules[name].pop("visibility", None)
    return {**rules}


def _blocks(root: Any) -> Iterator[tuple[str, str]]:
    """Yield selector and declarations of the rules that hold on every screen."""
    for sheet in root.iter("style"):
        depth, selector = 0, ""
        for piece in _CSS_PIECE.findall(_CSS_COMMENT.sub("", sheet.text_content())):
            text = piece[:-1].strip()
            if piece.endswith("{"):
                if re.fullmatch(r"@media\s+(all|screen)", text.lower()):
                    continue
                depth, selector = depth + 1, text if depth == 0 else selector
            else:
                if depth == 1 and not selector.startswith("@"):
                    yield selector, text
                depth = max(0, depth - 1)
