"""Step 6: a token under every subset of its adapters, and its effects.

The run was recorded with the log probabilities; nothing here needs the model.
"""

from collections.abc import Sequence
from itertools import permutations

from ..charts.did import Did, chance, factor, subsets_html
from ..charts.palette import chip_html, letter_of
from ..parts.asked import signed
from ..parts.markup import escaped
from .frames import table
from .kept import gated


def switched_html(index: int, off: Sequence[str]) -> str:
    """One token without the adapters of these names, and the sum of all effects."""
    did = gated().did(index)
    assert did is not None  # it was recorded with effects
    gone = [e for e, (name, _) in enumerate(did.experts) if name in off]
    left, whole = did.without(*gone), did.subsets[-1]
    said = f"With all three adapters this token has {chance(whole)}."
    if gone and left is not None:
        names = ", ".join(escaped(did.experts[e][0]) for e in gone)
        what = f"Without {names}" if len(gone) < len(did.experts) else "The base alone is left"
        said += f" {what}: {chance(left)}, {factor(left - whole)}."
    return f'<p role="status"><strong>{said}</strong></p>{_sums(did)}'


def _sums(did: Did) -> str:
    """All eight log probabilities, and each adapter's mean over the orders in which they come."""
    terms = " ".join(
        f"{'−' if effect < 0 else '+'} {abs(effect):.2f} {chip_html(place)}"
        for (_, place), effect in zip(did.experts, did.effects, strict=True)
    )
    base, whole = signed(did.base, ".2f"), signed(did.mixture, ".2f")
    orders = [
        (", then ".join(map(letter_of, order)), *(signed(one, "+.2f") for one in added(did, order)))
        for order in permutations(range(len(did.experts)))
    ]
    mean = ("mean: the effect", *(signed(one, "+.2f") for one in did.effects))
    heads = ("order", *(escaped(name) for name, _ in did.experts))
    told = table("What each adds, in every order", heads, [*orders, mean])
    return (
        f"<p>{base} (the base) {terms} = {whole} (all three), in nats.</p>{subsets_html(did)}"
        f"<details><summary>What each adds in every order</summary>{told}</details>"
    )


def added(did: Did, order: Sequence[int]) -> list[float]:
    """What each adapter adds to the log probability where they come in this order."""
    steps, there = dict[int, float](), 0
    for e in order:
        before, there = there, there | 1 << e
        steps[e] = did.subsets[there] - did.subsets[before]
    return [steps[e] for e in range(len(order))]
