"""Train adapters as other people make them: by PEFT alone, on the unrounded base, in five shapes.

    python -m lab strangers --data DATA --work WORK

None of it is our training code, recipe or template of prompts; the tasks are not the pool's. To
measure them, `python -m ramole_core add WORK/NAME --name NAME` each, and
`evaluate --tasks trec,jfleg_gec,...` with `--quantization int4` and `nf4`.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence

from lab import harness
from ramole_core.errors import RamoleError
from ramole_core.training.rows import Row, read_task


class Stranger(NamedTuple):
    """One adapter, as its author would have set it up."""

    task: str
    learning_rate: float
    config: dict[str, Any]
    """Of PEFT's `LoraConfig`."""


STRANGERS = (
    Stranger("trec", 1e-3, {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}),
    Stranger(
        "jfleg_gec", 5e-4,
        {"r": 16, "lora_alpha": 16, "use_rslora": True, "target_modules": "all-linear"},
    ),
    Stranger(
        "keyphrase_inspec", 5e-4,
        {"r": 8, "lora_alpha": 32, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]},
    ),
    Stranger(
        "emotion_tweet", 1e-3,
        {"r": 2, "lora_alpha": 4, "target_modules": ["gate_proj", "up_proj", "down_proj"]},
    ),
    Stranger(
        "ag_news_subset", 2e-3, {"r": 32, "lora_alpha": 64, "target_modules": ["q_proj", "v_proj"]}
    ),
)  # fmt: skip
EXAMPLES = 20
CLIP = 1.0


def main(
    data: harness.Data,
    work: harness.Work,
    steps: harness.Steps = 200,
    batch_rows: harness.BatchRows = 8,
    max_tokens: harness.MaxTokens = 160,
    seed: harness.Seed = 0,
    out: harness.Out = Path("strangers.json"),
) -> None:
    """Train those that are not there yet; the file is written after each."""
    facts = {"steps": steps, "batch_rows": batch_rows, "seed": seed}
    results = harness.Results(out, facts, last_losses={})
    if not results.take_over("last_losses", where=[*facts]):
        raise RamoleError(
            f"{out} is of other steps, rows a step or another seed; give another file by --out, "
            "and another folder by --work."
        )
    losses = results.held["last_losses"]
    assert isinstance(losses, dict)
    base = harness.base_folder()
    for one in STRANGERS:
        if (work / one.task / "adapter_config.json").is_file():
            continue
        rows = read_task(data / one.task).train
        losses[one.task] = train(one, rows, base, work / one.task, max_tokens=max_tokens, **facts)
        results.write(last_losses=losses)
        print(f"{one.task}: {losses[one.task]}")


def train(
    one: Stranger,
    rows: tuple[Row, ...],
    base: Path,
    folder: Path,
    *,
    steps: int,
    batch_rows: int,
    max_tokens: int,
    seed: int,
) -> float:
    """Train one and save it as PEFT does; the mean loss of its last ten steps."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    read = encode(rows, tokenizer, max_tokens)
    if len(read) < batch_rows:
        raise RamoleError(
            f"{one.task} has {len(read)} rows of at most {max_tokens} tokens ({len(rows)} in all), "
            f"fewer than the {batch_rows} of a step; give a smaller --batch-rows or a larger "
            "--max-tokens."
        )
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(plain, LoraConfig(task_type="CAUSAL_LM", **one.config))
    optimizer = torch.optim.AdamW(
        [weight for weight in model.parameters() if weight.requires_grad], lr=one.learning_rate
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=one.learning_rate, total_steps=steps
    )
    model.train()
    last = []
    for batch in islice(batches(read, batch_rows), steps):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        last = [*last[-9:], loss.item()]
    model.save_pretrained(str(folder))
    examples = [{"text": row.inputs} for row in rows[:EXAMPLES]]
    (folder / "examples.jsonl").write_text("\n".join(map(json.dumps, examples)), "utf-8")
    return sum(last) / len(last)


def encode(rows: tuple[Row, ...], tokenizer: Any, most: int) -> list[tuple[list[int], list[int]]]:
    """Token ids and labels of the rows of at most `most` tokens; only the answer has a loss."""
    read = []
    for row in rows:
        talk = [{"role": "user", "content": row.inputs}]
        asked = tokenizer.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
        prompt = tokenizer(asked, add_special_tokens=False)["input_ids"]
        answer = tokenizer(row.targets, add_special_tokens=False)["input_ids"]
        ids = [*prompt, *answer, tokenizer.eos_token_id]
        if len(ids) <= most:
            read.append((ids, [-100] * len(prompt) + ids[len(prompt) :]))
    return read


def batches(
    read: Sequence[tuple[list[int], list[int]]], count: int
) -> Iterator[dict[str, torch.Tensor]]:
    """Padded batches of `count` rows, of at least as many, in random order, epoch after epoch."""
    while True:
        order = torch.randperm(len(read)).tolist()
        for start in range(0, len(order) - count + 1, count):
            taken = [read[n] for n in order[start : start + count]]
            ids, labels = (
                [torch.tensor(part) for part in parts] for parts in zip(*taken, strict=True)
            )
            padded = {
                "input_ids": pad_sequence(ids, batch_first=True),
                "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
            }
            mask = pad_sequence([torch.ones_like(one) for one in ids], batch_first=True)
            yield {**padded, "attention_mask": mask}
