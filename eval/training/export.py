"""Writes a trained model as the files that ship: owns onnx.

    python -m eval.training.export reader --run FOLDER --data FOLDER --out rag/weights

Several runs, of other seeds, become one model with the mean of their weights, and some share of the encoder that they
began from may be kept in it: both leave it steadier on texts unlike the training files. ``reader.onnx`` holds the
layers, in int8, and the heads; ``reader.json`` how its values become probabilities, fitted on the held rows of the
training files (`eval.training.calibration`). Knows no metric.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eval.training.exported import load_shipped
from eval.training.model import HEADS, SHAPES, PairModel, Shape, start_from
from rag.encoders import built_in_model

#: Tensors with more numbers are stored in float16, and those that a layer multiplies by, which have more, in int8.
LARGE, LAYER = 1000, 100_000
#: The largest int8 number that is used: the scale is symmetric.
STEPS = 127


def load_model(file: Path) -> PairModel:
    """Return the model that a checkpoint of `eval.training.train` holds, ready to read."""
    state = torch.load(file, weights_only=True)
    model = PairModel(Shape(**state["shape"]))
    model.load_state_dict(state["model"])
    model.eval()
    return model


def averaged(models: Sequence[PairModel], start: Path, kept: float = 0.0) -> PairModel:
    """Return a model with the mean weights of ``models``; in its layers, the encoder in ``start`` counts for ``kept``.

    Wortsman et al., "Model soups" (ICML 2022) and "Robust fine-tuning of zero-shot models" (CVPR 2022). The heads,
    which that encoder does not have, are the mean alone.
    """
    mean = copy.deepcopy(models[0])
    before = copy.deepcopy(mean)
    start_from(before, start)
    others = [dict(model.named_parameters()) for model in models]
    first = dict(before.named_parameters())
    with torch.no_grad():
        for name, weights in mean.named_parameters():
            share = 0.0 if name.startswith(HEADS) else kept
            weights.copy_(share * first[name] + (1 - share) * torch.stack([other[name] for other in others]).mean(0))
    mean.eval()
    return mean


def shipped(model: PairModel) -> PairModel:
    """Return a copy of ``model`` with the rounded weights that its file holds; the arithmetic stays in float32.

    The matrices of the layers are rounded to 255 steps for each of their outputs, all that is large to float16.
    """
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for name, weights in rounded.named_parameters():
            if name.startswith("layers.") and weights.numel() > LAYER:
                steps = weights.abs().amax(dim=1, keepdim=True) / STEPS
                weights.copy_((weights / steps).round() * steps)
            elif weights.numel() > LARGE:
                weights.copy_(weights.half().float())
    rounded.eval()
    return rounded


def export(model: PairModel, target: Path) -> None:
    """Write what is `shipped` of ``model`` as an ONNX file with the inputs ``words``, ``types`` and ``mask``.

    Its outputs are ``row``, and ``token`` where the model tells anything of tokens.
    """
    words = torch.zeros(2, 8, model.shape.width)
    types = torch.tensor([[0] * 4 + [1] * 4] * 2)
    mask = torch.ones_like(types)
    names = {"words": {0: "batch", 1: "length"}, "types": {0: "batch", 1: "length"}, "mask": {0: "batch", 1: "length"}}
    model = shipped(model)
    told = {"token": {0: "batch", 1: "length"}} if model.shape.token_values else {}
    axes = {**names, **told, "row": {0: "batch"}}
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own age and of constants that are constant here
        file = Path(scratch) / "model.onnx"
        torch.onnx.export(
            model if told else _RowsAlone(model), (words, types, mask), str(file), opset_version=17, dynamo=False,
            input_names=[*names], output_names=[*told, "row"], dynamic_axes=axes,
        )  # fmt: skip
        target.parent.mkdir(parents=True, exist_ok=True)
        _pack(file, target)


class _RowsAlone(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
    """A model that tells nothing of tokens, without that output."""

    def __init__(self, model: PairModel) -> None:
        super().__init__()
        self._model = model

    def forward(self, words: torch.Tensor, types: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        row: torch.Tensor = self._model(words, types, mask)[1]
        return row


def _pack(source: Path, target: Path) -> None:
    """Copy an ONNX file whose weights are those of `shipped` with each weight as small as it then may be.

    What a layer multiplies by becomes int8 with a scale for each column, which OpenVINO keeps so in memory and every
    other engine unpacks when it loads the file; other large tensors become float16, cast back where they are used.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(str(source))
    multiplied = {node.input[1] for node in model.graph.node if node.op_type == "MatMul"}
    unpacked: list[Any] = []
    kept: list[Any] = []
    for tensor in model.graph.initializer:
        name, values = tensor.name, numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size <= LARGE:
            kept.append(tensor)
        elif name in multiplied and values.size > LAYER:
            steps = np.abs(values).max(axis=0) / STEPS
            whole = np.round(values / steps).astype(np.int8)
            parts = {f"{name}.whole": whole, f"{name}.steps": steps, f"{name}.zero": np.zeros(len(steps), np.int8)}
            kept += [numpy_helper.from_array(part, key) for key, part in parts.items()]
            unpacked.append(helper.make_node("DequantizeLinear", [*parts], [name], axis=1))
        else:
            kept.append(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
            unpacked.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = [*unpacked, *model.graph.node]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(kept)
    onnx.checker.check_model(model)
    target.write_bytes(model.SerializeToString())


def main() -> None:
    """Export a run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("task", choices=sorted(SHAPES))
    parser.add_argument(
        "--run", type=Path, required=True, nargs="+", help="folders of runs, their checkpoints, ONNX files"
    )
    parser.add_argument("--kept", type=float, default=0.0, help="share of the encoder that the runs began from")
    parser.add_argument("--data", type=Path, required=True, help="folder of the training files")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1, help="that of a run, whose held rows calibrate")
    given = parser.parse_args()
    models = [
        load_shipped(run, SHAPES[given.task])
        if run.suffix == ".onnx"
        else load_model(run / "final.pt" if run.is_dir() else run)
        for run in given.run
    ]
    export(averaged(models, built_in_model(), given.kept), given.out / f"{given.task}.onnx")
    from eval.training.calibration import calibrate

    calibrate(given.task, given.data, given.out, given.seed)


if __name__ == "__main__":
    main()
