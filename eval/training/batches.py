"""Rows of text as batches of tokens, in an order that a seed gives: the same on every run, so that a run can resume.

Rows of like length go together and a batch has at most so many padded tokens. Knows no loss and no step.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from eval.training.model import ReaderTarget
from eval.training.rows import JudgeRow, ReaderRow
from rag.encoders import pack_by_tokens
from rag.pairs import Pair, PairTokenizer
from rag.sentences import sentence_spans

#: Most padded tokens and rows of a batch, and how many batches are mixed before they are sorted by length.
BATCH_TOKENS, BATCH_ROWS = 2560, 32
MIXED = 1024


@dataclass(frozen=True, slots=True)
class ReaderExample:
    """A row as tokens: the answer at ``places`` (0, 0: none), the sentence of each token (-1: none), and the right one.

    ``marked`` says whether place and sentence are known.
    """

    pair: Pair
    places: tuple[int, int]
    sentences: np.ndarray[tuple[int], np.dtype[np.int32]]
    right: int
    marked: bool
    answerable: bool


@dataclass(frozen=True, slots=True)
class JudgeExample:
    """A row as tokens, and whether the evidence supports the claim."""

    pair: Pair
    supported: bool


Example = ReaderExample | JudgeExample


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the model reads of a batch: ``ids``, ``types`` and ``mask`` (b, s)."""

    ids: Tensor
    types: Tensor
    mask: Tensor


def reader_examples(rows: Sequence[ReaderRow], tokenizer: PairTokenizer, seed: int) -> list[ReaderExample]:
    """Return each row as one example: of a long passage the window that holds the answer, else any."""
    rng = random.Random(seed)
    return [_reader_example(row, tokenizer, rng) for row in rows]


def _reader_example(row: ReaderRow, tokenizer: PairTokenizer, rng: random.Random) -> ReaderExample:
    head = f"{row.context}\n" if row.context else ""
    windows = tokenizer.windows(row.question, [head + row.text])[0]
    spans = [(start + len(head), end + len(head)) for start, end in sentence_spans(row.text)]
    if row.answer is None:
        pair = windows[0] if row.answerable else rng.choice(windows)
        return ReaderExample(pair, (0, 0), sentence_numbers(pair, spans), -1, not row.answerable, row.answerable)
    start, end = row.answer[0] + len(head), row.answer[1] + len(head)
    held = [(pair, places) for pair in windows if (places := token_places(pair, start, end))]
    if not held:  # an answer longer than a window
        pair = windows[0]
        return ReaderExample(pair, (0, 0), sentence_numbers(pair, spans), -1, False, True)
    pair, places = rng.choice(held)
    right = next((i for i, span in enumerate(spans) if span[0] <= start < span[1]), -1)
    return ReaderExample(pair, places, sentence_numbers(pair, spans), right, True, True)


def token_places(pair: Pair, start: int, end: int) -> tuple[int, int] | None:
    """Return the first and last token of the characters [start, end) of the second text; None if not all are there."""
    own = np.flatnonzero(pair.own)
    if not len(own) or pair.spans[own[0], 0] > start or pair.spans[own[-1], 1] < end:
        return None
    inside = own[(pair.spans[own, 1] > start) & (pair.spans[own, 0] < end)]
    return (int(inside[0]), int(inside[-1])) if len(inside) else None


def sentence_numbers(pair: Pair, spans: Sequence[tuple[int, int]]) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """Return for each token the number of the one of ``spans`` that it lies in, -1 for those that lie in none."""
    numbers = np.full(len(pair.ids), -1, dtype=np.int32)
    for number, (start, end) in enumerate(spans):
        numbers[(pair.spans[:, 0] >= start) & (pair.spans[:, 1] <= end) & pair.own] = number
    return numbers


def judge_examples(rows: Sequence[JudgeRow], tokenizer: PairTokenizer) -> list[JudgeExample]:
    """Return each row as one example; of long evidence only the first window is read."""
    return [JudgeExample(tokenizer.windows(row.claim, [row.evidence])[0][0], row.supported) for row in rows]


def order(lengths: Sequence[int], seed: int, epoch: int) -> list[list[int]]:
    """Return the batches of an epoch as lists of positions: every position once."""
    rng = random.Random(seed * 1000 + epoch)
    positions = list(range(len(lengths)))
    rng.shuffle(positions)
    batches = []
    for start in range(0, len(positions), MIXED):
        mixed = positions[start : start + MIXED]
        packed = pack_by_tokens([lengths[i] for i in mixed], BATCH_TOKENS, BATCH_ROWS)
        batches += [[mixed[i] for i in batch] for batch in packed]
    rng.shuffle(batches)
    return batches


def inputs(examples: Sequence[Example]) -> Inputs:
    """Return the padded tokens of a batch."""
    width = max(len(example.pair.ids) for example in examples)
    arrays = np.zeros((3, len(examples), width), dtype=np.int64)
    for row, example in enumerate(examples):
        length = len(example.pair.ids)
        arrays[0, row, :length] = example.pair.ids
        arrays[1, row, :length] = example.pair.types
        arrays[2, row, :length] = 1
    ids, types, mask = torch.from_numpy(arrays)
    return Inputs(ids, types, mask)


def reader_target(examples: Sequence[ReaderExample]) -> ReaderTarget:
    """Return what is true of a batch of reader rows."""
    width = max(len(example.pair.ids) for example in examples)
    may_hold = np.zeros((len(examples), width), dtype=bool)
    inside = np.zeros((len(examples), width), dtype=bool)
    owners: list[int] = []
    right: list[float] = []
    for row, example in enumerate(examples):
        length = len(example.pair.ids)
        may_hold[row, :length] = example.pair.own
        may_hold[row, 0] = True
        if not example.marked:
            continue
        known = example.sentences >= 0
        inside[row, :length] = known
        numbers, renumbered = np.unique(example.sentences[known], return_inverse=True)
        owners += (renumbered + len(right)).tolist()
        right += [float(number == example.right) for number in numbers]
    return ReaderTarget(
        places=torch.tensor([example.places for example in examples]),
        marked=torch.tensor([example.marked for example in examples]),
        open=torch.from_numpy(may_hold),
        answerable=torch.tensor([float(example.answerable) for example in examples]),
        inside=torch.from_numpy(inside),
        owners=torch.tensor(owners, dtype=torch.long),
        right=torch.tensor(right),
    )


def judge_target(examples: Sequence[JudgeExample]) -> Tensor:
    """Return what is true of a batch of judge rows."""
    return torch.tensor([float(example.supported) for example in examples])
