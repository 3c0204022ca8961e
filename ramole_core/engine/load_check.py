"""Compare a served base model with its own forward, when it loads.

The served model reads two prompts side by side, in one part and then in steps of one token. Its
logits after the last tokens are compared with those of the model's own forward of each prompt
alone. A difference beyond rounding is refused; bits that change with a neighbour are recorded.
"""

import inspect
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from ramole_core.base.experts import experts_in, together
from ramole_core.base.files import read_json
from ramole_core.engine.kv import KvCache
from ramole_core.engine.model_runner import ModelRunner, Piece
from ramole_core.engine.pages import pages_of
from ramole_core.errors import Unsupported
from ramole_core.layers import RowMix
from ramole_core.layers.batch_invariant_ops import BatchInvariantRotary
from ramole_core.whole_file import replacing

LAST_TOKENS = 4
"""Tokens at the end of a prompt that are compared: the last that is read, and steps of one."""
MIN_TOKENS, MAX_TOKENS, SHORTER_BY = 20, 200, 7
"""Tokens of the first prompt, and how many fewer the second has."""
MAX_OPERATIONS = 1.2e11
"""Floating-point operations of the check: about a second of two cores."""
MAX_DIFFERENCE = {torch.float32: 2e-3, torch.float16: 0.05, torch.bfloat16: 0.15}
"""Largest difference that rounding explains, as a share of the logits' own spread: three times what
is seen of SmolLM2-135M in int4 (30 layers), and five times of the tests' rows."""


@dataclass(frozen=True)
class OwnForward:
    """Two prompts, and the model's logits of each alone."""

    prompts: tuple[tuple[int, ...], ...]
    logits: tuple[Float[Tensor, "last v"], ...]
    """Logits after the last tokens of each prompt."""
    blocks: tuple[dict[str, Tensor], ...]
    """The output of each decoder block there, by path."""


@dataclass(frozen=True)
class Verdict:
    """The result of the check, for a model that is served."""

    difference: float
    """Largest difference of logits from the model's own, as a share of their spread."""
    tokens: int
    """Length of the longer prompt."""
    exact: bool
    """Whether a prompt's bits were the same alone and beside the other."""

    def __str__(self) -> str:
        bits = "the same bits" if self.exact else "other last bits"
        return (
            f"served and own logits of {self.tokens} tokens differ by {self.difference:.1e} of "
            f"their spread; {bits} beside another prompt"
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
        _share(found, said, each=model.dtype == torch.float32)
        for found, said in zip(together, own.logits, strict=True)
    ]
    difference = max(shares)
    if not difference <= MAX_DIFFERENCE[model.dtype]:
        # what a layer adds is a part of its output, so a wrong layer moves that less than logits
        where = _first_that_differs(own, blocks, most=MAX_DIFFERENCE[model.dtype] / 3)
        raise Unsupported(
            f"served and own logits differ by {difference:.2g} of their spread{where}"
        )
    exact = all(
        torch.equal(_read(model, [ids], runner=runner, bare=bare)[0][0], found)
        for ids, found in zip(own.prompts, together, strict=True)
    )
    return Verdict(difference, len(own.prompts[0]), exact)


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
            with watch_blocks(model, ends) as seen:
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


def _share(found: Tensor, said: Tensor, *, each: bool) -> float:
    """The differences over the spread of the logits: the largest of the tokens, or, where numbers
    are rounded to few bits, the one in the middle (an expert that was chosen by a hair may be
    another)."""
    spread = (said - said.mean(-1, keepdim=True)).square().mean(-1).sqrt()
    shares = (found - said).square().mean(-1).sqrt() / spread.clamp(min=1e-20)
    if not bool(shares.isfinite().all()):
        return float("nan")
    return float(shares.max() if each else shares.median())


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


# --- the model's own forward, before any served layer is installed -------------------------------


@torch.inference_mode()
def run_own(model: PreTrainedModel, *, context: int, weights: int) -> OwnForward:
    """Run each prompt by itself with the model's own attention; `weights` is the number of its
    parameters. Raises whatever the model raises."""
    prompts = _prompts(
        model, context=context, affordable=int(MAX_OPERATIONS / (8 * max(weights, 1)))
    )
    picks = "logits_to_keep" in inspect.signature(model.forward).parameters
    keep = {"logits_to_keep": LAST_TOKENS} if picks else {}
    logits, blocks = [], []
    with short_windows(model, prompts), together(experts_in(model)):
        for ids in prompts:
            told = torch.tensor([ids], device=model.device)
            with watch_blocks(model, slice(-LAST_TOKENS, None)) as seen:
                found = model(input_ids=told, use_cache=False, **keep).logits
            logits.append(found[0, -LAST_TOKENS:].float().cpu())
            blocks.append(seen)
    return OwnForward(prompts, tuple(logits), tuple(blocks))


def _prompts(
    model: PreTrainedModel, *, context: int, affordable: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two prompts of random tokens, as long as a second of compute allows."""
    longest = max(MIN_TOKENS, min(MAX_TOKENS, affordable))
    length = min(longest, context - 1)
    vocabulary = model.get_input_embeddings().get_parameter("weight").shape[0]
    pick = torch.Generator().manual_seed(5)
    first = torch.randint(vocabulary, (length,), generator=pick).tolist()
    second = torch.randint(vocabulary, (length - SHORTER_BY,), generator=pick).tolist()
    return tuple(first), tuple(second)


@contextmanager
def short_windows(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> Iterator[None]:
    """In forwards inside, an attention window that is longer than half of the first prompt is that
    half: the check's prompts are shorter than most models' windows.

    It is the configuration's number, of which transformers makes masks in each forward. A model
    with a copy of its own keeps its window, in both forwards. Scaled ropes keep their first length,
    since a rotary module copies what follows from it when it is made: their angles are compared
    with the module's own on both sides of it (`load_check`).
    """
    half = max(1, len(prompts[0]) // 2)
    configs = {id(one): one for m in model.modules() if (one := getattr(m, "config", None))}
    before = {
        key: window
        for key, one in configs.items()
        if isinstance(window := getattr(one, "sliding_window", None), int) and window > half
    }
    try:
        for key in before:
            configs[key].sliding_window = half
        yield
    finally:
        for key, window in before.items():
            configs[key].sliding_window = window


@contextmanager
def watch_blocks(model: PreTrainedModel, at: slice | Sequence[int]) -> Iterator[dict[str, Tensor]]:
    """Record each decoder block's output at these tokens, by path, for forwards inside."""
    seen: dict[str, Tensor] = {}

    def see(path: str):
        def hook(module: nn.Module, args: object, out: object) -> None:
            made = out[0] if isinstance(out, tuple) else out
            if isinstance(made, Tensor) and made.is_floating_point() and made.ndim == 3:
                seen[path] = made[0, at].float().cpu()

        return hook

    count = getattr(model.config.get_text_config(), "num_hidden_layers", 0)
    handles = [
        block.register_forward_hook(see(f"{path}.{n}"))
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
        for n, block in enumerate(module)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
