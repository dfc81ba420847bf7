"""Text that was cut into tokens with spaces between, written as people write it, with the places of its characters.

Natural Questions comes as ``the `` fruit '' ( 1893 ) , was``. A model that only read such text would expect it.
Knows no tokenizer: a few rules for quotes, brackets, dashes and stops.
"""

from __future__ import annotations

import re

_RULES = re.compile(
    r"(?P<opening>``\s?)"
    r"|(?P<closing>\s?'')"
    r"|(?P<before>\s(?=(?:[,.;:?!%)\]]|'(?:s|re|ve|ll|d|m)\b|n't\b|'(?=\s|$))))"
    r"|(?P<behind>(?<=[(\[$£€])\s)"
    r"|(?P<dash>\s--\s)"
    r"|(?P<hyphen>\s-\s)"
)
_PLAIN = {"opening": '"', "closing": '"', "before": "", "behind": "", "dash": "–", "hyphen": "-"}


def detokenised(text: str) -> tuple[str, list[int]]:
    """Return ``text`` without the spaces of a tokenizer, and for each place in it (its end too) the new place."""
    pieces: list[str] = []
    places: list[int] = []
    length = end = 0
    for match in _RULES.finditer(text):
        kept = text[end : match.start()]
        pieces += [kept, _PLAIN[match.lastgroup or "before"]]
        places += range(length, length + len(kept))
        length += len(kept)
        places += [length] * len(match.group())
        length += len(pieces[-1])
        end = match.end()
    pieces.append(text[end:])
    places += range(length, length + len(text) - end + 1)
    return "".join(pieces), places
