"""Reading the tensors of a ``.safetensors`` file in place, without the library and without a copy.

The file begins with the length of a JSON header (8 bytes, little endian) that says of each tensor its type, its shape
and where its bytes are. Knows no model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rag.errors import Misconfigured

_TYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
}


def open_tensors(file: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the tensors of ``file`` by name, mapped into memory read-only; types that are not plain are left out.

    Raises `Misconfigured` if the file is none of this kind.
    """
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size))
        found: dict[str, npt.NDArray[Any]] = {}
        for name, entry in header.items():
            if entry.get("dtype") in _TYPES:
                place = 8 + size + entry["data_offsets"][0]
                shape = tuple(entry["shape"])
                kind = _TYPES[entry["dtype"]]
                found[name] = np.memmap(file, dtype=kind, mode="r", offset=place, shape=shape)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise Misconfigured(f"{file} can not be read as safetensors: {error}.") from error
    return found
