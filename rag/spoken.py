"""What of a model's text is for the reader: without its reasoning, and nothing at all where it abstains.

Text comes in pieces, cut anywhere, and is let through as soon as it is certain what it is. Pure: this module knows no
server, no prompt but the sentence of abstention, and no passage.
"""

from __future__ import annotations

import re

from rag.prompt import ABSTENTION


class Speech:
    """One reply of a model on its way to the reader. ``is_empty`` says that beside reasoning nothing was written."""

    def __init__(self) -> None:
        self.is_empty = True
        self._thoughts = ThoughtFilter()
        self._gate = AbstentionGate()

    def feed(self, text: str) -> str:
        """Take the next piece and return what may be shown by now."""
        return self._shown(self._thoughts.feed(text))

    def finish(self) -> str:
        """Return what is still to be shown at the end of the text."""
        return self._shown(self._thoughts.finish()) + self._gate.finish()

    def _shown(self, text: str) -> str:
        self.is_empty = self.is_empty and not text.strip()
        return self._gate.feed(text)


class ThoughtFilter:
    """Drops ``<think>...</think>`` at the start of a text that comes in pieces, wherever these are cut.

    White space before and after the reasoning goes with it.
    """

    _OPEN, _CLOSE = "<think>", "</think>"

    def __init__(self) -> None:
        self._held = ""
        self._inside = False
        self._passing = False

    def feed(self, text: str) -> str:
        """Take the next piece and return what of the text is certain to be no reasoning."""
        if self._passing:
            return text
        self._held += text
        return self._skip_thought() if self._inside else self._look_at_start()

    def finish(self) -> str:
        """Return what was held back at the end of the text; reasoning that never closed is dropped."""
        rest = "" if self._inside else self._held.lstrip()
        self._held = ""
        return rest

    def _look_at_start(self) -> str:
        self._held = self._held.lstrip()
        if self._held.startswith(self._OPEN):
            self._inside = True
            return self._skip_thought()
        if self._OPEN.startswith(self._held):
            return ""
        self._passing = True
        rest, self._held = self._held, ""
        return rest

    def _skip_thought(self) -> str:
        _, closed, rest = self._held.partition(self._CLOSE)
        if not closed:
            self._held = self._held[-len(self._CLOSE) :]
            return ""
        self._inside, self._held = False, rest
        return self._look_at_start()


class AbstentionGate:
    """Holds back a text in pieces while it may still be the sentence of abstention and nothing else.

    Tolerates case, white space, quotation marks, emphasis, a missing full stop and a marker such as ``[1]`` behind.
    """

    _SENTENCE = ABSTENTION.rstrip(".").casefold()
    _AROUND = " \n\r\t\"'“”‘’„«»*_`"
    _BEHIND = re.compile(r"""(?:[\s.!"'“”‘’„«»*_`]|\[[\d\s,;]*(?:\]|$))*""")

    def __init__(self) -> None:
        self._held = ""
        self._passing = False

    def feed(self, text: str) -> str:
        """Take the next piece and return what may be shown by now."""
        if self._passing:
            return text
        self._held += text
        if self._SENTENCE.startswith(self._start()) or self._is_abstention():
            return ""
        self._passing = True
        return self._held

    def finish(self) -> str:
        """Return what was held back at the end of the text, or nothing if it is an abstention."""
        return "" if self._passing or self._is_abstention() else self._held

    def _start(self) -> str:
        return re.sub(r"\s+", " ", self._held.lstrip(self._AROUND)).casefold()

    def _is_abstention(self) -> bool:
        start = self._start()
        return start.startswith(self._SENTENCE) and bool(self._BEHIND.fullmatch(start, len(self._SENTENCE)))
