"""The second hop of a question: what the best passages name, and what they left open.

Some questions are answered by two passages, the first of which names the other: "Which river flows through the town
where X was born?" The passage on X is found by its words, that on the town says little that was asked. It gains

    score(j) + GAIN * score(i) * sum over tokens t of w(t) * max(0, match(j, t) - match(i, t)) / sum of w

where i is one of the best passages, and names the document of j by what its own is not called; match is that of late
interaction (`rag.late`). So what is named counts for as much as it adds to what was said. No model is asked, and
nothing is searched again: what is named stands among the candidates, for a part of the question is about it.

Knows no catalog: names, texts and matches are given.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TypeVar

import numpy as np
import numpy.typing as npt

#: How many of the best passages are looked through for names, and what a gap that is filled counts.
BEST, GAIN = 5, 2.0
#: Shortest name that is looked for, in characters.
SHORTEST = 4
_ASIDE = re.compile(r"\s*\([^()]*\)")

KeyT = TypeVar("KeyT", bound=Hashable)
Matches = npt.NDArray[np.float32]


def names_of(document: str, title: str | None, context: str) -> frozenset[str]:
    """Return what the document of a passage may be called in another: its title, its file's name, what stands above it.

    What is in brackets at the end of a name is no part of it.
    """
    stem = re.sub(r"[-_]+", " ", PurePosixPath(document).stem)
    found = (_ASIDE.sub("", name).strip() for name in (title or "", stem, re.split(" > |\n", context)[0]))
    return frozenset(name for name in found if len(name) >= SHORTEST)


def hopped(
    scores: Mapping[KeyT, float],
    order: Sequence[KeyT],
    texts: Mapping[KeyT, str],
    names: Mapping[KeyT, frozenset[str]],
    matches: Mapping[KeyT, Matches],
    weights: Matches,
) -> dict[KeyT, float]:
    """Return ``scores`` with the gains of the second hop, see above.

    ``order`` are the rows that late interaction looked at, best first, ``texts`` those of the first `BEST` of them.
    ``matches`` (q,) are by row, ``weights`` (q,) of the question's tokens. A row that lacks any of these gains nothing.
    """
    found, total = dict(scores), float(weights.sum())
    for first in [key for key in order[:BEST] if key in texts and key in matches]:
        for second in order:
            if second == first or second not in matches:
                continue
            if not any(_says(texts[first], name) for name in names[second] - names[first]):
                continue
            gap = float(np.maximum(0, matches[second] - matches[first]) @ weights) / max(total, 1e-9)
            found[second] = max(found[second], scores[second] + GAIN * gap * scores[first])
    return found


def _says(text: str, name: str) -> bool:
    """Say whether a text holds a name as whole words."""
    place = text.find(name)
    while place >= 0:
        end = place + len(name)
        if not text[place - 1 : place].isalnum() and not text[end : end + 1].isalnum():
            return True
        place = text.find(name, place + 1)
    return False
