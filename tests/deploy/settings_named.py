"""Which names of environment variables are settings of Citewell, for tests of files that name some."""

from __future__ import annotations

from rag.setting_parts import Part
from rag.settings import Settings


def is_setting(name: str) -> bool:
    """Whether a variable sets something: CITEWELL_DATA, CITEWELL_SERVER__PORT, or the file of settings."""
    if name == "CITEWELL_CONFIG":
        return True
    first, _, second = name.removeprefix("CITEWELL_").lower().partition("__")
    field = Settings.model_fields.get(first)
    if field is None or not name.startswith("CITEWELL_"):
        return False
    kind = field.annotation
    if not second:
        return True
    return isinstance(kind, type) and issubclass(kind, Part) and second in kind.model_fields
