"""How sharp a gate is, and random gates of a wanted sharpness: the control of a trained one.

A random RouterLoRA whose matrices are as large as a trained one's has nearly equal weights all the
same, because its queries and keys do not know each other: entropy 1.00, a second uniform gate.
Only one that is as sharp shows what the trained direction is worth.
"""

import math
from collections.abc import Sequence

import torch

from ramole_core.composition import ModuleRouter, Router
from ramole_core.training.mixed_model import MixedModel
from ramole_core.training.rows import Encoded

STEPS = 12
"""Halvings of the factor's logarithm."""
LARGEST = 2.0**20
"""No factor is larger."""


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
