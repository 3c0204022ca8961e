"""Compare a served base model with its own forward, when it loads.

The served model reads two prompts side by side, in one part and then in steps of one token. Its
logits after the last tokens are compared with those of the model's own forward of each prompt
alone. A difference beyond rounding is refused; bits that change with a neighbour are recorded.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ramole_core.base.files import read_json
from ramole_core.engine.kv import KvCache
from ramole_core.engine.model_runner import ModelRunner, Piece
from ramole_core.engine.own_forward import (
    LAST_TOKENS,
    OwnForward,
    block_outputs,
    share_of_spread,
    short_windows,
)
from ramole_core.engine.pages import pages_of
from ramole_core.errors import Unsupported
from ramole_core.layers import RowMix
from ramole_core.layers.batch_invariant_ops import BatchInvariantRotary
from ramole_core.whole_file import replacing

MAX_DIFFERENCE = {torch.float32: 2e-3, torch.float16: 0.05, torch.bfloat16: 0.15}
"""Largest difference that rounding explains, as a share of the logits' own spread: three times what
is seen of SmolLM2-135M in int4 (30 layers), and five times of the tests' rows."""
ROUNDINGS, LARGEST = 4, 0.5
"""Where a model carries rounding further than that, so many times what it carries; at most."""


@dataclass(frozen=True)
class Verdict:
    """The result of the check, for a model that is served."""

    difference: float
    """Largest difference of logits from the model's own, as a share of their spread."""
    tokens: int
    """Length of the longer prompt."""
    exact: bool
    """Whether a prompt's bits were the same alone and beside the other."""
    limit: float
    """The largest difference that rounding explains."""

    def __str__(self) -> str:
        bits = "the same bits" if self.exact else "other last bits"
        return (
            f"served and own logits of {self.tokens} tokens differ by {self.difference:.1e} of "
            f"their spread (rounding: up to {self.limit:.1e}); {bits} beside another prompt"
        )


def check_served(
    model: PreTrainedModel, own: OwnForward, *, runner: ModelRunner, bare: RowMix
) -> Verdict:
    """Compare served and own logits; raises Unsupported where they differ beyond rounding."""
    with short_windows(model, own.prompts):
        return _compare(model, own, runner=runner, bare=bare)


def _compare(
    model: PreTrainedModel, own: OwnForward, *, runner: ModelRunner, bare: RowMix
) -> Verdict:
    together, blocks = _read(model, own.prompts, runner=runner, bare=bare)
    shares = [
        share_of_spread(found, said, each=model.dtype == torch.float32)
        for found, said in zip(together, own.logits, strict=True)
    ]
    difference = float(torch.tensor(shares).max())  # nan where one is
    least = MAX_DIFFERENCE[model.dtype]
    limit = max(least, min(LARGEST, ROUNDINGS * own.rounding))
    if not difference <= limit:
        # what a layer adds is a part of its output, so a wrong layer moves that less than logits
        where = _first_that_differs(own, blocks, most=limit / 3)
        raise Unsupported(
            f"served and own logits differ by {difference:.2g} of their spread{where}"
        )
    for pair in zip(together, own.logits, strict=True):
        if not abs((factor := _factor(*pair)) - 1) <= least:
            raise Unsupported(f"served logits are {factor:.2g} times its own")
    exact = all(
        torch.equal(_read(model, [ids], runner=runner, bare=bare)[0][0], found)
        for ids, found in zip(own.prompts, together, strict=True)
    )
    return Verdict(difference, len(own.prompts[0]), exact, limit)


def remembered(file: Path | None) -> Verdict | None:
    found = read_json(file) if file is not None else {}
    try:
        return Verdict(**found)  # pyright: ignore[reportArgumentType]
    except TypeError:
        return None


def remember(file: Path | None, verdict: Verdict) -> None:
    """Keep a verdict for later starts; a full disk only means that the check runs again."""
    if file is None:
        return
    with suppress(OSError), replacing(file) as part:
        part.write_text(json.dumps(asdict(verdict)))


def _read(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    runner: ModelRunner,
    bare: RowMix,
) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Logits after each prompt's last tokens, and the blocks' outputs at the end of the first
    part."""
    pages = sum(pages_of(len(ids)) for ids in prompts)
    kv = KvCache(model, limit=pages * KvCache(model, limit=0).page_bytes)
    places = [kv.open(kv.content(ids[:1], [(1, bytes(16))]), len(ids)) for ids in prompts]
    logits: list[list[Tensor]] = [[] for _ in prompts]
    blocks: list[dict[str, Tensor]] = []
    for step in range(LAST_TOKENS):
        pieces, ends, end = [], [], 0
        for ids, place in zip(prompts, places, strict=True):
            assert place is not None
            part = ids[place.length : len(ids) - LAST_TOKENS + 1 + step]
            pieces.append(Piece(place, part, bare))
            end += len(part)
            ends.append(end - 1)
        if step == 0:
            with block_outputs(model, ends) as seen:
                out = runner.forward(pieces, kv)
            blocks = [{path: rows[n] for path, rows in seen.items()} for n in range(len(prompts))]
            _check_size(kv)
            _check_angles(model)  # which know their kinds from a forward
        else:
            out = runner.forward(pieces, kv)
        for n, piece in enumerate(pieces):
            logits[n].append(out.logits[n].float().cpu().clone())
            content = kv.content(list(piece.ids), [(len(piece.ids), bytes(16))])
            kv.commit(piece.sequence, content, None, traced=False)
    runner.forget()
    return [torch.stack(one) for one in logits], blocks


def _check_size(kv: KvCache) -> None:
    """Raise Unsupported where keys and values take other bytes than the cache counts."""
    found, counted = kv.nbytes, kv.memory.places * kv.page_bytes
    if found > counted:
        raise Unsupported(
            f"its keys and values take {found // kv.memory.places} bytes a page, and its "
            f"configuration says {kv.page_bytes}"
        )


def _factor(found: Tensor, said: Tensor) -> float:
    """The number that own logits are multiplied by to be nearest to the served ones, in the median
    of the tokens. Rounding that a model carries far leaves it near 1; another scale or cap of the
    logits does not."""
    said, found = (each - each.mean(-1, keepdim=True) for each in (said, found))
    factors = (said * found).sum(-1) / said.square().sum(-1).clamp(min=1e-20)
    return float(factors.quantile(0.5))


def _first_that_differs(
    own: OwnForward, blocks: Sequence[dict[str, Tensor]], *, most: float
) -> str:
    """` from layer ... on`, or nothing where no block's output differs."""
    for n, path in enumerate(own.blocks[0]):
        for said, found in zip(own.blocks, blocks, strict=True):
            if path not in found:
                continue
            row = said[path][0]
            if not float((row - found[path]).norm()) <= most * float(row.norm()):
                return f", from layer {n} ({path}) on"
    return ""


def _check_angles(model: PreTrainedModel) -> None:
    """Raise Unsupported where the rotary angles of a request are not those of the model's own
    forward of so many tokens, on both sides of the length of its first training."""
    for path, module in model.named_modules():
        if isinstance(module, BatchInvariantRotary) and (where := module.differs()) is not None:
            raise Unsupported(f"the rotary angles of {path} differ for requests of {where} tokens")
