"""Whether an adapter that was taken is one, by other readers than ours: zipfile, safetensors, json.

What is asked: the zip's members are sound and are the files on disk, every tensor is half of a
finite pair that fits the base, and the configuration is that of a plain LoRA.
"""

import io
import json
import math
import re
import zipfile
from pathlib import Path

import torch
from safetensors import safe_open

from tests.campaigns.mutations import Shapes
from tests.support.adapter_files import CONFIG, WEIGHTS

MOST_RANK = 256
CHANGES_THE_EQUATION: dict[str, object] = {
    "use_dora": True,
    "bias": "all",
    "lora_bias": True,
    "modules_to_save": ["lm_head"],
    "trainable_token_indices": [1],
    "layer_replication": [[0, 1]],
    "peft_type": "IA3",
    "init_lora_weights": "pissa",
    "alora_invocation_tokens": [1, 2],
    "target_parameters": ["weight"],
}
"""Settings of PEFT with which it is no plain LoRA any more."""

KEPT = {WEIGHTS, CONFIG, "README.md", "examples.jsonl", "manifest.json"}
_NAME = re.compile(r"base_model\.model\.(.+)\.lora_([AB])(?:\.[^.]+)?\.weight")


def wrong_with(folder: Path, zipped: bytes, *, shapes: Shapes) -> str:
    """Why the adapter in `folder`, which came as `zipped`, should not have been taken; '' for
    one that is right."""
    try:
        return (
            _files(folder, zipped)
            or _tensors(folder / WEIGHTS, shapes)
            or _config(json.loads((folder / CONFIG).read_bytes(), object_pairs_hook=_once))
        )
    except Exception as error:  # what another reader cannot read
        return f"{type(error).__name__}: {error}"


def _files(folder: Path, zipped: bytes) -> str:
    if left := {path.name for path in folder.iterdir()} - KEPT:
        return f"it has the files {sorted(left)}"
    with zipfile.ZipFile(io.BytesIO(zipped)) as archive:
        for name in (WEIGHTS, CONFIG):
            members = [m for m in archive.namelist() if m.rpartition("/")[2] == name]
            if len(members) != 1 or archive.read(members[0]) != (folder / name).read_bytes():
                return f"{name} is not what the zip holds"
    return ""


def _tensors(file: Path, shapes: Shapes) -> str:
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    with safe_open(file, framework="pt") as opened:
        for name in opened.keys():
            found = _NAME.fullmatch(name)
            if not found or found[1] not in shapes:
                return f"the tensor {name!r}"
            half = pairs.setdefault(found[1], {})
            if found[2] in half:
                return f"{name!r} comes twice"
            half[found[2]] = opened.get_tensor(name)
    if not pairs:
        return "no tensor"
    for path, half in pairs.items():
        i, o = shapes[path]
        if set(half) != {"A", "B"}:
            return f"half of {path}"
        A, B = half["A"], half["B"]
        if A.dim() != 2 or B.dim() != 2 or A.shape[1] != i or B.shape[0] != o:
            return f"the shapes of {path}"
        if not 1 <= A.shape[0] == B.shape[1] <= MOST_RANK:
            return f"the rank of {path}"
        if not (A.isfinite().all() and B.isfinite().all()):
            return f"NaN or Inf in {path}"
        if not (A.is_floating_point() and B.is_floating_point()):
            return f"no floating point numbers in {path}"
    return ""


def _config(config: object) -> str:
    if not isinstance(config, dict):
        return "the configuration is no object"
    if str(config.get("peft_type", "LORA")).upper() != "LORA":
        return "it is no LoRA"
    for name, value in CHANGES_THE_EQUATION.items():
        if name in config and config[name] == value:
            return f"{name} changes the equation"
    for name in ("r", "lora_alpha"):
        value = config.get(name, 8)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"{name} is {value!r:.40}"
        if not math.isfinite(value) or value <= 0:
            return f"{name} is {value!r:.40}"
    return ""


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key comes twice")
    return dict(pairs)
