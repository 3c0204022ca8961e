"""Train a method's own weights: the gates, and the methods whose training is their own."""

from collections.abc import Callable

from ramole_core.composition import find_method
from ramole_core.errors import RamoleError
from ramole_core.training.checkpoint import Progress
from ramole_core.training.gate import train_gate
from ramole_core.training.loop import TrainingRun
from ramole_core.training.material import Material
from ramole_core.training.mole import train_mole
from ramole_core.training.recipe import MethodRecipe
from ramole_core.training.recovery import train_recovery
from ramole_core.training.task_table import write_task_table

OWN: dict[str, Callable[[MethodRecipe, Material, TrainingRun], Progress]] = {
    "ca_lora": train_recovery,
    "llava_mole": train_mole,
}
"""Methods that train adapters themselves, and how."""


def check_start(name: str) -> None:
    """Raise RamoleError where the method cannot begin with weights that are trained already: it
    trains adapters of its own, or measures a table."""
    if name in OWN or find_method(name).measures:
        raise RamoleError(f"{name} cannot begin with trained weights; leave --start out.")


def train_method(recipe: MethodRecipe, given: Material, run: TrainingRun) -> Progress:
    """Train a method over the adapters on the rows of their tasks, and write its folder.

    The adapters' checksums go into the record, by which a method of a fixed pool finds its rows
    again. Raises RamoleError where the adapters do not suit the method, or `given.near` is needed
    and missing; Paused at the run's deadline.
    """
    if given.start is not None:
        check_start(recipe.method)
    measured = write_task_table if find_method(recipe.method).measures else train_gate
    return OWN.get(recipe.method, measured)(recipe, given, run)
