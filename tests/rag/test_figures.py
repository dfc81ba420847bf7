"""The queue in figures: how many files wait and are worked on, and how old the oldest is."""

from __future__ import annotations

from rag.catalog import Catalog, QueueFigures


def test_the_queue_is_counted_by_state_and_its_age_is_that_of_the_oldest(catalog: Catalog, collection: str) -> None:
    """An empty one has no age; a file counts until it is done, or is wanted no more."""
    assert catalog.queue_figures() == QueueFigures(0, 0, 0.0)
    for number in range(3):
        catalog.accept(collection, f"{number}.md", f"{number}" * 64, 1)
    begun = catalog.claim("worker", 60)
    figures = catalog.queue_figures()
    assert (figures.waiting, figures.processing) == (2, 1)
    assert 0 < figures.oldest_seconds < 3600
    assert begun is not None
    catalog.fail(begun.id, "worker", "damaged", "It can not be read.")
    assert (catalog.queue_figures().waiting, catalog.queue_figures().processing) == (2, 0)
    catalog.accept(collection, "1.md", "f" * 64, 1)  # takes the place of one that waits
    assert catalog.queue_figures().waiting == 2
