"""What each part of retrieval is worth: the configurations that an ablation compares.

Reads from `rag.queries.Parts` what can be switched, so that a new switch has its row without a line here. Knows no
question and no metric.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields, replace

from rag.queries import Parts

#: The switches that make a ranking of their own, and those of the steps that the table always shows, one on another.
SOURCES = ("lexical", "dense")
STEPS = {"lexical": SOURCES[:1], "dense": SOURCES[1:], "fused": SOURCES, "late": (*SOURCES, "late")}
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Configuration:
    """Which parts take part, under the name that tables and run files have for it."""

    name: str
    parts: Parts


def switches(parts: Parts) -> list[str]:
    """Return the names of what can be switched on and off."""
    return [field.name for field in fields(parts) if isinstance(getattr(parts, field.name), bool)]


def only(parts: Parts, *on: str) -> Parts:
    """Return ``parts`` with the switches ``on`` and no other."""
    return replace(parts, **{name: name in on for name in switches(parts)})


def configurations(default: Parts, idle: Collection[str] = ()) -> list[Configuration]:
    """Return what an ablation compares, no two of them alike: the steps up to late interaction, that with each further
    part alone, all parts together, and the product's ``default``, which is always there under its own name.

    Parts that are ``idle`` would do nothing, and are in no row but the default's.
    """
    rows = [Configuration(DEFAULT, default)]
    for name, on in _combinations([name for name in switches(default) if name not in idle]):
        parts = only(default, *on)
        if parts not in [row.parts for row in rows[1:]]:
            rows.append(Configuration(name, parts))
    return rows


def _combinations(known: list[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    base: tuple[str, ...] = ()
    for name, on in STEPS.items():
        if set(on) <= set(known):
            yield name, on
            base = on
    further = [name for name in known if name not in base]
    for name in further:
        yield f"{'+'.join(base[len(SOURCES) :]) or 'fused'}+{name}", (*base, name)
    if len(further) > 1:
        yield "all", tuple(known)
