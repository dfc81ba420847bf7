"""The training rows of the judge: claims of people with their evidence, and rows that are made from training texts.

The claims come from FEVER, SciFact, BEGIN and WiCE. FEVER and SciFact know only "supported" and "refuted" here, so
claims also meet evidence that says nothing of them. Sentences of training passages are claims that their passage
supports; small edits leave them true or make them false (`eval.training.swaps`). Answered questions are claims too.
Evidence often gets other sentences around it, for the one that decides may stand anywhere. Knows no token, no model.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eval.training.detokenise import detokenised
from eval.training.reader_rows import written_rows
from eval.training.rows import JudgeRow, ReaderRow, dev_texts, plain, read_claims, read_lines, surrounded
from eval.training.swaps import SUBJECT, TRUE_EDITS, edited, false_edits, names_in
from rag.near import Near
from rag.sentences import sentence_spans
from rag.words import STOP_WORDS

#: How many rows are made of sentences and of answered questions, and the shortest and longest sentence, in words.
SENTENCES, ANSWERS = 3500, 5000
SHORTEST, LONGEST = 6, 45
#: The longest answer of a question that becomes a claim, in words.
LONGEST_ANSWER = 8
#: How often a claim is two sentences, how often it is true, and how often its sentence is taken out of the evidence.
DOUBLE, TRUE, MISSING = 0.25, 0.45, 0.15
#: How often the evidence is edited too.
TURNED = 0.5
#: How often evidence gets other sentences around it, and how many words it may then have.
PADDED, MOST_WORDS = 0.3, 130
#: How often claims with gold evidence also meet evidence that does not speak of them.
UNRELATED = 0.45
#: How many lines of a long article a WiCE claim is judged by.
LINES = 6


def judge_rows(data: Path, seed: int, written: Sequence[Path] = ()) -> list[JudgeRow]:
    """Return all rows, in an order and with choices that ``seed`` gives; ``data`` is the folder of the sets.

    ``written`` are files of `eval.training.writer`, whose answered questions are claims too. Raises `BadInput` if a
    file is missing or damaged.
    """
    rng = random.Random(seed)
    dev = dev_texts(data)
    claims = [*read_claims(data, "fever_rte"), *[*read_claims(data, "scifact_rte")] * 2]
    said = [*read_claims(data, "begin_wow")]
    texts = [text for text in _passages(data) if plain(text) not in dev]
    names = [name for text in texts for name in names_in(text)]
    near = Near(texts)
    rows = [
        *said,
        *claims,
        *unrelated(claims, rng),
        *_articles(data, rng),
        *sentence_rows(rng.sample(texts, min(SENTENCES, len(texts))), names, rng),
        *answer_rows([*_answered(data)], names, rng),
        *answer_rows([row for row in written_rows(written, dev) if row.answer], names, rng),
    ]
    rows = [row for row in rows if plain(row.claim) not in dev]
    rows = [padded(row, texts, near, rng) if rng.random() < PADDED else row for row in rows]
    rng.shuffle(rows)
    return rows


def unrelated(claims: Sequence[JudgeRow], rng: random.Random) -> Iterator[JudgeRow]:
    """Yield some claims beside evidence of another claim: mostly a near one, of the same thing, sometimes any."""
    evidence = [*dict.fromkeys(row.evidence for row in claims)]
    near = Near(evidence)
    for row in claims:
        if rng.random() >= UNRELATED:
            continue
        found = [evidence[n] for n in near.nearest(row.claim, 12)] if rng.random() < 0.8 else rng.sample(evidence, 3)
        fit = [text for text in found if not _shares_sentence(text, row.evidence)]
        if fit:
            yield JudgeRow(row.claim, rng.choice(fit[:4]), False, f"{row.source}-unrelated", row.group)


def _shares_sentence(text: str, other: str) -> bool:
    said = {plain(other[start:end]) for start, end in sentence_spans(other)}
    mine = {plain(text[start:end]) for start, end in sentence_spans(text)}
    return bool(said & mine) or any(a in b or b in a for a in said for b in mine if min(len(a), len(b)) > 25)


def _passages(data: Path) -> list[str]:
    """Return the training passages as people write them, each once."""
    found = [
        detokenised(row["context"])[0] if name == "nq_qed" else row["context"]
        for name in ("nq_qed", "squad")
        for row in read_lines(data / name / "train.jsonl.gz")
    ]
    return [*dict.fromkeys(found)]


def _articles(data: Path, rng: random.Random) -> Iterator[JudgeRow]:
    """Yield WiCE's partly supported claims, what is left of them without the unsupported words, and whole lines.

    Claims of the same articles that are true are needed: else any claim about a web page would be learnt to be false.
    """
    for row in read_lines(data / "faithfulness" / "wice_spans.jsonl.gz"):
        if row["split"] != "train":
            continue
        lines = [line for line in row["context"].splitlines() if len(line.split()) >= 4]
        near = Near(lines)
        evidence = "\n".join(lines[n] for n in sorted(near.nearest(row["response"], LINES)))
        yield JudgeRow(row["response"], evidence, False, "wice", row["title"])
        if rest := supported_rest(row):
            for _ in range(2):  # few rows: they come twice
                yield JudgeRow(rest, evidence, True, "wice-rest", row["title"])
        full = [line for line in lines if 8 <= len(line.split()) <= LONGEST and line.endswith(".")]
        for line in rng.sample(full, min(3, len(full))):
            chosen = sorted(near.nearest(line, LINES))
            claim = edited(line, row["context"], TRUE_EDITS, rng) or line
            yield JudgeRow(claim, "\n".join(lines[n] for n in chosen), True, "wice-line", row["title"])


def supported_rest(row: dict[str, Any]) -> str | None:
    """Return a claim without its unsupported words, where these are its beginning or end and enough is left."""
    text, (first, last) = row["response"], (row["spans"][0]["start"], row["spans"][-1]["end"])
    if len(row["spans"]) != 1 or (first > 0 and last < len(text.rstrip(" ."))):
        return None
    rest = (text[:first] + text[last:]).strip(" ,;.")
    is_whole = len(rest.split()) >= 4 and rest.split()[-1].lower() not in STOP_WORDS | {"from", "has", "had", "were"}
    return f"{rest[0].upper()}{rest[1:]}." if is_whole else None


def sentence_rows(texts: Sequence[str], names: Sequence[str], rng: random.Random) -> Iterator[JudgeRow]:
    """Yield for each text claims of a sentence or two of it.

    Some are true, maybe edited; some are made false by an edit; some stand beside evidence without their sentence; and
    some evidence is edited, so that the edited claim is the true one: a "not" alone then proves nothing.
    """
    wrong = false_edits(names)
    for text in texts:
        spans = sentence_spans(text)
        fit = [i for i, (start, end) in enumerate(spans) if SHORTEST <= len(text[start:end].split()) <= LONGEST]
        if not fit:
            continue
        chosen = rng.choice(fit)
        sentence = text[slice(*spans[chosen])]
        evidence, claim, told = _around(text, spans, chosen, rng), sentence, ""
        before = rng.choice(fit) if rng.random() < DOUBLE else chosen
        if before != chosen:  # a claim of two sentences, the other one of which is true
            told = f"{text[slice(*spans[before])]} "
            evidence = text[spans[min(before, chosen)][0] : spans[max(before, chosen)][1]]
        elif (name := _meant(text, spans, chosen)) and len(text[: spans[chosen][1]].split()) <= MOST_WORDS:
            claim = f"{name} {sentence.partition(' ')[2]}"
            evidence = text[: spans[chosen][1]]
        if rng.random() < 0.65:
            claim = edited(claim, evidence, TRUE_EDITS, rng) or claim
        kind = rng.random()
        if kind < TRUE:
            yield JudgeRow(told + claim, evidence, True, "sentence", text[:200])
        elif kind < TRUE + MISSING and (rest := evidence.replace(sentence, "", 1).strip()):
            yield JudgeRow(told + claim, " ".join(rest.split(" ")), False, "sentence-missing", text[:200])
        elif false := edited(claim, evidence, wrong, rng):
            yield JudgeRow(told + false, evidence, False, "sentence-edited", text[:200])
            if not told and rng.random() < TURNED and (turned := edited(sentence, evidence, wrong, rng)):
                other = evidence.replace(sentence, turned, 1)
                said = edited(turned, other, TRUE_EDITS, rng) or turned
                yield JudgeRow(said, other, True, "sentence-turned", text[:200])
                yield JudgeRow(claim, other, False, "sentence-turned", text[:200])


def _meant(text: str, spans: Sequence[tuple[int, int]], chosen: int) -> str | None:
    """Return whom the "He" or "She" at the beginning of a sentence means, as far as the first sentence tells."""
    if not chosen or text[slice(*spans[chosen])].split(maxsplit=1)[0] not in {"He", "She", "It"}:
        return None
    subject = SUBJECT.match(text[slice(*spans[0])])
    return subject[1] if subject and subject[1].split()[0] not in {"He", "She", "It", "This", "They"} else None


def _around(text: str, spans: Sequence[tuple[int, int]], chosen: int, rng: random.Random) -> str:
    """Return some of ``text``: the chosen sentence with up to two on either side."""
    first = max(0, chosen - rng.randint(0, 2))
    last = min(len(spans) - 1, chosen + rng.randint(0, 2))
    return text[spans[first][0] : spans[last][1]]


#: The beginning of a question whose answer can take its place, "who wrote it"; "what did he" is none.
_ASKED = re.compile(r"^(?:who|what|which \w+) (?!(?:did|does|do)\b)(?=\w)", re.IGNORECASE)


def stated(question: str, answer: str) -> str:
    """Return question and answer as one claim: "who wrote it", "Ann" -> "Ann wrote it.", else "When was it? 1990."."""
    asked = question.strip().rstrip("?").strip()
    said = answer[0].upper() + answer[1:]
    rest = _ASKED.sub("", asked, count=1)
    return f"{said} {rest}." if rest != asked else f"{asked[0].upper()}{asked[1:]}? {said}."


def _answered(data: Path) -> Iterator[ReaderRow]:
    """Yield the answered questions of squad and nq_qed, in people's spelling."""
    for name in ("squad", "nq_qed"):
        for row in read_lines(data / name / "train.jsonl.gz"):
            if row["answers"]:
                first = row["answers"][0]
                text, places = detokenised(row["context"]) if name == "nq_qed" else (row["context"], None)
                start, end = first["answer_start"], first["answer_start"] + len(first["text"])
                place = (places[start], places[end]) if places else (start, end)
                yield ReaderRow(row["question"], row["title"], text, place, True, name)


def answer_rows(asked: Sequence[ReaderRow], names: Sequence[str], rng: random.Random) -> Iterator[JudgeRow]:
    """Yield answered questions as claims, right or with another answer, beside the sentences around the answer."""
    rows = [row for row in asked if row.answer and len(row.text[slice(*row.answer)].split()) <= LONGEST_ANSWER]
    for row in rng.sample(rows, min(ANSWERS, len(rows))):
        text, (start, end) = row.text, row.answer or (0, 0)
        spans = sentence_spans(text)
        at = next((i for i, span in enumerate(spans) if span[0] <= start < span[1]), None)
        if at is None:
            continue
        around = _around(text, spans, at, rng)
        evidence = f"{row.context}\n{around}" if rng.random() < 0.5 else around
        answer = text[start:end].strip(" .,;")
        if not answer:
            continue
        if rng.random() < 0.5:
            yield JudgeRow(stated(row.question, answer), evidence, True, "answer", text[:200])
        elif wrong := _another(answer, evidence, names, rng):
            yield JudgeRow(stated(row.question, wrong), evidence, False, "answer-wrong", text[:200])


def _another(answer: str, evidence: str, names: Sequence[str], rng: random.Random) -> str | None:
    """Return an answer that is wrong: a figure or year changed, or another name of the evidence or of other texts."""
    if any(c.isdigit() for c in answer):
        return edited(answer, evidence, false_edits(names)[:2], rng)
    said = {*plain(answer).split()}
    near = [name for name in names_in(evidence) if not {*plain(name).split()} & said]
    if near and rng.random() < 0.7:
        return rng.choice(near)
    drawn = rng.choice(names)
    return drawn if not {*plain(drawn).split()} & said else None


def padded(row: JudgeRow, texts: Sequence[str], near: Near, rng: random.Random) -> JudgeRow:
    """Return ``row`` with sentences of other passages around its evidence, near ones or any."""
    room = MOST_WORDS - len(row.evidence.split())
    found = [texts[n] for n in near.nearest(row.claim, 5)[1:]] if rng.random() < 0.5 else []
    other = rng.choice(found or texts)
    if row.claim in other or row.evidence in other or room < 20:
        return row
    sentences = [other[start:end] for start, end in sentence_spans(other)]
    added: list[str] = []
    for sentence in sentences[: rng.randint(1, 5)]:
        room -= len(sentence.split())
        if room < 0:
            break
        added.append(sentence)
    evidence, _ = surrounded(row.evidence, added, rng)
    return JudgeRow(row.claim, evidence, row.supported, row.source, row.group)
