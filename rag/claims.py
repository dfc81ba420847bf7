"""A generator's text to claims: which sentences it has, and which passages each of them names.

`ClaimParser` reads what a generator writes, piece by piece, and never raises whatever comes. A sentence is complete
when the next one has begun, since the marker that belongs to it may follow its full stop. However the text is cut into
pieces, text and claims are the same. Knows no passage, no judge and no policy.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from rag.markers import MarkerScanner, Piece
from rag.records import Delta, Quote
from rag.sentences import sentence_spans

#: A sentence of more characters is taken for as many sentences as it takes.
LONGEST = 2000
#: From so many characters on sentences are looked for again only when the text has grown by this share: looked for at
#: every word of a text that has none, such as ten thousand full stops, they would take time by its square.
LONG, GROWTH = 500, 2
#: Longest heading or lead-in, in words.
LONGEST_LEAD_IN = 12
_ENDS = frozenset(".!?…")
_WIDE_ENDS = ("。", "！", "？", "｡")
_SIGNS = frozenset(".,;:!?…。，；：！？")
#: What stands before the words of a line: bullets, the marks of a quotation or a heading, numbers of a list.
_LEAD = re.compile(r"(?:(?:[-*+•‣◦–>]|#{1,6}|\(?(?:\d{1,2}|[a-zA-Z])[.)])\s+)+")
_ENUMERATOR = re.compile(r"\(?(?:\d{1,2}|[a-zA-Z])[.)]")
_WORD = re.compile(r"[^\W_]+")
#: Words of politeness and of leading over: a sentence of these alone says nothing of any document.
_COURTESY = frozenset(
    "hello hi hey dear sure certainly absolutely of course thank thanks you your for the a an this that please welcome "
    "i hope helps help can may let me know if have any more other further questions question happy glad to great good "
    "here is are what was found find answer answers below following summary in short yes no okay ok and it be with "
    "guten tag hallo gerne natürlich danke bitte hier ist sind die das der antwort antworten bonjour merci "
    "voici".split()
)
_SAYS_NOTHING = re.compile(
    r"(?:unfortunately,? |however,? |but )*(?:the |these |those |your )?(?:provided |given |available |retrieved )?"
    r"(?:documents?|passages?|sources?|context|texts?|excerpts?)(?: provided| given)? "
    r"(?:do|does|did)(?: not|n['’]t) (?:say|state|mention|contain|specify|provide|answer|tell|cover|include|give)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class RawClaim:
    """One sentence of the answer at [start, end), the passages it names, and its quotes if the generator gave them.

    [begin, until) is all that goes with it: what stands before it on its line, and the markers behind it. One that is
    not ``checkable`` says nothing that a document could support. ``short`` are the words of a quote that are the short
    answer, if the generator marked them.
    """

    text: str
    start: int
    end: int
    begin: int
    until: int
    passages: tuple[int, ...]
    checkable: bool = True
    quotes: tuple[Quote, ...] = ()
    short: Quote | None = None


@dataclass(frozen=True, slots=True)
class _Mark:
    """A marker behind ``rank`` characters of the pending text, shown at ``place``."""

    rank: int
    place: int
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Span:
    """A sentence [start, end) of the pending text; from ``begin`` on it has its line."""

    begin: int
    start: int
    end: int


class ClaimParser:
    """Turns deltas into the text to show and the claims in it; ``passages`` is how many the prompt numbered.

    Markers that name no passage, or one that the marker before them named, are left out of the text. What could still
    become a marker or code is held back until it is one or not, and so is white space that may go.
    """

    def __init__(self, passages: int) -> None:
        self.text = ""
        self._passages = passages
        self._scanner = MarkerScanner(passages)
        self._claims: list[RawClaim] = []
        self._pending = _Pending()
        self._spaces = ""
        self._run: set[int] = set()
        self._marked = False
        self._dropped = False
        self._code_from: int | None = None

    def feed(self, delta: Delta) -> str:
        """Take one piece and return the text that can be shown now."""
        before = len(self.text)
        if delta.quotes:
            self._end()
            self._quote(delta)
        else:
            for piece in self._scanner.feed(delta.text):
                self._take(piece)
        return self.text[before:]

    def finish(self) -> str:
        """Return what was held back; all claims are complete then."""
        before = len(self.text)
        self._end()
        return self.text[before:]

    def claims(self, first: int = 0) -> list[RawClaim]:
        """Return the claims that are complete, in order, from number ``first`` on."""
        return self._claims[first:]

    def _end(self) -> None:
        for piece in self._scanner.finish():
            self._take(piece)
        self._end_code()
        self._flush()
        self._settle(final=True)
        self._run.clear()
        self._marked = self._dropped = False

    def _quote(self, delta: Delta) -> None:
        if self.text and not self.text[-1].isspace():
            self.text += "\n" if "\n" in delta.text or "|" in delta.text else " "
        start = len(self.text)
        numbers = tuple(dict.fromkeys(quote.passage for quote in delta.quotes))
        self.text += delta.text
        end = len(self.text)
        self.text += "".join(f" [{number}]" for number in numbers)
        until = len(self.text)
        self._claims.append(
            RawClaim(delta.text, start, end, start, until, numbers, quotes=delta.quotes, short=delta.short)
        )

    def _take(self, piece: Piece) -> None:
        if piece.code:
            self._code(piece.text)
            return
        self._end_code()
        if piece.numbers:
            self._mark(piece.numbers)
            return
        for character in piece.text:
            self._write(character)

    def _mark(self, numbers: Sequence[int]) -> None:
        named = tuple(n for n in numbers if 1 <= n <= self._passages)
        fresh = tuple(n for n in named if n not in self._run)
        if not fresh:
            self._dropped = True
            return
        self._flush()
        self._run.update(fresh)
        self._pending.marks.append(_Mark(len(self._pending.plain), len(self.text), fresh))
        self.text += "".join(f"[{number}]" for number in fresh)
        self._marked = True

    def _write(self, character: str) -> None:
        if not self.text and character.isspace():
            return  # an answer begins with its first word
        if character in " \t":
            if not self._spaces:
                self._settle_at_space()
            if not (self._dropped and self._spaces):
                self._spaces += character
            return
        if character in _SIGNS and self._dropped:
            self._spaces = ""
        self._dropped = False
        if character == "\n":
            self._settle_at_space()
        self._flush()
        self._put(character)
        if not character.isspace():
            self._run.clear()
            if len(self._pending.plain) > 1 and self._pending.plain[-2] in _WIDE_ENDS:
                self._settle()

    def _put(self, character: str) -> None:
        """Show a character; a full stop behind a marker ends the sentence before it, if that has no end yet."""
        pending, marked = self._pending, self._marked
        self._marked = False
        if marked and character in _SIGNS:
            while pending.plain.endswith(" "):
                pending.drop_last()
            if character in _ENDS and pending.plain[-1:] in _ENDS:
                self.text += character
                return
        pending.add(character, len(self.text))
        self.text += character

    def _flush(self) -> None:
        """Show the white space that was held back."""
        for space in self._spaces:
            if not (self._marked and self._pending.plain.endswith(" ")) and self._pending.plain[-1:] not in _WIDE_ENDS:
                self._pending.add(space, len(self.text))
            self.text += space
        if self._spaces:
            self._marked = False
        self._spaces = ""

    def _code(self, text: str) -> None:
        if self._code_from is None:
            self._flush()
            self._settle(final=True)
            self._code_from = len(self._pending.plain)
        for character in text:
            self._pending.add(character, len(self.text))
            self.text += character

    def _end_code(self) -> None:
        """Make a code block that has ended one claim, which markers may follow."""
        if self._code_from is not None:
            self._pending.code = (self._code_from, len(self._pending.plain.rstrip()))
            self._code_from = None
            self._run.clear()
            self._marked = False

    def _settle_at_space(self) -> None:
        pending = self._pending
        if not pending.was_looked_at() and (len(pending.plain) > LONGEST or pending.may_hold_an_end()):
            self._settle()

    def _settle(self, *, final: bool = False) -> None:
        """Make claims of the sentences that are complete: all but the last one, or all at the end."""
        pending = self._pending
        if not final and pending.was_looked_at():
            return
        spans = pending.spans(self.text)
        pending.looked_at = len(pending.plain)
        complete = spans if final else spans[:-1]
        if complete:
            named = pending.owned(spans)
            begins = [pending.begin(span, named[span]) for span in spans]
            ends = [*begins[1:], len(self.text)]
            for span, begin, end in zip(complete, begins, ends, strict=False):
                self._claims.append(self._claim(span, begin, end, named[span]))
        if final:
            self._pending = _Pending()
        elif complete:
            pending.cut(spans[-1].begin, begins[-1])

    def _claim(self, span: _Span, begin: int, end: int, marks: Sequence[_Mark]) -> RawClaim:
        pending = self._pending
        text = pending.plain[span.start : span.end]
        start = pending.places[span.start]
        numbers = tuple(dict.fromkeys(number for mark in marks for number in mark.numbers))
        return RawClaim(
            text=text,
            start=start,
            end=pending.places[span.end - 1] + 1,
            begin=begin,
            until=begin + len(self.text[begin:end].rstrip()),
            passages=numbers,
            checkable=bool(numbers) or is_checkable(text, pending.plain[span.begin : span.start]),
        )


@dataclass(slots=True)
class _Pending:
    """Text whose sentences are not complete yet, as if its markers were not there.

    ``places`` says where each of its characters is shown. ``code`` is a block of code in it: one sentence. So many
    characters as ``looked_at`` had no sentence that is complete.
    """

    plain: str = ""
    places: list[int] = field(default_factory=list)
    marks: list[_Mark] = field(default_factory=list)
    code: tuple[int, int] = (0, 0)
    looked_at: int = 0

    def was_looked_at(self) -> bool:
        """Say whether a long text has hardly grown since its sentences were looked for."""
        return LONG < len(self.plain) < self.looked_at + self.looked_at // GROWTH

    def add(self, character: str, place: int) -> None:
        self.plain += character
        self.places.append(place)

    def drop_last(self) -> None:
        """Take away the last character; markers behind it now stand behind the one before."""
        self.plain = self.plain[:-1]
        self.places.pop()
        self.marks = [_Mark(min(mark.rank, len(self.plain)), mark.place, mark.numbers) for mark in self.marks]

    def may_hold_an_end(self) -> bool:
        """Say whether a sentence may have ended before the last word."""
        last = self.plain.rsplit(None, 2)[-2:]
        return "\n" in self.plain.strip() or any(_ENDS.intersection(word) for word in last) or self.code[1] > 0

    def spans(self, shown: str) -> list[_Span]:
        """Return the sentences in it that say something, in order; what numbers or indents one begins it."""
        first = self.code[1]
        found = [self.code] if any(c.isalnum() for c in self.plain[:first]) else []
        found += [(a + first, b + first) for a, b in sentence_spans(self.plain[first:])]
        spans: list[_Span] = []
        begin: int | None = None
        for number, (start, end) in enumerate(found):
            if not any(c.isalnum() for c in self.plain[start:end]):
                continue
            begin, opens = start if begin is None else begin, self._opens_line(start, shown)
            following = found[number + 1][0] if number + 1 < len(found) else None
            on_line = following is not None and "\n" not in self.plain[end:following]
            if opens and on_line and _ENUMERATOR.fullmatch(self.plain, start, end):
                continue
            lead = _LEAD.match(self.plain, start, end) if opens else None
            inside = lead.end() if lead and any(c.isalnum() for c in self.plain[lead.end() : end]) else start
            spans.append(_Span(begin, inside, end))
            begin = None
        if len(spans) == 1 and len(self.plain) > LONGEST and (spans[0].start, spans[0].end) != self.code:
            spans = self._in_two(spans[0])
        return spans

    def _in_two(self, span: _Span) -> list[_Span]:
        """Cut a sentence that is too long before its last word."""
        head = self.plain[span.start : span.end].rsplit(None, 1)
        cut = span.end - len(head[-1])
        if len(head) < 2 or not any(c.isalnum() for c in head[0]) or not any(c.isalnum() for c in head[1]):
            return [span]
        return [_Span(span.begin, span.start, span.start + len(head[0])), _Span(cut, cut, span.end)]

    def _opens_line(self, rank: int, shown: str) -> bool:
        place = self.places[rank]
        return not shown[shown.rfind("\n", 0, place) + 1 : place].strip()

    def owned(self, spans: Sequence[_Span]) -> dict[_Span, list[_Mark]]:
        """Return the markers of each sentence: of that which they end or stand in.

        One at the beginning of a line belongs to the sentence behind it on that line, and so does one at the very
        beginning.
        """
        found: dict[_Span, list[_Mark]] = {span: [] for span in spans}
        for mark in self.marks:
            before = [span for span in spans if span.start < len(self.plain[: mark.rank].rstrip())]
            after = next((span for span in spans if span.start >= mark.rank), None)
            line = self.plain[: mark.rank].rstrip(" \t")
            behind = after and (not line or line.endswith("\n")) and "\n" not in self.plain[mark.rank : after.start]
            owner = after if behind or not before else before[-1]
            if owner is not None:
                found[owner].append(mark)
        return found

    def begin(self, span: _Span, marks: Sequence[_Mark]) -> int:
        """Return where all that goes with a sentence begins in the text as shown."""
        return min([self.places[span.begin], *(mark.place for mark in marks)])

    def cut(self, rank: int, place: int) -> None:
        """Take away what stands before ``rank``, and the markers shown before ``place``."""
        self.plain, self.places = self.plain[rank:], self.places[rank:]
        self.marks = [_Mark(max(m.rank - rank, 0), m.place, m.numbers) for m in self.marks if m.place >= place]
        self.code, self.looked_at = (0, 0), 0


def is_checkable(text: str, lead: str = "") -> bool:
    """Say whether a sentence without a marker says something that a document may support or not.

    A question does not, nor a sentence of politeness alone, nor one that says what documents do not say. A short
    heading or lead-in does not, unless there is a figure in it or it ends as sentences do. ``lead`` is what stands
    before it on its line.
    """
    words = _WORD.findall(text.casefold())
    if _COURTESY.issuperset(words) or text.endswith(("?", "？")) or _SAYS_NOTHING.match(text):
        return False
    is_bold = re.fullmatch(r"(\*\*|__)[^*\n]*[^*\n.!]\1", text) is not None
    ending = text.rstrip("*_ ")
    heads = is_bold or ending.endswith((":", "：")) or ("#" in lead and not ending.endswith((".", "!", "。", "！")))
    return not heads or len(words) > LONGEST_LEAD_IN or any(c.isdigit() for c in text)
