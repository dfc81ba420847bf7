"""Which version of Citewell this is, for whoever says so to a client. Knows nothing else, so that it costs nothing."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def product_version() -> str:
    """Return the version of what is installed; 0 where it is run from a source tree."""
    try:
        return version("citewell")
    except PackageNotFoundError:  # run from a source tree that was not installed
        return "0"
