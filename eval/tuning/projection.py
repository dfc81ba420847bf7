"""A projection of the question's token vectors for late interaction, learnt by gradient: owns torch here.

    t' = t P / |t P|,   P = I + L R,   L (d, r) and R (r, d): a small change of rank r, which begins at none

The loss of a question is that of choosing a passage that answers it among its hard negatives by MaxSim, as ColBERT is
trained (Khattab and Zaharia, SIGIR 2020), against the one-bit codes that are kept: passages are not encoded again. One
GPU is used where there is one. A run that was stopped goes on at its last epoch. Knows no search and no catalog.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rag.protocols import Codes, Vectors

RANK, EPOCHS, RATE, DECAY, BATCH = 32, 6, 1e-3, 0.05, 16
#: What MaxSim, in [-1, 1], is multiplied with before the softmax.
SHARPNESS = 40.0


@dataclass(frozen=True, slots=True)
class Lesson:
    """The ``tokens`` (q, d) of a question, their ``weights`` (q,), and passages by their codes, the right one first."""

    tokens: Vectors
    weights: Vectors
    codes: tuple[Codes, ...]


def fit_projection(
    lessons: Sequence[Lesson], dimension: int, seed: int, kept: Path, tell: Callable[[int, int], None]
) -> Vectors:
    """Return the projection (d, d) after `EPOCHS` passes over the lessons; ``kept`` holds the state between them."""
    with _one_thread():
        return _fitted(lessons, dimension, seed, kept, tell)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute in one thread: the products are so small that several would mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _fitted(
    lessons: Sequence[Lesson], dimension: int, seed: int, kept: Path, tell: Callable[[int, int], None]
) -> Vectors:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(seed)
    left = torch.nn.Parameter((torch.randn(dimension, RANK) / math.sqrt(dimension)).to(device))
    right = torch.nn.Parameter(torch.zeros(RANK, dimension, device=device))
    optimizer = torch.optim.AdamW([left, right], lr=RATE, weight_decay=DECAY)
    done = 0
    if kept.is_file():
        state = torch.load(kept, weights_only=True, map_location=device)
        with torch.no_grad():
            left.copy_(state["left"])
            right.copy_(state["right"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["epochs"]
    for epoch in range(done, EPOCHS):
        order = np.random.default_rng(seed + epoch).permutation(len(lessons))
        for start in range(0, len(order), BATCH):
            losses = [_loss(lessons[i], left, right, device) for i in order[start : start + BATCH]]
            optimizer.zero_grad()
            torch.stack(losses).mean().backward()  # type: ignore[no-untyped-call, unused-ignore]
            optimizer.step()
        state = {"left": left.detach(), "right": right.detach(), "optimizer": optimizer.state_dict()}
        part = kept.with_suffix(".part")
        torch.save({**state, "epochs": epoch + 1}, part)
        part.replace(kept)
        tell(epoch + 1, EPOCHS)
    found: Vectors = (torch.eye(dimension, device=device) + left @ right).detach().cpu().numpy().astype(np.float32)
    return found


def _loss(lesson: Lesson, left: Tensor, right: Tensor, device: torch.device) -> Tensor:
    tokens = torch.from_numpy(lesson.tokens).to(device)
    turned = functional.normalize(tokens + tokens @ left @ right, dim=1)
    scores = max_sims(turned, torch.from_numpy(lesson.weights).to(device), lesson.codes)
    return functional.cross_entropy(SHARPNESS * scores[None], torch.zeros(1, dtype=torch.long, device=device))


def max_sims(tokens: Tensor, weights: Tensor, passages: Sequence[Codes]) -> Tensor:
    """Return the weighted MaxSim of `rag.late` (n,) of unit ``tokens`` (q, d) with each passage, in torch."""
    dimension = tokens.shape[1]
    signs = np.unpackbits(np.concatenate(passages), axis=1, count=dimension).astype(np.float32) * 2 - 1
    products = tokens @ torch.from_numpy(signs).to(tokens.device).T / math.sqrt(dimension)
    best = torch.stack([some.amax(dim=1) for some in products.split([len(codes) for codes in passages], dim=1)])
    return best @ weights / weights.sum()
