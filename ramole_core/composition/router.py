"""The RouterLoRA of a whole model: one small A_r, B_r for each linear layer, read from a folder.

`router.safetensors` holds `<module path>.A_r` [s, i] and `<module path>.B_r` [o, s], with the
router's scale alpha/s folded into B_r; `router_config.json` says how it was trained.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

from ramole_core.composition.contract import ModuleRouter
from ramole_core.errors import RamoleError

WEIGHTS, CONFIG = "router.safetensors", "router_config.json"


@dataclass(frozen=True)
class Router:
    """A gate for every linear layer of one base model."""

    modules: Mapping[str, ModuleRouter]
    """By module path."""
    rank: int
    checksum: str
    """SHA-256 of the file; `random` or `none` for the controls."""
    config: Mapping[str, object] = field(default_factory=dict)

    def to(self, *, device: torch.device, dtype: torch.dtype) -> "Router":
        """The same router with A_r in the compute dtype and B_r in float32, on the device."""
        moved = {
            path: ModuleRouter(A=m.A.to(device, dtype), B=m.B.to(device, torch.float32))
            for path, m in self.modules.items()
        }
        return Router(moved, self.rank, self.checksum, self.config)


def load_router(folder: Path, *, shapes: Mapping[str, tuple[int, int]]) -> Router:
    """Read and check the router in `folder`; `shapes` are the base model's linears, (i, o) each.

    Raises RamoleError where there is none, or where it was made for another base model.
    """
    file = folder / WEIGHTS
    if not file.is_file():
        raise RamoleError(
            f"There is no trained router in {folder}; train one with "
            "`python -m ramole_core train router`, or choose another method, such as mixture."
        )
    data = file.read_bytes()
    try:
        tensors = load_safetensors(data)
        config = json.loads((folder / CONFIG).read_text())
    except (SafetensorError, OSError, ValueError) as error:
        raise RamoleError(f"The router in {folder} cannot be read ({error}); restore it.") from None
    paths = sorted({name.rpartition(".")[0] for name in tensors})
    modules = {}
    for path in paths:
        A, B = tensors.get(f"{path}.A_r"), tensors.get(f"{path}.B_r")
        if A is None or B is None or path not in shapes:
            raise RamoleError(f"The router in {folder} does not fit this base model at {path}.")
        if (A.shape[1], B.shape[0]) != shapes[path] or A.shape[0] != B.shape[1]:
            raise RamoleError(
                f"The router in {folder} has A_r {tuple(A.shape)} and B_r {tuple(B.shape)} at "
                f"{path}, where the base model's linear is {shapes[path]}; train one for this base."
            )
        modules[path] = ModuleRouter(A=A, B=B)
    if not modules:
        raise RamoleError(f"The router in {folder} is empty; train it again.")
    rank = max(m.A.shape[0] for m in modules.values())
    return Router(modules, rank, hashlib.sha256(data).hexdigest(), config)


def random_router(
    shapes: Mapping[str, tuple[int, int]], *, rank: int, seed: int = 0, like: Router | None = None
) -> Router:
    """A frozen random router: the control that a trained one has to beat.

    Gaussian A_r and B_r; with `like`, scaled module by module to the root mean square of that
    (trained) router's matrices, so that only the direction is random, not the sharpness.
    """
    generator = torch.Generator().manual_seed(seed)
    modules = {}
    for path, (i, o) in shapes.items():
        A = torch.randn(rank, i, generator=generator) * i**-0.5
        B = torch.randn(o, rank, generator=generator) * o**-0.5
        if like is not None and path in like.modules:
            A = A * (_rms(like.modules[path].A) / _rms(A))
            B = B * (_rms(like.modules[path].B) / _rms(B))
        modules[path] = ModuleRouter(A=A, B=B)
    return Router(modules, rank, "random")


def router_for(kind: str, folder: Path, *, shapes: Mapping[str, tuple[int, int]]) -> Router | None:
    """The router that a method asks for (`Composition.router`); None is the zero router.

    The random one takes rank and scale from the trained one in `folder`, where there is one.
    """
    if kind == "trained":
        return load_router(folder, shapes=shapes)
    if kind == "random":
        like = load_router(folder, shapes=shapes) if (folder / WEIGHTS).is_file() else None
        return random_router(shapes, rank=like.rank if like else 6, like=like)
    return None


def _rms(matrix: torch.Tensor) -> torch.Tensor:
    return matrix.float().square().mean().sqrt()
