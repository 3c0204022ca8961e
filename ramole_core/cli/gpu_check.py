"""`doctor --gpu`, the first command on a real card: compare it with the CPU, and time it.

The same weights, quantised as the card has them, run on the CPU in float32 (the truth), on the CPU
in bfloat16 (the yardstick), and on the card. A card whose distance from the truth is at most ten
times the yardstick's is good: rounding may differ, weights may not.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import takewhile

import torch

from ramole_core.base.fetch import fetch_base
from ramole_core.base.model import pick_quantization
from ramole_core.cli.gpu_side import (
    BARE,
    AnswerTokens,
    RunSizes,
    Side,
    Spread,
    divergence,
    measure_side,
)
from ramole_core.errors import RamoleError
from ramole_core.settings import Settings
from ramole_core.terminal.console import write_table

MAX_RATIO, MAX_OFFSET = 10.0, 1e-6
"""Largest mean KL that counts as rounding: that ratio to the yardstick's, plus this."""
MAX_TOP_LOSS = 0.1
"""Largest loss of top-1 agreement against the yardstick."""
MAX_SHARE_LOSS = 0.35
"""Largest loss of the share of tokens that agree with the true answers."""


@dataclass(frozen=True)
class Distance:
    """One side's distance from the reference."""

    mean_kl: float
    """KL(truth, this) of the next token, over our prompts."""
    largest: float
    """Largest difference between logits."""
    top: float
    """Share of prompts with the same likeliest token."""
    along: dict[str, float]
    """Share of tokens before answers differ from the true ones, by way of running."""


@dataclass(frozen=True)
class GpuReport:
    """The result of the check."""

    card: str
    sides: tuple[Side, ...]
    distances: dict[str, Distance]
    """By side."""
    problems: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        """Whether the card can be trusted."""
        return not self.problems

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.problems:
            return f"Do not serve on {self.card}: {'; '.join(self.problems)}."
        kl, usual = self.distances["card"].mean_kl, self.distances["cpu"].mean_kl
        return (
            f"{self.card} can be trusted: it is as near to float32 as rounding allows (mean KL "
            f"{kl:.2g}, and {usual:.2g} on the CPU); decode steps are mixed by "
            f"{self._side('card').mixing} and run {self._side('card').steps}."
        )

    def _side(self, name: str) -> Side:
        return next(side for side in self.sides if side.name == name)

    def as_json(self) -> dict[str, object]:
        """The report as plain lists and dictionaries."""
        return {
            "healthy": self.healthy,
            "verdict": self.verdict,
            "card": self.card,
            "distances": {name: asdict(one) for name, one in self.distances.items()},
            "sides": {side.name: side.facts() for side in self.sides},
        }


def check_gpu(
    settings: Settings,
    *,
    tell: Callable[[str, float], None] = lambda stage, fraction: None,
    device: str = "cuda",
    sizes: RunSizes | None = None,
) -> GpuReport:
    """Compare a card with the CPU; `device` cpu in its place tries the command itself.

    Raises RamoleError where there is no card.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise RamoleError(
            f"doctor --gpu needs an NVIDIA GPU, and this PyTorch ({torch.__version__}) sees none; "
            "install its CUDA build and a driver, or run doctor without --gpu."
        )
    sizes = sizes or RunSizes()
    kind = pick_quantization(
        settings.quantization,
        device=torch.device(device),
        folder=fetch_base(settings.base_model, data_dir=settings.data_dir),
    )
    settings = settings.model_copy(update={"quantization": kind})
    plans = [
        ("truth", {"device": "cpu", "dtype": "float32"}, False),
        ("cpu", {"device": "cpu", "dtype": "bfloat16"}, True),
        ("card", {"device": device, "dtype": "bfloat16"}, True),
    ]
    if kind == "nf4":
        unpacked = {"device": device, "dtype": "bfloat16", "quantization": "none"}
        plans.append(("card, bfloat16", unpacked, True))
    sides = [
        measure_side(name, settings.model_copy(update=changes), sizes, timed=timed, tell=tell)
        for name, changes, timed in plans
    ]
    name = torch.cuda.get_device_name() if device == "cuda" else "The CPU"
    return compare(name, sides)


def compare(card: str, sides: list[Side]) -> GpuReport:
    """The distances, and whether they are rounding."""
    truth = sides[0]
    distances = {side.name: distance(truth, side) for side in sides[1:]}
    ours = next(side for side in sides if side.name == "card")
    usual = distances["cpu"]
    problems = _problems(distances["card"], usual, bool(ours.logits.isfinite().all()))
    if ours.apart is not None and not ours.apart <= MAX_RATIO * usual.mean_kl + MAX_OFFSET:
        problems.append(
            f"Triton and PyTorch mix otherwise there (mean KL {ours.apart:.2g}); set "
            "RAMOLE_FUSED_MIXING=false and run this again"
        )
    return GpuReport(card, tuple(sides), distances, tuple(problems))


def distance(truth: Side, side: Side) -> Distance:
    """A side's distance from the reference."""
    p, q = truth.logits.double(), side.logits.double()
    return Distance(
        mean_kl=float(divergence(p, q).mean()),
        largest=float((p - q).abs().max()),
        top=float((p.argmax(-1) == q.argmax(-1)).double().mean()),
        along=along(truth.tokens, side.tokens),
    )


def along(one: AnswerTokens, other: AnswerTokens) -> dict[str, float]:
    """The share of tokens up to the first difference of answers."""
    found = {}
    for how, answers in one.items():
        pairs = [list(zip(*pair, strict=False)) for pair in zip(answers, other[how], strict=True)]
        same = [len(list(takewhile(lambda two: two[0] == two[1], pair))) for pair in pairs]
        longest = [max(map(len, pair)) for pair in zip(answers, other[how], strict=True)]
        found[how] = sum(same) / max(1, sum(longest))
    return found


def _problems(card: Distance, usual: Distance, finite: bool) -> list[str]:
    if not finite:
        return ["its logits are not finite"]
    found = []
    if not card.mean_kl <= MAX_RATIO * usual.mean_kl + MAX_OFFSET:
        found.append(
            f"its next tokens are not the CPU's (mean KL {card.mean_kl:.2g} from float32, where "
            f"bfloat16 on the CPU is {usual.mean_kl:.2g} away)"
        )
    if card.top < usual.top - MAX_TOP_LOSS:
        found.append(f"its likeliest token is the CPU's at {card.top:.0%} of our prompts only")
    for how, share in card.along.items():
        if share < usual.along[how] - MAX_SHARE_LOSS:
            who = "by the base" if how == BARE else f"mixed, {how},"
            found.append(f"its answers {who} leave the CPU's after {share:.0%} of their tokens")
    return found


def show_gpu(report: GpuReport) -> None:
    """Print the report as tables, and the verdict last."""
    rows = [
        (name, f"{d.mean_kl:.2g}", f"{d.largest:.3g}", f"{d.top:.0%}")
        + tuple(f"{share:.0%}" for share in d.along.values())
        for name, d in report.distances.items()
    ]
    asked = tuple(f"answers, {how}" for how in report.sides[0].tokens)
    write_table(("beside the CPU in float32", "mean KL", "largest", "same top", *asked), rows)
    print()
    for side in report.sides[1:]:
        lines = [("mixed by", side.mixing), ("decode steps", side.steps)]
        lines.append(("load", f"{side.load_seconds:.1f} s"))
        if side.apart is not None:
            lines.append(("Triton beside PyTorch, mean KL", f"{side.apart:.2g}"))
        if side.first_token_seconds:
            lines.append(("first token", _spread(side.first_token_seconds, "s", ".3f")))
        lines += [(what, _spread(one, "tokens/s", ",.0f")) for what, one in side.rates.items()]
        lines += [(what, f"{value / 2**20:,.0f} MiB") for what, value in side.bytes.items()]
        write_table((f"{side.name} ({side.device}, {side.quantization}, {side.dtype})", ""), lines)
        print()
    print(report.verdict)


def _spread(one: Spread, unit: str, form: str) -> str:
    return f"{one.median:{form}} {unit} ({one.low:{form}} to {one.high:{form}})"
