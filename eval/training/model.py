"""The torch model of the reader and the judge: owns torch here. The encoder of all-MiniLM-L6-v2 with small heads.

The word embeddings (half of the parameters) stay as they are in the package of the embedder and are no part of the
model: it takes the embedded words of a row, so that what ships are the layers and heads alone. A BERT encoder (Devlin
et al., NAACL 2019) with the weights of Wang et al., MiniLM (arXiv:2002.10957). No dropout: training passes over each
row a few times only, and a resumed run must equal an unbroken one. Knows no row of text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rag.tensors import open_tensors

_HIDDEN = 1e4  # taken from the scores of what is padding; small enough for float16


@dataclass(frozen=True, slots=True)
class Shape:
    """How large an encoder is, and how many values its heads give for each token and for each row."""

    layers: int = 6
    width: int = 384
    heads: int = 12
    inner: int = 1536
    positions: int = 512
    token_values: int = 0
    row_values: int = 1


#: The reader tells of each token whether the answer starts or ends there and whether its sentence answers, and of the
#: row whether the passage answers; the judge whether the evidence supports the claim.
READER = Shape(token_values=3)
JUDGE = Shape()
SHAPES: Mapping[str, Shape] = {"reader": READER, "judge": JUDGE}
#: What the encoder that a run begins from does not have, and what learns at a rate of its own.
HEADS = ("pooled.", "row.", "token.")


class PairModel(nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
    """Reads two texts as one row. Inputs: ``words`` (b, s, width), ``types`` and ``mask`` (b, s).

    Outputs: token values (b, s, t), of which there may be none, and row values (b, r); see `Shape`.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.positions = nn.Parameter(torch.zeros(shape.positions, shape.width))
        self.types = nn.Parameter(torch.zeros(2, shape.width))
        self.norm = nn.LayerNorm(shape.width, eps=1e-12)
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.layers))
        self.pooled = nn.Linear(3 * shape.width, shape.width)
        self.row = nn.Linear(shape.width, shape.row_values)
        self.token = nn.Linear(shape.width, shape.token_values) if shape.token_values else None

    def forward(self, words: Tensor, types: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        second = types.unsqueeze(-1).to(words.dtype)
        states = words + self.positions[: words.shape[1]] + self.types[0] + second * (self.types[1] - self.types[0])
        states = self.norm(states)
        there = mask.to(words.dtype)
        bias = ((there - 1) * _HIDDEN)[:, None, None, :]
        for layer in self.layers:
            states = layer(states, bias)
        second = second * there.unsqueeze(-1)
        first = there.unsqueeze(-1) - second
        seen = torch.cat([states[:, 0], _mean(states, first), _mean(states, second)], dim=-1)
        row = self.row(functional.gelu(self.pooled(seen)))
        token = self.token(states) if self.token is not None else states[:, :, :0]
        return token.float(), row.float()


class _Layer(nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
    """One layer of BERT, with the three projections of attention as one."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self._heads = shape.heads
        self.joint = nn.Linear(shape.width, 3 * shape.width)
        self.out = nn.Linear(shape.width, shape.width)
        self.norm = nn.LayerNorm(shape.width, eps=1e-12)
        self.up = nn.Linear(shape.width, shape.inner)
        self.down = nn.Linear(shape.inner, shape.width)
        self.last = nn.LayerNorm(shape.width, eps=1e-12)

    def forward(self, states: Tensor, bias: Tensor) -> Tensor:
        batch, length, width = states.shape
        joint = self.joint(states).view(batch, length, 3, self._heads, width // self._heads).permute(2, 0, 3, 1, 4)
        scores = joint[0] @ joint[1].transpose(-1, -2) / math.sqrt(width // self._heads)
        weights = torch.softmax(scores + bias.to(scores.dtype), dim=-1)
        mixed = (weights @ joint[2]).transpose(1, 2).reshape(batch, length, width)
        states = self.norm(states + self.out(mixed))
        last: Tensor = self.last(states + self.down(functional.gelu(self.up(states))))
        return last


def _mean(states: Tensor, share: Tensor) -> Tensor:
    return (states * share).sum(1) / share.sum(1).clamp(min=1.0)


def load_words(folder: Path) -> Tensor:
    """Return the word embeddings (vocabulary, width) of the model in ``folder``."""
    return torch.from_numpy(np.array(open_tensors(folder / "model.safetensors")["embeddings.word_embeddings.weight"]))


def start_from(model: PairModel, folder: Path) -> None:
    """Give ``model`` the layers of the encoder in ``folder``, in Hugging Face layout; its heads stay as they are."""
    tensors = {name: torch.from_numpy(np.array(t)) for name, t in open_tensors(folder / "model.safetensors").items()}
    with torch.no_grad():
        model.positions.copy_(tensors["embeddings.position_embeddings.weight"])
        model.types.copy_(tensors["embeddings.token_type_embeddings.weight"])
        _copy(model.norm, tensors, "embeddings.LayerNorm")
        for number, layer in enumerate(model.layers):
            name = f"encoder.layer.{number}"
            for kind, target in (("weight", layer.joint.weight), ("bias", layer.joint.bias)):
                parts = [tensors[f"{name}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
                target.copy_(torch.cat(parts))
            _copy(layer.out, tensors, f"{name}.attention.output.dense")
            _copy(layer.norm, tensors, f"{name}.attention.output.LayerNorm")
            _copy(layer.up, tensors, f"{name}.intermediate.dense")
            _copy(layer.down, tensors, f"{name}.output.dense")
            _copy(layer.last, tensors, f"{name}.output.LayerNorm")


def _copy(part: nn.Linear | nn.LayerNorm, tensors: Mapping[str, Tensor], name: str) -> None:
    part.weight.copy_(tensors[f"{name}.weight"])
    part.bias.copy_(tensors[f"{name}.bias"])


def reader_loss(token: Tensor, row: Tensor, target: ReaderTarget) -> Tensor:
    """Return the loss of a batch: where the answer starts and ends, which sentence holds it, whether there is one.

    A passage that does not answer has its answer at the first token, [CLS] (Devlin et al., NAACL 2019, section 4.3).
    """
    hidden = (~target.open).float() * _HIDDEN
    losses = [functional.cross_entropy(token[:, :, i] - hidden, target.places[:, i], reduction="none") for i in (0, 1)]
    marked = target.marked.float()
    span = (sum(losses, start=torch.zeros(())) * marked).sum() / 2 / marked.sum().clamp(min=1)
    means = torch.zeros(len(target.right)).index_add(0, target.owners, token[:, :, 2][target.inside])
    sizes = torch.zeros(len(target.right)).index_add(0, target.owners, torch.ones(len(target.owners)))
    values = means / sizes.clamp(min=1)
    sentences = functional.binary_cross_entropy_with_logits(values, target.right) if len(values) else values.sum()
    answers = functional.binary_cross_entropy_with_logits(row[:, 0], target.answerable)
    return span + sentences + answers


def judge_loss(row: Tensor, supported: Tensor) -> Tensor:
    """Return the loss of a batch: whether the evidence supports the claim."""
    return functional.binary_cross_entropy_with_logits(row[:, 0], supported)


@dataclass(frozen=True, slots=True)
class ReaderTarget:
    """What is true of a batch of reader rows.

    ``places`` (b, 2): tokens where the answer starts and ends; ``marked`` (b,): whether they are known; ``open``
    (b, s): where an answer may be; ``answerable`` (b,). Of the sentences of all rows: ``inside`` (b, s) says which
    tokens are in one, ``owners`` (tokens,) in which, in their order, and ``right`` (sentences,) which hold the answer.
    """

    places: Tensor
    marked: Tensor
    open: Tensor
    answerable: Tensor
    inside: Tensor
    owners: Tensor
    right: Tensor
