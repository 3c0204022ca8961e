"""Adapters written by hand, byte by byte, so that a test can spoil exactly one thing."""

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ramole_core.pool import Pool

Shapes = Mapping[str, tuple[int, int]]
"""(i, o) of a base's linear layers."""
SHAPES = {
    "model.layers.0.self_attn.q_proj": (12, 20),
    "model.layers.0.mlp.down_proj": (28, 12),
    "model.layers.1.self_attn.q_proj": (12, 20),
}
"""(i, o) of a base that is nowhere loaded."""
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."


def pair_arrays(
    path: str, *, rank: int = 3, seed: int = 0, shapes: Shapes = SHAPES
) -> dict[str, np.ndarray]:
    """One LoRA pair under PEFT's names."""
    i, o = shapes[path]
    generator = np.random.default_rng([seed, *path.encode()])
    return {
        f"{PREFIX}{path}.lora_A.weight": generator.normal(size=(rank, i)).astype("f4") * 0.3,
        f"{PREFIX}{path}.lora_B.weight": generator.normal(size=(o, rank)).astype("f4") * 0.3,
    }


def arrays_of(
    *paths: str, rank: int = 3, seed: int = 0, shapes: Shapes = SHAPES
) -> dict[str, np.ndarray]:
    """Pairs of the modules named, or of all."""
    return {
        name: array
        for path in paths or shapes
        for name, array in pair_arrays(path, rank=rank, seed=seed, shapes=shapes).items()
    }


def pack(arrays: dict[str, np.ndarray], **spoil) -> bytes:
    """A safetensors file. `spoil`: `header` replaces the header's text, `length` its length,
    `tail` is appended, `change(header)` edits it."""
    header: dict[str, object] = {}
    body = b""
    for name, array in arrays.items():
        data = array.tobytes()
        kind = {"f4": "F32", "f2": "F16", "u2": "BF16", "i8": "I64"}[array.dtype.str[1:]]
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": offsets}
        body += data
    if "change" in spoil:
        spoil["change"](header)
    text = spoil.get("header", json.dumps(header)).encode()
    length = spoil.get("length", len(text))
    return struct.pack("<Q", length) + text + body + spoil.get("tail", b"")


def write_adapter(
    folder: Path,
    *,
    arrays: dict[str, np.ndarray] | None = None,
    weights: bytes | None = None,
    config: dict[str, object] | str | None = None,
    files: dict[str, bytes] | None = None,
    seed: int = 0,
) -> Path:
    """A folder as PEFT's save_pretrained writes it; `config` is added to a sound one."""
    folder.mkdir(parents=True, exist_ok=True)
    sound = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, "inference_mode": True}
    if not isinstance(config, str):
        config = json.dumps({**sound, **(config or {})})
    arrays = arrays_of(seed=seed) if arrays is None else arrays
    (folder / WEIGHTS).write_bytes(pack(arrays) if weights is None else weights)
    (folder / CONFIG).write_text(config)
    for name, data in (files or {}).items():
        (folder / name).write_bytes(data)
    return folder


def open_pool(root: Path, **more) -> Pool:
    """The pool of a folder's `samples` and `data`."""
    (root / "samples").mkdir(exist_ok=True)
    places = {"adapters_dir": root / "samples", "data_dir": root / "data"}
    return Pool(**{"shapes": lambda: SHAPES, **places, **more})


def tree_of(folder: Path) -> dict[str, str]:
    """Every path under `folder` with the hash of its bytes: what 'nothing changed' means."""
    return {
        str(path.relative_to(folder)): "folder"
        if path.is_dir()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
    }
