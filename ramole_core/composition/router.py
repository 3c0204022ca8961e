"""The RouterLoRA of a whole model: one small A_r, B_r for each linear layer.

Its trained weights are `<module path>.A_r` [s, i] and `<module path>.B_r` [o, s], with the router's
scale alpha/s folded into B_r.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ramole_core.composition.trained import Trained, load_trained
from ramole_core.errors import RamoleError
from ramole_core.methods import find_row
from ramole_core.shapes import RouterA, RouterB


@dataclass(frozen=True)
class ModuleRouter:
    """The RouterLoRA of one linear layer; its own scale is folded into B."""

    A: RouterA
    B: RouterB


@dataclass(frozen=True, eq=False)
class Router:
    """A gate for every linear layer of one base model."""

    modules: Mapping[str, ModuleRouter]
    """By module path."""
    rank: int
    checksum: str
    """SHA-256 of its file; of a random one, what it was made from."""

    def to(self, *, device: torch.device, dtype: torch.dtype) -> "Router":
        """The same router with A_r in the compute dtype and B_r in float32, on the device."""
        moved = {
            path: ModuleRouter(A=m.A.to(device, dtype), B=m.B.to(device, torch.float32))
            for path, m in self.modules.items()
        }
        return Router(moved, self.rank, self.checksum)


def load_router(folder: Path, *, shapes: Mapping[str, tuple[int, int]]) -> Router:
    """Read and check the router in `folder`; `shapes` are the base model's linears, (i, o) each.

    Raises RamoleError where there is none, or where it was made for another base model.
    """
    return read_router(load_trained(folder, find_row("ramole")), shapes=shapes)


def read_router(trained: Trained, *, shapes: Mapping[str, tuple[int, int]]) -> Router:
    """The router that these weights are; raises RamoleError where they fit another base model."""
    tensors, modules = trained.tensors, {}
    for path in sorted({name.rpartition(".")[0] for name in tensors}):
        A, B = tensors.get(f"{path}.A_r"), tensors.get(f"{path}.B_r")
        if A is None or B is None or path not in shapes:
            raise RamoleError(f"The trained router does not fit this base model at {path}.")
        if (A.shape[1], B.shape[0]) != shapes[path] or A.shape[0] != B.shape[1]:
            raise RamoleError(
                f"The trained router has A_r {tuple(A.shape)} and B_r {tuple(B.shape)} at {path}, "
                f"where the base model's linear is {shapes[path]}; train one for this base."
            )
        modules[path] = ModuleRouter(A=A, B=B)
    if not modules:
        raise RamoleError("The trained router is empty; train it again.")
    return Router(modules, max(m.A.shape[0] for m in modules.values()), trained.checksum)


def random_router(
    shapes: Mapping[str, tuple[int, int]], *, rank: int, seed: int = 0, like: Router | None = None
) -> Router:
    """A frozen random router: the control that a trained one has to beat.

    Gaussian A_r and B_r; with `like`, scaled module by module to the root mean square of that
    (trained) router's matrices. Its weights are nearly equal all the same, because its queries and
    keys were not trained together.
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
    return Router(modules, rank, f"random {rank} {seed} {like.checksum if like else ''}".strip())


def _rms(matrix: torch.Tensor) -> torch.Tensor:
    return matrix.float().square().mean().sqrt()
