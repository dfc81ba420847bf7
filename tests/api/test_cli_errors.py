"""What users get wrong: one clear sentence each, the right exit status, and nothing lost."""

from __future__ import annotations

import json
import logging
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from api.cli import run
from api.logs import configure_logging
from rag.settings import load_settings
from tests.cli_process import COMMAND, ROOT, Cli

COMMANDS = [
    "ingest", "sync", "purge", "batches list", "batches show", "batches watch", "batches report",
    "ask", "answers list", "answers show", "answers delete", "replay", "search", "documents list", "documents show",
    "documents delete", "collections list", "collections create", "collections delete", "parse", "serve", "worker",
    "doctor", "eval retrieval", "demo",
]  # fmt: skip
HEAVY = {
    "torch",
    "openvino",
    "unstructured",
    "fastapi",
    "sqlalchemy",
    "numpy",
    "faiss",
    "nltk",
    "structlog",
    "pydantic",
}


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A data folder with one empty collection."""
    folder = tmp_path_factory.mktemp("errors")
    cli = Cli(folder / "data", folder)
    (folder / "page.txt").write_text("Some words.\n")
    cli("collections", "create", "empty")
    return cli


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_the_help_of_every_command_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command.split(), "--help"]) == 0
    page = capsys.readouterr().out
    assert re.search(rf"Examples?:\n    citewell {command}", page), page
    assert max(len(line) for line in page.splitlines() if "citewell" not in line) <= 80


def test_help_loads_nothing_heavy() -> None:
    """Help is there at once because no library that takes its time is imported for it."""
    command = [sys.executable, "-X", "importtime", *COMMAND[1:], "--help"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in ended.stderr.splitlines() if "|" in line}
    assert "typer" in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize(
    "arguments",
    [pytest.param(["collections", "list", "--json"], id="good"), pytest.param(["documents", "show"], id="bad")],
)
def test_a_warm_command_says_what_a_cold_one_says(cli: Cli, arguments: list[str]) -> None:
    """The other tests look at commands that are forked from a warm process: the same output, error and exit status."""
    cold = subprocess.run(
        [*COMMAND, *arguments], cwd=cli.folder, env=cli.environment(), capture_output=True, text=True, check=False
    )
    warm = cli(*arguments, status=cold.returncode)
    assert (warm.out, warm.err) == (cold.stdout, cold.stderr)


@pytest.fixture
def in_process(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    """The command line in this process, for sentences that need no process of their own; what it sets up is undone."""
    monkeypatch.chdir(cli.folder)
    monkeypatch.setenv("CITEWELL_DATA", str(cli.data))
    root, configured = logging.getLogger(), structlog.get_config()
    handlers, level = list(root.handlers), root.level
    yield cli
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.configure(**configured)


LONG = "x" * 100_000


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        pytest.param("frobnicate", "No such command 'frobnicate'", id="command"),
        pytest.param("ask hello", "Missing option '--collection'", id="no-collection"),
        pytest.param("ask hello -c nowhere", "There is no collection named 'nowhere'", id="unknown-collection"),
        pytest.param("ask ?! -c empty", "The question is empty", id="empty-question"),
        pytest.param(f"ask {LONG} -c empty", "has 100,000 characters; the limit is 4,000.", id="long-question"),
        pytest.param("ask caf\udce9 -c empty", "The question is not valid text", id="question-is-no-text"),
        pytest.param("ask hello -c empty --top-k 0", "top_k is 0", id="top-k"),
        pytest.param("search hello -c empty --filter year", "'year'; write it as key=value or as a JSON", id="filter"),
        pytest.param("search hello -c empty --filter {", "--filter is not JSON (Expecting", id="filter-is-no-json"),
        pytest.param('search hello -c empty --filter {"a":{"over":1}}', "'over' is no comparison", id="comparison"),
        pytest.param("search hello -c empty --filter kind=7", "filters.kind: must be one of", id="filter-kind"),
        pytest.param("search hello -c empty --filter a=1 --filter a=2", "--filter names 'a' twice", id="filter-twice"),
        pytest.param("ingest page.txt -c ../up", "'../up' is no collection name", id="collection-name"),
        pytest.param("ingest page.txt -c new --metadata {", "--metadata is not JSON", id="metadata-is-no-json"),
        pytest.param("ingest page.txt -c new --metadata [1]", "--metadata must be a JSON object", id="metadata-list"),
        pytest.param('ingest page.txt -c new --metadata {"a":{"b":NaN}}', "is not JSON", id="metadata-nan"),
        pytest.param("sync hollow/none -c new", "There is no folder hollow/none.", id="sync-nothing"),
        pytest.param("purge -c nowhere", "There is no collection named 'nowhere'", id="purge-collection"),
        pytest.param("batches show none", "There is no batch with the id 'none'.", id="unknown-batch"),
        pytest.param("batches report none", "There is no batch with the id 'none'.", id="report-of-none"),
        pytest.param("ingest hollow -c new", "There are no files to ingest in hollow.", id="empty-folder"),
        pytest.param("documents show nothing -c empty", "There is no document 'nothing'", id="unknown-document"),
        pytest.param("documents list -c empty --state lost", "'lost' is not one of", id="unknown-state"),
        pytest.param("documents delete nothing -c empty", "There is no document 'nothing'", id="delete-unknown"),
        pytest.param("collections create empty", "There is a collection named 'empty' already.", id="taken"),
        pytest.param("collections delete nowhere", "There is no collection named 'nowhere'", id="delete-collection"),
        pytest.param("collections list --data elsewhere", "There is no data folder", id="no-data-folder"),
        pytest.param("--data page.txt collections create a", "The data folder", id="data-folder-is-a-file"),
        pytest.param("parse nothing.pdf", "nothing.pdf does not exist.", id="parse-nothing"),
        pytest.param("parse hollow", "hollow is a folder; name one file.", id="parse-folder"),
        pytest.param("parse void.pdf", "The file is empty", id="parse-empty"),
        pytest.param("eval retrieval --beir hollow", "has no", id="no-beir-folder"),
        pytest.param("serve --port 99999", "server.port", id="port"),
        pytest.param("serve --host 0.0.0.0", "server.host is '0.0.0.0'", id="host"),
    ],
)
def test_bad_input_gets_one_sentence(
    in_process: Cli, capsys: pytest.CaptureFixture[str], arguments: str, sentence: str
) -> None:
    (in_process.folder / "hollow").mkdir(exist_ok=True)
    (in_process.folder / "void.pdf").touch()
    assert run(arguments.split()) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith("citewell: ")
    assert written.err.count("\n") == 1
    assert written.err.removesuffix("\n").isprintable()
    assert sentence in written.err
    assert len(written.err) < 500


def test_wrong_settings_and_failing_work_have_a_status_of_their_own(cli: Cli) -> None:
    assert "generator.base_url is not set" in cli("ask", "hello", "-c", "empty", status=2, GENERATOR__KIND="openai").err
    (cli.folder / "citewell.toml").write_text("log_level = [\n")
    assert "The settings file can not be read" in cli("collections", "list", status=2).err
    (cli.folder / "citewell.toml").unlink()
    cli("ingest", "page.txt", "-c", "page")
    down = {"GENERATOR__KIND": "openai", "GENERATOR__BASE_URL": "http://127.0.0.1:9/v1"}
    failed = cli("ask", "Some words?", "-c", "page", status=1, GENERATOR__FALL_BACK="false", **down)
    assert "The generator at 127.0.0.1:9" in failed.err
    answered = cli("ask", "Some words?", "-c", "page", **down).out
    assert "\nNote: The generator failed, so the built-in reader answered." in answered


def test_an_answer_from_nothing_says_why(cli: Cli) -> None:
    ended = cli("ask", "Is anybody here?", "-c", "empty")
    assert ended.out == "The documents do not say.\n"
    assert ended.err == "The collection empty holds nothing to search yet.\n"


def test_a_data_folder_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "data", tmp_path)
    cli("collections", "create", "a")
    with sqlite3.connect(cli.data / "catalog.sqlite3") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    before = (cli.data / "catalog.sqlite3").read_bytes()
    sentence = "citewell: The catalog was written by a newer Citewell (catalog 9999, this one knows "
    for command in (["collections", "list"], ["collections", "create", "b"], ["worker"]):
        assert cli(*command, status=2).err.startswith(sentence)
    assert (cli.data / "catalog.sqlite3").read_bytes() == before
    [problem] = [check for check in cli("doctor", "--json", status=1).json["checks"] if check["ok"] is False]
    assert "written by a newer Citewell" in problem["found"]


def test_a_fault_of_our_own_is_kept_in_the_log(tmp_path: Path) -> None:
    """The catalog loses a table under us: one sentence on the terminal, the trace-back in the data folder."""
    cli = Cli(tmp_path / "data", tmp_path)
    cli("collections", "create", "a")
    with sqlite3.connect(cli.data / "catalog.sqlite3") as connection:
        connection.execute("ALTER TABLE documents RENAME TO gone")
    connection.close()
    ended = cli("collections", "list", status=70)
    assert ended.err.count("\n") == 1
    assert f"the trace-back is in {cli.data / 'citewell.log'}." in ended.err
    assert "Traceback (most recent call last)" in (cli.data / "citewell.log").read_text()


def test_log_lines_are_harmless_and_trace_backs_out_of_sight(
    in_process: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One JSON object a line whatever a document is called; where a file is named, trace-backs go there alone."""
    settings = load_settings(data=tmp_path)
    message = "wrong\x1b[2J"
    for tracebacks in (None, tmp_path / "citewell.log"):
        configure_logging(settings, default="info" if tracebacks is None else None, tracebacks=tracebacks)
        log = structlog.get_logger("ingest.anything")
        log.info("document done", document="red\x1b[31m\nname")
        try:
            raise ValueError(message)
        except ValueError:
            log.exception("ingest failed")
        logging.getLogger("anything.else").warning("from %s", "afar\r")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["document done", *["ingest failed", r"from afar\r"] * 2]
    assert lines[0]["document"] == r"red\x1b[31m\nname"
    assert "Traceback" in lines[1]["exception"]
    assert "exception" not in lines[3]
    assert re.fullmatch(r"ValueError at test_cli_errors\.py:\d+", lines[3]["error"])
    assert not [line for line in lines if "wrong" in str(line)]  # it may quote a document
    [kept] = (tmp_path / "citewell.log").read_text().splitlines()
    assert "Traceback" in json.loads(kept)["exception"]
