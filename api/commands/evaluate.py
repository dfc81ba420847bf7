"""``citewell eval``: how good the product is, in numbers.

Knows how the numbers are shown; ``eval`` computes them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.commands.options import AsJson, Data, read_settings
from api.commands.terminal import counted, note, say, say_json, table

if TYPE_CHECKING:
    from eval.ranking import Evaluation, Measured
    from eval.runs import Run
    from rag.settings import Settings

Label = Annotated[
    str | None,
    typer.Option(
        "--label", metavar="TEXT", help="Keep the figures under this name beside the reports, to be compared with them."
    ),
]


def evaluate_retrieval(
    ctx: typer.Context,
    beir: Annotated[
        Path,
        typer.Option("--beir", metavar="FOLDER", help="Holds corpus.jsonl[.gz], queries.jsonl[.gz] and qrels.tsv."),
    ],
    ablate: Annotated[
        bool,
        typer.Option("--ablate", help="Compare with BM25 alone, vectors alone, fused, late interaction, each option."),
    ] = False,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run", metavar="FILE", help="Write the ranking in TREC format; with --ablate a folder, a file for each."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Ask the first N only.")] = None,
    label: Label = None,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Measure the ranking on a folder of questions with known right passages.

    Prints nDCG@10, recall@5/20/100 and MRR@10 with 95 % bootstrap intervals over the questions, how long a search
    takes, and which share of that each stage has. With --ablate also what each part of retrieval is worth: the
    difference to the default with the p value of a paired randomisation test. The corpus is embedded once and kept
    in the cache folder; your own data folder is not touched, but for the figures that a --label keeps.
    """
    settings = read_settings(ctx, data)
    from eval.ranking import evaluate_folder

    progress, began = tenths("Embedded", "passages"), datetime.now(UTC)
    found = evaluate_folder(settings, beir, ablate=ablate, limit=limit, run=run, progress=progress, tell=note)
    kept = None
    if label is not None:
        from eval.kept import run_of_ranking

        kept = keep(settings, run_of_ranking(settings, beir, label, found.default, began))
    if as_json:
        say_json(found.as_json() | ({"report": kept} if kept else {}))
        return
    say(_metrics(found.default))
    say()
    say(_latency(found.default))
    if found.left_out is not None:
        say()
        say(_ablation(found))
        say(f"Left out: {name}: {reason}" for name, reason in found.left_out.items())
    say_kept(kept)


def keep(settings: Settings, run: Run) -> str:
    """Keep a run of a folder in the catalog of the data folder, and return its id."""
    from eval.history import keep_run
    from rag.store import open_store

    with open_store(settings) as store:
        return keep_run(store.catalog, run).id


def say_kept(kept: str | None) -> None:
    """Say under which id figures were kept, if they were."""
    if kept:
        say(["", f"Kept as report {kept}."])


def _metrics(measured: Measured) -> list[str]:
    intervals = measured.intervals()
    rows = [
        [name, f"{mean:.4f}", f"{intervals[name][0]:.4f} to {intervals[name][1]:.4f}"]
        for name, mean in measured.means.items()
    ]
    return [*table(["metric", "mean", "95 % interval"], rows), counted(len(measured.run), "question")]


def _latency(measured: Measured) -> list[str]:
    found = measured.as_json()
    rows = [["search", *_three(found["latency_ms"]), ""]]
    rows += [[name, *_three(stage), f"{stage['share']:.1%}"] for name, stage in found["stages"].items()]
    return [
        *table(["milliseconds", "p50", "p95", "p99", "share"], rows),
        f"{found['queries_per_second']:.1f} questions per second, one after the other",
    ]


def _three(times: dict[str, float]) -> list[str]:
    return [f"{times[name]:.2f}" for name in ("p50", "p95", "p99")]


def _ablation(found: Evaluation) -> list[str]:
    rows = []
    for measured in (found.default, *found.others):
        means, milliseconds = measured.means, 1000 * float(measured.seconds.mean())
        difference = measured.against(found.default)["ndcg@10"]
        to_default = f"{difference.mean:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"
        versus = ["", ""] if measured is found.default else [to_default, f"{difference.p_value:.4f}"]
        recall = f"{means['recall@20']:.4f}"
        rows.append([measured.configuration.name, f"{means['ndcg@10']:.4f}", *versus, recall, f"{milliseconds:.1f}"])
    return table(["configuration", "ndcg@10", "to the default (95 %)", "p", "recall@20", "mean ms"], rows)


def tenths(done_what: str, of_what: str) -> Callable[[int, int], None]:
    """Return what tells of work, a line for each tenth: ``tenths("Embedded", "passages")``."""
    told = 0

    def tell(done: int, total: int) -> None:
        nonlocal told
        if (tenth := 10 * done // total) > told:
            told = tenth
            note(f"{done_what} {done:,} of {total:,} {of_what}.")

    return tell
