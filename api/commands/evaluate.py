"""``citewell eval``: how good the product is, in numbers.

Knows how the numbers are shown; ``eval`` computes them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from api.commands.options import AsJson, Data, read_settings
from api.commands.terminal import note, say, say_json


def evaluate_retrieval(
    ctx: typer.Context,
    beir: Annotated[
        Path,
        typer.Option("--beir", metavar="FOLDER", help="Holds corpus.jsonl[.gz], queries.jsonl[.gz] and qrels.tsv."),
    ],
    run_file: Annotated[
        Path | None, typer.Option("--run", metavar="FILE", help="Write the rankings in TREC format.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Ask the first N only.")] = None,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Measure the ranking on a folder of questions with known right passages.

    Prints nDCG@10, recall@5, recall@20, MRR@10 and questions per second. The corpus is embedded once and kept in
    the cache folder; your own data folder is not touched.
    """
    settings = read_settings(ctx, data)
    from eval.ranking import evaluate_folder

    scores = evaluate_folder(settings, beir, limit=limit, run_file=run_file, progress=_progress())
    if as_json:
        say_json(scores.as_json())
        return
    say(f"{name:<20}  {value:>8}" for name, value in scores.as_json().items())


def _progress() -> Callable[[int, int], None]:
    """Return what tells of the embedding, a line for each tenth."""
    told = 0

    def tell(done: int, total: int) -> None:
        nonlocal told
        if (tenth := 10 * done // total) > told:
            told = tenth
            note(f"Embedded {done:,} of {total:,} passages.")

    return tell
