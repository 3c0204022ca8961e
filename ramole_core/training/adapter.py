"""Train a LoRA adapter on the base's 4-bit weights, so that training and serving see one base.

PEFT puts fp32 LoRA weights on the dequantised base, the products run in the base's dtype, and only
answer tokens have a loss. A killed run resumes at its last checkpoint.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from peft.helpers import disable_input_dtype_casting
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn
from transformers import PreTrainedModel

from ramole_core.base.experts import Experts
from ramole_core.base.hub_name import hub_name
from ramole_core.base.model import BaseModel, dequantised
from ramole_core.errors import RamoleError
from ramole_core.training.checkpoint import Progress
from ramole_core.training.loop import Trainable, TrainingRun, train
from ramole_core.training.loss import answer_loss, can_share, row_losses
from ramole_core.training.material import identity
from ramole_core.training.recipe import AdapterRecipe
from ramole_core.training.rows import BatchOrder, RowCounts, Task, collate, encode_rows, read_task
from ramole_core.training.weights_folder import write_tensors

Finish = Callable[[Path, Task, RowCounts, Progress], None]
"""Writes the card, the examples and the manifest into a finished adapter's folder."""


def train_adapter(
    recipe: AdapterRecipe,
    *,
    data: Path,
    base: BaseModel,
    run: TrainingRun,
    start: Path | None = None,
    finish: Finish = lambda folder, task, counts, progress: None,
) -> Progress:
    """Train one adapter on `data` (a folder or a .jsonl file) and write its folder.

    `start`: an adapter's folder, whose weights it begins with; its rank, modules and layers must be
    the recipe's. Raises RamoleError where they are not.
    """
    task = read_task(data, seed=recipe.schedule.seed)
    model = attach_lora(base, recipe)
    began = "" if start is None else read_weights(model, start)

    def save(folder: Path, counts: RowCounts, progress: Progress) -> None:
        write_adapter(model, folder, base_name=hub_name(base.name))
        finish(folder, task, counts, progress)

    return fit_lora(model, recipe, task=task, base=base, run=run, start=began, save=save)


def attach_lora(base: BaseModel, recipe: AdapterRecipe) -> PeftModel:
    """The dequantised base with a fresh LoRA (B = 0), initialised from the recipe's seed."""
    model = dequantised(base)
    experts = tuple(f"{path}." for path, one in model.named_modules() if isinstance(one, Experts))
    names, blocks = set(), set()
    for name, one in model.named_modules():
        block = re.search(r"\.(\d+)\.", name)
        if isinstance(one, nn.Linear) and block and not name.startswith(experts):
            names.add(name.rpartition(".")[2])
            blocks.add(int(block[1]))
    if missing := [module for module in recipe.modules if module not in names]:
        raise RamoleError(
            f"The base model's blocks have no linear module {', '.join(missing)}; choose from "
            f"{', '.join(sorted(names))}."
        )
    if beyond := sorted({*(recipe.layers or ())} - blocks):
        raise RamoleError(
            f"The base model has layers 0 to {max(blocks)}, not {', '.join(map(str, beyond))}."
        )
    alpha = int(recipe.alpha) if float(recipe.alpha).is_integer() else recipe.alpha
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=alpha,  # pyright: ignore[reportArgumentType]  (PEFT takes floats too)
        target_modules=list(recipe.modules),
        layers_to_transform=None if recipe.layers is None else list(recipe.layers),
        use_rslora=recipe.rslora,
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(recipe.schedule.seed)
    adapted = get_peft_model(model, config)
    assert isinstance(adapted, PeftModel)
    return adapted


def read_weights(model: PeftModel, folder: Path) -> str:
    """Give a model from `attach_lora` the weights of the adapter in `folder`; returns their
    SHA-256."""
    file = folder / "adapter_model.safetensors"
    try:
        data = file.read_bytes()
        tensors = load(data)
    except (OSError, SafetensorError) as error:
        raise RamoleError(f"{file} cannot be read as an adapter's weights: {error}.") from None
    _check_scale(model, folder)
    own = get_peft_model_state_dict(model, save_embedding_layers=False)
    if {n: t.shape for n, t in tensors.items()} != {n: t.shape for n, t in own.items()}:
        raise RamoleError(
            f"The adapter in {folder} has other ranks, modules or layers than the one to be "
            "trained; give the same --rank, --modules and --layers."
        )
    set_peft_model_state_dict(model, tensors)
    return hashlib.sha256(data).hexdigest()


def _check_scale(model: PeftModel, folder: Path) -> None:
    """Raise RamoleError where the adapter in `folder` has another scale."""
    file, mine = folder / "adapter_config.json", model.peft_config["default"]
    try:
        said = json.loads(file.read_text("utf-8"))
        alpha, rslora = float(said["lora_alpha"]), bool(said.get("use_rslora"))
        patterns = said.get("rank_pattern") or said.get("alpha_pattern")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise RamoleError(f"{file} cannot be read as an adapter's settings.") from None
    ours = getattr(mine, "lora_alpha"), getattr(mine, "use_rslora")  # noqa: B009
    if patterns or (alpha, rslora) != ours:
        raise RamoleError(
            f"The adapter in {folder} has alpha {alpha:g}{', rslora' if rslora else ''}"
            f"{', and ranks or alphas by module' if patterns else ''}, the one to be trained alpha "
            f"{ours[0]:g}{', rslora' if ours[1] else ''}; give the same --alpha and --rslora."
        )


def fit_lora(
    model: PeftModel,
    recipe: AdapterRecipe,
    *,
    task: Task,
    base: BaseModel,
    run: TrainingRun,
    start: str = "",
    save: Callable[[Path, RowCounts, Progress], None] | None = None,
) -> Progress:
    """Run the recipe's schedule over a model from `attach_lora`; `start`: the SHA-256 of the
    weights that it was given."""
    schedule = recipe.schedule
    rows = encode_rows(base.tokenizer, task.train, max_tokens=schedule.max_tokens)
    dev = encode_rows(base.tokenizer, task.dev[: schedule.dev_rows], max_tokens=schedule.max_tokens)
    counts = RowCounts(train=len(rows), dev=len(dev))
    order = BatchOrder(rows, schedule)
    plain = model.get_base_model()
    assert isinstance(plain, PreTrainedModel)
    share = can_share(plain, rows[:2])
    one = Trainable(
        name="adapter",
        parameters=trained_parameters(model),
        loss=lambda step: answer_loss(plain, collate(order(step), share=share)),
        dev_loss=lambda: {"adapter": row_losses(plain, dev, share=share).mean().item()},
        facts={
            "recipe": asdict(recipe),
            **identity(base, [task]),
            **({"start": start} if start else {}),
        },
        epoch=order.epoch,
        save=save and (lambda folder, progress: save(folder, counts, progress)),
    )
    with reduced_precision(model, base.dtype, device=base.device):
        return train(one, schedule, run)


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trained parameters, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@contextmanager
def reduced_precision(
    model: nn.Module, dtype: torch.dtype, *, device: torch.device
) -> Iterator[None]:
    """Products in the base's dtype while the LoRA's own weights stay fp32; nothing in fp32.

    Autocast's cache would keep the first step's copies of the weights for the whole run.
    """
    if dtype == torch.float32:
        yield
        return
    with (
        torch.autocast(device.type, dtype=dtype, cache_enabled=False),
        disable_input_dtype_casting(model),
    ):
        yield


def write_adapter(model: PeftModel, folder: Path, *, base_name: str) -> None:
    """`adapter_model.safetensors` in bf16 and PEFT's own `adapter_config.json`."""
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    write_tensors(folder / "adapter_model.safetensors", state, torch.bfloat16)
    config = model.peft_config["default"]
    config.base_model_name_or_path = base_name
    config.inference_mode = True
    assert isinstance(config, LoraConfig)
    config.target_modules = sorted(config.target_modules or ())  # a set: its order is chance
    config.save_pretrained(str(folder))
