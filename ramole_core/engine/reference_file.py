"""The reference's inputs on disk, computed once for a base.

    DATA_DIR/reference/<all that the numbers hang on>.safetensors

The files are a cache: they can be deleted, and are written again.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ramole_core.base.model import BaseModel
from ramole_core.kernels.code_cache import FOLDER
from ramole_core.kernels.matrix_unit import MATRIX
from ramole_core.kernels.vectors import LANES
from ramole_core.layers import Layout
from ramole_core.whole_file import replacing

Read = Callable[[Sequence[Sequence[int]]], list[Tensor]]
"""From prompts to what goes into each layer at their ends, by group."""


def what_of(base: BaseModel, layout: Layout) -> str:
    """The key of the numbers, without the prompts: base, precision and code."""
    versions = [metadata.version(name) for name in ("torch", "transformers", "bitsandbytes")]
    kind = base.checksum, base.quantization, base.head, str(base.dtype), base.device.type
    groups = [(group.i, group.paths) for group in layout.groups]
    return repr((kind, groups, FOLDER.name, LANES, MATRIX, versions))


def remembered(read: Read, *, folder: Path | None, what: str) -> Read:
    """Wrap `read` with a cache in the folder; None: no folder."""
    if folder is None:
        return read

    def find(prompts: Sequence[Sequence[int]]) -> list[Tensor]:
        name = hashlib.sha256(repr((what, [list(ids) for ids in prompts])).encode()).hexdigest()
        file = folder / f"{name[:32]}.safetensors"
        found = _load(file)
        if found is None:
            found = read(prompts)
            _save(file, found)
        return found

    return find


def _load(file: Path) -> list[Tensor] | None:
    try:
        tensors = load_file(file)
        return [tensors[str(g)] for g in range(len(tensors))]
    except (SafetensorError, KeyError, OSError):
        return None  # none yet, or half-written by a dying machine


def _save(file: Path, tensors: Sequence[Tensor]) -> None:
    # on a full disk it is read again at the next start
    with suppress(OSError), replacing(file) as part, torch.inference_mode():
        save_file({str(g): one.contiguous() for g, one in enumerate(tensors)}, part)
