"""The base model of this process: its layers, read from its files, and its engine once loaded."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

from ramole_core.base.fetch import Progress as Progress
from ramole_core.methods import METHOD_LIST
from ramole_core.settings import Settings

if TYPE_CHECKING:
    from ramole_core.base.model import BaseModel
    from ramole_core.composition import Composition, Trained
    from ramole_core.engine.engine import Engine
    from ramole_core.ramole import Ramole

COMPILING = "compiling for this CPU, at the first start"


def load_here(
    settings: Settings,
    tell: Progress,
    *,
    check: Callable[[Progress], None] = lambda tell: None,
    weights: "Callable[[Composition], Trained | None]" = lambda method: None,
) -> "tuple[BaseModel, Engine]":
    """Load base and engine, `check` in between; `weights` gives a method's."""
    from ramole_core.base.model import ON_CPU, load_base, pick_device
    from ramole_core.engine.build import engine_of
    from ramole_core.kernels.ahead import PARTS, compiled_ahead

    s = settings
    on_cpu = pick_device(s.device).type == "cpu"
    kernels = ON_CPU if s.quantization == "auto" else s.quantization
    with compiled_ahead(kernels) if on_cpu else nullcontext() as wait_for_kernels:
        base = load_base(
            s.base_model,
            data_dir=s.data_dir,
            quantization=s.quantization,
            dtype=s.dtype,
            device=s.device,
            head=s.head,
            chat_template=s.chat_template,
            progress=lambda stage, fraction: tell(stage, 0.9 * fraction),
        )
        if wait_for_kernels is not None:
            tell(COMPILING, 0.9)
            wait_for_kernels(1)  # the encoder's, too
        check(tell)
        if wait_for_kernels is not None:
            tell(COMPILING, 0.94)
            wait_for_kernels(PARTS)
    return base, engine_of(base, s, shapes=shapes_of(s), weights=weights)


def shapes_of(settings: Settings) -> dict[str, tuple[int, int]]:
    """The base's linear layers, (i, o) each; fetches its files on first use."""
    from ramole_core.base.fetch import fetch_base
    from ramole_core.base.shapes import read_shapes

    return read_shapes(fetch_base(settings.base_model, data_dir=settings.data_dir))


class TrainingStep(NamedTuple):
    """One training command for another base."""

    command: str
    minutes: int
    """Minutes on `MEASURED`."""
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
