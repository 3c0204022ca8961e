"""What fewer bits do to the base: how far its next tokens are from those of the unrounded model.

    python -m lab few_bits --data DATA

Linear layers in NF4 or int4 as they are served, or with codes from -8 to 7 and a scale for every 32
(llama.cpp's Q4_0); the output head as it is, or
in int8. All are computed in float32, so that rounding the weights is all that differs. Tokens are
those of dev rows in the chat template, prompts and answers; intervals are over tasks.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from jaxtyping import Float
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lab import harness
from lab.evaluation.cells import Cell
from lab.evaluation.intervals import bootstrap
from lab.evaluation.tables import fill, open_cells
from ramole_core.base.checksum import weights_checksum
from ramole_core.base.fetch import fetch_base
from ramole_core.base.int4 import round_to_int4
from ramole_core.base.nf4 import round_to_nf4
from ramole_core.base.packed import fits
from ramole_core.base.shapes import read_shapes
from ramole_core.kernels.narrow import from_bytes, rounded_to_bytes
from ramole_core.settings import load_settings
from ramole_core.training.rows import Encoded, Row, encode_row

MAX_TOKENS = 256
"""Tokens of a row, where a task has rows so short."""
READ = 100
"""Dev rows of a task among which its short ones are looked for."""
Rounding = Callable[[Tensor], Tensor]
Tasks = Mapping[str, Sequence[Encoded]]


def without_least(weight: Tensor) -> Tensor:
    """[o, i] with a scale for every 32: the largest number, sign and all, is -8 scales."""
    blocks = weight.float().unflatten(1, (-1, 32))
    largest = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))
    scale = (largest / -8).bfloat16().float()
    codes = (blocks / torch.where(scale == 0, 1, scale)).round().clamp(-8, 7)
    return (codes * scale).flatten(1).to(weight.dtype)


def head_in_int8(weight: Tensor) -> Tensor:
    """[o, i] with a scale a row."""
    return from_bytes(*rounded_to_bytes(weight)).to(weight.dtype)


WAYS: Mapping[str, tuple[Rounding | None, Rounding | None]] = {
    "nf4, full head": (round_to_nf4, None),
    "nf4, head int8": (round_to_nf4, head_in_int8),
    "full, head int8": (None, head_in_int8),
    "int4, full head": (round_to_int4, None),
    "int4, head int8": (round_to_int4, head_in_int8),
    "int4 without a least number (Q4_0), full head": (without_least, None),
}
"""How linear layers and head are rounded."""


def main(
    data: harness.Data = harness.DATA,
    rows: harness.Rows = 4,
    skip: harness.Skip = 0,
    every: Annotated[int, typer.Option(help="Of the tasks, each so many-th.")] = 3,
    threads: harness.Threads = 0,
    work: harness.Work = Path("few_bits"),
    out: harness.Out = harness.RESULTS / "few_bits.json",
) -> None:
    """Measure every way of rounding; the file is written after each."""
    settings = load_settings()
    folder = fetch_base(settings.base_model, data_dir=settings.data_dir)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    names = sorted(path.name for path in data.iterdir() if (path / "dev.jsonl").is_file())[::every]
    drawn = harness.read_tasks(data, names, rows=READ, skip=skip)
    tasks = {name: _short_rows(tokenizer, task.dev)[:rows] for name, task in drawn.items()}
    shapes = read_shapes(folder)
    facts = {"base_checksum": weights_checksum(folder, data_dir=settings.data_dir)}
    cells = open_cells(work, rows=rows, skipped=skip, **facts)
    results = harness.Results(out, facts, tasks=len(tasks), rows=sum(map(len, tasks.values())))

    @cache
    def usual() -> list[Tensor]:
        return list(_logits(_rounded(folder, shapes, None, None), tasks))

    def make(way: str, missing: Sequence[str]) -> Iterator[tuple[str, Cell]]:
        pairs = zip(usual(), _logits(_rounded(folder, shapes, *WAYS[way]), tasks), strict=True)
        for name, mine in tasks.items():
            found = [compare(*next(pairs), row) for row in mine]
            measures = {key: [one[key] for one in found] for key in found[0]}
            if name in missing:
                yield name, Cell([], [], [], measures=measures)

    ways: dict[str, object] = {}
    for way in WAYS:
        ways[way] = over_tasks(fill(cells, "tokens", way, names, partial(make, way)))
        results.write(ways=ways)


def over_tasks(found: Mapping[str, Cell]) -> dict[str, dict[str, float]]:
    """Each measure's mean over tasks, with its interval."""
    means: dict[str, list[float]] = {}
    for cell in found.values():
        for name, values in cell.measures.items():
            means.setdefault(name, []).append(sum(values) / len(values))
    return {name: vars(bootstrap(values)) for name, values in means.items()}


def _rounded(
    folder: Path,
    shapes: Mapping[str, tuple[int, int]],
    linears: Rounding | None,
    head: Rounding | None,
) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if linears is not None:
        for path in (path for path, size in shapes.items() if fits(*size)):
            weight = model.get_parameter(f"{path}.weight").data
            weight.copy_(linears(weight.bfloat16()).float())  # as it is served
    old = model.get_output_embeddings()
    if head is not None and isinstance(old, nn.Linear):
        new = nn.Linear(old.in_features, old.out_features, bias=False)
        new.weight.data = head(old.weight.data)
        model.set_output_embeddings(new)
    return model


def _short_rows(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row]) -> list[Encoded]:
    """Those that are read soon; all where none is."""
    every = [encode_row(tokenizer, row) for row in rows]
    return [row for row in every if len(row) <= MAX_TOKENS] or every


def _logits(model: PreTrainedModel, tasks: Tasks) -> Iterator[Float[Tensor, "l v"]]:
    """Of each row's tokens but the last."""
    for rows in tasks.values():
        for row in rows:
            with torch.inference_mode():
                yield model(torch.tensor([(*row.prompt, *row.answer)[:-1]])).logits[0]


def compare(usual: Tensor, other: Tensor, row: Encoded) -> dict[str, float]:
    """One row, means over its tokens: `kl`, KL(unrounded || rounded) in nats; `same_top`, percent
    whose likeliest next token is the same; `loss`, of the answer, nats more than unrounded."""
    p, q = (F.log_softmax(x, -1) for x in (usual, other))
    answer, targets = len(row.prompt) - 1, torch.tensor(row.answer)
    return {
        "kl": float(F.kl_div(q, p, reduction="sum", log_target=True)) / len(p),
        "same_top": 100 * float((p.argmax(-1) == q.argmax(-1)).float().mean()),
        "loss": float(F.nll_loss(q[answer:], targets) - F.nll_loss(p[answer:], targets)),
    }
