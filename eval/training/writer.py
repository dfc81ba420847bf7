"""A small language model that writes questions beside passages: the reader's training files hold too few.

    python -m eval.training.writer train --model FILE.gguf --data FOLDER --run FOLDER
    python -m eval.training.writer write --model FILE.gguf --data FOLDER --run FOLDER --out FILE.jsonl.gz
    python -m eval.training.agreed --written FILE.jsonl.gz --out FILE.jsonl.gz

``train`` goes on with a language model on the questions of the training files, each below its passage and above its
answer or the word "none"; ``write`` lets it write questions of its own, each with its answer, below passages of the
training files. A written question counts as answered where the model is sure of an answer that stands in the passage,
and as unanswerable where it is sure of "none" (Shakeri et al., "End-to-End Synthetic Data Generation for Domain
Adaptation of Question Answering Systems", EMNLP 2020, who drop what the model is least sure of too). What a reader says
of them is asked by `eval.training.agreed`. Owns transformers here. Knows no reader.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from eval.training.detokenise import detokenised
from eval.training.reader_rows import reader_rows
from eval.training.rows import ReaderRow, Span, is_held

#: What stands before a question that somebody wrote beside the passage, one that somebody searched by, and an answer.
WRITTEN, SEARCHED, ANSWER, NONE = "Question:", "Search:", "Answer:", " none"
#: Tokens of a passage and of all that stands below it; questions below one passage.
PASSAGE, BELOW, TOGETHER = 384, 300, 10
#: Rows of nq_qed that train, and of those that meet a near passage; passes over the passages of squad.
NATURAL, NEAR, PASSES = 2400, 900, 2
#: Of so many layers the lowest stays as it is; rate of the others; padded tokens of a step; steps of warm-up.
FROZEN, RATE, STEP_TOKENS, WARM_UP = 3, 1.5e-4, 2400, 20
#: Tokens that are written below a passage, passages at a time, the share of chances that is drawn from, and its heat.
NEW, AT_ONCE, DRAWN_FROM, HEAT = 96, 64, 0.92, 0.8
#: A written answer counts from this probability on if that of "none" is at most the second; "none" from the third.
SURE, DOUBT, SURE_NONE = 0.2, 0.3, 0.6
_SAVE_EVERY = 120.0


@dataclass(frozen=True, slots=True)
class Story:
    """A passage with questions and answers below it as tokens; ``told`` says which of them are to be learnt."""

    ids: list[int]
    told: list[bool]


def stories(rows: Sequence[ReaderRow], tokenizer: Any, rng: random.Random) -> list[Story]:
    """Return what the writer learns from: all questions of a passage of squad together, others one by one."""
    natural = [row for row in rows if row.source == "nq"]
    near = [row for row in rows if row.source == "nq-near"]
    found = [_story([row], tokenizer) for row in rng.sample(natural, min(NATURAL, len(natural)))]
    found += [_story([row], tokenizer) for row in rng.sample(near, min(NEAR, len(near)))]
    by_passage: dict[str, list[ReaderRow]] = {}
    for row in rows:
        if row.source == "squad":
            by_passage.setdefault(row.text, []).append(row)
    for _ in range(PASSES):
        for together in by_passage.values():
            rng.shuffle(together)
            found += [_story(together[i : i + TOGETHER], tokenizer) for i in range(0, len(together), TOGETHER)]
    rng.shuffle(found)
    return found


def head_ids(context: str, text: str, tokenizer: Any) -> list[int]:
    """Return the tokens of a passage, the end of a long one left out."""
    ids: list[int] = tokenizer.encode(f"{context}\n{text}", add_special_tokens=False)[:PASSAGE]
    ids += tokenizer.encode("\n", add_special_tokens=False)
    return ids


def _story(rows: Sequence[ReaderRow], tokenizer: Any) -> Story:
    text, places = detokenised(rows[0].text)
    ids = head_ids(detokenised(rows[0].context)[0], text, tokenizer)
    told = [False] * len(ids)
    for row in rows:
        searched = row.source.startswith("nq")
        question = row.question.rstrip("?").lower() if searched else row.question
        answer = f" {text[places[row.answer[0]] : places[row.answer[1]]].strip()}" if row.answer else NONE
        asked = tokenizer.encode(f"{SEARCHED if searched else WRITTEN} {question}\n", add_special_tokens=False)
        said = tokenizer.encode(f"{ANSWER}{answer}\n", add_special_tokens=False)
        ids += asked + said
        told += [not row.source.endswith("-near")] * len(asked) + [True] * len(said)
    return Story(ids[: PASSAGE + BELOW], told[: PASSAGE + BELOW])


def load_writer(file: Path) -> tuple[Any, Any]:
    """Return the language model in a GGUF file in float32, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name, local_files_only=True)
    model: Any = AutoModelForCausalLM.from_pretrained(
        str(file.parent), gguf_file=file.name, dtype=torch.float32, local_files_only=True
    )
    return model, tokenizer


class Lessons:
    """The training of a writer in ``folder``, which holds all of its state: resumed where it was stopped."""

    def __init__(self, model: Any, told: Sequence[Story], folder: Path, seed: int) -> None:
        self._model, self._told, self._folder = model, told, folder
        layers = model.model.layers
        for part in (model.model.embed_tokens, *layers[: len(layers) // FROZEN]):
            part.requires_grad_(False)
        self._learnt = [weights for weights in model.parameters() if weights.requires_grad]
        self._optimizer = torch.optim.AdamW(self._learnt, lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
        self._batches = batches([len(story.ids) for story in told], seed)
        self.steps, self.step = len(self._batches), 0
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "writer.pt").is_file():
            state = torch.load(folder / "writer.pt", weights_only=True)
            model.load_state_dict(state["model"])
            if "optimizer" in state:
                self._optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]

    def learn(self, until: int | None = None) -> Iterator[dict[str, Any]]:
        """Learn to the step ``until`` (the end), and yield what is to be logged."""
        saved = time.monotonic()
        for batch in self._batches[self.step : self.steps if until is None else until]:
            for group in self._optimizer.param_groups:
                group["lr"] = RATE * min(1.0, (self.step + 1) / WARM_UP, 1 - self.step / self.steps)
            loss = self.loss([self._told[i] for i in batch])
            loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
            torch.nn.utils.clip_grad_norm_(self._learnt, 1.0)
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            self.step += 1
            yield {"step": self.step, "of": self.steps, "loss": round(float(loss.detach()), 4)}
            if time.monotonic() - saved > _SAVE_EVERY:
                self._save({"optimizer": self._optimizer.state_dict()})
                saved = time.monotonic()
        self._save({} if self.step == self.steps else {"optimizer": self._optimizer.state_dict()})

    def loss(self, told: Sequence[Story]) -> Tensor:
        """Return the mean of -log p(token) over the told tokens of a batch."""
        width = max(len(story.ids) for story in told)
        ids = torch.zeros(len(told), width, dtype=torch.long)
        learnt = torch.zeros(len(told), width, dtype=torch.bool)
        for row, story in enumerate(told):
            ids[row, : len(story.ids)] = torch.tensor(story.ids)
            learnt[row, : len(story.ids)] = torch.tensor(story.told)
        with torch.autocast("cpu", torch.bfloat16):
            states = self._model.model(input_ids=ids, use_cache=False).last_hidden_state
            values = self._model.lm_head(states[:, :-1][learnt[:, 1:]])
        return functional.cross_entropy(values.float(), ids[:, 1:][learnt[:, 1:]])

    def _save(self, more: dict[str, Any]) -> None:
        part = self._folder / "writer.part"
        torch.save({"model": self._model.state_dict(), "step": self.step, **more}, part)
        part.replace(self._folder / "writer.pt")


def batches(lengths: Sequence[int], seed: int) -> list[list[int]]:
    """Return batches of rows of like length, of at most `STEP_TOKENS` padded tokens where a row alone is not longer."""
    rng = random.Random(seed)
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i] // 16, rng.random()))
    found: list[list[int]] = [[]]
    for i in order:
        more = [*found[-1], i]
        if found[-1] and len(more) * max(lengths[j] for j in more) > STEP_TOKENS:
            found.append([])
        found[-1].append(i)
    rng.shuffle(found)
    return found


@dataclass(frozen=True, slots=True)
class Passage:
    """What questions are written for."""

    context: str
    text: str


def passages_of(rows: Sequence[ReaderRow], rng: random.Random) -> list[Passage]:
    """Return the passages of squad and nq_qed that are not held, each once, in people's spelling."""
    asked = [row for row in rows if row.source in {"squad", "nq"} and not is_held(row.group)]
    found = [*{Passage(detokenised(row.context)[0], detokenised(row.text)[0]): None for row in asked}]
    by_text = {passage.text: passage for passage in sorted(found, key=lambda p: (p.text, p.context))}
    mixed = [*by_text.values()]
    rng.shuffle(mixed)
    return mixed


def written(model: Any, tokenizer: Any, passages: Sequence[Passage]) -> Iterator[tuple[Passage, str, Span | None]]:
    """Yield for each passage the questions that the model writes below it and is sure of, with their answers' places.

    None stands for "the passage does not answer". Draws from torch's random numbers.
    """
    from transformers import LogitsProcessor, LogitsProcessorList

    none = tokenizer.encode(NONE, add_special_tokens=False)[0]

    class Sure(LogitsProcessor):  # type: ignore[misc, unused-ignore]
        """Keeps the chance of each token that was drawn, and that of "none" in its place."""

        def __init__(self) -> None:
            self.before: Tensor | None = None
            self.drawn: list[Tensor] = []
            self.none: list[Tensor] = []

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            if self.before is not None:
                self.drawn.append(self.before.gather(1, input_ids[:, -1:])[:, 0])
            self.before = torch.log_softmax(scores.float(), dim=-1)
            self.none.append(self.before[:, none].exp())
            return scores

    asked = tokenizer.encode(WRITTEN, add_special_tokens=False)
    for start in range(0, len(passages), AT_ONCE):
        batch = passages[start : start + AT_ONCE]
        heads = [head_ids(one.context, one.text, tokenizer) + asked for one in batch]
        width = max(len(head) for head in heads)
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        mask = torch.zeros(len(batch), width, dtype=torch.long)
        for row, head in enumerate(heads):
            ids[row, width - len(head) :] = torch.tensor(head)
            mask[row, width - len(head) :] = 1
        sure = Sure()
        with torch.inference_mode():
            found = model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=NEW, do_sample=True, top_p=DRAWN_FROM, top_k=0,
                temperature=HEAT, eos_token_id=None, pad_token_id=0, logits_processor=LogitsProcessorList([sure]),
            )[:, width:].tolist()  # fmt: skip
        drawn, nones = torch.stack(sure.drawn, 1).tolist(), torch.stack(sure.none, 1).tolist()
        for passage, new, chances, of_none in zip(batch, found, drawn, nones, strict=True):
            for question, answer in _pairs(new, chances, of_none, passage.text, tokenizer):
                yield passage, question, answer


def _pairs(
    new: Sequence[int], chances: Sequence[float], of_none: Sequence[float], text: str, tokenizer: Any
) -> Iterator[tuple[str, Span | None]]:
    """Yield the whole pairs among the tokens ``new`` that the model is sure of.

    ``chances`` are the log probabilities with which the tokens were drawn, without that of the last; ``of_none`` the
    probability of "none" in the place of each.
    """
    ends = [place for place, token in enumerate(new[: len(chances)]) if tokenizer.decode([token]) == "\n"]
    lines = [(first + 1, last) for first, last in pairwise([-1, *ends])]
    marker = len(tokenizer.encode(ANSWER, add_special_tokens=False))
    for number, ((first, last), (said, end)) in enumerate(zip(lines[::2], lines[1::2], strict=False)):
        asked = ("" if number else WRITTEN) + tokenizer.decode(new[first:last])
        told = tokenizer.decode(new[said:end])
        question, answer = asked.removeprefix(WRITTEN).strip(), told.removeprefix(ANSWER).strip()
        if not (asked.startswith(WRITTEN) and told.startswith(ANSWER) and question and answer):
            return
        doubt = of_none[said + marker]
        place = text.find(answer)
        if answer == NONE.strip():
            if doubt >= SURE_NONE:
                yield question, None
        elif place >= 0 and doubt <= DOUBT and math.exp(sum(chances[said + marker : end + 1])) >= SURE:
            yield question, (place, place + len(answer))


def main() -> None:
    """Train a writer or let it write, from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("train", "write"))
    parser.add_argument("--model", type=Path, required=True, help="the language model, a GGUF file")
    parser.add_argument("--data", type=Path, required=True, help="folder of the training files")
    parser.add_argument("--run", type=Path, required=True, help="folder of the writer")
    parser.add_argument("--out", type=Path, help="file of the questions, .jsonl.gz")
    parser.add_argument("--passages", type=int, default=4000)
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), metavar=("N", "OF"), help="for several processes")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    torch.manual_seed(given.seed + given.part[0])
    rows = reader_rows(given.data, given.seed)
    model, tokenizer = load_writer(given.model)
    rng = random.Random(given.seed)
    if given.what == "train":
        told = stories([row for row in rows if not is_held(row.group)], tokenizer, rng)
        lessons = Lessons(model, told, given.run, given.seed)
        with (given.run / "log.jsonl").open("a", encoding="utf-8") as log:
            for line in lessons.learn():
                log.write(json.dumps(line) + "\n")
                log.flush()
        return
    model.load_state_dict(torch.load(given.run / "writer.pt", weights_only=True)["model"])
    model.to(torch.bfloat16).eval()
    number, parts = given.part
    passages = passages_of(rows, rng)[: given.passages][number::parts]
    passages.sort(key=lambda passage: len(passage.text))
    with gzip.open(given.out, "wt", encoding="utf-8") as out:
        for passage, question, answer in written(model, tokenizer, passages):
            row = {"question": question, "context": passage.context, "text": passage.text, "answer": answer}
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
