"""The base model and its tokenizer: 4-bit NF4 by default, on CUDA and on the CPU, or int4 there."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from ramole_core.base.architecture import drop_other_parts, model_class
from ramole_core.base.chat_template import check_marks, complete_template
from ramole_core.base.fetch import Progress, fetch_base
from ramole_core.base.files import read_json, weights_checksum
from ramole_core.base.packed import (
    Int4Linear,
    Nf4Linear,
    check_shapes,
    config_for_cuda,
    pack_linears,
    round_head,
    round_linears,
    round_to_int4,
    round_to_nf4,
    takes,
)
from ramole_core.base.routers import round_experts, take_apart
from ramole_core.base.shapes import read_shapes
from ramole_core.errors import RamoleError, first_line

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
QUANTIZATIONS = ("auto", "nf4", "int4", "none")
ON_CPU = "int4"
"""Meaning of `auto` on a CPU."""
PACKED = {"nf4": (Nf4Linear, round_to_nf4), "int4": (Int4Linear, round_to_int4)}
"""By quantization: its layer on a CPU, and its rounding of a weight."""


@dataclass(frozen=True)
class BaseModel:
    """A loaded base model, in eval mode, its weights frozen."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    """Value of RAMOLE_BASE_MODEL."""
    folder: Path
    """Folder of config, safetensors and tokenizer."""
    checksum: str
    """SHA-256 over the safetensors files, before quantisation."""
    quantization: str
    dtype: torch.dtype
    device: torch.device
    head: str = "full"
    """Or int8."""
    notes: tuple[str, ...] = ()
    """Notes for its users, a sentence each."""


def load_base(
    source: str,
    *,
    data_dir: Path,
    quantization: str = "nf4",
    dtype: str = "auto",
    device: str = "auto",
    head: str = "full",
    chat_template: str | None = None,
    progress: Progress | None = None,
) -> BaseModel:
    """Load a base model, fetched first if needed.

    `quantization` auto is chosen by `pick_quantization`, `dtype` auto is bfloat16; `head` int8 is
    for a CPU; `chat_template` replaces the model's own. Only safetensors are read, and no code of
    the folder is run. Raises RamoleError where the source, the device or the combination cannot be
    used.
    """
    tell = progress or (lambda stage, fraction: None)
    where, compute = pick_device(device), pick_dtype(dtype)
    if quantization not in QUANTIZATIONS:
        raise RamoleError(
            f"RAMOLE_QUANTIZATION={quantization} is not known; choose {', '.join(QUANTIZATIONS)}."
        )
    if compute == torch.float16 and where.type == "cpu":
        raise RamoleError(
            "RAMOLE_DTYPE=float16 needs a GPU; on a CPU choose bfloat16 or float32 (or auto)."
        )
    if quantization == "int4" and where.type != "cpu":
        raise RamoleError(
            "RAMOLE_QUANTIZATION=int4 is held by kernels for a CPU; on a GPU choose nf4 or none "
            "(or set RAMOLE_DEVICE=cpu)."
        )
    folder = fetch_base(source, data_dir=data_dir, progress=lambda s, f: tell(s, 0.6 * f))
    tell("loading the base model", 0.6)
    _refuse_quantised(source, folder)
    kind = pick_quantization(quantization, device=where, folder=folder)
    model = _read_model(source, folder, dtype=compute, device=where, kind=kind)
    if head == "int8":
        round_head(source, model)
    tokenizer = _read_tokenizer(source, folder)
    note = complete_template(tokenizer, template=chat_template)
    rows = model.get_input_embeddings().get_parameter("weight").shape[0]
    check_marks(source, tokenizer, vocabulary=rows)
    model.eval().requires_grad_(False)
    tell("loading the base model", 1.0)
    return BaseModel(
        model=model,
        tokenizer=tokenizer,
        name=source,
        folder=folder,
        checksum=weights_checksum(folder, data_dir=data_dir),
        quantization=kind,
        dtype=compute,
        device=where,
        head=head,
        notes=(note,) if note else (),
    )


def load_tokenizer(
    source: str, folder: Path, *, chat_template: str | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer of a base model that was fetched into `folder`, its chat template completed as
    `load_base` does; raises RamoleError."""
    tokenizer = _read_tokenizer(source, folder)
    complete_template(tokenizer, template=chat_template)
    return tokenizer


def _read_tokenizer(source: str, folder: Path) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # tokenizers raise anything, bare Exception included
        raise _not_loadable(source, f"its tokenizer: {first_line(error)}") from error


def dequantised(base: BaseModel) -> PreTrainedModel:
    """A copy for training, whose linear layers are plain and have the weights that the served
    model computes with: rounded as the base is.

    The same before and after the served model has run. On a CPU its attention is plain products:
    forward and backward of PyTorch's fused one take about four times as long there.
    """
    attention = {"attn_implementation": "eager"} if base.device.type == "cpu" else {}
    with _quiet_transformers():
        model = model_class(base.model.config).from_pretrained(
            base.folder,
            dtype=base.dtype,
            use_safetensors=True,
            trust_remote_code=False,
            **attention,
        )
    drop_other_parts(model)
    nn.Module.to(model, base.device).eval()  # transformers' own `to` has a type that is not true
    take_apart(model)
    if base.quantization in PACKED:
        round_linears(model, read_shapes(base.folder), PACKED[base.quantization][1])
    return model.requires_grad_(False)


def pick_device(device: str) -> torch.device:
    """The device of a setting; raises RamoleError where it is missing."""
    if device == "cuda" and not torch.cuda.is_available():
        raise RamoleError("RAMOLE_DEVICE=cuda, but torch sees no GPU; choose auto or cpu.")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def pick_quantization(quantization: str, *, device: torch.device, folder: Path) -> str:
    """The quantization of a setting, for a base in `folder`: auto is int4 on a CPU, NF4 elsewhere,
    and none where no layer can be held in 4 bits."""
    if quantization != "auto":
        return quantization
    if not any(takes(path, size) for path, size in read_shapes(folder).items()):
        return "none"
    return ON_CPU if device.type == "cpu" else "nf4"


def pick_dtype(dtype: str) -> torch.dtype:
    """The compute dtype of a setting; raises RamoleError for one that is not known."""
    if dtype == "auto":
        return torch.bfloat16
    if dtype not in DTYPES:
        raise RamoleError(f"RAMOLE_DTYPE={dtype} is not known; choose auto, {', '.join(DTYPES)}.")
    return DTYPES[dtype]


def _read_model(
    source: str, folder: Path, *, dtype: torch.dtype, device: torch.device, kind: str
) -> PreTrainedModel:
    """Return the model with every weight of its config from the folder's safetensors."""
    shapes, options = read_shapes(folder), {}
    if kind in PACKED:
        check_shapes(source, shapes)
    if kind == "nf4" and device.type != "cpu":
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # asks for `kernels`
        options = {"quantization_config": config_for_cuda(shapes, dtype)}
    try:
        with _quiet_transformers():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            loaded = model_class(config).from_pretrained(
                folder,
                dtype=dtype,
                device_map={"": device},
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # reported below, in a sentence
                output_loading_info=True,
                **options,
            )
    except Exception as error:  # the loaders raise anything; all of it is about this folder
        raise _not_loadable(source, first_line(error)) from error
    model, report = cast("tuple[PreTrainedModel, Mapping[str, Iterable[object]]]", loaded)
    if missing := sorted(map(str, report["missing_keys"])):
        raise _not_loadable(source, f"its files lack {len(missing)} weights, first {missing[0]}")
    if wrong := sorted(map(str, report["mismatched_keys"])):
        raise _not_loadable(source, f"weights do not have the config's shapes, first {wrong[0]}")
    drop_other_parts(model)
    packs = kind in PACKED and device.type == "cpu"
    take_apart(model, keep=not packs)
    if packs:
        pack_linears(model, shapes, PACKED[kind][0])
    elif kind in PACKED:
        round_experts(model, shapes, PACKED[kind][1])
    return model


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silence transformers' bars and tables while it loads; problems are raised instead."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def _refuse_quantised(source: str, folder: Path) -> None:
    config = read_json(folder / "config.json").get("quantization_config")
    if config is not None:
        how = config.get("quant_method", "unknown") if isinstance(config, dict) else "unknown"
        raise RamoleError(
            f"{source} is quantised already ({how}), but adapters are trained and mixed on weights "
            "that are quantised here; set RAMOLE_BASE_MODEL to the model in full precision."
        )


def _not_loadable(source: str, reason: str) -> RamoleError:
    return RamoleError(
        f"{source} cannot be loaded as a causal language model ({reason.rstrip('.')}); set "
        "RAMOLE_BASE_MODEL to one that can."
    )
