"""Step 6: a token under every subset of its adapters, and its effects.

The run was recorded with the log probabilities; nothing here needs the model.
"""

import math
from collections.abc import Sequence
from itertools import permutations

from ..charts.did import chance, factor
from ..charts.palette import chip_html
from ..parts.markup import escaped
from .frames import table
from .kept import gated

ALL, NONE = "ABC", ""


def values() -> dict[str, list[float]]:
    """Log probability of each token of the recorded answer, by subset: `AC`."""
    found = gated().answer.subset_logprob
    assert found is not None
    letters = ("".join(x for e, x in enumerate(ALL) if c >> e & 1) for c in range(2 ** len(ALL)))
    return dict(zip(letters, found.T.tolist(), strict=True))


def switched_html(index: int, off: Sequence[str]) -> str:
    """One token without the adapters of these names, and the sum of all effects."""
    run = gated()
    letters = dict(zip(run.experts, ALL, strict=True))
    left = "".join(letter for name, letter in letters.items() if name not in off)
    v = {subset: found[index] for subset, found in values().items()}
    said = f"With all three adapters this token has {chance(v[ALL])}."
    if left != ALL:
        gone = ", ".join(escaped(name) for name in letters if name in off)
        what = "the base alone is left" if not left else f"without {gone}"
        said += f" {what[0].upper()}{what[1:]}: {chance(v[left])}, {factor(v[left] - v[ALL])}."
    return f'<p role="status"><strong>{said}</strong></p>{_sums(v, list(letters))}'


def _sums(v: dict[str, float], names: Sequence[str]) -> str:
    """All eight log probabilities, and each adapter's mean over the orders in which they come."""
    rows = [
        (_who(subset), f"{v[subset]:.2f}", chance(v[subset]))
        for subset in sorted(v, key=lambda one: (len(one), one))
    ]
    effects = {letter: effect_of(v, letter) for letter in ALL}
    terms = " ".join(
        f"{'−' if effect < 0 else '+'} {abs(effect):.2f} {chip_html(place)}"
        for place, effect in enumerate(effects.values())
    )
    base, whole = (f"{v[one]:.2f}".replace("-", "−") for one in (NONE, ALL))
    adding = f"<p>{base} (the base) {terms} = {whole} (all three), in nats.</p>"
    heads = ("who is there", "log of the probability", "probability")
    orders = [
        (", then ".join(order), *(f"{step:+.2f}".replace("-", "−") for step in _steps(v, order)))
        for order in permutations(ALL)
    ]
    mean = ("mean: the effect", *(f"{e:+.2f}".replace("-", "−") for e in effects.values()))
    readings = table("All eight readings", heads, rows)
    added = table("What each adds, in every order", ("order", *names), [*orders, mean])
    return (
        f"{adding}<details><summary>The eight readings, and what each adds in every order"
        f"</summary>{readings}{added}</details>"
    )


def _steps(v: dict[str, float], order: Sequence[str]) -> list[float]:
    """What A, B and C add where they come in this order."""
    added, there = {}, ""
    for letter in order:
        more = "".join(sorted(there + letter))
        added[letter] = v[more] - v[there]
        there = more
    return [added[letter] for letter in ALL]


def effect_of(v: dict[str, float], letter: str) -> float:
    """The mean of what an adapter adds, over all orders."""
    found = [_steps(v, order)[ALL.index(letter)] for order in permutations(ALL)]
    return math.fsum(found) / len(found)


def _who(subset: str) -> str:
    return " and ".join(subset) if subset else "nobody: the base"
