"""The data folder: the catalog, the originals beside it, and where the indexes lie.

Enough to list, upload and delete; opens no model and no index, so that commands that need none start at once.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rag.catalog import Catalog
from rag.errors import Misconfigured
from rag.originals import Originals
from rag.records import Collection
from rag.settings import Settings


@dataclass(frozen=True, slots=True)
class Store:
    """What lies in a data folder, without any model."""

    settings: Settings
    catalog: Catalog
    originals: Originals

    @property
    def index_folder(self) -> Path:
        return self.settings.data / "indexes"

    def delete_collection(self, name: str) -> Collection:
        """Remove a collection: its rows in one transaction, then the files that nothing needs any more."""
        collection = self.catalog.collection(name)
        for sha256 in self.catalog.delete_collection(collection.id):
            self.originals.remove(sha256)
        shutil.rmtree(self.index_folder / collection.id, ignore_errors=True)
        return collection


@contextmanager
def open_store(settings: Settings) -> Iterator[Store]:
    """Open the data folder, making it if it is not there; raises `Misconfigured` if it can not be used."""
    try:
        settings.data.mkdir(parents=True, exist_ok=True)
        originals = Originals(settings.data / "originals")
    except OSError as error:
        raise Misconfigured(f"The data folder {settings.data} can not be used: {error.strerror}.") from error
    catalog = Catalog.in_folder(settings.data)
    try:
        yield Store(settings, catalog, originals)
    finally:
        catalog.close()
