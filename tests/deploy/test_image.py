"""The Dockerfile: what enters the images, as whom they run, and that what it names exists. Nothing is built."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from pathlib import Path

import pytest

from tests.deploy.dockerfile import chain, expanded, pairs, read_stages
from tests.deploy.settings_named import is_setting

ROOT = Path(__file__).parents[2]
STAGES = read_stages(ROOT / "api" / "deploy" / "Dockerfile")
TARGETS = ("cpu", "ocr", "gpu")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def steps(target: str, name: str) -> list[str]:
    """Return what one kind of instruction says in a stage and those that it is built on."""
    return [step.words for stage in chain(STAGES, target) for step in stage.steps if step.name == name]


def test_the_first_image_is_pinned_by_digest():
    """Version and digest: the same bytes, whatever becomes of the tag."""
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", STAGES["base"].parent)


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_as_nobody_in_particular(target):
    """The last USER is a number that is not root's, as in compose.yaml; its health is looked at; SIGTERM stops it."""
    assert steps(target, "USER")[-1] == "10001:10001"
    assert steps(target, "ENTRYPOINT") == ['["citewell"]']
    assert steps(target, "CMD")[-1] == '["serve"]'
    assert "/health/ready" in steps(target, "HEALTHCHECK")[-1]
    assert steps(target, "STOPSIGNAL") == ["SIGTERM"]


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_holds_the_installed_package_and_no_source(target):
    """It begins with the plain base, and gets one folder from the stage that builds."""
    kind = "gpu" if target == "gpu" else "cpu"
    assert steps(target, "COPY") == [f"--from=build-{kind} /opt/citewell /opt/citewell"]
    assert "source" not in {stage.name for stage in chain(STAGES, target)}


def test_what_is_copied_exists_and_is_let_in():
    """Every source of a COPY is there, and .dockerignore, which lets in nothing by default, names it."""
    first, *rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert first == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = [name for words in steps("source", "COPY") for name in words.split()[:-1]]
    assert all((ROOT / name).exists() for name in copied)
    assert set(copied) == let_in
    packages = {pattern.removesuffix("*") for pattern in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages <= set(copied)
    assert not any(fnmatch.fnmatch(name, pattern) for name in copied for pattern in (".git*", ".env*", "tests"))


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_extras_exist_and_versions_are_those_that_were_tested(kind):
    """What is installed is in pyproject.toml, in the versions of .constraints.txt; cpu and gpu never meet."""
    [install] = [words for words in steps(f"build-{kind}", "RUN") if "pip install" in words]
    extras = set(re.search(r"'\.\[(.*)\]'", install)[1].split(","))
    assert extras <= PROJECT["project"]["optional-dependencies"].keys()
    assert len({"cpu", "gpu"} & extras) == 1
    assert "--constraint .constraints.txt" in install


@pytest.mark.parametrize("target", TARGETS)
def test_variables_of_an_image_are_settings_and_no_secrets(target):
    """Every CITEWELL_ variable sets something, and no name looks as if a secret were built in."""
    names = {name for words in steps(target, "ENV") for name in pairs(words)}
    assert {"CITEWELL_DATA", "CITEWELL_CACHE"} <= names
    assert [name for name in names if name.startswith("CITEWELL_") and not is_setting(name)] == []
    arguments = {words.partition("=")[0] for stage in STAGES for words in steps(stage, "ARG")}
    assert not [name for name in names | arguments if re.search("KEY|TOKEN|SECRET|PASSWORD", name)]


def test_variables_are_put_in():
    """Of the reader of Dockerfiles: plain, in braces, with a default, and unknown."""
    assert expanded("$A ${A} ${B:-b} ${B}.", {"A": "1"}) == "1 1 b ."
