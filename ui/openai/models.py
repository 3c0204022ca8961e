"""Models by name: a method, or adapters of the pool, `adapter:NAME` joined by `+`."""

from dataclasses import dataclass
from datetime import datetime

from ramole_core import DEFAULT_METHOD, Ramole, RamoleError

from .errors import Refused

ADAPTER = "adapter:"
"""Prefix of adapters, which may have the name of a method."""
EMBEDDER = "retriever"
"""The model of `/v1/embeddings`."""
ONE, SEVERAL = "selection", DEFAULT_METHOD
"""Default methods of named adapters."""


@dataclass(frozen=True)
class Model:
    """The meaning of a model's name."""

    method: str
    adapters: list[str] | None = None
    """Exactly these; None: those that are found."""


def read_model(name: str, ramole: Ramole, owner: str | None) -> Model:
    """The model of that name, of those that this owner sees; raises Refused."""
    parts = name.split("+")
    if not any(part.startswith(ADAPTER) for part in parts):
        if name in (row.name for row in ramole.methods()):
            return Model(name)
        if name == EMBEDDER:
            raise _unknown(f"{EMBEDDER} embeds texts and answers none (/v1/embeddings)")
        raise _unknown(f"There is no model {name[:80]!r}")
    if not all(part.startswith(ADAPTER) for part in parts):
        raise _unknown(f"The model {name[:80]!r} mixes adapters with something else")
    names = [part.removeprefix(ADAPTER) for part in parts]
    for one in names:
        try:
            ramole.pool.card(one, owner)
        except RamoleError as error:
            raise unknown_model(str(error)) from None
    return Model(ONE if len(names) == 1 else SEVERAL, names)


def list_models(ramole: Ramole, owner: str | None) -> list[dict]:
    """Every method, the encoder, then every adapter that this owner sees."""
    cards = ramole.pool.cards(owner)
    return [
        *(model_object(row.name) for row in ramole.methods()),
        model_object(EMBEDDER),
        *(model_object(ADAPTER + card.name, created=_seconds(card.added)) for card in cards),
    ]


def find_model(name: str, ramole: Ramole, owner: str | None) -> dict:
    """One model as the list has it, or one of several adapters; raises Refused for any other."""
    listed = {one["id"]: one for one in list_models(ramole, owner)}
    if name not in listed:
        read_model(name, ramole, owner)
    return listed.get(name) or model_object(name)


def model_object(name: str, *, created: int = 0) -> dict:
    return {"id": name, "object": "model", "created": created, "owned_by": "ramole"}


def _seconds(added: str) -> int:
    try:
        return int(datetime.fromisoformat(added).timestamp())
    except ValueError:
        return 0


def _unknown(what: str) -> Refused:
    return unknown_model(
        f"{what}; name a method, or adapter:NAME, or several as adapter:A+adapter:B, as "
        "/v1/models lists them."
    )


def unknown_model(sentence: str) -> Refused:
    """The refusal of a model that is not there."""
    return Refused(sentence, status=404, param="model", code="model_not_found")
