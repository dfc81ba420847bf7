"""The pages stay true: what README.md and docs/ name exists, their links lead somewhere, and their commands run.

Names are looked for where they are written as code: paths and modules, settings, routes, commands with their options,
make targets, extras. A block marked ``bash`` is run as it stands, in a folder of its own beside a copy of the sample
documents; one marked ``console`` shows commands that need what a test has not (another machine, a model, a server), and
those are held against the command line alone.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Match
from typer.main import get_command

from api.app import create_app
from api.cli import app
from rag.assembly import open_citewell
from rag.setting_parts import Part
from rag.settings import Settings, load_settings
from rag.testing import WordEmbedder

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "ingest" / "samples"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: Routes of other people's servers that the pages speak of.
FOREIGN = {"/v1/health/ready", "/health", "/v1", "/v2", "/v1/embeddings", "/v1/ranking"}
#: Variables that are read beside the settings.
VARIABLES = {"CITEWELL_CONFIG"}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(page: Path) -> list[tuple[str, str]]:
    """The fenced blocks of a page with their languages."""
    return FENCE.findall(page.read_text(encoding="utf-8"))


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def spans(page: Path) -> list[str]:
    """What a page writes as code within its lines."""
    return [" ".join(span.split()) for _, span in re.findall(r"(`+)((?:(?!\n\n).)+?)\1(?!`)", prose(page), re.DOTALL)]


def shell_lines(page: Path) -> Iterator[str]:
    """The lines of its shell blocks that are typed, without what a here-document or a program says."""
    for language, body in blocks(page):
        joined = body.replace("\\\n", " ")
        if language == "console":
            yield from (line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ "))
        elif language == "bash":
            yield from re.sub(r"<<'(\w+)'\n.*?^\1$", "", joined, flags=re.MULTILINE | re.DOTALL).splitlines()


def code(page: Path) -> list[str]:
    return [*spans(page), *shell_lines(page)]


# Paths, modules, links


@every_page
def test_each_path_and_module_exists(page: Path) -> None:
    """``rag/reader.py`` is a file, ``rag/`` a folder, ``python -m eval.bench`` can be run."""
    text = "\n".join(code(page))
    paths = re.findall(r"(?<![\w/.:-])((?:rag|ingest|eval|api|tests|docs)/[\w/.-]*)", text)
    modules = re.findall(r"python3? -m ((?:rag|ingest|eval|api)[\w.]*)", text)
    assert not [path for path in paths if not (ROOT / path.rstrip(".")).exists()]
    assert not [name for name in modules if not (ROOT / name.replace(".", "/")).with_suffix(".py").is_file()]


@every_page
def test_each_link_leads_somewhere(page: Path) -> None:
    """Relative links name files that are there, and headings that they have."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        name, _, heading = target.partition("#")
        if name.startswith(("http://", "https://")):
            continue
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (heading and heading not in anchors(file)):
            broken.append(target)
    assert not broken


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_every_page_is_in_the_table_of_pages() -> None:
    listed = set(re.findall(r"\]\(([\w-]+\.md)\)", (ROOT / "docs" / "README.md").read_text()))
    assert listed == {page.name for page in PAGES if page.parent.name == "docs"} - {"README.md"}


def test_the_notice_names_every_model_that_ships_and_what_it_learnt_from() -> None:
    """The data sets are those of the model cards; the licence is the one of pyproject.toml."""
    notice = (ROOT / "NOTICE").read_text()
    weights = sorted(path for path in (ROOT / "rag" / "weights").iterdir() if path.is_file())
    assert not [path.name for path in weights if f"rag/weights/{path.name}" not in notice]
    cards = "".join(path.read_text() for path in weights if path.suffix == ".md")
    named = {"SQuAD 2.0", "Natural Questions", "MedQuAD", "FEVER", "SciFact", "BEGIN", "WiCE"}
    assert not [name for name in named if name not in notice or name not in cards]
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"] == "Apache-2.0"


# Settings


def parts() -> dict[str, type[Part]]:
    found = {name: field.annotation for name, field in Settings.model_fields.items()}
    return {name: kind for name, kind in found.items() if isinstance(kind, type) and issubclass(kind, Part)}


@every_page
def test_each_setting_exists(page: Path) -> None:
    """By its variable (``CITEWELL_PART__FIELD``), by ``part.field``, and in blocks of TOML."""
    text = page.read_text(encoding="utf-8")
    missing = [
        name
        for name in re.findall(r"\bCITEWELL_[A-Z_]*[A-Z]\b", text)
        if name not in VARIABLES and not is_setting(*name.removeprefix("CITEWELL_").lower().split("__"))
    ]
    for span in spans(page):
        dotted = re.fullmatch(r"([a-z]+)\.([a-z_]+)(?: = .*)?", span)
        files = {"csv", "html", "jsonl", "json", "md", "prom", "toml"}
        if dotted and dotted[1] in parts() and dotted[2] not in files and not is_setting(*dotted.groups()):
            missing.append(span)
    for language, body in blocks(page):
        for part, values in tomllib.loads(body).items() if language == "toml" else ():
            missing += [f"{part}.{field}" for field in values if not is_setting(part, field)]
    assert not missing


def is_setting(part: str, field: str | None = None) -> bool:
    if part not in parts():
        return (part, field) == ("part", "field") or (field is None and part in Settings.model_fields)
    return field is None or field in parts()[part].model_fields


def test_an_unknown_setting_would_be_found() -> None:
    assert is_setting("retrieval", "around")
    assert not is_setting("retrieval", "nearby")
    assert not is_setting("nowhere", "around")


# Routes


@pytest.fixture(scope="session")
def routes(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    """Every method and address of the real application, ``{}`` in the place of what varies."""
    with open_citewell(load_settings(data=tmp_path_factory.mktemp("data")), embedder=WordEmbedder()) as citewell:
        application = create_app(citewell)
    described = application.openapi()["paths"]
    others = [("GET", path) for path in ("/", "/docs", "/openapi.json")] + [("POST", "/v1/vector_stores/x/search")]
    for method, path in others:  # which the description leaves out
        scope = {"type": "http", "method": method, "path": path}
        assert any(route.matches(scope)[0] is Match.FULL for route in application.routes), path
    pages = {("GET", "/"), ("GET", "/docs"), ("GET", "/openapi.json"), ("POST", "/v1/vector_stores/{}/search")}
    return pages | {(method.upper(), plain(path)) for path, methods in described.items() for method in methods}


def plain(path: str) -> str:
    """An address without its query, ``{}`` in the place of what varies."""
    return re.sub(r"\{[^}]*\}|(?<=/)[A-Z_]{2,}(?=/|$)", "{}", path.partition("?")[0].rstrip(".,;") or "/")


@every_page
def test_each_route_exists(page: Path, routes: set[tuple[str, str]]) -> None:
    """Whole addresses with their method, where one is named; the end of one where the page has just named its head."""
    missing = []
    for span in spans(page):
        named = re.fullmatch(r"(?:(GET|POST|PUT|PATCH|DELETE) )?(\.\.\.)?(/[\w/{}.?=|,-]*)", span)
        if named and not is_route(routes, named[1], named[3], whole=not named[2]):
            missing.append(span)
    asked = re.findall(r"curl .*?http://127\.0\.0\.1:8321(/\S*)", "\n".join(shell_lines(page)))
    missing += [path for path in asked if not any(matches(path, known) for _, known in routes)]
    assert not missing


def is_route(routes: set[tuple[str, str]], method: str | None, path: str, *, whole: bool) -> bool:
    path = plain(path)
    if path in FOREIGN and method is None:
        return True
    whole = whole and (method is not None or path.startswith(("/v1/", "/v2/", "/health")))
    fitting = {known for verb, known in routes if method in {None, verb}}
    return path in fitting if whole else any(known.endswith(path) for known in fitting)


def matches(path: str, known: str) -> bool:
    pattern = re.escape(known).replace(r"\{\}", r"[^/]+")
    return re.fullmatch(pattern, path.partition("?")[0]) is not None


# Commands, make targets, extras


@cache
def command_line() -> Any:
    return get_command(app)


def wrong_with(words: list[str]) -> str | None:
    """Say what is wrong with the words of a ``citewell`` command, by the command line itself."""
    command, path = command_line(), "citewell"
    known = {"-h", "--help"} | {option for parameter in command.params for option in parameter.opts}
    for word in words:
        if hasattr(command, "commands") and not word.startswith("-"):
            if word not in command.commands:
                return f"{path}: no command {word}"
            command, path = command.commands[word], f"{path} {word}"
            known |= {o for parameter in command.params for o in (*parameter.opts, *parameter.secondary_opts)}
        elif word.startswith("-") and word != "-" and word.partition("=")[0] not in known:
            return f"{path}: no option {word}"
    return None


def calls(page: Path) -> Iterator[list[str]]:
    """The words of each ``citewell`` command that a page names, without what comes before and behind it."""
    for line in code(page):
        found = re.search(r"(?:^|[\s/(])citewell (?=[a-z-])(.*)", line)
        if found and (line.startswith("citewell ") or line in set(shell_lines(page))):
            lexer = shlex.shlex(found[1], posix=True, punctuation_chars=True)
            lexer.commenters = "#"
            words: list[str] = []
            for word in lexer:
                if set(word) <= set("();<>|&"):
                    break
                words.append(word)
            yield words


@every_page
def test_each_command_and_option_exists(page: Path) -> None:
    assert not [wrong for wrong in map(wrong_with, calls(page)) if wrong]


def test_a_wrong_command_would_be_found() -> None:
    assert wrong_with(["ingest", "x", "--collection", "y"]) is None
    assert wrong_with(["ingest", "x", "--colection", "y"]) == "citewell ingest: no option --colection"
    assert wrong_with(["digest"]) == "citewell: no command digest"
    assert wrong_with(["documents", "lost"]) == "citewell documents: no command lost"


@every_page
def test_each_make_target_and_extra_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    for span in code(page):
        named = re.match(r"(?:time )?make ([a-z-]+)", span)
        assert named is None or named[1] in targets, span
        for wanted in re.findall(r"(?:\.|citewell)\[([a-z,]+)\]", span):
            assert set(wanted.split(",")) <= extras, span
    assert set(re.findall(r"\bextra `([a-z]+)`", prose(page))) <= extras


# Blocks that are run


def scripts() -> list[Path]:
    return [page for page in PAGES if any(language == "bash" for language, _ in blocks(page))]


#: So many pages begin with this command that it is run in an empty folder once for all, and once more by each.
BEGINNING = "citewell ingest samples --collection handbook\n"


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """The environment of a shell that finds ``citewell``, in an empty home with ``samples`` in it."""
    shutil.copytree(SAMPLES, tmp_path / "samples")
    return at_home(tmp_path)


@pytest.fixture(scope="session")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which `BEGINNING` was run. Tests copy it."""
    home = tmp_path_factory.mktemp("begun")
    shutil.copytree(SAMPLES, home / "samples")
    ran(BEGINNING, at_home(home))
    return home


def at_home(home: Path) -> dict[str, str]:
    programs = home / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "citewell").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m api.cli "$@"\n')
    (programs / "citewell").chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CITEWELL_")}
    return kept | {
        "HOME": str(home),
        "PATH": f"{programs}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "CITEWELL_DATA": str(home / "data"),
        "CITEWELL_CACHE": str(load_settings().cache),
        "CITEWELL_INGEST__PARSERS": "1",  # each has its libraries to import, which takes longer than the few files here
    }


def ran(script: str, shell: dict[str, str]) -> str:
    """Run a script in the home of a shell and return what it says; it has to end well."""
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(command, cwd=shell["HOME"], env=shell, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.long
@pytest.mark.parametrize("page", scripts(), ids=lambda page: page.name)
def test_the_commands_of_a_page_run_in_their_order(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """With the real command line; each has to end well."""
    commands = [body for language, body in blocks(page) if language == "bash"]
    if any(BEGINNING in script for script in commands):
        shutil.copytree(request.getfixturevalue("begun"), tmp_path, dirs_exist_ok=True)
        shell = at_home(tmp_path)
    else:
        shell = request.getfixturevalue("shell")
    for script in commands:
        ran(script, shell)


@pytest.mark.long
def test_the_first_commands_of_the_readme_say_what_it_shows(shell: dict[str, str]) -> None:
    """To the letter: the answer of the first screen, with its source, from the handbook that it speaks of."""
    shown = next(body for language, body in blocks(PAGES[0]) if language == "console" and "citewell ask" in body)
    asked, _, answer = shown[shown.index("$ .venv/bin/citewell ask") :].partition("\n")
    handbook = Path(shell["HOME"]) / "handbook"
    handbook.mkdir()
    [ingest] = [line for line in shown.splitlines() if " ingest " in line]
    for year in ("2025", "2026"):
        shutil.copy(SAMPLES / year / "travel-policy.pdf", handbook)
        ran(ingest.removeprefix("$ .venv/bin/"), shell)
    said = ran(asked.removeprefix("$ .venv/bin/"), shell)
    assert said.strip() == answer.partition("$ ")[0].strip()
