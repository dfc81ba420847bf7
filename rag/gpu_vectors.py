"""Sealed vectors on a GPU: owns faiss-gpu. The files are those of the CPU, only the search is elsewhere.

    flat    every vector in float16, exact
    ivf     the sealed inverted file with codes of 8 or 4 bits; an exact one in lists where the codes are others
    cagra   a graph that is built on the GPU when the part is opened (Ootomo et al., ICDE 2024); needs cuVS in FAISS

Candidates are scored again from the part's own vectors, as on the CPU. FAISS on a GPU gives at most 2,048 of them and
takes no filter: where a filter leaves too few of the candidates, the CPU answers from the same files.
Knows nothing of how a part is made.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from rag.errors import Misconfigured
from rag.hits import Mask, top
from rag.protocols import Hits, Vectors
from rag.sealed_vectors import RESCORED_EACH, SAMPLE, STEP, Halves, SealedVectors, scored
from rag.settings import IndexSettings

#: Most candidates of one search on a GPU.
MOST = 2048


class GpuVectors:
    """An opened part on the first GPU; one search at a time, since FAISS's memory on a GPU is for one."""

    def __init__(self, part: SealedVectors, index: Any, resources: Any) -> None:
        self._part = part
        self._index = index
        self._resources = resources  # has to live as long as the index
        self._lock = threading.Lock()

    def search(self, query: Vectors, k: int, mask: Mask, count: int) -> Hits:
        """See `rag.sealed_vectors.Searched`."""
        k = min(k, count)
        fewest = max(RESCORED_EACH * k, self._part.rescored)
        wanted = min(len(mask), int(fewest * len(mask) / max(count, 1)))
        if not k or wanted > MOST:
            return self._part.search(query, k, mask, count)
        with self._lock:
            scores, positions = self._index.search(query[None, :], max(k, wanted))
        there = positions[0] >= 0
        positions, scores = positions[0][there], scores[0][there]
        kept = mask[positions]
        if kept.sum() < k:
            return self._part.search(query, k, mask, count)
        if self._part.vectors is None:
            return top(positions[kept], scores[kept], k)
        return scored(self._part.vectors, np.sort(positions[kept]), query, k)


def on_gpu(part: SealedVectors, rules: IndexSettings) -> GpuVectors:
    """Copy an opened part to the GPU; raises `Misconfigured` with the cure where that can not be done."""
    faiss = part.faiss
    if not hasattr(faiss, "StandardGpuResources"):
        raise Misconfigured(
            "index.device is cuda, but the installed FAISS has no GPU: run `pip uninstall faiss-cpu` and "
            "`pip install citewell[gpu]`, or set index.device to cpu."
        )
    if not faiss.get_num_gpus():
        raise Misconfigured("index.device is cuda, but FAISS finds no NVIDIA GPU; set index.device to cpu.")
    resources = faiss.StandardGpuResources()
    return GpuVectors(part, _copied(part, rules, resources), resources)


def _copied(part: SealedVectors, rules: IndexSettings, resources: Any) -> Any:
    faiss = part.faiss
    if rules.gpu_kind == "cagra" and not hasattr(faiss, "GpuIndexCagra"):
        raise Misconfigured("index.gpu_kind is cagra, but the installed FAISS has no cuVS; set it to flat or ivf.")
    if part.vectors is None:
        return faiss.index_cpu_to_gpu(resources, 0, part.index, _options(faiss))
    if rules.gpu_kind == "cagra":
        index = faiss.GpuIndexCagra(resources, part.index.d, faiss.METRIC_INNER_PRODUCT, faiss.GpuIndexCagraConfig())
        index.train(part.vectors.astype(np.float32))
        return index
    if rules.gpu_kind == "ivf" and part.kind == "ivf":
        index = _inverted_file(part, part.vectors, resources)
        index.nprobe = min(part.effort, MOST)
        return index
    config = faiss.GpuIndexFlatConfig()
    config.useFloat16 = True
    index = faiss.GpuIndexFlatIP(resources, part.index.d, config)
    _fill(index, part.vectors)
    return index


def _inverted_file(part: SealedVectors, vectors: Halves, resources: Any) -> Any:
    """Return the part's own lists on the GPU; where it has no kernel for the codes, lists of float16 vectors."""
    faiss = part.faiss
    if isinstance(part.index, faiss.IndexIVFScalarQuantizer):
        return faiss.index_cpu_to_gpu(resources, 0, part.index, _options(faiss))
    halves, metric = faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    config = faiss.GpuIndexIVFScalarQuantizerConfig()
    lists = part.index.nlist
    index = faiss.GpuIndexIVFScalarQuantizer(resources, part.index.d, lists, halves, metric, False, config)
    sample = np.linspace(0, len(vectors) - 1, min(len(vectors), SAMPLE * lists), dtype=np.int64)
    index.train(vectors[sample].astype(np.float32))
    _fill(index, vectors)
    return index


def _options(faiss: Any) -> Any:
    options = faiss.GpuClonerOptions()
    options.useFloat16 = True
    options.indicesOptions = faiss.INDICES_64_BIT
    return options


def _fill(index: Any, vectors: Halves) -> None:
    for start in range(0, len(vectors), STEP):
        index.add(vectors[start : start + STEP].astype(np.float32))
