"""The packaging stays true: the extras that the README names are there, and two builds of FAISS never meet."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_each_extra_of_the_readme_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"cpu", "gpu", "eval", "ocr", "postgres", "trtllm"} <= set(project["optional-dependencies"])


def test_faiss_for_cpu_and_gpu_never_meet() -> None:
    """No extra brings both builds, the base brings none, and uv is told that the two extras exclude each other."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = config["project"]
    faiss = {
        name: [d for d in deps if d.startswith("faiss")] for name, deps in project["optional-dependencies"].items()
    }
    assert [name for name, found in faiss.items() if found] == ["cpu", "gpu"]
    assert not any(dependency.startswith("faiss") for dependency in project["dependencies"])
    never = [[{"extra": "cpu"}, {"extra": "gpu"}], [{"extra": "dev"}, {"extra": "gpu"}]]  # milvus-lite has faiss-cpu
    assert config["tool"]["uv"]["conflicts"] == never
