"""The training data of a method: adapters, the rows of their tasks, a base."""

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ramole_core.base.model import BaseModel
from ramole_core.composition import Trained
from ramole_core.errors import RamoleError
from ramole_core.training.mixed_model import Loras, Shapes
from ramole_core.training.recipe import Schedule
from ramole_core.training.rows import Encoded, Task, encode_rows
from ramole_core.training.sampled_adapters import Near


@dataclass(frozen=True)
class Material:
    """Adapters and their tasks' rows, one LoRA a task."""

    loras: Loras
    """Empty for a method that trains its own."""
    tasks: Sequence[Task]
    base: BaseModel
    shapes: Shapes
    checksums: Mapping[str, str] = field(default_factory=dict)
    """Checksums of the adapters' content, by name; by default their names."""
    near: Near | None = None
    """Finds adapters for a text, where the recipe retrieves them."""
    start: Trained | None = None
    """Weights of the method to begin with; of a gate over other adapters, by name."""

    def __post_init__(self) -> None:
        if len({checksum for _, checksum in self.known}) < len(self.loras):
            raise RamoleError(
                f"Of {', '.join(self.loras)}, two have the same content; name each once."
            )

    @property
    def known(self) -> list[tuple[str, str]]:
        """(name, checksum of the content) of each adapter."""
        return [(name, self.checksums.get(name, name)) for name in self.loras]

    @property
    def config(self) -> dict[str, object]:
        """The adapters as a record of weights names them."""
        return {"adapters": [{"name": name, "checksum": checksum} for name, checksum in self.known]}


def identity(base: BaseModel, tasks: Sequence[Task]) -> dict[str, object]:
    """The identity of base and data, which a resumed run must share."""
    return {
        "base": [base.checksum, base.quantization, str(base.dtype)],
        "chat_template": base.tokenizer.chat_template,
        "data": fingerprint(tuple(tasks)),
    }


def fingerprint(data: object) -> str:
    """SHA-256 of the data as they are written out."""
    return hashlib.sha256(repr(data).encode()).hexdigest()


def mixed_rows(base: BaseModel, tasks: Sequence[Task], schedule: Schedule) -> list[Encoded]:
    """The training rows of all tasks, as many of each as the smallest one has."""
    encoded = [
        encode_rows(base.tokenizer, one.train, max_tokens=schedule.max_tokens, task=one.name)
        for one in tasks
    ]
    count = min(len(rows) for rows in encoded)
    chance = random.Random(schedule.seed)
    return [row for rows in encoded for row in chance.sample(rows, count)]


def dev_rows(base: BaseModel, tasks: Sequence[Task], schedule: Schedule) -> list[Encoded]:
    """The rows of the dev loss: the first of each task that fit, equally many where possible."""
    share = max(1, schedule.dev_rows // len(tasks))
    encoded = [
        encode_rows(base.tokenizer, one.dev, max_tokens=schedule.max_tokens, task=one.name)
        for one in tasks
    ]
    return [row for rows in encoded for row in rows[:share]]
