"""Two texts as rows of tokens that one model reads together: question and passage, claim and evidence.

A row is ``[CLS] first [SEP] second [SEP]``. A second text that does not fit is read through several windows, each of
which begins before the last one ended, so that no sentence is only seen cut. The built-in reader and judge read so, and
are trained on rows that this very module made. Knows no model: rows are arrays of numbers here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rag.tokens import open_tokenizer

#: Most tokens of a row, and of its first text.
MOST_TOKENS = 320
MOST_FIRST = 96
#: The share of a window that the next one reads again.
OVERLAP = 0.25

Places = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Pair:
    """One row: ``ids`` and ``types`` (0 first, 1 second text) of its n tokens, and their ``spans`` (n, 2).

    Spans are character offsets in the second text; tokens that are none of it have (-1, -1).
    """

    ids: Places
    types: Places
    spans: Places

    @property
    def own(self) -> npt.NDArray[np.bool_]:
        """Say which tokens are of the second text."""
        own: npt.NDArray[np.bool_] = self.spans[:, 1] > 0
        return own


@cache
def _tokenizer(file: Path) -> Any:
    """One for the reader, the judge and whoever opens them again: nothing changes it, and loading takes a while."""
    return open_tokenizer(file)


class PairTokenizer:
    """Makes rows with the tokenizer in ``file``, a ``tokenizer.json`` of the BERT family. Thread-safe."""

    def __init__(self, file: Path, most_tokens: int = MOST_TOKENS) -> None:
        self._tokenizer = _tokenizer(file)
        self._most = most_tokens
        self._begin, self._end = (self._tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))

    def windows(self, first: str, seconds: Sequence[str]) -> list[list[Pair]]:
        """Return for each of ``seconds`` its windows beside ``first``: at least one, in the order of the text."""
        read = self._tokenizer.encode_batch([first, *seconds], add_special_tokens=False)
        head = read[0].ids[:MOST_FIRST]
        return [self._windows(head, row) for row in read[1:]]

    def lengths(self, first: str, seconds: Sequence[str]) -> list[int]:
        """Return the tokens of each row of ``first`` and one of ``seconds``, were there room for all of them."""
        read = self._tokenizer.encode_batch([first, *seconds], add_special_tokens=False)
        return [min(len(read[0].ids), MOST_FIRST) + len(row.ids) + 3 for row in read[1:]]

    def _windows(self, head: list[int], row: Any) -> list[Pair]:
        room = self._most - len(head) - 3
        spans = np.array(row.offsets, dtype=np.int32).reshape(-1, 2)
        starts = window_starts(len(row.ids), room)
        return [self._pair(head, row.ids[start : start + room], spans[start : start + room]) for start in starts]

    def _pair(self, head: list[int], ids: list[int], spans: Places) -> Pair:
        lead = len(head) + 2
        rows = np.full((lead + len(ids) + 1, 2), -1, dtype=np.int32)
        rows[lead:-1] = spans
        types = np.zeros(len(rows), dtype=np.int32)
        types[lead:] = 1
        return Pair(np.array([self._begin, *head, self._end, *ids, self._end], dtype=np.int32), types, rows)


def window_starts(tokens: int, room: int) -> list[int]:
    """Return where the windows of ``room`` tokens begin that together read ``tokens`` of them; [0] if one is enough."""
    step = max(1, int(room * (1 - OVERLAP)))
    return [0, *(start for start in range(step, max(tokens - room, 0) + step, step) if tokens > room)]


def sentence_means(pair: Pair, spans: Sequence[tuple[int, int]], values: npt.NDArray[np.float32]) -> list[float | None]:
    """Return for each of ``spans`` in the second text the mean of ``values`` (n,) over its tokens; None without any."""
    starts, ends = pair.spans[:, 0], pair.spans[:, 1]
    found: list[float | None] = []
    for start, end in spans:
        inside = (starts >= start) & (ends <= end) & (ends > 0)
        found.append(float(values[inside].mean()) if inside.any() else None)
    return found
