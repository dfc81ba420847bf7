"""``citewell replay``: an answer of the log made anew, and what has changed since.

Knows how that is shown, and nothing of how it comes about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from api.commands.answers import AnswerId
from api.commands.options import AsJson, Data, read_used_settings
from api.commands.terminal import clean, say, say_json, wrapped

if TYPE_CHECKING:
    from rag.answers import Answer
    from rag.logged import IndexState
    from rag.replay import Moved, Replayed


def replay(ctx: typer.Context, answer: AnswerId, as_json: AsJson = False, data: Data = None) -> None:
    """Ask what an answer answered again, with the documents and settings of now, and show what has changed.

    Exit status 0: the same is said from the same passages, whatever else has changed; 1: something differs.
    """
    settings = read_used_settings(ctx, data)
    from rag.assembly import open_citewell
    from rag.store import open_store

    with open_store(settings) as store:
        store.catalog.answer(answer)  # before any model is opened
    with open_citewell(settings) as citewell:
        found = citewell.replay_once(answer)
    if as_json:
        say_json(_facts(found))
    else:
        say(_lines(found))
    if not found.is_same:
        raise typer.Exit(1)


def _facts(found: Replayed) -> dict[str, Any]:
    return {
        "answer": found.then.id,
        "same": found.is_same,
        "settings": {"then": found.settings[0], "now": found.settings[1]},
        "generator": {"then": found.then.generator, "now": found.now.generator},
        "indexes": {
            name: {"then": _index(then), "now": _index(now)} for name, (then, now) in found.indexes.items()
        },
        "stages": {name: _moved(moved) for name, moved in found.stages.items()},
        "passages": _moved(found.passages),
        "text": {"then": found.then.text, "now": found.now.text, "difference": list(found.text)},
        "support": {"then": found.support[0], "now": found.support[1]},
        "abstained": {"then": found.then.abstained, "now": found.now.abstained},
        "seconds": {"then": _seconds(found.then), "now": _seconds(found.now)},
    }  # fmt: skip


def _index(state: IndexState) -> dict[str, Any]:
    return {"digest": state.digest, "commits": state.commits, "last_seq": state.last_seq}


def _moved(moved: Moved) -> dict[str, Any]:
    return {"gained": list(moved.gained), "lost": list(moved.lost), "reordered": moved.reordered}


def _lines(found: Replayed) -> list[str]:
    lines = wrapped(f"question    {found.then.question}", hanging=12)
    if found.settings[0] != found.settings[1]:
        lines.append(f"settings    {found.settings[0]} -> {found.settings[1]}")
    if found.then.generator != found.now.generator:
        lines.append(f"generator   {clean(found.then.generator)} -> {clean(found.now.generator)}")
    for name, (then, now) in found.indexes.items():
        lines.append(
            f"index       {name}: {now.commits - then.commits:+,} commits, {now.last_seq - then.last_seq:+,} chunks"
        )
    lines += [f"{name:<10}  {_told(moved)}" for name, moved in found.stages.items()]
    if found.passages.any:
        lines.append(f"passages    {_told(found.passages)}")
        lines += _named(found)
    if abs(found.support[0] - found.support[1]) >= 5e-3:
        lines.append(f"support     {found.support[0]:.2f} -> {found.support[1]:.2f}")
    if found.text:
        lines += ["", *(part for line in found.text for part in wrapped(line, hanging=2))]
    verdict = "The same is said, from the same passages." if found.is_same else "The answer has changed."
    return [*lines, "", verdict]


def _told(moved: Moved) -> str:
    if moved.reordered:
        return "the same, in another order"
    return f"{len(moved.gained)} gained, {len(moved.lost)} lost"


def _named(found: Replayed) -> list[str]:
    """Return the documents of the passages that came and went."""
    lines = []
    for sign, ids, answer in (("+", found.passages.gained, found.now), ("-", found.passages.lost, found.then)):
        names = {p.chunk_id: f"{p.document}, version {p.version}" for p in answer.passages}
        lines += [f"  {sign} {clean(names[chunk_id])}" for chunk_id in ids]
    return lines


def _seconds(answer: Answer) -> float:
    return round(sum(answer.timings.values()), 4)
