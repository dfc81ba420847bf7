"""What a document says and its reader does not see, as far as no one format knows: letters and colours.

Text is hidden from people to reach programs: a search index, or a language model that takes it for an order. The
readers beside this file take such text out of the text that is seen and hand it to `Draft.hide`, so that it is kept,
marked, and told apart from what people have read and agreed to. Pure: knows no file format and no draft.

Only what is surely out of sight counts. Text that stands for something else (the text of a picture), that opens at a
click (a folded section, a filtered row, a slide that is skipped) or that says itself what it is (speaker notes) is
text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Two colours that differ by less in each of red, green and blue (0 to 255) are one to the eye.
SAME_COLOUR = 20
#: Letters that are smaller, in points, are specks.
LEAST_SIZE = 2.0

# The invisible copy of ASCII in plane 14, which after a black flag names a region; and variation selectors, of which
# a letter has one at most and a row of them spells bytes.
_SPELLED = re.compile(
    "(?P<flag>\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{2,6}\U000e007f)"
    "|[\U000e0000-\U000e007f]+"
    "|[\ufe00-\ufe0f\U000e0100-\U000e01ef]{2,}"
)
_LEAST_SPELLED = 3


def parted(text: str) -> tuple[str, list[str]]:
    """Return ``text`` without the letters that no program shows, and what they spell, if it is anything."""
    if not _SPELLED.search(text):
        return text, []
    spelled = [_read(match[0]) for match in _SPELLED.finditer(text) if match["flag"] is None]
    seen = _SPELLED.sub(lambda match: match["flag"] or "", text)
    return seen, [words for words in spelled if sum(char.isalnum() for char in words) >= _LEAST_SPELLED]


def _read(letters: str) -> str:
    if letters[0] >= "\U000e0000" and letters[0] <= "\U000e007f":
        return "".join(chr(ord(letter) - 0xE0000) for letter in letters if " " <= chr(ord(letter) - 0xE0000) <= "~")
    spelled = bytes(ord(c) - 0xFE00 if c <= "\ufe0f" else ord(c) - 0xE0100 + 16 for c in letters)
    words = spelled.decode("utf-8", "replace")
    return words if words.isprintable() and "\ufffd" not in words else ""


@dataclass(frozen=True, slots=True)
class Colour:
    """Red, green and blue from 0 to 255."""

    red: int
    green: int
    blue: int

    def looks_like(self, other: Colour) -> bool:
        """Say whether nobody tells the two apart."""
        pairs = ((self.red, other.red), (self.green, other.green), (self.blue, other.blue))
        return all(abs(one - two) < SAME_COLOUR for one, two in pairs)


WHITE, BLACK = Colour(255, 255, 255), Colour(0, 0, 0)


def hexadecimal(digits: str) -> Colour | None:
    """Return the colour that three or six digits name (what follows them is how opaque it is), None if they do not."""
    if not re.fullmatch(r"[0-9A-Fa-f]{3,8}", digits):
        return None
    if len(digits) < 6:
        digits = "".join(digit * 2 for digit in digits[:3])
    return Colour(*(int(digits[place : place + 2], 16) for place in (0, 2, 4)))
