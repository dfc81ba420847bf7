"""The models that the addresses of OpenAI's and NIM's APIs know by name, and what each name stands for.

``citewell/handbook`` answers from the collection ``handbook``, ``citewell/handbook,reports`` from both. The embedder
has the name of its settings, with ``-query`` or ``-passage`` behind it where a client can not say in another way which
of the two its texts are. Rankings are made by the cross-encoder, where one is configured, or by late interaction over
the embedder's token vectors. Knows no route.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rag.assembly import Citewell
from rag.errors import BadInput, NotFound
from rag.protocols import Reranker, Role
from rag.records import Collection

#: What the names of collections as models begin with; alone, the request names the collections.
ANSWERER = "citewell"
PREFIX = f"{ANSWERER}/"
ROLES: tuple[Role, ...] = ("query", "passage")


@dataclass(frozen=True, slots=True)
class Model:
    """A model by its name. ``root`` is the one that it is a variant of: itself, mostly; ``created`` in Unix seconds."""

    id: str
    root: str
    created: int = 0


def embedder_name(citewell: Citewell) -> str:
    """Return the name of the embedder: that of the settings, of a folder its last part."""
    name = citewell.store.settings.embedder.model
    return Path(name).name if Path(name).is_dir() else name


def late_name(citewell: Citewell) -> str:
    """Return the name of late interaction over the embedder as a reranker."""
    return f"{embedder_name(citewell)}-late-interaction"


def rerankers(citewell: Citewell) -> dict[str, Reranker]:
    """Return what ranks, by name; the first is the one that searches use."""
    encodings = citewell.encodings
    late = {late_name(citewell): encodings.late}
    return late if encodings.reranker is encodings.late else {encodings.reranker.name: encodings.reranker} | late


def list_models(citewell: Citewell) -> list[Model]:
    """Return all models, the embedder first: clients that are told of none take the first that there is."""
    named = [Model(name, name) for name in (embedder_name(citewell), *rerankers(citewell))]
    return named + [_of(collection) for collection in citewell.store.catalog.list_collections(counted=False)]


def find_model(citewell: Citewell, name: str) -> Model:
    """Return a model by its name, variants and several collections included; raises `NotFound`."""
    if name in {embedder_name(citewell), *rerankers(citewell)}:
        return Model(name, name)
    if name.startswith(PREFIX):
        catalog = citewell.store.catalog
        found = [catalog.collection(part, counted=False) for part in named_collections(name)]
        return Model(name, name, max(_of(collection).created for collection in found))
    embedder_role(citewell, name, None)
    return Model(name, embedder_name(citewell))


def named_collections(name: str) -> list[str]:
    """Return the collections that a model name names, none where it is `ANSWERER` alone.

    Raises `NotFound` for a name that no answer is to be had from.
    """
    if name == ANSWERER:
        return []
    names = [part.strip() for part in name.removeprefix(PREFIX).split(",")]
    if not name.startswith(PREFIX) or not all(names):
        raise NotFound(
            f"{shown(name)} answers no questions; name a collection as the model, {PREFIX}COLLECTION.", param="model"
        )
    return list(dict.fromkeys(names))


def embedder_role(citewell: Citewell, name: str, input_type: Role | None) -> Role:
    """Return what texts are that are embedded under a model's name: what ``input_type`` says, or the name, or passages.

    Raises `NotFound` for another model than the embedder, and `BadInput` where the two say different things.
    """
    embedder = embedder_name(citewell)
    said = next((role for role in ROLES if name == f"{embedder}-{role}"), None)
    if name != embedder and said is None:
        raise NotFound(f"{shown(name)} is no embedder; the one here is {embedder}.", param="model")
    if said and input_type and said != input_type:
        raise BadInput(
            f"input_type is {input_type}, and the model's name says {said}; leave one of them out.", param="input_type"
        )
    return input_type or said or "passage"


def reranker_of(citewell: Citewell, name: str | None) -> tuple[str, Reranker]:
    """Return the reranker of a name, with its name: the one of searches for the embedder's, or for none.

    Raises `NotFound`.
    """
    known = rerankers(citewell)
    first = next(iter(known))
    if name is None or name == embedder_name(citewell):
        return first, known[first]
    if name not in known:
        raise NotFound(f"{shown(name)} is no reranker; there is {' and '.join(known)}.", param="model")
    return name, known[name]


def shown(name: str) -> str:
    """Return a name as an error's sentence quotes it."""
    return ascii(name[:100])


def _of(collection: Collection) -> Model:
    name = f"{PREFIX}{collection.name}"
    return Model(name, name, int(collection.created_at.timestamp()))
