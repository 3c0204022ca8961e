"""Rows of a task: read from jsonl, encoded with the chat template, bucketed by length into batches.

A row is `{"inputs": question, "targets": answer}`. Only the answer's tokens and the end token after
it have a loss; `Batch.places` are the hidden states that predict them.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice, takewhile
from math import ceil
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ramole_core.errors import RamoleError
from ramole_core.text_file import read_text
from ramole_core.training.recipe import Schedule


@dataclass(frozen=True)
class Row:
    """One question and its answer."""

    inputs: str
    targets: str


@dataclass(frozen=True)
class Task:
    """The rows of one task, split once and for all."""

    name: str
    train: tuple[Row, ...]
    dev: tuple[Row, ...]
    metric: str
    """`em`, `bleu` or `rouge`; what the rows name, else `rouge`."""


@dataclass(frozen=True)
class RowCounts:
    """How many rows a run read: longer ones, and further dev rows, are not among them."""

    train: int
    dev: int


@dataclass(frozen=True)
class Encoded:
    """Token ids of a row: the rendered prompt, then the answer with its end token."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    text: str = ""
    """The question as given."""
    task: str = ""
    """Its task, the name of its own adapter."""

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True)
class Batch:
    """Right-padded rows; a causal model ignores the padding, so no mask is needed."""

    ids: Int[Tensor, "b l"]
    rows: Int[Tensor, " m"]
    """Row of each of the m hidden states that predict an answer token."""
    places: Int[Tensor, " m"]
    """Position of each of them."""
    targets: Int[Tensor, " m"]
    """The answer token that each must predict."""
    lengths: Int[Tensor, " b"]
    """Tokens of each row without padding."""
    shared: int = 0
    """First tokens that all rows have, to be read once."""

    @property
    def real(self) -> Bool[Tensor, "b l"]:
        """Mask of the tokens that are no padding."""
        return torch.arange(self.ids.shape[1]) < self.lengths[:, None]


def read_task(source: Path, *, seed: int = 0) -> Task:
    """The task in a folder (`train.jsonl`, `dev.jsonl`) or in one file, a tenth of it held out."""
    if source.is_dir():
        train, metric = _read_rows(source / "train.jsonl")
        dev, _ = _read_rows(source / "dev.jsonl")
        return Task(source.name, tuple(train), tuple(dev), metric)
    rows, metric = _read_rows(source)
    random.Random(seed).shuffle(rows)
    held_out = min(100, len(rows) // 10)
    if held_out < 1:
        raise RamoleError(
            f"{source} has {len(rows)} rows; training needs at least 10, so that one in ten can be "
            "held out to measure progress."
        )
    return Task(source.stem, tuple(rows[held_out:]), tuple(rows[:held_out]), metric)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl file, empty lines left out; raises RamoleError for a line that has no
    `inputs` and `targets`."""
    if not path.is_file():
        raise RamoleError(
            f"{path} was not found; give a .jsonl file, or a folder with train.jsonl and dev.jsonl."
        )
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
                rows.append(row | {name: _text(row[name]) for name in ("inputs", "targets")})
            except (ValueError, KeyError, TypeError, RecursionError):
                raise RamoleError(
                    f'{path} line {number} is not a row; expected {{"inputs": "...", '
                    '"targets": "..."}.'
                ) from None
    return rows


def _text(value: object) -> str:
    """A text, or a number as one; raises TypeError for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError
    return str(value)


def metric_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """The metric that the rows name, else `rouge`."""
    return next((str(row["metric"]) for row in reversed(rows) if "metric" in row), "rouge")


def _read_rows(path: Path) -> tuple[list[Row], str]:
    rows = read_lines(path)
    return [Row(row["inputs"], row["targets"]) for row in rows], metric_of(rows)


def render_prompt(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a user's message under the chat template with its default system prompt."""
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False
    )
    return list(tokenizer.encode(str(rendered), add_special_tokens=False))


def encode_row(tokenizer: PreTrainedTokenizerBase, row: Row, task: str = "") -> Encoded:
    """The ids of prompt and answer; the answer ends with the tokenizer's end token."""
    answer = tokenizer.encode(row.targets, add_special_tokens=False)
    end = tokenizer.eos_token_id
    if not isinstance(end, int):
        raise RamoleError("The base model's tokenizer has no end token; choose another base.")
    return Encoded(tuple(render_prompt(tokenizer, row.inputs)), (*answer, end), row.inputs, task)


def encode_rows(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], *, max_tokens: int, task: str = ""
) -> list[Encoded]:
    """The rows that fit into `max_tokens`; raises RamoleError when none does."""
    encoded = [encode_row(tokenizer, row, task) for row in rows]
    kept = [one for one in encoded if len(one) <= max_tokens]
    if not kept:
        raise RamoleError(
            f"None of the {len(rows)} rows fits into {max_tokens} tokens; raise --max-tokens or "
            "shorten the rows."
        )
    return kept


def collate(rows: Sequence[Encoded], *, share: bool = False) -> Batch:
    """One right-padded batch; `share`: the first tokens that all prompts have are to be read once,
    for all rows."""
    ids = torch.zeros(len(rows), max(len(row) for row in rows), dtype=torch.long)
    owner, places, targets = [], [], []
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row.prompt + row.answer)
        start = len(row.prompt) - 1
        owner += [number] * len(row.answer)
        places += range(start, start + len(row.answer))
        targets += row.answer
    shared = 0
    if share and len(rows) > 1:
        first, last = min(row.prompt for row in rows), max(row.prompt for row in rows)
        same = takewhile(lambda pair: pair[0] == pair[1], zip(first[:-1], last[:-1], strict=False))
        shared = sum(1 for _ in same)
    where = torch.tensor(owner), torch.tensor(places), torch.tensor(targets)
    return Batch(ids, *where, torch.tensor([len(row) for row in rows]), shared)


def batches(rows: Sequence[Encoded], *, batch_rows: int, seed: int) -> Iterator[list[Encoded]]:
    """Endless batches of rows of about equal length, in an order that the seed alone decides."""
    for epoch in count():
        chance = random.Random(f"{seed}/{epoch}")
        order = list(rows)
        chance.shuffle(order)
        window = batch_rows * 8
        epoch_batches = []
        for start in range(0, len(order), window):
            near = sorted(order[start : start + window], key=len)
            epoch_batches += [near[at : at + batch_rows] for at in range(0, len(near), batch_rows)]
        chance.shuffle(epoch_batches)
        yield from epoch_batches


class BatchOrder:
    """`order(t)` is the batch of step t; steps come in rising order, from any start."""

    def __init__(self, rows: Sequence[Encoded], schedule: Schedule) -> None:
        self._batches = batches(rows, batch_rows=schedule.batch_rows, seed=schedule.seed)
        self._next = 0
        self.epoch = ceil(len(rows) / schedule.batch_rows)
        """Steps in which every row is read once."""

    def __call__(self, step: int) -> list[Encoded]:
        assert step >= self._next
        batch = next(islice(self._batches, step - self._next, None))
        self._next = step + 1
        return batch
