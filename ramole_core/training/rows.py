"""Rows of a task: read from jsonl, encoded with the chat template, bucketed by length into batches.

A row is `{"inputs": question, "targets": answer}`. Only the answer's tokens and the end token after
it are learnt; `Batch.places` are the hidden states that predict them.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import ceil
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ramole_core.errors import RamoleError


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

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True)
class TaskRow(Encoded):
    """A row with its task."""

    text: str
    """The question as it came."""
    task: str
    """Its task, which its own adapter is named after."""


R = TypeVar("R", bound=Encoded)


@dataclass(frozen=True)
class Batch:
    """Right-padded rows; a causal model never sees the padding, so no mask is needed."""

    ids: Int[Tensor, "b l"]
    rows: Int[Tensor, " m"]
    """Row of each of the m hidden states that predict an answer token."""
    places: Int[Tensor, " m"]
    """Position of each of them."""
    targets: Int[Tensor, " m"]
    """The answer token that each must predict."""
    shared: int = 0
    """First tokens that all rows have, to be read once."""


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
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise RamoleError(f"{path} is not text in UTF-8; save it as UTF-8.") from None
    rows = []
    for number, line in enumerate(lines, start=1):
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


def encode_row(tokenizer: PreTrainedTokenizerBase, row: Row) -> Encoded:
    """The ids of prompt and answer; the answer ends with the tokenizer's end token."""
    answer = tokenizer.encode(row.targets, add_special_tokens=False)
    end = tokenizer.eos_token_id
    if not isinstance(end, int):
        raise RamoleError("The base model's tokenizer has no end token; choose another base.")
    return Encoded(tuple(render_prompt(tokenizer, row.inputs)), (*answer, end))


def encode_task(
    tokenizer: PreTrainedTokenizerBase, task: str, rows: Sequence[Row], *, max_tokens: int
) -> list[TaskRow]:
    """The rows of a task that fit into `max_tokens`; raises RamoleError when none does."""
    pairs = [(encode_row(tokenizer, row), row) for row in rows]
    kept = [
        TaskRow(one.prompt, one.answer, row.inputs, task)
        for one, row in pairs
        if len(one) <= max_tokens
    ]
    _check_some(kept, len(rows), max_tokens)
    return kept


def encode_rows(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], *, max_tokens: int
) -> list[Encoded]:
    """The rows that fit into `max_tokens`; raises RamoleError when none does."""
    kept = [e for e in (encode_row(tokenizer, row) for row in rows) if len(e) <= max_tokens]
    _check_some(kept, len(rows), max_tokens)
    return kept


def _check_some(kept: Sequence[Encoded], count: int, max_tokens: int) -> None:
    if not kept:
        raise RamoleError(
            f"None of the {count} rows fits into {max_tokens} tokens; raise --max-tokens or "
            "shorten the rows."
        )


def collate(rows: Sequence[Encoded], *, pad: int = 0, share: bool = False) -> Batch:
    """One right-padded batch; `share`: the first tokens that all prompts have are to be read once,
    for all rows."""
    length = max(len(row) for row in rows)
    ids = torch.full((len(rows), length), pad, dtype=torch.long)
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
    return Batch(ids, *where, shared=shared)


def batches(rows: Sequence[R], *, batch_rows: int, seed: int) -> Iterator[list[R]]:
    """Endless batches of rows of about equal length, in an order that the seed alone decides."""
    epoch = 0
    while True:
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
        epoch += 1


class BatchOrder(Generic[R]):
    """`order(t)` is the batch of step t; steps come in rising order, from any start."""

    def __init__(self, rows: Sequence[R], *, batch_rows: int, seed: int) -> None:
        self._batches = batches(rows, batch_rows=batch_rows, seed=seed)
        self._next = 0
        self.epoch = ceil(len(rows) / batch_rows)
        """Steps in which every row is read once."""

    def __call__(self, step: int) -> list[R]:
        if step < self._next:
            raise ValueError(f"step {step} came after step {self._next - 1}")
        while self._next < step:
            next(self._batches)
            self._next += 1
        self._next += 1
        return next(self._batches)
