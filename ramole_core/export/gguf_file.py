"""Write a merged adapter as a GGUF LoRA for llama.cpp.

As llama.cpp's `convert_lora_to_gguf.py` writes it: `general.type` is adapter, `adapter.type` lora,
and each tensor of the base, `blk.3.attn_q.weight`, has a `.lora_a` [r, i] and a `.lora_b` [o, r].
llama.cpp's scale is alpha/rank with one alpha for all, so here alpha is the largest rank, and the B
of a lower one is made smaller by as much. The llama architecture rotates neighbouring rows where
transformers rotates the two halves of a head, so rows of q and k are put in its order.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
from jaxtyping import Float

from ramole_core.composition import Lora
from ramole_core.errors import RamoleError
from ramole_core.whole_file import creating

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""`model_type` of a config.json -> llama.cpp's name."""
PERMUTED = {"llama"}
"""Architectures whose q and k have their rows in another order."""


def write_gguf(loras: Mapping[str, Lora], file: Path, *, base: Path, name: str) -> None:
    """Write the new file for the base in that folder.

    Raises RamoleError where it is there already, the disk fails, or llama.cpp's names for this
    base are not known here.
    """
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    tensors = tensors_of(loras, config)
    with creating(file) as part:
        writer = gguf.GGUFWriter(str(part), architecture_of(config))
        try:
            writer.add_type(gguf.GGUFType.ADAPTER)
            writer.add_name(name)
            writer.add_file_type(gguf.LlamaFileType.ALL_F32)
            writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
            writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(largest(loras)))
            for label, tensor in tensors.items():
                writer.add_tensor(label, tensor)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()


def architecture_of(config: Mapping[str, object]) -> str:
    """llama.cpp's name of a base; raises RamoleError where it is not known here."""
    kind = str(config.get("model_type"))
    if kind not in ARCHITECTURES:
        raise RamoleError(
            f"The base is of the architecture {kind}, whose tensors in GGUF are not known here "
            f"({', '.join(ARCHITECTURES)} are); write it for PEFT with --out, and convert that "
            "folder with llama.cpp's convert_lora_to_gguf.py."
        )
    return ARCHITECTURES[kind]


def largest(loras: Mapping[str, Lora]) -> int:
    """The largest rank."""
    return max(lora.A.shape[0] for lora in loras.values())


def tensors_of(loras: Mapping[str, Lora], config: Mapping[str, object]) -> dict[str, np.ndarray]:
    """Every tensor by its name in the file, float32."""
    kind = architecture_of(config)
    layers, heads = _number(config, "num_hidden_layers"), _number(config, "num_attention_heads")
    pairs = _number(config, "num_key_value_heads") or heads
    arch = next(a for a, label in gguf.MODEL_ARCH_NAMES.items() if label == kind)
    names = gguf.get_tensor_name_map(arch, layers)
    alpha, tensors = largest(loras), {}
    for path, lora in loras.items():
        label = names.get_name(f"{path}.weight", try_suffixes=(".weight",))
        if label is None:
            raise RamoleError(
                f"The module {path} has no tensor in a GGUF of {kind}; merge adapters without it."
            )
        A, B = lora.A.float().numpy(), lora.B.float().numpy()
        if kind in PERMUTED and path.endswith(("q_proj", "k_proj")):
            B = permuted(B, heads if path.endswith("q_proj") else pairs)
        tensors[f"{label}.lora_a"] = np.ascontiguousarray(A)
        tensors[f"{label}.lora_b"] = np.ascontiguousarray(B * np.float32(A.shape[0] / alpha))
    return tensors


def permuted(B: Float[np.ndarray, "o r"], heads: int) -> Float[np.ndarray, "o r"]:
    """Rows n and n + size/2 of each head beside each other."""
    o, r = B.shape
    return B.reshape(heads, 2, o // heads // 2, r).swapaxes(1, 2).reshape(o, r)


def _number(config: Mapping[str, object], field: str) -> int:
    value = config.get(field)
    return value if isinstance(value, int) else 0
