"""Claims of people made into questions: words that a claim shares with its evidence are the answer, the rest asks.

People wrote these claims in words of their own, so that such a question is less of a copy of its passage than one made
of a sentence there (`eval.training.clozes`). A refuted claim asks for what its evidence does not say, in words that it
does say: the hardest kind of question that has no answer. Knows no data set, no token and no model.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from eval.training.clozes import PRONOUNS, as_asked
from eval.training.rows import JudgeRow, ReaderRow, Span, plain, surrounded
from rag.near import Near
from rag.sentences import sentence_spans
from rag.words import STOP_WORDS

#: Most questions of one supported claim, and the fewest words of a question that say what it is about.
QUESTIONS, FEWEST = 2, 2
#: The longest answer, in words.
LONGEST = 6
#: How often a verb of the claim goes before its subject, and how often the passage is longer than the evidence.
TURNED, SURROUNDED = 0.8, 0.5
#: How many other sentences then stand around it at most.
AROUND = 4

_WITHIN = frozenset(("of", "the", "de", "von", "van", "for"))
_WORD = re.compile(r"\w[\w'’.-]*\w|\w")
_AUXILIARY = re.compile(
    r"^(.*?\S) (is|are|was|were|has|have|had|can|could|did|does|will|would)\b(?! (?:not|never|only)\b) ?(.*)$"
)
_ASKING = frozenset("who what which whose when where whom how many year".split())
_YEAR = re.compile(r"(?:1[0-9]|20)\d\d")
_PLACE_BEFORE = re.compile(r" (?:in|at|from|to|near)$", re.IGNORECASE)
_TIME_BEFORE = re.compile(r" (?:in|on|since|during)(?: the)?$", re.IGNORECASE)
_BY = re.compile(r" by$")
_ARTICLE = re.compile(r" (?:a|an|the)$", re.IGNORECASE)


def claim_questions(claims: Sequence[JudgeRow], rng: random.Random) -> Iterator[ReaderRow]:
    """Yield questions that the evidence of supported ``claims`` answers, and that that of refuted ones does not."""
    texts = [*dict.fromkeys(claim.evidence for claim in claims)]
    near = Near(texts)
    for claim in claims:
        asked = [*_questions(claim.claim, claim.evidence, rng)]
        for question, (start, end) in rng.sample(asked, min(QUESTIONS if claim.supported else 1, len(asked))):
            text, moved = claim.evidence, 0
            if rng.random() < SURROUNDED:
                other = texts[rng.choice(near.nearest(claim.claim, 4)[1:] or [0])]
                if plain(text[start:end]) not in plain(other):
                    others = [other[a:b] for a, b in sentence_spans(other)][:AROUND]
                    text, moved = surrounded(text, others, rng)
            if claim.supported:
                yield ReaderRow(question, "", text, (start + moved, end + moved), True, "claim")
            else:
                yield ReaderRow(question, "", text, None, False, "claim-refuted")


def _questions(claim: str, evidence: str, rng: random.Random) -> Iterator[tuple[str, Span]]:
    """Yield a question for each run of words that ``claim`` shares with ``evidence``, with its place there."""
    claim = claim.strip().rstrip(". ")
    for start, end in shared_runs(claim, evidence):
        place = _place(claim[start:end], claim, evidence)
        question = _question(claim[:start].rstrip(), claim[start:end], claim[end:].strip(" ,"), rng)
        told = {*plain(question).split()} - STOP_WORDS - _ASKING
        if place is not None and len(told) >= FEWEST and not told & {*plain(claim[start:end]).split()}:
            yield question, place


def shared_runs(claim: str, evidence: str) -> Iterator[Span]:
    """Yield the places in ``claim`` of what may be an answer among the words that ``evidence`` shares in this order.

    That is names and numbers, if they go no further in the claim, and what the claim ends with behind a stop word.
    """
    words = [(m.start(), m.end()) for m in _WORD.finditer(claim)]
    said = f" {plain(evidence)} "
    first = 0
    while first < len(words):
        last = first
        while last < len(words) and f" {plain(claim[words[first][0] : words[last][1]])} " in said:
            last += 1
        for begin, end in _answers(claim, words, first, last):
            if end - begin <= LONGEST:
                yield words[begin][0], words[end - 1][1]
        first = max(last, first + 1)


def _answers(claim: str, words: Sequence[Span], first: int, last: int) -> Iterator[Span]:
    """Yield which of the ``words`` from ``first`` to before ``last`` are whole names or numbers, or end the claim."""
    begin = first
    while begin < last:
        end = begin
        while end < last and _is_named(claim, words[end]):
            end += 1
            if end + 1 < last and claim[slice(*words[end])] in _WITHIN and _is_named(claim, words[end + 1]):
                end += 1
        if end > begin and not (_goes_on(claim, words[end : end + 2]) or _goes_on(claim, words[:begin][:-3:-1])):
            yield begin, end
        begin = max(end, begin + 1)
    if last == len(words) > first and not _is_named(claim, words[-1]):
        behind = next((i + 1 for i in range(last - 1, first - 2, -1) if i >= 0 and _is_stop(claim, words[i])), last)
        if behind < last and not any(_is_named(claim, word) for word in words[behind:]):
            yield behind, last


def _goes_on(claim: str, beside: Sequence[Span]) -> bool:
    """Say whether a name goes on in the two words ``beside`` it, the nearer one first."""
    within = len(beside) > 1 and claim[slice(*beside[0])] in _WITHIN - {"the", "for"}
    return any(_is_named(claim, word) for word in beside[within : within + 1])


def _is_named(claim: str, word: Span) -> bool:
    """Say whether a word may be part of a name or a number."""
    text = claim[slice(*word)]
    return (text[0].isupper() or text[0].isdigit()) and text.lower() not in STOP_WORDS | PRONOUNS


def _is_stop(claim: str, word: Span) -> bool:
    return claim[slice(*word)].lower() in STOP_WORDS


def _place(answer: str, claim: str, evidence: str) -> Span | None:
    """Return where ``answer`` stands in ``evidence``: in the sentence that shares most words with ``claim``."""
    pattern = r"\W+".join(re.escape(word) for word in plain(answer).split())
    found = [*re.finditer(rf"(?<!\w){pattern}(?!\w)", evidence, re.IGNORECASE)]
    if not found:
        return None
    words = {*plain(claim).split()} - STOP_WORDS
    bounds = [0, *(start for start, _ in sentence_spans(evidence)[1:]), len(evidence)]

    def shared(place: int) -> int:
        start, end = next((a, b) for a, b in pairwise(bounds) if a <= place < b)
        return len(words & {*plain(evidence[start:end]).split()})

    return max(found, key=lambda match: (shared(match.start()), -match.start())).span()


def _question(before: str, answer: str, after: str, rng: random.Random) -> str:
    """Return the question whose answer stands between ``before`` and ``after`` in a claim."""
    if not _ARTICLE.sub("", f" {before}").strip():
        return as_asked(rng.choice(("who", "what", "which", "who", "what")), after, rng)
    if _YEAR.fullmatch(answer) or (answer[-4:].isdigit() and " " in answer):
        word, before = rng.choice(("when", "when", "what year", "in what year")), _TIME_BEFORE.sub("", before)
    elif answer[0].isdigit() and " " not in answer:
        thing, _, after = after.partition(" ")
        word = f"how many {thing}" if thing else "how many"
    elif _BY.search(before) and rng.random() < 0.7:
        word = rng.choice(("by whom", "who"))
        before = _BY.sub("", before) if word == "by whom" or rng.random() < 0.3 else before
    elif _PLACE_BEFORE.search(before) and answer[0].isupper() and rng.random() < 0.6:
        word, before = "where", _PLACE_BEFORE.sub("", before)
    else:
        word = rng.choice(("what", "what", "who", "which", "whose")) if answer[0].isupper() else "what"
    before = _ARTICLE.sub("", before)
    turned = _AUXILIARY.match(f"{before} {after}")
    if turned and len(turned[1]) < len(before) and rng.random() < TURNED:
        subject = turned[1] if turned[1].split()[0] != "The" else f"the{turned[1][3:]}"
        return as_asked(f"{word} {turned[2]}", f"{subject} {turned[3]}", rng)
    return as_asked("", f"{before} {word} {after}", rng)
