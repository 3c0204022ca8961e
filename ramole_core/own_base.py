"""The training steps for another base model: commands and measured times."""

from typing import TYPE_CHECKING, NamedTuple

from ramole_core.methods import METHOD_LIST

if TYPE_CHECKING:
    from ramole_core.ramole import Ramole


class TrainingStep(NamedTuple):
    """One command for a base of one's own."""

    command: str
    minutes: int
    """On `MEASURED`."""
    gives: str


MEASURED = "SmolLM2-135M on 2 CPU cores with AVX-512 and bfloat16 units"
TRAINING_STEPS = (
    TrainingStep(
        "python -m ramole_core train router --data DATA --adapters A,B,C",
        40,
        "the gate of ramole; the time grows with the model",
    ),
    TrainingStep(
        "python -m ramole_core train retriever --data DATA --tasks A,B,C",
        4,
        "prompts find their adapters more often; the same for every base",
    ),
    TrainingStep(
        "python -m ramole_core calibrate",
        2,
        "where the base answers by itself; without it, by similarity alone",
    ),
)
"""DATA holds a folder for each task, named after its adapter, with train.jsonl and dev.jsonl."""


def untrained(ramole: "Ramole") -> tuple[str, ...]:
    """The methods without weights trained for this base, where `ramole`, whose gate fits any
    adapter, is one of them."""
    here = {row.name for row in ramole.methods()}
    gone = tuple(row.name for row in METHOD_LIST if row.training and row.name not in here)
    return gone if "ramole" in gone else ()
