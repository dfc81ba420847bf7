"""The contract of `rag.protocols.Index`, held by the indexes in Milvus against the same exact twins.

The engine is Milvus Lite, through the client and the protocol that a cluster has; what only a cluster can do (nodes
that lag behind, an index that is built later) is not seen here.
"""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from rag.catalog import Catalog
from rag.errors import Misconfigured, Unavailable
from rag.lifecycle import read_manifest
from rag.milvus import Milvus
from rag.milvus_indexes import DRIFT, LOOK, PREFIX, MilvusDense, MilvusLexical, drop_collections
from rag.settings import IndexSettings, Settings, environment_for, load_settings
from rag.words import Analyser
from tests.contracts.strategies import DIMENSION, EMBEDDER, WORDS, put, vectors_for
from tests.contracts.test_index import IndexLife, check_dense, check_lexical, live_texts
from tests.milvus import Engine, started_engine

#: A busy machine may take longer over a search than anybody would wait for in service.
RULES = {"seal_rows": 1, "seal_share": 0.0, "milvus_timeout": 60.0}


@pytest.fixture(scope="module")
def lite(tmp_path_factory):
    """One engine for all tests that do not harm it."""
    engine = started_engine(tmp_path_factory.mktemp("milvus") / "data")
    yield engine
    engine.stop()


@pytest.fixture
def own_lite(tmp_path):
    """An engine that may be harmed."""
    engine = started_engine(tmp_path / "milvus")
    yield engine
    engine.stop()


@pytest.fixture
def catalog(tmp_path):
    opened = Catalog.in_folder(tmp_path)
    yield opened
    opened.close()


class Site:
    """Both indexes of one collection as one process has them open."""

    def __init__(self, engine: Engine, catalog: Catalog, collection: str, folder, **rules):
        self.rules = engine.settings(**(RULES | rules))
        self.milvus = Milvus(self.rules)
        self.catalog, self.collection, self.folder = catalog, collection, folder / collection
        self.dense = MilvusDense(catalog, collection, EMBEDDER, DIMENSION, folder, self.rules, self.milvus)
        self.lexical = MilvusLexical(catalog, collection, folder, self.rules, self.milvus)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.milvus.close()

    def seal(self):
        self.dense.seal(), self.lexical.seal()

    def held(self):
        """The collections in Milvus, without what is drawn by lot."""
        return [n.removeprefix(f"{PREFIX}{self.collection}_")[:-9] for n in self.milvus.names(self.prefix)]

    @property
    def prefix(self):
        return f"{PREFIX}{self.collection}_"

    def manifest(self, kind):
        newest = max(self.folder.glob(f"{kind}-*"), key=lambda part: int(part.name.split("-")[1]))
        return read_manifest(newest)

    def check(self, question="storm at the north buoy", k=3, alloweds=None):
        """Both find what the plain twins find, without a filter and with each of some."""
        rows = live_texts(self.catalog, self.collection)
        for allowed in alloweds or (None, sorted(rows)[::2]):
            check_dense(self.dense, rows, vectors_for([question])[0], k, allowed)
            check_lexical(self.lexical, rows, question, k, allowed)


@pytest.fixture
def site(lite, catalog, tmp_path):
    with Site(lite, catalog, catalog.create_collection("c").id, tmp_path / "indexes") as opened:
        yield opened


def random_texts(count, seed, shortest=1, longest=12):
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, size=random.integers(shortest, longest + 1))) for _ in range(count)]


class LifeInMilvus(IndexLife):
    """The same life; Milvus loses collections as well."""

    engine: Engine

    def open_indexes(self) -> None:
        self.close_site()
        self.site = Site(self.engine, self.catalog, self.collection, self.folder / "indexes")
        self.dense, self.lexical = self.site.dense, self.site.lexical

    def close_site(self) -> None:
        if hasattr(self, "site"):
            self.site.milvus.close()

    def teardown(self) -> None:
        if hasattr(self, "site"):
            drop_collections(self.site.rules, self.collection)
        self.close_site()
        super().teardown()

    @rule()
    def purge(self) -> None:
        self.dense.seal_alone()
        self.lexical.seal_alone()

    @rule(data=st.data())
    def lose_in_milvus(self, data: st.DataObject) -> None:
        names = self.site.milvus.names(self.site.prefix)
        if names:
            self.site.milvus.drop(data.draw(st.sampled_from(names)))


def test_index_life_in_milvus(lite, migrated_file):
    LifeInMilvus.engine, LifeInMilvus.empty = lite, migrated_file
    rules = settings(max_examples=8, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(LifeInMilvus, settings=rules)


@pytest.mark.parametrize("sealed", [False, True], ids=["tail", "sealed"])
class TestCorners:
    def test_empty_collection_has_no_hits(self, site, sealed):
        """An index without rows answers with nothing, whatever k is."""
        if sealed:
            assert (site.dense.seal(), site.lexical.seal()) == (0, 0)
        assert len(site.dense.search(vectors_for(["x"])[0], 5).seqs) == 0
        assert len(site.lexical.search("x", 5).seqs) == 0

    def test_ties_come_in_the_order_of_their_numbers(self, site, sealed):
        """Equal scores are ordered by sequence number, also where the last place is shared by many."""
        put(site.catalog, site.collection, "a", ["storm buoy"] * 60)
        if sealed:
            site.seal()
        assert site.dense.search(vectors_for(["storm buoy"])[0], 6).seqs.tolist() == [1, 2, 3, 4, 5, 6]
        assert site.lexical.search("storm", 3).seqs.tolist() == [1, 2, 3]

    def test_an_empty_filter_lets_nothing_through(self, site, sealed):
        put(site.catalog, site.collection, "a", ["storm buoy"])
        if sealed:
            site.seal()
        nothing = np.zeros(0, dtype=np.int64)
        assert len(site.dense.search(vectors_for(["storm buoy"])[0], 5, nothing).seqs) == 0
        assert len(site.lexical.search("storm", 5, nothing).seqs) == 0

    def test_rows_without_a_term_count_and_are_never_found(self, site, sealed):
        """They are no hits, but raise N and lower avgdl on either side of the seal."""
        put(site.catalog, site.collection, "a", ["the of and", "storm", "?!", "storm buoy tide"])
        if sealed:
            site.seal()
        site.check("storm", 5)
        assert [len(site.lexical.search(q, 5).seqs) for q in ("zebra", "", "the of and", "?!")] == [0, 0, 0, 0]


def test_filters_of_every_size_give_what_the_twins_give(site):
    """A filter that leaves one row of 600 as well as one that leaves nearly all, with retired rows on both sides."""
    for n in range(6):
        put(site.catalog, site.collection, f"d{n}", random_texts(100, n))
    documents = [put(site.catalog, site.collection, f"gone{n}", random_texts(40, 100 + n)) for n in range(3)]
    site.seal()
    put(site.catalog, site.collection, "tail", random_texts(30, 50))
    for document in documents:
        site.catalog.delete_document(document)
    rows = sorted(live_texts(site.catalog, site.collection))
    random = np.random.default_rng(1)
    sizes = (1, 3, 20, 200, 550)
    site.check(k=10, alloweds=[None, *(sorted(random.choice(rows, size, replace=False).tolist()) for size in sizes)])
    site.check("cable", 50, [rows[:7], rows[-45:]])


def test_many_retired_rows_before_the_best_live_one_are_passed_over(site):
    """More rows were deleted than a first answer of Milvus holds, and each was a better hit than what is left."""
    put(site.catalog, site.collection, "kept", ["storm buoy tide"] * 3)
    gone = put(site.catalog, site.collection, "gone", ["storm storm"] * 90)
    site.seal()
    site.catalog.delete_document(gone)
    assert site.lexical.search("storm", 2).seqs.tolist() == [1, 2]
    assert site.dense.search(vectors_for(["storm storm"])[0], 2).seqs.tolist() == [1, 2]
    site.check("storm", 2)


def test_a_sealing_writes_what_is_new_and_a_purge_writes_anew(site):
    """The collection in Milvus stays the same through sealings; after a purge there is one other, with live rows."""
    put(site.catalog, site.collection, "a", random_texts(30, 1, 6, 6))
    site.seal()
    first = {kind: site.manifest(kind)["milvus"]["name"] for kind in ("dense", "lexical")}
    document = put(site.catalog, site.collection, "b", random_texts(30, 2, 6, 6))
    site.seal()
    assert {kind: site.manifest(kind)["milvus"]["name"] for kind in first} == first
    assert [site.milvus.count(name, 100) for name in first.values()] == [60, 60]
    site.catalog.delete_document(document)
    put(site.catalog, site.collection, "c", random_texts(1, 3, 6, 6))
    site.check()
    site.seal()
    site.check()
    assert [site.milvus.count(name, 100) for name in first.values()] == [31, 31]
    site.dense.seal_alone(), site.lexical.seal_alone()
    second = {kind: site.manifest(kind)["milvus"]["name"] for kind in first}
    assert set(site.milvus.names(site.prefix)) == set(second.values())
    assert not set(first.values()) & set(second.values())
    assert [site.milvus.count(name, 100) for name in second.values()] == [31, 31]
    site.check()


def test_rarity_is_that_of_the_rows_that_are_live_now(site):
    """On both sides of the seal, without what is retired there: the same idf as the plain formula gives."""
    put(site.catalog, site.collection, "a", ["storm buoy", "storm", "tide", "cable storm"])
    gone = put(site.catalog, site.collection, "b", ["storm tide", "storm"])
    site.seal()
    put(site.catalog, site.collection, "c", ["buoy", "tide storm"])
    over = put(site.catalog, site.collection, "d", ["tide chart"])
    for document in (gone, over):
        site.catalog.delete_document(document)
    rows = {"storm": 4, "buoy": 2, "tide": 2, "cable": 1, "chart": 0, "zebra": 0}
    expected = [np.log1p((6 - found + 0.5) / (found + 0.5)) for found in rows.values()]
    terms = Analyser().terms(" ".join(rows))
    np.testing.assert_allclose(site.lexical.rarity(terms), expected, rtol=1e-6)


def test_rows_are_scored_anew_when_their_mean_length_has_moved(site):
    """avgdl stands in the weights of the rows: it stays while it is nearly right, and no longer."""
    put(site.catalog, site.collection, "a", ["storm buoy tide cable"] * 40)
    site.seal()
    name = site.manifest("lexical")["milvus"]["name"]
    put(site.catalog, site.collection, "b", ["storm buoy tide"])
    site.seal()
    assert site.manifest("lexical")["milvus"]["name"] == name
    assert site.manifest("lexical")["milvus"]["avgdl"] == 4.0
    put(site.catalog, site.collection, "c", ["storm"] * 10)
    site.seal()
    mean = (40 * 4 + 3 + 10) / 51
    assert abs(mean / 4.0 - 1) > DRIFT
    assert site.manifest("lexical")["milvus"]["name"] != name
    assert site.manifest("lexical")["milvus"]["avgdl"] == pytest.approx(mean)
    site.check("storm cable", 20)


@pytest.mark.parametrize("aside", [False, True], ids=["small", "large"])
def test_an_older_reader_scores_right_after_rows_were_taken_out_of_milvus(lite, site, catalog, tmp_path, aside):
    """It has a snapshot of a part whose retired rows another process has deleted: it looks for the newer part.

    A large part is opened beside the work, which goes on with the older one meanwhile.
    """
    if aside:
        site.dense.opened_at_once = site.lexical.opened_at_once = 0
    put(catalog, site.collection, "a", random_texts(30, 1, 6, 6))
    gone = put(catalog, site.collection, "b", random_texts(30, 2, 6, 6))
    site.seal()
    with Site(lite, catalog, site.collection, tmp_path / "indexes") as other:
        site.check(), other.check()
        catalog.delete_document(gone)
        put(catalog, site.collection, "c", random_texts(5, 3, 6, 6))
        other.seal()
        site.check()
        other.dense.seal_alone(), other.lexical.seal_alone()
        site.check()


def test_what_milvus_lost_while_nobody_looked_is_noticed_and_written_again(own_lite, catalog, tmp_path):
    """Half of the rows gone, as after a restored backup: who opens the index counts, and the next sealing refills."""
    collection = catalog.create_collection("c").id
    put(catalog, collection, "a", random_texts(40, 1))
    with Site(own_lite, catalog, collection, tmp_path / "indexes") as writer:
        writer.seal()
        for name in writer.milvus.names(writer.prefix):
            writer.milvus.delete_after(name, 20)
    with Site(own_lite, catalog, collection, tmp_path / "indexes") as reader:
        reader.check()
        assert (reader.dense.wants_seal(), reader.lexical.wants_seal()) == (True, True)
        reader.seal()
        assert [reader.milvus.count(name, 100) for name in reader.milvus.names(reader.prefix)] == [40, 40]
        own_lite.lose_data()
        reader.check()
        reader.dense._looked = reader.lexical._looked = -LOOK
        assert (reader.dense.wants_seal(), reader.lexical.wants_seal()) == (True, True)
        reader.seal()
        assert reader.held() == ["dense", "lexical"]
        reader.check()


def test_a_milvus_that_is_down_is_named_with_the_cure_and_taken_up_again(own_lite, catalog, tmp_path):
    """Nothing is dropped meanwhile, and searches go on as soon as it is back."""
    collection = catalog.create_collection("c").id
    put(catalog, collection, "a", random_texts(40, 1))
    secret = {"milvus_token": "reader:tide-and-storm", "milvus_timeout": 0.5}
    with Site(own_lite, catalog, collection, tmp_path / "indexes", **secret) as site:
        site.seal()
        site.check()
        own_lite.stop()
        for ask in (lambda: site.dense.search(vectors_for(["x"])[0], 5), lambda: site.lexical.search("storm", 5)):
            with pytest.raises(Unavailable, match=r"index\.milvus_uri") as caught:
                ask()
            assert "tide-and-storm" not in caught.value.message
            assert f"127.0.0.1:{own_lite.port}" in caught.value.message
        assert not site.dense.wants_seal()
        put(catalog, collection, "b", random_texts(5, 2))
        with pytest.raises(Unavailable):
            site.dense.seal()
        own_lite.start()
        answered(site)
        site.check()
        assert catalog.seal(collection, "dense", f"milvus {EMBEDDER}").last_seq == 40
        site.seal()
        site.check()


def answered(site, tries=40):
    """Search until Milvus answers: a new connection is not tried at every call."""
    import time

    for _ in range(tries):
        try:
            site.dense.search(vectors_for(["x"])[0], 5), site.lexical.search("storm", 5)
        except Unavailable:
            time.sleep(0.2)
        else:
            return
    pytest.fail("Milvus is back, and not taken up again")


def test_above_flat_rows_it_is_a_graph_with_the_recall_that_its_manifest_says(lite, catalog, tmp_path):
    """Exact until then. A filter that leaves few rows still gives all of them."""
    collection = catalog.create_collection("big").id
    put(catalog, collection, "a", [f"{n} {word}" for n in range(20) for word in WORDS])
    with Site(lite, catalog, collection, tmp_path / "indexes", flat_rows=500, min_recall=0.95) as site:
        site.dense.seal()
        assert site.manifest("dense")["milvus"]["kind"] == "flat"
        put(catalog, collection, "b", [f"{n} {word}" for n in range(20, 100) for word in WORDS])
        site.dense.seal()
        manifest = site.manifest("dense")
        assert manifest["milvus"]["kind"] == "hnsw"
        assert manifest["recall@10"] >= 0.95
        rows = live_texts(catalog, collection)
        seqs, matrix = np.array(list(rows)), vectors_for(list(rows.values()))
        queries = vectors_for([f"question {n}" for n in range(100)])
        found = [set(site.dense.search(query, 10).seqs.tolist()) for query in queries]
        exact = [set(seqs[np.argsort(-(matrix @ query))[:10]].tolist()) for query in queries]
        assert np.mean([len(a & b) / 10 for a, b in zip(found, exact, strict=True)]) >= manifest["recall@10"] - 0.05
        for some in (sorted(rows)[:: len(rows) // 7], sorted(rows)[500:520]):
            assert set(site.dense.search(queries[0], 30, np.array(some)).seqs.tolist()) == set(some)


def test_a_part_of_the_other_engine_is_foreign_and_goes_with_a_purge(site, catalog, tmp_path):
    """After a change of the engine nothing of the old parts is used, and none of it outlives a purge."""
    from rag.lexical import LexicalIndex

    put(catalog, site.collection, "a", random_texts(10, 1))
    LexicalIndex(catalog, site.collection, tmp_path / "indexes", IndexSettings()).seal()
    site.seal()
    site.check()
    assert len(list(site.folder.glob("lexical-*"))) == 2
    site.lexical.seal_alone()
    assert [read_manifest(part)["space"].split()[0] for part in site.folder.glob("lexical-*")] == ["milvus"]


def test_searches_go_on_while_another_process_seals_deletes_and_purges(lite, site, tmp_path):
    """What stays is found by every search, and nothing that was deleted before it began."""
    put(site.catalog, site.collection, "kept", ["storm buoy"] * 5)
    site.seal()
    over, deleted, found = threading.Event(), [], []

    def search(reader):
        gone, question = len(deleted), vectors_for(["storm buoy"])[0]
        sealed = reader.dense.search(question, 5).seqs, reader.lexical.search("storm buoy", 5).seqs
        assert [hits.tolist() for hits in sealed] == [[1, 2, 3, 4, 5]] * 2
        assert not set(deleted[:gone]) & set(reader.lexical.search("cable", 50).seqs.tolist())
        found.append(gone)

    def keep_searching():
        catalog = Catalog.in_folder(tmp_path)
        with Site(lite, catalog, site.collection, tmp_path / "indexes") as reader:
            while not over.is_set():
                search(reader)
        catalog.close()

    with ThreadPoolExecutor(2) as readers:
        running = [readers.submit(keep_searching) for _ in range(2)]
        try:
            for round_ in range(6):
                before = site.catalog.pulse(site.collection).last_seq
                document = put(site.catalog, site.collection, f"d{round_}", ["cable tide"] * 4)
                site.seal()
                site.catalog.delete_document(document)
                deleted.extend(range(before + 1, before + 5))
                if round_ % 3 == 2:
                    site.dense.seal_alone(), site.lexical.seal_alone()
        finally:
            over.set()
        for reader in running:
            reader.result()
    assert found


def test_a_file_is_milvus_lite_in_this_process(catalog, tmp_path):
    """For a trial on one machine: the same client starts the engine over a file of its own."""
    pytest.importorskip("milvus_lite", reason="Milvus Lite is not installed; there is none for every platform")
    from milvus_lite import server_manager_instance

    file = str(tmp_path / "vectors.db")
    rules = IndexSettings(engine="milvus", milvus_uri=file, **RULES)
    collection = catalog.create_collection("c").id
    put(catalog, collection, "a", ["storm buoy", "tide"])
    try:
        with closing(Milvus(rules)) as milvus:
            index = MilvusDense(catalog, collection, EMBEDDER, DIMENSION, tmp_path / "indexes", rules, milvus)
            assert index.seal() == 2
            check_dense(index, live_texts(catalog, collection), vectors_for(["tide"])[0], 2, None)
            assert milvus.address == file
    finally:
        server_manager_instance.release_server(file)


def test_settings_that_do_not_fit_are_refused_with_the_cure(tmp_path):
    for wrong, cure in (
        ({"engine": "milvus"}, "index.milvus_uri is not set"),
        ({"engine": "milvus", "milvus_uri": "http://root:secret@milvus:19530"}, "index.milvus_token"),
    ):
        with pytest.raises(Misconfigured, match=cure) as caught:
            load_settings(data=tmp_path, index=wrong)
        assert "root:secret" not in caught.value.message


def test_a_worker_gets_the_token_and_nobody_else(tmp_path):
    """It goes on in the environment of a worker; it is in no text of the settings, and the place in no digest."""
    index = IndexSettings(engine="milvus", milvus_uri="http://milvus:19530", milvus_token="reader:tide")
    chosen = Settings(data=tmp_path, index=index)
    passed = json.loads(environment_for(chosen)["CITEWELL_INDEX"])
    assert IndexSettings(**passed) == index
    assert IndexSettings(**passed).milvus_token.get_secret_value() == "reader:tide"
    assert "tide" not in repr(chosen) + chosen.model_dump_json()
    elsewhere = index.model_copy(update={"milvus_uri": "http://other:19530", "milvus_token": None})
    assert chosen.digest() == chosen.model_copy(update={"index": elsewhere}).digest()
    assert chosen.digest() != Settings(data=tmp_path).digest()


def test_stray_collections_are_dropped_by_the_next_sealing(site):
    """What a sealing that died has left in Milvus, as collection or as rows, goes when the next one is done."""
    put(site.catalog, site.collection, "a", random_texts(10, 1))
    site.seal()
    name = site.manifest("dense")["milvus"]["name"]
    site.milvus.create(f"{site.prefix}dense_dead", "flat", DIMENSION)
    site.milvus.put(name, np.array([500]), vectors_for(["storm"]))
    site.check()
    put(site.catalog, site.collection, "b", random_texts(1, 2))
    site.dense.seal()
    assert site.milvus.names(f"{site.prefix}dense") == [name]
    assert site.milvus.count(name, 1000) == 11


def test_losing_the_index_folder_loses_no_row(site):
    """Manifests and numbers gone: the rows are searched from the catalog, and written to Milvus again."""
    put(site.catalog, site.collection, "a", random_texts(10, 1))
    site.seal()
    shutil.rmtree(site.folder)
    site.check()
    site.seal()
    site.check()
    assert site.held() == ["dense", "lexical"]
