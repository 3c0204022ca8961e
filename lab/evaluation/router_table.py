"""The trained gate against the uniform and random ones, on adapters that it has never seen.

    python -m lab router_table --data DATA

A random RouterLoRA whose matrices are as large as a trained one's has nearly equal weights all the
same, because its queries and keys do not know each other: entropy 1.00, a second uniform gate. Only
one that is as sharp shows what the trained direction is worth, so the random gates are sharpened
until their weights are as uneven as the trained one's. For each dev row three adapters are mixed,
the same for every gate. In `own` they are the row's own adapter and two others drawn at random, in
`others` three others: what a good retriever finds, and what is left when nothing fits. The measure
is the loss of the right answer in nats a token; its differences are paired by row, with 95 %
bootstrap intervals.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Annotated, cast

import torch
import typer

from lab import harness
from lab.evaluation.answers import MAX_TOKENS
from lab.evaluation.intervals import bootstrap, bootstrap_groups
from ramole_core.base.shapes import read_shapes
from ramole_core.composition import ModuleRouter, Router, load_trained, random_router
from ramole_core.composition.router import read_router
from ramole_core.methods import find_row
from ramole_core.pool.uploads import read_samples
from ramole_core.settings import load_settings
from ramole_core.training.loss import row_losses
from ramole_core.training.mixed_model import MixedModel
from ramole_core.training.rows import Encoded, encode_rows
from ramole_core.training.sources import load_configured_base, read_loras

Unseen = Annotated[
    str,
    typer.Option(help="Adapters that no router was trained on; if empty, the pool's others."),
]
Losses = Mapping[str, Sequence[float]]
"""By task, of each row."""
SETTINGS = ("own", "others")
K = 3
SHARP_ROWS = 6
"""Rows, of different tasks, that the random gates are made as sharp on."""
GROUP = 10
"""Rows of a task that meet the same adapters."""
STEPS, LARGEST = 12, 2.0**20
"""Halvings of a sharpening factor's logarithm; no factor is larger."""


def draw_sets(
    name: str, unseen: Sequence[str], *, groups: int, setting: str, seed: int, k: int = K
) -> list[tuple[str, ...]]:
    """The k adapters for each group of a task's rows; the own one, where it is in, comes first.

    Fewer than k where there are not so many unseen ones."""
    chance = random.Random(f"{seed}/{setting}/{name}")
    others = [other for other in unseen if other != name]
    own = (name,) if setting == "own" else ()
    drawn = min(k - len(own), len(others))
    return [own + tuple(chance.sample(others, drawn)) for _ in range(groups)]


@torch.no_grad()
def measure_gates(
    model: MixedModel,
    dev: Mapping[str, Sequence[Encoded]],
    *,
    gates: Mapping[str, Sequence[Router | None]],
    setting: str,
    seed: int,
    k: int = K,
    group: int = GROUP,
) -> dict[str, dict[str, list[float]]]:
    """Losses by gate, task and row; a gate of several routers gets their mean."""
    losses: dict[str, dict[str, list[float]]] = {gate: {} for gate in gates}
    for name, rows in dev.items():
        parts = [rows[start : start + group] for start in range(0, len(rows), group)]
        sets = draw_sets(name, tuple(dev), groups=len(parts), setting=setting, seed=seed, k=k)
        for gate, routers in gates.items():
            found: list[float] = []
            for part, names in zip(parts, sets, strict=True):
                total = torch.zeros(len(part))
                for router in routers:
                    with model.gated_by(router, names=[names]):
                        total += row_losses(model.plain, part)
                found += (total / len(routers)).tolist()
            losses[gate][name] = found
    return losses


@torch.no_grad()
def measure_alone(
    model: MixedModel, dev: Mapping[str, Sequence[Encoded]]
) -> dict[str, dict[str, list[float]]]:
    """Losses of the bare base, and of each row's own adapter alone: the ends of the scale."""
    bare = {name: row_losses(model.plain, rows).tolist() for name, rows in dev.items()}
    own = {}
    for name, rows in dev.items():
        with model.gated_by(None, names=[(name,)]):
            own[name] = row_losses(model.plain, rows).tolist()
    return {"base": bare, "own_alone": own}


@torch.no_grad()
def mean_entropy(
    model: MixedModel, rows: Sequence[Encoded], router: Router | None, *, names: Sequence[str]
) -> float:
    """Of the gate's weights, over log k: 1 for equal weights, 0 for one adapter at each token; the
    mean over tokens and modules. Raises nothing; needs at least two names."""
    found = []
    for row in rows:
        ids = torch.tensor([row.prompt + row.answer], device=model.plain.device)
        with model.gated_by(router, names=[names], watch=True):
            model.plain(input_ids=ids, use_cache=False)
        weights = (model.mixer.alpha or {}).values()
        every = [torch.special.entr(alpha.float()).sum(-1).mean() for alpha in weights]
        found.append(torch.stack(every).mean())
    return float(torch.stack(found).mean()) / math.log(len(names))


def sharpened(router: Router, factor: float) -> Router:
    """The same router with its scores times `factor`."""
    modules = {
        path: ModuleRouter(A=one.A, B=one.B * factor) for path, one in router.modules.items()
    }
    return Router(modules, router.rank, f"{router.checksum} times {factor:g}")


def as_sharp(
    model: MixedModel,
    rows: Sequence[Encoded],
    router: Router,
    *,
    entropy: float,
    names: Sequence[str],
) -> Router:
    """The router sharpened until its weights have this mean entropy on these rows; as it is where
    it is sharper already."""

    def at(factor: float) -> float:
        return mean_entropy(model, rows, sharpened(router, factor), names=names)

    low, high = 1.0, 4.0
    if at(low) <= entropy:
        return router
    while high < LARGEST and at(high) > entropy:
        low, high = high, high * 4
    for _ in range(STEPS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if at(middle) > entropy else (low, middle)
    return sharpened(router, high)


def summarise(losses: Mapping[str, Losses]) -> dict:
    """Mean loss by system with its interval, by task, and the trained gate's paired differences.

    Differences have three intervals: rows drawn again, the sets of adapters that they meet (whose
    rows hang together), and tasks.
    """
    return {
        "loss": {
            gate: asdict(bootstrap([x for rows in tasks.values() for x in rows]))
            for gate, tasks in losses.items()
        },
        "trained_minus": {
            rival: _gap(losses["trained"], losses[rival]) for rival in ("uniform", "random")
        },
        "by_task": {
            gate: {name: sum(rows) / len(rows) for name, rows in tasks.items()}
            for gate, tasks in losses.items()
        },
    }


def _gap(ours: Losses, theirs: Losses) -> dict[str, float]:
    rows = [(name, n) for name, losses in ours.items() for n in range(len(losses))]
    values = [ours[name][n] - theirs[name][n] for name, n in rows]
    found = asdict(bootstrap(values))
    sets, tasks = [f"{name} {n // GROUP}" for name, n in rows], [name for name, _ in rows]
    for unit, groups in (("set", sets), ("task", tasks)):
        span = bootstrap_groups(values, groups)
        found |= {f"{unit}_low": span.low, f"{unit}_high": span.high}
    return found


def verdict(summary: dict) -> str:
    """One sentence: whether the trained gate beats both controls, whichever tasks are drawn."""
    words = []
    for rival, gap in summary["trained_minus"].items():
        low, high = gap["task_low"], gap["task_high"]
        beats = "beats" if high < 0 else "loses to" if low > 0 else "does not beat"
        words.append(
            f"{beats} the {rival} gate ({gap['mean']:+.4f}, drawing tasks [{low:+.4f}, "
            f"{high:+.4f}], drawing sets of adapters [{gap['set_low']:+.4f}, "
            f"{gap['set_high']:+.4f}], drawing rows [{gap['low']:+.4f}, {gap['high']:+.4f}])"
        )
    return "The trained gate " + " and ".join(words) + "."


def main(
    data: harness.Data = harness.DATA,
    unseen: Unseen = "",
    router_dir: Annotated[
        list[Path] | None, typer.Option(help="A router's folder; of several, the mean is measured.")
    ] = None,
    rows: harness.Rows = 40,
    skip: harness.Skip = 0,
    seed: harness.Seed = 0,
    threads: harness.Threads = 0,
    out: harness.Out = harness.RESULTS / "router_dev.json",
) -> None:
    """Measure a router on adapters it has never seen."""
    settings = load_settings()
    base = load_configured_base()
    shapes = read_shapes(base.folder)
    folders = router_dir or [settings.adapters_dir / "_router"]
    weights = [load_trained(folder, find_row("ramole")) for folder in folders]
    trained = [read_router(one, shapes=shapes) for one in weights]
    seen = sorted({n for one in weights for n in cast("list[str]", one.config["trained_on"])})
    others = [name for _, name in read_samples(settings.adapters_dir)[0] if name not in seen]
    names = harness.words(unseen) or others
    dev = {
        name: encode_rows(base.tokenizer, task.dev, max_tokens=MAX_TOKENS)
        for name, task in harness.read_tasks(data, names, rows=rows, skip=skip).items()
    }
    loras = read_loras(names, settings=settings, shapes=shapes).loras
    model = MixedModel(base, loras=loras, shapes=shapes)
    known = [rows_of[0] for rows_of in dev.values()][:SHARP_ROWS]

    def unevenness(router: Router) -> float:
        return mean_entropy(model, known, router, names=names[:K])

    first = trained[0]
    drawn = [
        random_router(shapes, rank=first.rank, seed=seed + turn, like=first) for turn in range(3)
    ]
    kept, drawn = (
        [one.to(device=base.device, dtype=base.dtype) for one in each] for each in (trained, drawn)
    )
    entropy = mean(map(unevenness, kept))
    sharp = [as_sharp(model, known, one, entropy=entropy, names=names[:K]) for one in drawn]
    gates = {"trained": kept, "uniform": [None], "random": sharp}
    results = harness.Results(
        out,
        base=base,
        router_sha256=[one.checksum for one in trained],
        trained_on=seen,
        unseen=names,
        k=K,
        rows={name: len(encoded) for name, encoded in dev.items()},
        skipped=skip,
        seed=seed,
        entropy={"trained": entropy, "random": unevenness(sharp[0])},
    )
    alone = measure_alone(model, dev)
    for setting in SETTINGS:
        losses = measure_gates(model, dev, gates=gates, setting=setting, seed=seed)
        summary = summarise({**losses, **alone})
        summary["verdict"] = verdict(summary)
        results.write(**{setting: summary})
        print(f"{setting}: {summary['verdict']}")
