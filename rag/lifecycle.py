"""The life cycle that the derived indexes share: a sealed part, a tail, retired rows.

    rows 1 ........................ S | S+1 ........ last
         sealed part (a folder of files)  tail (memory)      minus the rows retired since

A *sealed part* is a folder that was written beside the others, flushed, renamed and only then named in the catalog.
It holds the rows that were live when it was made, up to sequence number S, and is never changed. The *tail* holds the
rows after S. A reader asks the catalog with one cheap query whether anything happened; if so it fetches the new rows
and the newly retired ones. What can not be read is dropped with a warning, and the tail begins at the first row. A
large new part is checked and opened beside the work: until that is done, searches go on with the part before it and a
longer tail, and find the same rows.

Knows the catalog and files; what is in a part, and how it is searched, is the business of ``dense`` and ``lexical``.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import structlog

from rag.catalog import Catalog, Pulse, Seal
from rag.errors import CitewellError, IndexDamaged, Unavailable
from rag.hits import Mask, places
from rag.originals import sync_folder
from rag.protocols import Rows
from rag.settings import IndexSettings

FORMAT = 2
MANIFEST = "manifest.json"
#: Seconds that `seal_alone` waits for another process.
PATIENCE = 120.0
#: Rows fetched from the catalog at once while a part is made.
STEP = 20_000

log = structlog.get_logger(__name__)
Stamp = tuple[tuple[str, int, int, int], ...]
PartT = TypeVar("PartT")
TailT = TypeVar("TailT")


@dataclass(frozen=True, slots=True)
class Snapshot(Generic[PartT, TailT]):
    """What one search sees: never changed, replaced as a whole.

    ``sealed_alive`` and ``tail_alive`` are boolean masks over the rows of either side; a False row is retired.
    ``sealed_retired`` and ``tail_retired`` are the places of those, in order: as a rule few or none.
    """

    seal: Seal | None
    pulse: Pulse
    sealed_seqs: Rows
    sealed_alive: Mask
    sealed_retired: Rows
    part: PartT | None
    tail_seqs: Rows
    tail_alive: Mask
    tail_retired: Rows
    tail: TailT
    #: What changes when anybody touches the files of the sealed part, which are mapped into memory and not read again.
    stamp: Stamp = ()

    @property
    def live(self) -> int:
        """How many rows are not retired."""
        return len(self.sealed_seqs) - len(self.sealed_retired) + len(self.tail_seqs) - len(self.tail_retired)


class DerivedIndex(ABC, Generic[PartT, TailT]):
    """One index of one collection over all its live rows. Thread-safe: searches work on a snapshot.

    ``kind`` names the sort of index; ``space`` names what made its rows comparable (the embedder, the analyser), and
    parts of another space are foreign. ``folder`` is where the sealed parts of the collection lie.
    """

    kind: str
    #: Bytes of the largest part that a search waits for while it is checked and opened.
    opened_at_once = 32 << 20
    #: Most rows that a search fetches rather than wait for a part; more would take longer than the part does.
    fetched_at_most = STEP

    def __init__(self, catalog: Catalog, collection_id: str, space: str, folder: Path, settings: IndexSettings) -> None:
        self._catalog = catalog
        self._collection_id = collection_id
        self._space = space
        self._folder = folder / collection_id
        self._settings = settings
        self._lock = threading.Lock()
        self._opening: threading.Thread | None = None
        self._snapshot = self._begin(None)

    # -- what an index must say of itself ----------------------------------------------------------------------------

    @abstractmethod
    def _open_part(self, folder: Path, manifest: Mapping[str, Any]) -> PartT:
        """Open the files that `_write_part` wrote; raise `IndexDamaged` if they are not what they should be."""

    @abstractmethod
    def _write_part(self, folder: Path, last: int) -> tuple[Rows, dict[str, Any]]:
        """Write the live rows up to ``last`` into ``folder``; return their numbers and facts for the manifest."""

    @abstractmethod
    def _empty_tail(self) -> TailT:
        """Return a tail without rows."""

    @abstractmethod
    def _grown_tail(self, tail: TailT, after: int, last: int) -> tuple[Rows, TailT]:
        """Return the live rows in (after, last] and a tail that holds them too, leaving ``tail`` as it is."""

    @property
    def last_seq(self) -> int:
        """See `rag.protocols.Index`."""
        return self._snapshot.pulse.last_seq

    # -- freshness ---------------------------------------------------------------------------------------------------

    def current(self) -> Snapshot[PartT, TailT]:
        """Return a snapshot that holds every commit made before this call, in any process.

        In one moment of the catalog, that holds those before the moment, and files are looked at once.
        """
        pulse, now = self._catalog.pulse(self._collection_id), self._snapshot
        if pulse.commits == now.pulse.commits and self._is_whole(now):
            return now
        with self._lock:
            if pulse.commits > self._snapshot.pulse.commits or not self._is_whole(self._snapshot):
                self._snapshot = self._advanced(self._snapshot, max(pulse, self._snapshot.pulse, key=_commits))
            return self._snapshot

    def _is_whole(self, snapshot: Snapshot[PartT, TailT]) -> bool:
        """Say whether the files of the sealed part are as they were when they were checked."""
        if snapshot.seal is None:
            return True
        folder = self._folder / snapshot.seal.folder
        return self._catalog.at_the_moment(("stamp", str(folder)), lambda: stamp_of(folder)) == snapshot.stamp

    def _advanced(self, old: Snapshot[PartT, TailT], pulse: Pulse) -> Snapshot[PartT, TailT]:
        seal = self._catalog.seal(self._collection_id, self.kind, self._space)
        if seal == old.seal and self._is_whole(old):
            return self._grown(old, pulse)
        few = pulse.last_seq - old.pulse.last_seq <= self.fetched_at_most
        if seal is not None and few and self._is_whole(old) and self._is_large(seal):
            self._open_aside(seal)
            return self._grown(old, pulse)
        return self._grown(self._begin(seal), pulse)

    def _grown(self, base: Snapshot[PartT, TailT], pulse: Pulse) -> Snapshot[PartT, TailT]:
        """Add what was committed since ``base``."""
        pulse = max(pulse, base.pulse, key=_commits)  # the part may be younger than the pulse
        retired = self._catalog.retired_rows(self._collection_id, base.pulse.commits, pulse.commits)
        new, tail = self._grown_tail(base.tail, base.pulse.last_seq, pulse.last_seq)
        tail_seqs = np.concatenate([base.tail_seqs, new])
        grown_alive = np.concatenate([base.tail_alive, np.ones(len(new), dtype=bool)])
        sealed_alive, sealed_retired = _without(base.sealed_alive, base.sealed_retired, base.sealed_seqs, retired)
        tail_alive, tail_retired = _without(grown_alive, base.tail_retired, tail_seqs, retired)
        return Snapshot(
            base.seal, pulse,
            base.sealed_seqs, sealed_alive, sealed_retired, base.part,
            tail_seqs, tail_alive, tail_retired, tail, base.stamp,
        )  # fmt: skip

    def _is_large(self, seal: Seal) -> bool:
        return size_of(self._folder / seal.folder) > self.opened_at_once

    def _open_aside(self, seal: Seal) -> None:
        """Have a large part checked and opened by a thread, which puts it in the place of the one before."""
        if self._opening is None or not self._opening.is_alive():
            self._opening = threading.Thread(target=self._replace_part, args=(seal,), name="open part", daemon=True)
            self._opening.start()

    def _replace_part(self, seal: Seal) -> None:
        try:
            begun = self._begin(seal)
            if begun.seal is None:  # it was damaged, and is out of force: the next search sees that
                return
            begun = self._grown(begun, self._catalog.pulse(self._collection_id))
            with self._lock:
                if self._catalog.seal(self._collection_id, self.kind, self._space) == seal:
                    self._snapshot = self._grown(begun, max(begun.pulse, self._snapshot.pulse, key=_commits))
        except CitewellError as error:
            log.warning("sealed index part not opened", kind=self.kind, folder=seal.folder, reason=error.message)

    def _begin(self, seal: Seal | None) -> Snapshot[PartT, TailT]:
        """Start from a sealed part alone, or from before the first row if there is none that can be read."""
        none = np.zeros(0, dtype=np.int64)
        mask = np.zeros(0, dtype=bool)
        if seal is not None:
            try:
                stamp = stamp_of(self._folder / seal.folder)
                seqs, part, made_at = self._open(seal)
                alive = np.ones(len(seqs), dtype=bool)
                return Snapshot(seal, made_at, seqs, alive, none, part, none, mask, none, self._empty_tail(), stamp)
            except IndexDamaged as error:
                log.warning("sealed index part dropped", kind=self.kind, folder=seal.folder, reason=error.message)
                self._catalog.drop_seal(self._collection_id, self.kind, self._space, seal.folder)
        return Snapshot(None, Pulse(0, 0), none, mask, none, None, none, mask, none, self._empty_tail())

    def _open(self, seal: Seal) -> tuple[Rows, PartT, Pulse]:
        folder = self._folder / seal.folder
        manifest = read_manifest(folder)
        if (manifest["kind"], manifest["space"]) != (self.kind, self._space):
            raise IndexDamaged(f"It was made for {manifest['kind']} {manifest['space']}.")
        if (manifest.get("collection"), manifest["last_seq"]) != (self._collection_id, seal.last_seq):
            raise IndexDamaged("It was made for another collection, or for other rows.")
        seqs = np.load(folder / "seqs.npy")
        return seqs, self._open_part(folder, manifest), Pulse(manifest["commits"], manifest["last_seq"])

    # -- sealing -----------------------------------------------------------------------------------------------------

    def wants_seal(self) -> bool:
        """Say whether enough rows came since the last sealing to make a new part worth its cost."""
        last = self._catalog.pulse(self._collection_id).last_seq
        seal = self._catalog.seal(self._collection_id, self.kind, self._space)
        return last - (seal.last_seq if seal else 0) >= max(self._settings.seal_rows, self._settings.seal_share * last)

    def seal(self) -> int:
        """Write all live rows into a new sealed part and put it in force; return its last sequence number.

        Searches go on meanwhile. If another process is at it, this one leaves it to that one and returns 0.
        """
        return self._seal(keep_before=True)

    def seal_alone(self) -> None:
        """Seal, and remove all other parts: the one before, which slow readers may still have open, and those of other
        spaces, which are made anew if they are ever wanted. Raises `Unavailable` while another process is sealing.
        """
        deadline = time.monotonic() + PATIENCE
        while not self._seal(keep_before=False) and self._catalog.pulse(self._collection_id).last_seq:
            if time.monotonic() > deadline:
                raise Unavailable("Another process is sealing this index; try again in a minute.")
            time.sleep(0.2)

    def _seal(self, *, keep_before: bool) -> int:
        try:
            return self._sealed(keep_before=keep_before)
        except OSError as error:
            raise Unavailable(f"The index can not be sealed: {error.strerror or error}.") from error

    def _sealed(self, *, keep_before: bool) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        with _only_one(self._folder / f".{self.kind}.lock") as alone:
            if not alone:
                return 0
            pulse = self._catalog.pulse(self._collection_id)
            before = self._catalog.seal(self._collection_id, self.kind, self._space)
            name = self._make(pulse)
            if not keep_before:
                self._catalog.drop_foreign_seals(self._collection_id, self.kind, self._space)
            self._catalog.record_seal(self._collection_id, self.kind, self._space, Seal(name, pulse.last_seq))
            in_force = self._catalog.seal_folders(self._collection_id)
            self._sweep(in_force | ({before.folder} if before and keep_before else set()))
        return pulse.last_seq

    def _make(self, pulse: Pulse) -> str:
        name = f"{self.kind}-{pulse.last_seq}-{secrets.token_hex(4)}"
        making = self._folder / f".making-{name}"
        try:
            making.mkdir()
            seqs, facts = self._write_part(making, pulse.last_seq)
            np.save(making / "seqs.npy", seqs)
            made_for = {"kind": self.kind, "space": self._space, "collection": self._collection_id}
            counts = {"rows": len(seqs), "last_seq": pulse.last_seq, "commits": pulse.commits}
            write_manifest(making, {**made_for, **counts, **facts})
            making.rename(self._folder / name)
            sync_folder(self._folder)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)  # what fills the disk must not stay on it
            raise
        return name

    def _sweep(self, keep: set[str]) -> None:
        """Remove older parts and what died while being made. The part before the last stays for slow readers."""
        for folder in self._folder.iterdir():
            ours = folder.name.startswith((f"{self.kind}-", f".making-{self.kind}-"))
            if ours and folder.name not in keep:
                shutil.rmtree(folder, ignore_errors=True)


def sweep_parts(catalog: Catalog, collection_id: str, folder: Path) -> int:
    """Remove what sealings that died have left in the ``folder`` of a collection; return how many parts that were.

    What is in force stays, and of each kind the part before it, for slow readers; also whatever is being made now.
    """
    swept = 0
    for lock in folder.glob(".*.lock"):
        kind = lock.name.removeprefix(".").removesuffix(".lock")
        with _only_one(lock) as alone:
            if not alone:
                continue
            in_force = catalog.seal_folders(collection_id)
            last = max((_last_of(name) for name in in_force if name.startswith(f"{kind}-")), default=-1)
            parts = [part.name for part in folder.glob(f"{kind}-[0-9]*-*") if part.name not in in_force]
            before = max((name for name in parts if _last_of(name) <= last), key=_last_of, default=None)
            gone = [name for name in parts if name != before]
            gone += [part.name for part in folder.glob(f".making-{kind}-*")]
            for name in gone:
                shutil.rmtree(folder / name, ignore_errors=True)
            swept += len(gone)
    return swept


def _last_of(name: str) -> int:
    """Return the last row of a sealed part by the name of its folder."""
    return int(name.split("-")[1])


def _commits(pulse: Pulse) -> int:
    return pulse.commits


def _without(alive: Mask, before: Rows, seqs: Rows, retired: Rows) -> tuple[Mask, Rows]:
    """Return the mask, and the places that are False in it, with the rows ``retired`` taken out."""
    found = places(seqs, retired)
    if not len(found):
        return alive, before
    alive = alive.copy()
    alive[found] = False
    return alive, np.union1d(before, found)


def size_of(folder: Path) -> int:
    """Return the bytes of the files in a folder; 0 if it is not there."""
    return sum(size for _, size, _, _ in stamp_of(folder))


def stamp_of(folder: Path) -> Stamp:
    """Return the name, size, time and inode of each file in a folder: what a touched file differs in."""
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.stat()) for entry in entries]
    except OSError:
        return ()
    return tuple(sorted((name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in found))


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write ``manifest.json`` with ``facts``, the format and a SHA-256 of every other file, and flush all to disk."""
    files = {}
    for file in sorted(folder.iterdir()):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
            files[file.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    with (folder / MANIFEST).open("w") as stream:
        json.dump({"format": FORMAT, **facts, "files": files}, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    sync_folder(folder)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a sealed part whose files are all as they were written; raise `IndexDamaged` otherwise."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        if manifest["format"] != FORMAT:
            raise IndexDamaged(f"Its format is {manifest['format']}, this version reads {FORMAT}.")
        for name, digest in manifest["files"].items():
            with (folder / name).open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != digest:
                    raise IndexDamaged(f"Its file {name} is not what was written.")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IndexDamaged(f"It can not be read: {error}.") from error
    return manifest


@contextmanager
def _only_one(file: Path) -> Iterator[bool]:
    """Yield True to the one process that holds the lock, False to the others; a dead holder's lock is free."""
    with file.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
