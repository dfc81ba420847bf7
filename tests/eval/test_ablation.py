"""What an ablation compares: each step, each further part alone, all together, and the product as it is."""

from __future__ import annotations

from dataclasses import dataclass

from eval.ablation import configurations, only, switches
from rag.queries import Parts


@dataclass(frozen=True)
class More:
    """As `rag.records.Parts` may look one day: two new switches, and a number that is none."""

    dense: bool = True
    lexical: bool = True
    late: bool = True
    rewrite: bool = False
    hop: bool = False
    depth: int = 3


def on(parts) -> set[str]:
    return {name for name in switches(parts) if getattr(parts, name)}


def test_a_new_switch_appears_by_itself():
    rows = {row.name: on(row.parts) for row in configurations(More())}
    assert rows == {
        "default": {"dense", "lexical", "late"},
        "lexical": {"lexical"},
        "dense": {"dense"},
        "fused": {"dense", "lexical"},
        "late": {"dense", "lexical", "late"},
        "late+rewrite": {"dense", "lexical", "late", "rewrite"},
        "late+hop": {"dense", "lexical", "late", "hop"},
        "all": {"dense", "lexical", "late", "rewrite", "hop"},
    }


def test_what_is_no_switch_stays_as_it_is():
    assert only(More(depth=7), "late").depth == 7
    assert switches(More()) == ["dense", "lexical", "late", "rewrite", "hop"]


def test_the_parts_of_the_product_are_all_in_the_table():
    """Each part is alone in a row or added in one; names are fit for files; no row is there twice under one name."""
    rows = configurations(Parts())
    names = [row.name for row in rows]
    assert names[:5] == ["default", "lexical", "dense", "fused", "late"]
    assert {f"late+{name}" for name in switches(Parts())[3:]} <= set(names)
    assert len(set(names)) == len(names)
    assert not [name for name in names if "/" in name or " " in name]


def test_a_part_that_would_do_nothing_has_no_row():
    """Without a language model nothing writes queries; rows of that would show the same ranking again and again."""
    rows = configurations(Parts(), {"decompose", "multi_query", "hyde"})
    assert not [row.name for row in rows if row.name.endswith(("decompose", "multi_query", "hyde"))]
    assert {"decompose", "multi_query", "hyde"} <= on(only(Parts(), *switches(Parts())))
    [everything] = [row for row in rows if row.name == "all"]
    assert not on(everything.parts) & {"decompose", "multi_query", "hyde"}
