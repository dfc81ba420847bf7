"""A model of the package as one that can be trained: reads the ONNX files that `eval.training.export` writes.

Knows their layout and no row of text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from eval.training.model import PairModel, Shape


def load_shipped(file: Path, shape: Shape) -> PairModel:
    """Return the model with the rounded weights that the ONNX file of `export` holds; training may go on from it."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(file)).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    found: dict[str, Any] = {
        name.removeprefix("_model.").removesuffix(".half"): values.astype(np.float32) for name, values in stored.items()
    }
    for node in graph.node:
        if node.op_type == "DequantizeLinear":
            found[node.output[0]] = stored[node.input[0]].astype(np.float32) * stored[node.input[1]]
    matrices = iter(
        [found[node.input[1]].T for node in graph.node if node.op_type == "MatMul" and node.input[1] in found]
    )
    [first], [step] = ([name for name in found if name.startswith(f"onnx::{kind}_")] for kind in ("Add", "Mul"))
    found["types"] = np.stack([found[first], found[first] + found[step]])
    model = PairModel(shape)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            weights.copy_(torch.from_numpy(np.array(found[name] if name in found else next(matrices))))
    model.eval()
    return model
