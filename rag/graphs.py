"""Runs the graphs of built-in models on the CPU: owns OpenVINO and ONNX Runtime.

A graph is an ONNX file. OpenVINO runs it in bfloat16 where the processor has it; where OpenVINO is not installed ONNX
Runtime does in float32. Each core runs forward passes of its own. Knows arrays by name, and nothing of what they mean.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from rag.errors import Misconfigured

Arrays = Mapping[str, npt.NDArray[Any]]
ItemT = TypeVar("ItemT")
_FIRST = threading.Lock()
ResultT = TypeVar("ResultT")


class Graph(Protocol):
    """A model as a function of arrays. Thread-safe."""

    @property
    def engine(self) -> str:
        """What computes it, for instance ``openvino bf16``."""
        ...

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[np.float32]]:
        """Return the outputs of one forward pass by name."""
        ...

    def map(self, work: Callable[[ItemT], ResultT], items: Iterable[ItemT]) -> list[ResultT]:
        """Return what ``work`` makes of each of ``items``, on as many threads as there are cores."""
        ...

    def close(self) -> None: ...


def open_graph(file: Path, outputs: Sequence[str], threads: int = 0, backend: str = "auto") -> Graph:
    """Open the ONNX file ``file`` on ``threads`` cores (0: all that this process may use).

    ``outputs`` names what is wanted of it. ``backend`` is ``openvino``, ``onnxruntime`` or ``auto``: the first of these
    two that is installed. Raises `Misconfigured` if the file is gone or damaged, or there is no library to run it.
    """
    require_graph(file)
    cores = threads or len(os.sched_getaffinity(0))
    chosen = backend if backend != "auto" else "openvino" if has_openvino() else "onnxruntime"
    return OpenVINOGraph(file, outputs, cores) if chosen == "openvino" else OnnxGraph(file, outputs, cores)


def require_graph(file: Path) -> None:
    """Raise `Misconfigured` if the ONNX file ``file`` is not there."""
    if not file.is_file():
        raise Misconfigured(
            f"{file} is not there; train the model and export it (python -m eval.training.train --help), or name a "
            "folder that holds it."
        )


def _damaged(file: Path, error: Exception) -> Misconfigured:
    return Misconfigured(f"{file} can not be read as a model; reinstall citewell: {error}")


def has_openvino() -> bool:
    """Say whether OpenVINO is installed, without importing it."""
    return find_spec("openvino") is not None


def import_openvino() -> Any:
    """Return the library; raises `Misconfigured` if it is not installed."""
    # Its telemetry package is a hard dependency but optional in code: without it OpenVINO uses a stub of its own.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise Misconfigured(
            "The OpenVINO backend is not installed; run `pip install citewell[cpu]` or set embedder.backend to torch."
        ) from error
    return openvino


#: Kernels that a compiled graph keeps, each made for one shape of its inputs. Batches come in thousands of shapes, and
#: the library's own 5,000 hold over a gigabyte in the end; with these a shape that comes back costs no more, see
#: `eval/LOG.md`.
KERNELS = 64


def compile_openvino(file: Path, cores: int) -> tuple[Any, str]:
    """Return the graph in ``file`` ready to run on ``cores`` cores, each a pass of its own, and its arithmetic.

    That is bfloat16 where the processor has it, and float32 elsewhere.
    """
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "bf16", "NUM_STREAMS": cores, "INFERENCE_NUM_THREADS": cores,
        "CPU_RUNTIME_CACHE_CAPACITY": KERNELS,
    }  # fmt: skip
    openvino = import_openvino()
    with _FIRST:  # the tables of types are made at the first use, where two threads at once wait for each other forever
        for kind in (np.float32, np.int64):
            openvino.Tensor(np.zeros(1, dtype=kind)).data[:] = 0
    core = openvino.Core()
    model = core.compile_model(core.read_model(file), "CPU", options)
    return model, str(model.get_property("INFERENCE_PRECISION_HINT")).rsplit("'", 2)[-2]


class _Pool:
    """The threads of a graph: one for each core, so that no pass waits for another at every layer."""

    def __init__(self, cores: int) -> None:
        self._pool = ThreadPoolExecutor(cores, thread_name_prefix="graph")

    def map(self, work: Callable[[ItemT], ResultT], items: Iterable[ItemT]) -> list[ResultT]:
        """See `Graph`."""
        waiting = list(items)
        return [work(waiting[0])] if len(waiting) == 1 else list(self._pool.map(work, waiting))

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


class OpenVINOGraph(_Pool):
    """A graph on OpenVINO, see `compile_openvino`."""

    def __init__(self, file: Path, outputs: Sequence[str], cores: int) -> None:
        super().__init__(cores)
        try:
            self._model, precision = compile_openvino(file, cores)
        except RuntimeError as error:
            raise _damaged(file, error) from error
        self.engine = f"openvino {precision}"
        self._names = outputs
        self._idle: list[Any] = []  # requests that nobody uses; taking and putting back are atomic

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[np.float32]]:
        """See `Graph`."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._model.create_infer_request()
        request.infer(dict(inputs))
        found = {name: request.get_tensor(name).data.copy() for name in self._names}
        self._idle.append(request)
        return found

    def close(self) -> None:
        """Free the model while the process is still whole: the library does not like to be taken down at its end."""
        super().close()
        self._idle.clear()
        del self._model


class OnnxGraph(_Pool):
    """A graph on ONNX Runtime, in float32: runs wherever Python does."""

    engine = "onnxruntime f32"

    def __init__(self, file: Path, outputs: Sequence[str], cores: int) -> None:
        super().__init__(cores)
        try:
            import onnxruntime
            from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph, InvalidProtobuf
        except ImportError as error:
            raise Misconfigured(
                "Neither OpenVINO nor ONNX Runtime is installed; run `pip install citewell[cpu]`."
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        # What else it does to a graph rounds its values: this engine is the exact twin of the other one.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except (Fail, InvalidGraph, InvalidProtobuf) as error:
            raise _damaged(file, error) from error
        self._names = list(outputs)

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[np.float32]]:
        """See `Graph`."""
        return dict(zip(self._names, self._session.run(self._names, dict(inputs)), strict=True))
