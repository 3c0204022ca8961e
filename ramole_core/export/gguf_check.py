"""`python -m ramole_core.export.gguf_check`: compare llama.cpp on an exported adapter with us.

The base's own GGUF is written anew in float32, rounded as our converted base is, so that both
compute with the same numbers; the adapters are mixed evenly and written as `merge --gguf` does. The
logits of a text are compared, with the adapter and without. As a control the adapter is written
with the rows of q and k as transformers has them, too: that has to be worse by far. It needs the
package llama-cpp-python, which nothing else here does.

Run on 2026-11-26 on the default base with banking77, gsm8k and dart, by a llama.cpp of October: the
change off by 0.24 %, the control's by 17 %, all 21 likeliest tokens the same.
"""

import importlib
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import gguf
import numpy as np
import torch
import typer
from gguf.quants import dequantize
from jaxtyping import Float
from transformers import AutoModelForCausalLM, AutoTokenizer

from ramole_core.base.fetch import fetch_base
from ramole_core.base.shapes import read_shapes
from ramole_core.composition import Lora
from ramole_core.composition.trained import WeightsFolder
from ramole_core.errors import RamoleError
from ramole_core.export.gguf_file import write_gguf
from ramole_core.export.merge import merge_adapters
from ramole_core.export.sources import read_sources
from ramole_core.settings import load_settings
from ramole_core.terminal.console import say, write_json

TEXT = "Question: What is the capital of Norway, and how many people live there? Answer: Oslo, "
NEAR = 0.02
"""Most that the adapter's change of the logits may be off."""
FAR = 10
"""How many times as far off the control has to be."""


def check(
    base_gguf: Annotated[Path, typer.Argument(help="The GGUF that the base was converted from.")],
    adapter: Annotated[list[str], typer.Argument(help="Adapters of the pool, or folders.")],
) -> None:
    """Compare llama.cpp's logits with ours, for adapters mixed evenly; prints one JSON object."""
    settings = load_settings()
    base = fetch_base(settings.base_model, data_dir=settings.data_dir)
    shapes = read_shapes(base)
    sources = read_sources(adapter, settings=settings, shapes=shapes)
    trained = WeightsFolder(settings.adapters_dir, own=settings.trained_dir)
    loras = merge_adapters(sources, "mixture", shapes=shapes, trained=trained).loras
    ids = AutoTokenizer.from_pretrained(base)(TEXT)["input_ids"]
    bare, ours = our_logits(base, {}, ids), our_logits(base, loras, ids)
    with tempfile.TemporaryDirectory(prefix="ramole-gguf-") as home:
        wide, right, wrong = (Path(home) / f"{name}.gguf" for name in ("base", "right", "wrong"))
        widen(base_gguf, wide)
        write_gguf(loras, right, base=base, name="right")
        write_gguf(loras, wrong, base=base, name="wrong", permute=False)
        theirs = {
            name: their_logits(wide, lora, ids)
            for name, lora in (("bare", None), ("right", right), ("wrong", wrong))
        }
    change = ours - bare
    off = {
        "base": distance(theirs["bare"], bare, bare),
        "change": distance(theirs["right"] - theirs["bare"], change, change),
        "control": distance(theirs["wrong"] - theirs["bare"], change, change),
    }
    good = off["change"] < NEAR and off["control"] > FAR * off["change"]
    tops = [int((theirs["right"].argmax(-1) == ours.argmax(-1)).sum()), len(ids)]
    write_json({"adapters": adapter, "off": off, "same_top_token": tops, "good": good})
    if not good:
        raise typer.Exit(1)


def distance(one: np.ndarray, other: np.ndarray, unit: np.ndarray) -> float:
    """|one - other| / |unit|."""
    return float(np.linalg.norm(one - other) / np.linalg.norm(unit))


def our_logits(
    base: Path, loras: Mapping[str, Lora], ids: list[int]
) -> Float[np.ndarray, "l vocabulary"]:
    """Our logits in float32, with B A added to the weights."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    with torch.no_grad():
        for path, lora in loras.items():
            model.get_parameter(f"{path}.weight").add_(lora.B @ lora.A)
        return model(torch.tensor([ids])).logits[0].numpy()


def their_logits(
    base: Path, lora: Path | None, ids: list[int]
) -> Float[np.ndarray, "l vocabulary"]:
    """llama.cpp's logits, on the CPU."""
    try:
        llama = importlib.import_module("llama_cpp")
    except ImportError:
        raise RamoleError(
            "The package llama-cpp-python is not installed; install it with pip to check."
        ) from None
    model = llama.Llama(
        str(base),
        lora_path=None if lora is None else str(lora),
        n_ctx=len(ids) + 8,
        n_gpu_layers=0,
        n_threads=1,
        n_threads_batch=1,
        logits_all=True,
        verbose=False,
    )
    try:
        model.eval(ids)
        return np.array(model.scores[: len(ids)])
    finally:
        model.close()


def widen(source: Path, target: Path) -> None:
    """Copy a GGUF with every tensor in float32, rounded to bfloat16 as our base is."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(str(target), reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        inner = field.types[-1] if len(field.types) > 1 else None
        writer.add_key_value(name, field.contents(), field.types[0], sub_type=inner)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for tensor in reader.tensors:
        values = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type)))
        writer.add_tensor(tensor.name, values.float().bfloat16().float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    try:
        typer.run(check)
    except RamoleError as error:
        say(str(error))
        sys.exit(2)
