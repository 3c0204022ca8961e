"""Train a method's own weights: the gates, and the methods whose training is their own."""

from collections.abc import Callable, Mapping, Sequence

from ramole_core.base.model import BaseModel
from ramole_core.composition import Trained, find_method
from ramole_core.errors import RamoleError
from ramole_core.training.checkpoint import Progress
from ramole_core.training.gate import train_gate
from ramole_core.training.loop import Run
from ramole_core.training.material import Material
from ramole_core.training.mixed_model import Loras, Shapes
from ramole_core.training.mole import train_mole
from ramole_core.training.recipe import MethodRecipe
from ramole_core.training.recovery import train_recovery
from ramole_core.training.rows import Task
from ramole_core.training.sampled_adapters import Near
from ramole_core.training.task_table import write_task_table

OWN: dict[str, Callable[[MethodRecipe, Material, Run], Progress]] = {
    "ca_lora": train_recovery,
    "llava_mole": train_mole,
}
"""Methods that train adapters themselves, and how."""


def train_method(
    recipe: MethodRecipe,
    *,
    loras: Loras,
    tasks: Sequence[Task],
    base: BaseModel,
    shapes: Shapes,
    run: Run,
    checksums: Mapping[str, str] | None = None,
    near: Near | None = None,
    start: Trained | None = None,
) -> Progress:
    """Train a method over `loras` on the rows of `tasks`, one LoRA a task, and write its folder.

    `near` finds adapters for a text, where the recipe retrieves them; `start`: weights of a gate to
    begin with. `checksums` of the adapters'
    content go into the record, by which a method that knows a fixed pool knows it again. Raises
    RamoleError where the adapters do not suit the method, or `near` is needed and missing; Paused
    at the run's deadline.
    """
    given = Material(loras, tasks, base, shapes, checksums or {}, near, start)
    if start is not None and recipe.method in OWN:
        raise RamoleError(f"{recipe.method} cannot begin with trained weights; leave --start out.")
    measured = write_task_table if find_method(recipe.method).measures else train_gate
    return OWN.get(recipe.method, measured)(recipe, given, run)
