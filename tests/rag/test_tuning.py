"""Tunings: kept whole, in force one on another, and what they do to a search."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rag.assembly import open_citewell
from rag.catalog import Catalog
from rag.errors import Conflict, NotFound
from rag.protocols import Encoding, TokenVectors
from rag.records import Collection
from rag.retrieval import fuse
from rag.tuning import Tuned, unit_rows
from tests.rag.test_retrieval import EMBEDDER, found, put

#: What may happen to the tunings of a collection: number n is put in force, or (None) the last promotion taken back.
DEEDS = st.lists(st.sampled_from([0, 1, 2, None]), max_size=12)


def in_force(catalog: Catalog, collection_id: str) -> list[str]:
    return [tuning.id for tuning in catalog.list_tunings(collection_id) if tuning.in_force]


def test_a_tuning_comes_back_as_it_was_kept(catalog, collection):
    """Weights and maps to the bit, and the report as plain values."""
    maps = np.random.default_rng(1).normal(size=(2, 6, 6)).astype(np.float32)
    tuned = Tuned(0.3, 0.7, maps[0], maps[1], 0.4)
    kept = catalog.add_tuning(collection, "e", tuned, {"questions": 12, "steps": [{"p": 0.01}]})
    same = catalog.tuned(kept.id)
    assert (same.dense_weight, same.late_weight, same.reader_weight) == (0.3, 0.7, 0.4)
    assert same.adapter is not None
    assert same.projection is not None
    assert np.array_equal(same.adapter, maps[0])
    assert np.array_equal(same.projection, maps[1])
    assert catalog.list_tunings(collection) == [kept]
    assert kept.report == {"questions": 12, "steps": [{"p": 0.01}]}
    assert (kept.has_adapter, kept.has_projection, kept.in_force, kept.reader_weight) == (True, True, False, 0.4)
    bare = catalog.add_tuning(collection, "e", Tuned(0.5, 0.6), {})
    assert catalog.tuned(bare.id) == Tuned(0.5, 0.6)


def test_promotions_stand_one_on_another(catalog):
    """Whatever is promoted and taken back: in force is what stands on top, and the collection's row says so."""

    @settings(max_examples=40)
    @given(deeds=DEEDS)
    def holds(deeds):
        name = f"c{len(catalog.list_collections(counted=False))}"
        owner = catalog.create_collection(name).id
        made = [catalog.add_tuning(owner, "e", Tuned(n / 10, 0.5), {}).id for n in range(3)]
        stack: list[str] = []
        for deed in deeds:
            commits = catalog.pulse(owner).commits
            if deed is None and not stack:
                with pytest.raises(Conflict, match="nothing to take back"):
                    catalog.roll_back(owner)
            elif deed is None:
                stack.pop()
                back = catalog.roll_back(owner)
                assert (back.id if back else None) == (stack[-1] if stack else None)
            elif stack and stack[-1] == made[deed]:
                with pytest.raises(Conflict, match="in force already"):
                    catalog.promote(made[deed])
            else:
                stack.append(made[deed])
                assert catalog.promote(made[deed]).in_force
                assert catalog.pulse(owner).commits == commits + 1
            assert in_force(catalog, owner) == stack[-1:]
            assert catalog.collection(name).tuning == (stack[-1] if stack else None)
            assert catalog.collection(name, counted=False).tuning == (stack[-1] if stack else None)

    holds()


def test_what_can_not_be_promoted_is_told(catalog, collection):
    with pytest.raises(NotFound, match="no tuning 'nothing'"):
        catalog.promote("nothing")
    with pytest.raises(NotFound, match="was deleted"):
        catalog.add_tuning("gone", "e", Tuned(0.5, 0.5), {})
    with catalog._write() as connection:
        catalog.check_embedder(connection, collection, "new embedder")
    old = catalog.add_tuning(collection, "old embedder", Tuned(0.5, 0.5), {})
    with pytest.raises(Conflict, match="another embedder; run `citewell tune` again"):
        catalog.promote(old.id)
    assert in_force(catalog, collection) == []


def test_a_deleted_collection_takes_its_tunings_along(catalog, collection):
    kept = catalog.add_tuning(collection, "e", Tuned(0.5, 0.5), {})
    catalog.promote(kept.id)
    catalog.delete_collection(collection)
    with pytest.raises(NotFound):
        catalog.tuned(kept.id)


@given(
    vectors=arrays(np.float32, (3, 4), elements=st.floats(-1, 1, width=32)).map(lambda v: unit_rows(v + 2)),
    turn=arrays(np.float32, (4, 4), elements=st.floats(-1, 1, width=32)).map(lambda m: np.linalg.qr(m)[0]),
)
def test_a_rotation_keeps_the_angles_between_questions(vectors, turn):
    """Unit rows stay unit rows, and their products what they were; places and ids of tokens are not touched."""
    spans, ids = np.array([[0, 1], [1, 2], [2, 3]], dtype=np.int32), np.arange(3, dtype=np.int32)
    asked = Encoding(vectors, (TokenVectors(vectors, spans, ids),))
    turned = Tuned(0.5, 0.5, turn, turn).turned(asked)
    assert turned.vectors @ turned.vectors.T == pytest.approx(vectors @ vectors.T, abs=1e-5)
    assert np.array_equal(turned.tokens[0].vectors, turned.vectors)
    assert turned.tokens[0].spans is spans
    assert turned.tokens[0].ids is ids
    assert Tuned(0.1, 0.2).turned(asked) is asked


# -- in a search -------------------------------------------------------------------------------------------------------

TEXTS = ["storm tide harbour", "harbour fog", "engine oil", "oil of the sea", "tide and fog and storm"]


@pytest.fixture
def citewell(settings):
    with open_citewell(settings, embedder=EMBEDDER) as opened:
        put(opened, "docs", "a", TEXTS)
        put(opened, "more", "b", TEXTS[:2])
        yield opened


def docs(citewell) -> Collection:
    return citewell.store.catalog.collection("docs")


@pytest.mark.parametrize("dense", [0.0, 0.3, 1.0])
def test_the_weight_of_a_tuning_is_the_weight_of_the_ranking(citewell, dense):
    """The scores of a search are those of the plain fusion with the tuning's weight."""
    plan = citewell.plan("storm in the harbour", ["docs"], parts={"late": False})
    tuned = Tuned(dense, 0.5)
    candidates, _ = citewell.retriever.evidence(plan, tuned)
    expected = fuse(candidates.dense, candidates.lexical, dense)
    ranked = citewell.retriever.retrieve(plan, tuned=tuned).passages
    assert {(p.collection_id, p.seq): p.score for p in ranked} == pytest.approx(
        {key: score for key, score in expected.items() if key in {(p.collection_id, p.seq) for p in ranked}}
    )


def test_a_promotion_changes_the_next_search_and_taking_it_back_the_one_after(citewell):
    """A map that turns every question the other way round: the nearest vector becomes the farthest."""
    catalog, collection = citewell.store.catalog, docs(citewell)
    alone = {"lexical": False, "late": False}
    before = found(citewell, "engine oil", "docs", parts=alone)
    assert before[0] == "engine oil"
    around = Tuned(0.5, 0.6, adapter=-np.eye(EMBEDDER.dimension, dtype=np.float32))
    kept = catalog.add_tuning(collection.id, EMBEDDER.fingerprint, around, {})
    assert found(citewell, "engine oil", "docs", parts=alone) == before
    catalog.promote(kept.id)
    assert docs(citewell).tuning == kept.id
    assert found(citewell, "engine oil", "docs", parts=alone)[-1] == "engine oil"
    assert found(citewell, "engine oil", "docs", "more", parts=alone)[0] == "engine oil", "several go by the settings"
    assert catalog.roll_back(collection.id) is None
    assert found(citewell, "engine oil", "docs", parts=alone) == before
