"""Trains the reader or the judge, on a GPU if there is one: resumable at any step.

    python -m eval.training.train reader --data FOLDER --out FOLDER --seed 1

writes ``checkpoint.pt`` every two minutes and ``log.jsonl``; run again it goes on where it was. The last weights are in
``final.pt``. AdamW (Loshchilov and Hutter, ICLR 2019) with a warm-up, a constant rate and a linear decay over the last
fifth of the steps (Hägele et al., NeurIPS 2024): until the decay begins, a run that is resumed may be given more or
fewer steps. bfloat16 arithmetic with float32 weights. On the CPU a run that was stopped and resumed ends with the same
weights as one that was not; it may be resumed on another device. Knows no dev set.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from eval.training.batches import (
    Example,
    JudgeExample,
    ReaderExample,
    inputs,
    judge_examples,
    judge_target,
    order,
    reader_examples,
    reader_target,
)
from eval.training.exported import load_shipped
from eval.training.judge_rows import judge_rows
from eval.training.model import HEADS, SHAPES, PairModel, Shape, judge_loss, load_words, reader_loss, start_from
from eval.training.reader_rows import reader_rows
from eval.training.rows import JudgeRow, ReaderRow, is_held, plain
from rag.encoders import built_in_model
from rag.pairs import PairTokenizer

#: Seconds between checkpoints.
SAVE_EVERY = 120.0
#: How often in a run the held rows are looked at, and at how many of them.
LOOKS, HELD_ROWS = 12, 480
#: Texts are the same if so many letters at their beginning are.
SAME = 120
#: The share of the steps in which the rate falls to 0, and how many times as fast the heads learn as the layers.
DECAY, HEADS_FASTER = 0.2, 5


RowT = TypeVar("RowT", ReaderRow, JudgeRow, ReaderRow | JudgeRow)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a run goes: everything that its result depends on but the rows."""

    task: str
    seed: int = 1
    rate: float = 1e-4
    head_rate: float = 5e-4
    warm_up: int = 100
    decay: float = 0.01
    clip: float = 1.0
    low_precision: bool = True


@dataclass(frozen=True, slots=True)
class Rows:
    """The examples that train, and the held ones that do not."""

    trained: Sequence[Example]
    held: Sequence[Example]


class Run:
    """A training run in ``folder``, which holds all of its state."""

    def __init__(
        self, recipe: Recipe, shape: Shape, rows: Rows, words: Tensor, folder: Path, start: Path, steps: int | None,
        device: str = "cpu",
    ) -> None:  # fmt: skip
        """``start`` is the folder of the encoder, or the ONNX file of a model that ships."""
        self._device = torch.device(device)
        self._recipe, self._rows, self._words, self._folder = recipe, rows, words.to(self._device), folder
        torch.manual_seed(recipe.seed)
        if start.is_dir():
            self.model = PairModel(shape)
            start_from(self.model, start)
        else:
            self.model = load_shipped(start, shape).train()
        self.model.to(self._device)
        named = [*self.model.named_parameters()]
        heads = [weights for name, weights in named if name.startswith(HEADS)]
        body = [weights for name, weights in named if not name.startswith(HEADS)]
        self._optimizer = torch.optim.AdamW(
            [{"params": body, "lr": recipe.rate}, {"params": heads, "lr": recipe.head_rate}],
            weight_decay=recipe.decay,
        )
        for group in self._optimizer.param_groups:
            group["peak"] = group["lr"]
        self._lengths = [len(example.pair.ids) for example in rows.trained]
        self.epoch_steps = len(order(self._lengths, recipe.seed, 0))
        self.steps = steps or self.epoch_steps
        self.step = 0
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "checkpoint.pt").is_file():
            self._resume()

    def train(self, until: int | None = None) -> Iterator[dict[str, Any]]:
        """Train to the step ``until`` (the end), and yield what is to be logged."""
        saved, told, losses, tokens = time.monotonic(), time.monotonic(), [], 0
        look = max(1, self.steps // LOOKS)
        for batch in itertools.islice(self._batches(), self.step, self.steps if until is None else until):
            examples = [self._rows.trained[i] for i in batch]
            losses.append(self._take_step(examples))
            tokens += sum(len(example.pair.ids) for example in examples)
            if self.step % 20 == 0 or self.step == self.steps:
                now = time.monotonic()
                mean = sum(losses) / len(losses)
                yield {
                    "step": self.step,
                    "of": self.steps,
                    "loss": round(mean, 4),
                    "tokens_s": round(tokens / (now - told)),
                }
                told, losses, tokens = now, [], 0
            if self.step % look == 0 or self.step == self.steps:
                yield {"step": self.step, "held_loss": round(self.held_loss(), 4)}
            if time.monotonic() - saved > SAVE_EVERY:
                self.save()
                saved = time.monotonic()
        self.save()
        if self.step == self.steps:
            weights = {name: value.cpu() for name, value in self.model.state_dict().items()}
            _write({"shape": asdict(self.model.shape), "model": weights}, self._folder / "final.pt")

    def _batches(self) -> Iterator[list[int]]:
        """Yield the batches of one epoch after another, without end."""
        for epoch in itertools.count():
            yield from order(self._lengths, self._recipe.seed, epoch)

    def held_loss(self) -> float:
        """Return the mean loss over the held rows."""
        held = sorted(self._rows.held[:HELD_ROWS], key=lambda example: len(example.pair.ids))
        losses = []
        with torch.inference_mode():
            for start in range(0, len(held), 16):
                examples = held[start : start + 16]
                losses.append(float(self._loss(examples)) * len(examples))
        return sum(losses) / max(1, len(held))

    def save(self) -> None:
        """Write all of the run's state; what was there before is replaced only when all of it is written."""
        state = {
            "recipe": asdict(self._recipe), "shape": asdict(self.model.shape), "step": self.step,
            "model": self.model.state_dict(), "optimizer": self._optimizer.state_dict(),
        }  # fmt: skip
        _write(state, self._folder / "checkpoint.pt")

    def _resume(self) -> None:
        state = torch.load(self._folder / "checkpoint.pt", weights_only=True, map_location="cpu")
        if state["recipe"] != asdict(self._recipe):
            raise SystemExit(
                f"{self._folder} holds a run with another recipe: {state['recipe']}; choose another folder."
            )
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def _take_step(self, examples: Sequence[Example]) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * self._share_of_rate()
        loss = self._loss(examples)
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._recipe.clip)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return float(loss.detach())

    def _share_of_rate(self) -> float:
        left = (self.steps - self.step) / max(1.0, self.steps * DECAY)
        return min(1.0, (self.step + 1) / self._recipe.warm_up, left)

    def _loss(self, examples: Sequence[Example]) -> Tensor:
        read = inputs(examples)
        ids, types, mask = (values.to(self._device) for values in (read.ids, read.types, read.mask))
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._recipe.low_precision):
            token, row = self.model(self._words[ids], types, mask)
        token, row = token.cpu(), row.cpu()  # a few values for each token: the loss is worked out where its targets are
        if self._recipe.task == "reader":
            return reader_loss(token, row, reader_target(cast("Sequence[ReaderExample]", examples)))
        return judge_loss(row, judge_target(cast("Sequence[JudgeExample]", examples)))


def split_rows(
    task: str, data: Path, seed: int, written: Sequence[Path] = (), without: str = ""
) -> tuple[list[ReaderRow | JudgeRow], list[ReaderRow | JudgeRow]]:
    """Return the rows of a task that train, and those that are held from training.

    Rows whose source begins with ``without`` are in neither.
    """
    rows = [*(reader_rows if task == "reader" else judge_rows)(data, seed, written)]
    return parted([row for row in rows if not (without and row.source.startswith(without))])


def parted(rows: Sequence[RowT]) -> tuple[list[RowT], list[RowT]]:
    """Return the rows that train, and those that are held; rows are in neither whose text trains in another spelling.

    The model would know those by heart, and be surer of them than of texts that are new to it.
    """
    trained = [row for row in rows if not is_held(row.group)]
    known = {_letters(row.group) for row in trained}
    return trained, [row for row in rows if is_held(row.group) and _letters(row.group) not in known]


def _letters(text: str) -> str:
    """Return the first letters and figures of a text, which are the same however it is spelt."""
    return plain(text).replace(" ", "")[:SAME]


def examples_of(
    task: str, rows: Sequence[ReaderRow | JudgeRow], tokenizer: PairTokenizer, seed: int
) -> Sequence[Example]:
    """Return rows of a task as tokens."""
    if task == "reader":
        return reader_examples(cast("Sequence[ReaderRow]", rows), tokenizer, seed)
    return judge_examples(cast("Sequence[JudgeRow]", rows), tokenizer)


def _write(state: dict[str, Any], file: Path) -> None:
    part = file.with_suffix(".part")
    torch.save(state, part)
    part.replace(file)


def main() -> None:
    """Run or resume a training from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("task", choices=sorted(SHAPES))
    parser.add_argument("--data", type=Path, required=True, help="folder of the training files")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--written", type=Path, nargs="*", default=(), help="files of eval.training.writer")
    parser.add_argument("--without", default="", help="sources of rows that are left out begin so: squad, nq, health")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=Path, help="the ONNX file of a model that the run goes on from")
    parser.add_argument("--steps", type=int, help="batches to learn from; without it one pass over all rows")
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    gpu = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if gpu else "cpu", help="cpu, cuda, cuda:1; the GPU if there is one")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    tokenizer = PairTokenizer(built_in_model() / "tokenizer.json")
    trained, held = split_rows(given.task, given.data, given.seed, given.written, given.without)
    rows = Rows(*(examples_of(given.task, part, tokenizer, given.seed) for part in (trained, held)))
    recipe = Recipe(given.task, given.seed, given.rate, HEADS_FASTER * given.rate)
    start = given.start or built_in_model()
    run = Run(
        recipe, SHAPES[given.task], rows, load_words(built_in_model()), given.out, start, given.steps, given.device
    )
    with (given.out / "log.jsonl").open("a", encoding="utf-8") as log:
        for line in run.train():
            log.write(json.dumps(line) + "\n")
            log.flush()


if __name__ == "__main__":
    main()
