"""Greedy answers of a plain Hugging Face model, many rows a batch, shortest prompts first, and all
that is measured on a task's dev rows, as a cell."""

import re
from collections.abc import Sequence

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lab.evaluation.cells import Cell
from lab.evaluation.metrics import score
from ramole_core.training.loss import row_losses
from ramole_core.training.rows import Task, encode_rows, render_prompt

MAX_TOKENS = 256
"""Of a row whose loss is measured, prompt and answer."""
_OPTION = re.compile(r"^- (.+)$", re.M)


@torch.no_grad()
def answer_rows(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 50,
    batch_rows: int = 25,
) -> list[str]:
    """The answers in the prompts' order; prompts are left-padded and masked."""
    encoded = [render_prompt(tokenizer, prompt) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda number: len(encoded[number]))
    answers = [""] * len(prompts)
    end = tokenizer.eos_token_id
    assert isinstance(end, int)
    for start in range(0, len(order), batch_rows):
        chosen = order[start : start + batch_rows]
        width = max(len(encoded[number]) for number in chosen)
        ids = torch.full((len(chosen), width), end, device=model.device)
        mask = torch.zeros_like(ids)
        for row, number in enumerate(chosen):
            size = len(encoded[number])
            ids[row, width - size :] = torch.tensor(encoded[number], device=model.device)
            mask[row, width - size :] = 1
        out = model.generate(  # pyright: ignore[reportCallIssue]  (read as a buffer's type)
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=end,
        )
        texts = tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
        for number, text in zip(chosen, texts, strict=True):
            answers[number] = text.strip()
    return answers


def options_of(prompt: str) -> list[str]:
    """The options that a prompt lists after `OPTIONS:`, without their bullets; often none."""
    return _OPTION.findall(prompt.partition("OPTIONS:")[2])


@torch.no_grad()
def measure_task(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task, *, names: Sequence[str]
) -> Cell:
    """Greedy answers to the task's dev rows by its metric, and the losses of the right answers in
    nats a token; `names` of the adapters that answer."""
    targets = [row.targets for row in task.dev]
    losses = row_losses(model, encode_rows(tokenizer, task.dev, max_tokens=MAX_TOKENS))
    answers = answer_rows(model, tokenizer, [row.inputs for row in task.dev])
    return Cell(
        score(task.metric, answers, targets),
        score(task.metric, answers, targets, forgiving=True),
        [list(names)] * len(targets),
        measures={"loss": losses.tolist()},
    )
