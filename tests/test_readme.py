"""The documents stay true: what README.md tells a reader to run exists, and its settings are settings."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from rag.settings import Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = sorted(set(re.findall(r"citewell ((?:eval )?[a-z]+)\b", README)) - {"retrieval"})


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_of_the_readme_exists(command: str) -> None:
    words = ["eval", "retrieval"] if command == "eval retrieval" else command.split()
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", *words, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_each_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", README)) <= targets


def test_each_setting_of_the_readme_exists() -> None:
    for name in re.findall(r"CITEWELL_([A-Z_]+)=", README):
        part, _, field = name.lower().partition("__")
        model = Settings.model_fields[part].annotation
        assert not field or field in model.model_fields, name


def test_each_extra_of_the_readme_exists() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"cpu", "gpu", "eval", "ocr", "postgres", "trtllm"} <= set(project["optional-dependencies"])


def test_faiss_for_cpu_and_gpu_never_meet() -> None:
    """No extra brings both builds, the base brings none, and uv is told that the two extras exclude each other."""
    import tomllib

    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = config["project"]
    faiss = {
        name: [d for d in deps if d.startswith("faiss")] for name, deps in project["optional-dependencies"].items()
    }
    assert [name for name, found in faiss.items() if found] == ["cpu", "gpu"]
    assert not any(dependency.startswith("faiss") for dependency in project["dependencies"])
    never = [[{"extra": "cpu"}, {"extra": "gpu"}], [{"extra": "dev"}, {"extra": "gpu"}]]  # milvus-lite has faiss-cpu
    assert config["tool"]["uv"]["conflicts"] == never
