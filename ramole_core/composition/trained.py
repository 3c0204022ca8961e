"""A method's trained weights: one folder beside the sample pool, checked and known by a checksum.

The folder `_NAME` holds `NAME.safetensors` and `NAME_config.json`, which records how it was
trained: on which adapters (name and checksum of each), which base, by which command.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from ramole_core.composition.lora import Lora, wide
from ramole_core.errors import RamoleError
from ramole_core.methods import METHOD_LIST, Method
from ramole_core.settings import trained_folder


@runtime_checkable
class Named(Protocol):
    """An adapter, known by the checksum of its content."""

    @property
    def name(self) -> str: ...
    @property
    def checksum(self) -> str: ...


@dataclass(frozen=True, eq=False)
class Trained:
    """Tensors by name, and where they come from."""

    tensors: Mapping[str, Tensor] = field(repr=False)
    checksum: str = ""
    """SHA-256 of the file; empty while they are being trained."""
    config: Mapping[str, object] = field(default_factory=dict, repr=False)

    @property
    def adapters(self) -> dict[str, str]:
        """Content checksum -> name of the adapters that it was trained on, in their order; empty
        where it does not depend on them."""
        found = self.config.get("adapters")
        return (
            {str(a["checksum"]): str(a["name"]) for a in found} if isinstance(found, list) else {}
        )

    def loras(self, start: str, down: str = "A", up: str = "B") -> dict[str, Lora]:
        """By module path, the pairs `<start><path>.<down>` and `.<up>`, in float32 or wider."""
        found, end = {}, f".{down}"
        for name, A in self.tensors.items():
            if name.startswith(start) and name.endswith(end):
                path = name[len(start) : -len(end)]
                found[path] = Lora(A=wide(A), B=wide(self.tensors[f"{start}{path}.{up}"]))
        return found

    def places(self, adapters: Collection[Named], *, method: str) -> list[int]:
        """The place of each adapter among those that the weights were trained on.

        Raises RamoleError for one that came later, or that changed since.
        """
        known = list(self.adapters)
        for one in adapters:
            if one.checksum not in known:
                raise RamoleError(
                    f"Method {method} knows the adapters that it was trained on "
                    f"({', '.join(self.adapters.values())}), and {one.name} is not one of them; "
                    "choose of these, train it again with `python -m ramole_core train method "
                    f"{method}`, or choose a method that weighs any adapter, such as ramole."
                )
        return [known.index(one.checksum) for one in adapters]


def scaled(tensors: Mapping[str, Tensor], end: str, scale: float) -> dict[str, Tensor]:
    """The tensors, those whose names end so times the scale."""
    return {name: t * scale if name.endswith(end) else t for name, t in tensors.items()}


def weights_file(folder: Path, row: Method) -> Path:
    """`router.safetensors` in the folder, for a method whose weights are `_router`."""
    return folder / f"{row.weights.lstrip('_')}.safetensors"


def config_file(folder: Path, row: Method) -> Path:
    """`router_config.json` in the folder, for a method whose weights are `_router`."""
    return folder / f"{row.weights.lstrip('_')}_config.json"


def load_trained(folder: Path, row: Method) -> Trained:
    """Read a method's weights; raises RamoleError where there are none, or they are broken."""
    file = weights_file(folder, row)
    if not file.is_file():
        raise RamoleError(
            f"There are no trained weights of {row.name} in {folder}; train them with `python -m "
            f"ramole_core train method {row.name}`, or choose another method, such as mixture."
        )
    data = file.read_bytes()
    try:
        tensors = load_safetensors(data)
        config = json.loads(config_file(folder, row).read_text())
    except (SafetensorError, OSError, ValueError) as error:
        raise RamoleError(
            f"The trained weights in {folder} cannot be read ({error}); restore them."
        ) from None
    if broken := [name for name, one in tensors.items() if not bool(one.isfinite().all())]:
        raise RamoleError(
            f"The trained weights in {folder} have numbers that are not finite ({broken[0]}); "
            f"restore them, or train {row.name} again."
        )
    return Trained(tensors, hashlib.sha256(data).hexdigest(), config)


def checksum_of(folder: Path, row: Method) -> str | None:
    """SHA-256 of a method's weights; None where there are none."""
    file = weights_file(folder, row)
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


class WeightsFolder:
    """The trained weights of all methods, each in its own folder; read once."""

    def __init__(self, folder: Path, *, own: Path | None = None):
        """`folder` and `own` hold `_router` and its like; `own` comes first; they
        need not exist."""
        self._folder, self._own = folder, own
        self._read: dict[str, Trained] = {}

    def get(self, row: Method, *, needed: bool) -> Trained | None:
        """A method's weights; None where it has none, or none are there and none are `needed`.

        Raises RamoleError where they are missing or broken.
        """
        if not row.weights:
            return None
        if row.weights not in self._read:
            folder = self._of(row)
            if not needed and checksum_of(folder, row) is None:
                return None
            self._read[row.weights] = load_trained(folder, row)
        return self._read[row.weights]

    def checksums(self) -> dict[str, str]:
        """SHA-256 of the weights of each method that is trained and has some."""
        rows = [row for row in METHOD_LIST if row.training]
        found = {row.name: checksum_of(self._of(row), row) for row in rows}
        return {name: checksum for name, checksum in found.items() if checksum}

    def _of(self, row: Method) -> Path:
        return trained_folder(row.weights, self._folder, own=self._own)
