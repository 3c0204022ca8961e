"""The base model and its tokenizer: 4-bit NF4 by default, on CUDA and on the CPU.

A trap: bitsandbytes repacks a 4-bit weight in place at its first forward on a CPU, so the weights
for training are not read from the loaded model but made again, from the folder, by the same rule.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from ramole_core.base_fetch import Progress, fetch_base as fetch_base, sha256
from ramole_core.base_shapes import read_shapes as read_shapes
from ramole_core.errors import RamoleError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class BaseModel:
    """A loaded base model, in eval mode, its weights frozen."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    """What RAMOLE_BASE_MODEL said."""
    folder: Path
    """Config, safetensors and tokenizer."""
    checksum: str
    """SHA-256 over the safetensors files, before quantisation."""
    quantization: str
    dtype: torch.dtype
    device: torch.device


def load_base(
    source: str,
    *,
    data_dir: Path,
    quantization: str = "nf4",
    dtype: str = "auto",
    device: str = "auto",
    progress: Progress | None = None,
) -> BaseModel:
    """Load a base model; fetch it first where it is not there.

    `dtype` auto is bfloat16. Raises RamoleError where the source, the device or the combination
    cannot be used.
    """
    tell = progress or (lambda stage, fraction: None)
    folder = fetch_base(source, data_dir=data_dir, progress=lambda s, f: tell(s, 0.6 * f))
    where = _pick_device(device)
    compute = torch.bfloat16 if dtype == "auto" else DTYPES[dtype]
    if compute == torch.float16 and where.type == "cpu":
        raise RamoleError(
            "RAMOLE_DTYPE=float16 needs a GPU; on a CPU choose bfloat16 or float32 (or auto)."
        )
    tell("loading the base model", 0.6)
    transformers_logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=compute,
            device_map={"": where},
            **(_nf4(compute) if quantization == "nf4" else {}),
        )
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise RamoleError(
            f"{source} cannot be loaded as a causal language model "
            f"({str(error).strip().splitlines()[0]}); set RAMOLE_BASE_MODEL to one that can."
        ) from None
    model.eval().requires_grad_(False)
    tell("loading the base model", 1.0)
    return BaseModel(
        model=model,
        tokenizer=tokenizer,
        name=source,
        folder=folder,
        checksum=weights_checksum(folder, data_dir=data_dir),
        quantization=quantization,
        dtype=compute,
        device=where,
    )


def dequantised(base: BaseModel) -> PreTrainedModel:
    """A copy for training, with `nn.Linear` layers whose weights are what the served model computes
    with: rounded to NF4 where the base is quantised.

    The same before and after the served model has run.
    """
    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=base.dtype)
    model = model.to(base.device).eval()
    if base.quantization == "nf4":
        for path in read_shapes(base.folder):
            layer = model.get_submodule(path)
            if isinstance(layer, nn.Linear):
                layer.weight.data = round_to_nf4(layer.weight.data)
    return model.requires_grad_(False)


def round_to_nf4(weight: torch.Tensor) -> torch.Tensor:
    """The weight after NF4 and back, in blocks of 64 as `load_base` quantises."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    packed, state = quantize_4bit(weight, quant_type="nf4", blocksize=64)
    return dequantize_4bit(packed, state).to(weight.dtype).reshape(weight.shape)


def weights_checksum(folder: Path, *, data_dir: Path) -> str:
    """SHA-256 over the folder's safetensors files in order of name, remembered in DATA_DIR."""
    files = sorted(folder.glob("*.safetensors"))
    key = json.dumps([[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in files])
    memory = data_dir / "base" / "checksums.json"
    known = _read_json(memory)
    if key not in known:
        total = hashlib.sha256("".join(sha256(f) for f in files).encode()).hexdigest()
        memory.parent.mkdir(parents=True, exist_ok=True)
        fresh = memory.with_suffix(".tmp")
        fresh.write_text(json.dumps({**known, key: total}))
        fresh.replace(memory)
        return total
    return str(known[key])


def _read_json(file: Path) -> Mapping[str, object]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _pick_device(device: str) -> torch.device:
    if device == "cuda" and not torch.cuda.is_available():
        raise RamoleError("RAMOLE_DEVICE=cuda, but torch sees no GPU; choose auto or cpu.")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def _nf4(compute: torch.dtype) -> dict[str, BitsAndBytesConfig]:
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute
        )
    }
