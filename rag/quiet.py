"""Dependencies that phone home are told not to, before they are imported.

Knows only the names of their switches. It imports nothing, opens nothing, and can be called any number of times.
"""

from __future__ import annotations

import os

_OPT_OUTS = {
    "DO_NOT_TRACK": "1",
    "SCARF_NO_ANALYTICS": "1",
    "UNSTRUCTURED_DISABLE_NOTICE": "1",
    "RAGAS_DO_NOT_TRACK": "true",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "NEMO_GUARDRAILS_NO_USAGE_STATS": "1",
    "ANONYMIZED_TELEMETRY": "False",
    "PYTHON_DOTENV_DISABLED": "1",
    "ORT_DISABLE_TELEMETRY": "1",
}


def silence_dependencies(*, hub: bool = False) -> None:
    """Set the opt-out of every dependency that would report to its makers; a value that is set already is kept.

    No part of Citewell speaks to a host that was not configured, and no user has to know a dozen variables for that:
    unstructured, ragas and onnxruntime report every use, the Hugging Face hub is asked for models that lie on the disk.
    pymilvus would read whatever ``.env`` file lies above it into the environment, which only the settings may read.
    The switches are read at import, so that this is called before the import of any of them. With ``hub`` the model hub
    stays reachable, for who has configured a model from it.
    """
    for name, value in _OPT_OUTS.items():
        os.environ.setdefault(name, "0" if hub and name.endswith("_OFFLINE") else value)
