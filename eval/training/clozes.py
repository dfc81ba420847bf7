"""Questions that nobody asked: made of sentences of training passages, and made of real questions by a small change.

A name, a year or a number of a sentence becomes the answer and the rest of its clause the question, as in Lewis,
Denoyer and Riedel, "Unsupervised Question Answering by Cloze Translation" (ACL 2019), without their translation model:
some words are dropped so that the question is not the sentence. A real question of which one word is changed asks,
mostly, for what its passage does not say, as the people who wrote SQuAD 2.0's unanswerable questions did (Rajpurkar,
Jia and Liang, ACL 2018, table 1: negation, antonym, entity swap). Knows no data set, no token and no model.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence

from eval.training.rows import ReaderRow, plain
from eval.training.swaps import (
    NAME,
    SUBJECT,
    Edit,
    edited,
    names_in,
    negated,
    opposite,
    other_name,
    other_number,
    other_year,
)
from rag.sentences import sentence_spans
from rag.words import STOP_WORDS

#: Sentences that are asked about, in words, and the fewest words of a question that say what it is about.
SHORTEST, LONGEST, FEWEST = 7, 45, 3
#: How many words on either side of the answer a question has at most.
REACH = 9
#: How often a word of a made-up question is dropped, and how often its wh-word stands in front.
DROPPED, IN_FRONT = 0.1, 0.65
#: How often a made-up question is also changed so that nothing answers it.
CHANGED = 0.6

#: Words that name nobody.
PRONOUNS = frozenset("he she it they this that these those there we i you his her its their in".split())
_YEAR = re.compile(r"\b[Ii]n ((?:1[0-9]|20)\d\d)\b")
_DATE = re.compile(r"\b[Oo]n ((?:\d{1,2} [A-Z][a-z]+|[A-Z][a-z]+ \d{1,2}),? \d{4})\b")
_COUNT = re.compile(r"(?<![\w.,$])(\d[\d,]*(?:\.\d+)?)(?= (?!million|billion|percent|per)[a-z]{3,})")
_CONTRACTED = {
    "is": "isn't", "are": "aren't", "was": "wasn't", "were": "weren't", "did": "didn't", "does": "doesn't",
    "do": "don't", "can": "can't", "could": "couldn't", "will": "won't", "would": "wouldn't", "has": "hasn't",
    "have": "haven't", "had": "hadn't", "should": "shouldn't",
}  # fmt: skip
_AUXILIARY = re.compile(rf"\b({'|'.join(_CONTRACTED)})\b(?! not\b)")
_WORD = re.compile(r"[^\W\d_][\w'-]{3,}")
_CLAUSE = re.compile(r"[;:()]| – |, (?=which|who|where|and|but|while|although)")


def cloze_rows(passages: Sequence[tuple[str, str]], count: int, rng: random.Random) -> Iterator[ReaderRow]:
    """Yield a made-up question for ``count`` of ``passages`` (text, context), and for some a changed one."""
    for text, context in rng.sample(passages, min(count, len(passages))):
        asked = _asked(text, rng)
        if asked is None:
            continue
        question, answer = asked
        yield ReaderRow(question, context, text, answer, True, "cloze")
        if rng.random() < CHANGED and (changed := unanswered(question, text, rng)):
            yield ReaderRow(changed, context, text, None, False, "cloze-changed")


def changed_rows(rows: Sequence[ReaderRow], share: float, rng: random.Random) -> Iterator[ReaderRow]:
    """Yield for a ``share`` of the answered rows the question changed so that the same passage does not answer it."""
    for row in rows:
        if row.answer is not None and rng.random() < share and (changed := unanswered(row.question, row.text, rng)):
            yield ReaderRow(changed, row.context, row.text, None, False, f"{row.source}-changed")


def unanswered(question: str, text: str, rng: random.Random) -> str | None:
    """Return ``question`` with one word or name changed so that ``text`` says something else; None if none fits."""
    edits: tuple[Edit, ...] = (
        other_name(names_in(text)), other_name(names_in(text)), other_word, other_word, other_year, other_number,
        opposite, opposite, denied,
    )  # fmt: skip
    return edited(question, text, edits, rng)


def denied(question: str, text: str, rng: random.Random) -> str | None:
    """Ask for what is not so: "who was" becomes "who wasn't"."""
    match = _AUXILIARY.search(question)
    if match is None or "n't" in question or rng.random() < 0.3:
        return negated(question, text, rng)
    return question[: match.start()] + _CONTRACTED[match[1]] + question[match.end() :]


def other_word(question: str, text: str, rng: random.Random) -> str | None:
    """Put another word of ``text`` for one that the question shares with it."""
    words = [word for word in _WORD.findall(text) if word.lower() not in STOP_WORDS]
    known = {word.lower() for word in words}
    shared = [m for m in _WORD.finditer(question) if m.group().lower() in known]
    if not shared:
        return None
    match = rng.choice(shared)
    said = match.group()
    asked = {word.lower()[:4] for word in _WORD.findall(question)}
    fit = [word for word in words if word.lower()[:4] not in asked and word[-2:] == said[-2:]]
    if not fit:
        return None
    word: str = rng.choice(fit)
    return question[: match.start()] + (word if said[0].isupper() else word.lower()) + question[match.end() :]


def _asked(text: str, rng: random.Random) -> tuple[str, tuple[int, int]] | None:
    """Return a question about a sentence of ``text``, with the place of its answer."""
    spans = [(a, b) for a, b in sentence_spans(text) if SHORTEST <= len(text[a:b].split()) <= LONGEST]
    for start, end in rng.sample(spans, min(4, len(spans))):
        kinds: list[Callable[..., tuple[str, tuple[int, int]] | None]] = [_of_subject, _of_time, _of_count, _of_name]
        for kind in rng.sample(kinds, len(kinds)):
            found = kind(text[start:end].rstrip(" ."), rng)
            if found is not None and len({*plain(found[0]).split()} - STOP_WORDS) >= FEWEST:
                question, (first, last) = found
                return question, (start + first, start + last)
    return None


def _of_subject(sentence: str, rng: random.Random) -> tuple[str, tuple[int, int]] | None:
    match = SUBJECT.match(sentence)
    if match is None or {*match[1].lower().split()} & PRONOUNS:
        return None
    clause = _around(sentence, *match.span(1))[1]
    word = rng.choice(("who", "what") if " " in match[1] else ("what", "who", "which"))
    return as_asked(word, _dropped(clause, rng), rng), match.span(1)


def _of_time(sentence: str, rng: random.Random) -> tuple[str, tuple[int, int]] | None:
    match = _YEAR.search(sentence) or _DATE.search(sentence)
    if match is None:
        return None
    before, after = _around(sentence, match.start(), match.end())
    words = ("when", "in what year", "what year") if match.re is _YEAR else ("when", "on what date")
    return as_asked(rng.choice(words), _dropped(f"{before} {after.lstrip(', ')}", rng), rng), match.span(1)


def _of_count(sentence: str, rng: random.Random) -> tuple[str, tuple[int, int]] | None:
    match = _COUNT.search(sentence)
    if match is None:
        return None
    before, after = _around(sentence, match.start(), match.end())
    thing, _, rest = after.strip().partition(" ")
    return as_asked(f"how many {thing}", _dropped(f"{before} {rest}", rng), rng), match.span(1)


def _of_name(sentence: str, rng: random.Random) -> tuple[str, tuple[int, int]] | None:
    found = [*NAME.finditer(sentence)]
    if not found:
        return None
    match = rng.choice(found)
    before, after = _around(sentence, match.start(), match.end())
    word = rng.choice(("who", "what", "which"))
    if rng.random() < IN_FRONT:
        return as_asked(word, _dropped(f"{before} {after}", rng), rng), match.span()
    return as_asked("", f"{_dropped(before, rng)} {word} {_dropped(after, rng)}", rng), match.span()


def _around(sentence: str, start: int, end: int) -> tuple[str, str]:
    """Return the words before and behind a place in its clause."""
    before, after = _CLAUSE.split(sentence[:start])[-1].split(), _CLAUSE.split(sentence[end:])[0].split()
    return " ".join(before[-REACH:]), " ".join(after[:REACH])


def _dropped(words: str, rng: random.Random) -> str:
    return " ".join(word for word in words.split() if rng.random() >= DROPPED)


def as_asked(front: str, rest: str, rng: random.Random) -> str:
    """Return a question as people write it: with a capital and a mark, or as they type it."""
    said = " ".join(f"{front} {rest}".split()).strip(" ,;")
    if rng.random() < 0.3:
        return said.lower()
    return f"{said[:1].upper()}{said[1:]}?"
