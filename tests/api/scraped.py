"""A page of /metrics as tests read it: every sample by its name and labels."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families

#: The checker of Prometheus' own files, of Debian's package `prometheus`; None where it is not installed.
PROMTOOL = shutil.which("promtool")


@dataclass(frozen=True)
class Page:
    """The samples of a page."""

    text: str
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float]

    @classmethod
    def of(cls, client: httpx.Client) -> Page:
        """Fetch the page."""
        reply = client.get("/metrics")
        assert reply.status_code == 200, reply.text
        assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
        families = text_string_to_metric_families(reply.text)
        found = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }
        return cls(reply.text, found)

    def __getitem__(self, name: str) -> float:
        """Return the sum over all labels."""
        return self.sum(name)

    def sum(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of a name that have these labels; raises `KeyError` if there are none."""
        found = [value for (n, own), value in self.samples.items() if n == name and own >= frozenset(labels.items())]
        if not found:
            raise KeyError(name, labels)
        return sum(found)

    def has(self, name: str, **labels: str) -> bool:
        return any(n == name and own >= frozenset(labels.items()) for n, own in self.samples)

    def labels(self, name: str, label: str) -> set[str]:
        """Return the values that a label has."""
        return {dict(own)[label] for n, own in self.samples if n == name}
