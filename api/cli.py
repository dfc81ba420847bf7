"""The command line ``citewell``: its contents page, and the outermost edge where errors become exit statuses.

Each command is a function in ``api.commands``; what goes wrong in one is a sentence on standard error, never a
trace-back. Exit status: 0 good, 1 something of the work failed, 2 bad input or settings, 70 a fault of Citewell's own,
130 stopped from the keyboard.
"""

from __future__ import annotations

import io
import sys
import tempfile
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from typer.main import get_command

from api.commands import (
    answers,
    ask,
    batches,
    collections,
    demo,
    doctor,
    documents,
    evaluate,
    evaluate_answers,
    evaluate_models,
    golden,
    ingest,
    keys,
    mcp,
    parse,
    purge,
    replay,
    report,
    serve,
    sync,
    tune,
)
from api.commands.options import LOG_FILE, Interrupted, Session, examples
from api.commands.terminal import clean, note
from rag.errors import CitewellError, IndexDamaged, Unavailable

FAILED, BAD_INPUT, INTERNAL, INTERRUPTED = 1, 2, 70, 130


def _group(help_text: str) -> typer.Typer:
    """Return a group of commands whose help is plain text, since no terminal and no colour can be counted on."""
    options = {"help_option_names": ["-h", "--help"]}
    return typer.Typer(
        help=help_text,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=options,
        no_args_is_help=True,
    )


app = _group("Answers questions over your own documents; every sentence carries a citation checked against the source.")
_documents = _group("List, show and delete the documents of a collection.")
_answers = _group("List, explain and remove the answers of the log.")
_collections = _group("List, create and delete collections.")
_batches = _group("Follow and report on files that came together.")
_tunings = _group("List what `citewell tune` has learnt, put it in force, take it back.")
_golden = _group("Keep questions of which people know the answer, and find those that have drifted.")
_report = _group("Run, show and compare reports on how good the answers are.")
_keys = _group("Make, list, rotate and revoke the keys of the server.")
_eval = _group("Measure how good Citewell is.")


@app.callback(
    epilog=examples(
        "citewell ingest handbook/ --collection handbook",
        'citewell ask "How many days of leave do I have?" --collection handbook',
        "citewell serve",
    )
)
def citewell(
    ctx: typer.Context,
    data: Annotated[Path | None, typer.Option("--data", metavar="FOLDER", help="The data folder.")] = None,
) -> None:
    """Take the data folder before the command as well as after it."""
    ctx.ensure_object(Session).data = data


app.command("ingest", epilog=examples(
    "citewell ingest handbook/ report.pdf --collection handbook",
    "citewell ingest 2026/ -c policies --metadata '{\"year\": 2026}' --report outcome.csv",
))(ingest.ingest)  # fmt: skip
app.command("sync", epilog=examples(
    "citewell sync handbook/ --collection handbook --delete",
    "citewell sync handbook/ -c handbook --delete --watch",
))(sync.sync)  # fmt: skip
app.command("ask", epilog=examples(
    'citewell ask "What is the hotel limit?" --collection policies',
    'citewell ask "What is the hotel limit?" -c policies -c handbook --filter year=2026 --json',
))(ask.ask)  # fmt: skip
app.command("search", epilog=examples(
    'citewell search "hotel limit" --collection policies --top-k 3',
    'citewell search "hotel limit" -c policies --filter \'{"year": {"gte": 2025}}\'',
))(ask.search)  # fmt: skip

app.add_typer(_answers, name="answers")
_answers.command("list", epilog=examples("citewell answers list --collection policies"))(answers.list_answers)
_answers.command("show", epilog=examples("citewell answers show 3f1d0c9e8b7a46529c3d2e1f0a9b8c7d"))(answers.show_answer)
_answers.command("delete", epilog=examples(
    "citewell answers delete 3f1d0c9e8b7a46529c3d2e1f0a9b8c7d",
))(answers.delete_answer)  # fmt: skip
app.command("replay", epilog=examples(
    "citewell replay 3f1d0c9e8b7a46529c3d2e1f0a9b8c7d",
    "citewell replay 3f1d0c9e8b7a46529c3d2e1f0a9b8c7d --json",
))(replay.replay)  # fmt: skip

app.add_typer(_documents, name="documents")
_documents.command("list", epilog=examples(
    "citewell documents list --collection policies",
    "citewell documents list -c policies --state failed",
))(documents.list_documents)  # fmt: skip
_documents.command("show", epilog=examples(
    "citewell documents show travel-policy.pdf --collection policies",
    "citewell documents show travel-policy.pdf -c policies --elements",
))(documents.show_document)  # fmt: skip
_documents.command("retry", epilog=examples(
    "citewell documents retry scan.pdf --collection policies",
    "citewell documents retry -c policies",
))(documents.retry_documents)  # fmt: skip
_documents.command("delete", epilog=examples(
    "citewell documents delete travel-policy.pdf --collection policies",
))(documents.delete_document)  # fmt: skip

app.command("purge", epilog=examples(
    "citewell purge --collection policies",
    "citewell purge travel-policy.pdf -c policies --yes",
))(purge.purge)  # fmt: skip

app.add_typer(_batches, name="batches")
_batches.command("list", epilog=examples("citewell batches list --collection policies"))(batches.list_batches)
_batches.command("show", epilog=examples("citewell batches show 3f1d0c9e8b7a46529c3d2e1f0a9b8c7d"))(batches.show_batch)
_batches.command("watch", epilog=examples(
    "citewell batches watch 3f1d0c9e8b7a46529c3d2e1f0a9b8c7d",
))(batches.watch_batch)  # fmt: skip
_batches.command("report", epilog=examples(
    "citewell batches report 3f1d0c9e8b7a46529c3d2e1f0a9b8c7d --output outcome.csv",
    "citewell batches report 3f1d0c9e8b7a46529c3d2e1f0a9b8c7d --format json",
))(batches.report_batch)  # fmt: skip

app.add_typer(_collections, name="collections")
_collections.command("list", epilog=examples("citewell collections list"))(collections.list_collections)
_collections.command("create", epilog=examples("citewell collections create policies"))(collections.create_collection)
_collections.command("delete", epilog=examples("citewell collections delete policies"))(collections.delete_collection)

app.command("tune", epilog=examples(
    "citewell tune --collection handbook --questions questions.jsonl",
    "citewell tune -c handbook --steps weights --keep",
))(tune.tune)  # fmt: skip
app.add_typer(_tunings, name="tunings")
_tunings.command("list", epilog=examples("citewell tunings list --collection handbook"))(tune.list_tunings)
_tunings.command("promote", epilog=examples(
    "citewell tunings promote 3f1d0c9e8b7a46529c3d2e1f0a9b8c7d",
))(tune.promote_tuning)  # fmt: skip
_tunings.command("rollback", epilog=examples("citewell tunings rollback --collection handbook"))(tune.roll_back_tuning)

app.command("parse", epilog=examples(
    "citewell parse report.pdf",
    "citewell parse report.pdf --json",
))(parse.parse_file)  # fmt: skip
app.command("serve", epilog=examples(
    "citewell serve",
    "citewell serve --port 9000 --data /srv/citewell",
))(serve.serve)  # fmt: skip
app.command("mcp", epilog=examples(
    "citewell mcp --collection handbook",
    "citewell mcp --url http://127.0.0.1:8321",
))(mcp.mcp)  # fmt: skip
app.command("worker", epilog=examples("citewell worker --data /srv/citewell"))(serve.worker)
app.add_typer(_keys, name="keys")
_keys.command("create", epilog=examples(
    "citewell keys create boss --role admin",
    'citewell keys create "wiki bot" --collection handbook --days 365',
))(keys.create_key)  # fmt: skip
_keys.command("list", epilog=examples("citewell keys list"))(keys.list_keys)
_keys.command("rotate", epilog=examples("citewell keys rotate boss --overlap-hours 48"))(keys.rotate_key)
_keys.command("revoke", epilog=examples("citewell keys revoke boss"))(keys.revoke_key)
app.command("audit", epilog=examples("citewell audit --key boss --action document.delete"))(keys.show_audit)
app.command("doctor", epilog=examples("citewell doctor"))(doctor.doctor)
app.add_typer(_golden, name="golden")
_golden.command("add", epilog=examples(
    "citewell golden add questions.jsonl --collection handbook",
    "citewell golden add -c handbook --answer 3f1d0c9e8b7a46529c3d2e1f0a9b8c7d --tag travel",
))(golden.add_golden)  # fmt: skip
_golden.command("list", epilog=examples("citewell golden list --collection handbook --tag travel"))(golden.list_golden)
_golden.command("check", epilog=examples("citewell golden check"))(golden.check_golden)
_golden.command("confirm", epilog=examples(
    "citewell golden confirm 3f1d0c9e8b7a46529c3d2e1f0a9b8c7d",
    "citewell golden confirm --all handbook",
))(golden.confirm_golden)  # fmt: skip
_golden.command("remove", epilog=examples(
    "citewell golden remove 3f1d0c9e8b7a46529c3d2e1f0a9b8c7d",
))(golden.remove_golden)  # fmt: skip
app.add_typer(_report, name="report")
_report.command("run", epilog=examples(
    "citewell report run --collection handbook --html report.html",
    "citewell report run --gates gates.toml --json",
))(report.run_report)  # fmt: skip
_report.command("list", epilog=examples("citewell report list"))(report.list_reports)
_report.command("show", epilog=examples(
    "citewell report show 3f1d0c9e8b7a46529c3d2e1f0a9b8c7d --html report.html",
))(report.show_report)  # fmt: skip
_report.command("delete", epilog=examples(
    "citewell report delete 3f1d0c9e8b7a46529c3d2e1f0a9b8c7d",
))(report.delete_report)  # fmt: skip
_report.command("compare", epilog=examples(
    "citewell report compare 3f1d0c9e8b7a46529c3d2e1f0a9b8c7d 9b2f7c1d4e5a60718293a4b5c6d7e8f9",
))(report.compare_reports)  # fmt: skip
app.add_typer(_eval, name="eval")
_eval.command("retrieval", epilog=examples(
    "citewell eval retrieval --beir data/squad --json",
    "citewell eval retrieval --beir data/squad --limit 100 --run squad.trec",
    "citewell eval retrieval --beir data/squad --ablate --run runs",
))(evaluate.evaluate_retrieval)  # fmt: skip
_eval.command("answers", epilog=examples(
    "citewell eval answers --beir data/squad --json",
    "citewell eval answers --beir data/squad --limit 300",
))(evaluate_answers.evaluate_answers)  # fmt: skip
_eval.command("reader", epilog=examples(
    "citewell eval reader data/squad --json",
    "citewell eval reader data/squad --limit 100",
))(evaluate_models.evaluate_reader)  # fmt: skip
_eval.command("judge", epilog=examples(
    "citewell eval judge claims.jsonl.gz --json",
    "citewell eval judge claims.jsonl --split dev",
    "citewell eval judge claims.jsonl --llm --limit 500",
))(evaluate_models.evaluate_judge)  # fmt: skip
app.command("demo", epilog=examples("citewell demo"))(demo.demo)


def main() -> None:
    """Run the command line and exit with its status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that can not show a letter shows another one
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit status; raises nothing."""
    session = Session()
    try:
        status = get_command(app)(args=list(arguments), prog_name="citewell", standalone_mode=False, obj=session)
    except typer.TyperException as error:
        return _misused(error)
    except CitewellError as error:
        note(f"citewell: {clean(error.message)}")
        return FAILED if isinstance(error, Unavailable | IndexDamaged) else BAD_INPUT
    except Interrupted as error:
        note(f"citewell: {error}")
        return INTERRUPTED
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except Exception as error:  # noqa: BLE001  the outermost edge: nothing may end in a trace-back, and none is lost
        log = _write_log(session)
        note(f"citewell: This is a fault of Citewell's own ({clean(repr(error))[:200]}); the trace-back is in {log}.")
        return INTERNAL
    if status == INTERRUPTED:
        note("citewell: Stopped.")
    return int(status or 0)


def _misused(error: typer.TyperException) -> int:
    """Say what is wrong with the arguments, and where their help is."""
    context = getattr(error, "ctx", None)
    message = error.format_message()
    if context is not None and message == context.get_help():  # a group without a command
        typer.echo(message)
        return BAD_INPUT
    help_of = context.command_path if context is not None else "citewell"
    note(f"citewell: {clean(message).rstrip('.')}. See `{help_of} --help`.")
    return BAD_INPUT


def _write_log(session: Session) -> Path:
    """Append the trace-back of the exception in hand to the log in the data folder, or to one that can be written."""
    text = f"{datetime.now(UTC).isoformat()}\n{traceback.format_exc()}\n"
    if session.settings is not None:
        file = session.settings.data / LOG_FILE
        try:
            with file.open("a", encoding="utf-8", errors="backslashreplace") as stream:
                stream.write(text)
        except OSError:
            pass  # the data folder may be what is broken: keep it elsewhere
        else:
            return file
    with tempfile.NamedTemporaryFile("w", prefix="citewell-", suffix=".log", delete=False, encoding="utf-8") as other:
        other.write(text)
    return Path(other.name)


if __name__ == "__main__":
    main()
