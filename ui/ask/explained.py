"""One token in words: its weights as a bar, its entropy, and what base and mixture expected there.

Pure functions data -> HTML; token text passes through `html.escape`.
"""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from ..charts.palette import BASE, MIXTURE, chip_html, ink_of, letter_of
from ..charts.run import Run, entropy, mean_weights, strongest

if TYPE_CHECKING:
    from ramole_core import Explanation

PICK = (
    '<p class="quiet">Pick a token of the answer, with a click or the arrow keys, to see its '
    "weights by layer, module and adapter, and what the base alone would have said there.</p>"
)


def spell(piece: str) -> str:
    """A token as it can be read: spaces and line breaks made visible."""
    if piece == "":
        return "(no text)"
    return piece.replace("\n", "↵").replace(" ", "␣").replace("\t", "⇥")


def token_html(run: Run, index: int, *, turn: int = 0) -> str:
    """Heading, stacked bar of the mean weights, and entropy, of one generated token.

    `turn` is the number of an earlier turn of a conversation, 0 for the newest answer.
    """
    piece = escape(spell(run.pieces[index]))
    where = f"Turn {turn}, token" if turn else "Token"
    head = f"<h2>{where} {index + 1} of {len(run.pieces)}: <code>{piece}</code></h2>"
    gates = run.gates
    if index >= len(gates) or not run.experts:
        return head + '<p class="quiet">No adapter was at work here.</p>'
    weights = mean_weights(gates)[index]
    leader = strongest(weights)
    k = len(run.experts)
    H, even = float(entropy(gates[index : index + 1])[0]), float(np.log(k))
    said = (
        f"<strong>{letter_of(leader)} {escape(run.experts[leader])}</strong> weighed most."
        if leader >= 0
        else "No adapter stands out."
    )
    against = f" (all even: log {k} = {even:.2f})" if k > 1 else ""
    return (
        f"{head}<p>{said} Entropy of the gate: {H:.2f} nats{against}.</p>"
        f"{_stack(weights, run.experts)}"
    )


def explanation_html(explanation: "Explanation", chosen: str) -> str:
    """The likeliest next tokens of base and of mixture side by side; the chosen one is marked."""
    sides = (
        ("Bare base", explanation.base, BASE),
        ("Mixture", explanation.mixture, MIXTURE),
    )
    return (
        '<div class="likely">'
        + "".join(_side(title, rows, colour, chosen) for title, rows, colour in sides)
        + "</div>"
    )


def waiting_html(reason: str) -> str:
    """In place of the explanation, until it is there."""
    return f'<p class="quiet" role="status">{escape(reason)}</p>'


def _stack(weights: Sequence[float], experts: Sequence[str]) -> str:
    total = sum(abs(float(w)) for w in weights) or 1.0
    parts, items = [], []
    for e, (name, weight) in enumerate(zip(experts, weights, strict=True)):
        ink = ink_of(e)
        share = 100 * abs(float(weight)) / total
        sign = "−" if weight < 0 else ""
        label = sign + letter_of(e) if share > 6 else ""
        parts.append(
            f'<i style="width:{share:.2f}%;background:{ink.colour};color:{ink.text}">{label}</i>'
        )
        items.append(
            f'<li>{chip_html(e)}<span class="name">{escape(name)}</span>'
            f'<span class="share">{float(weight):.3f}</span></li>'
        )
    return (
        f'<div class="stack" aria-hidden="true">{"".join(parts)}</div>'
        f'<ul class="legend" aria-label="Mean weight of each adapter">{"".join(items)}</ul>'
    )


def _side(title: str, rows: Sequence[tuple[str, float]], colour: str, chosen: str) -> str:
    lines = []
    for token, chance in rows:
        mark = ' class="chosen"' if token == chosen else ""
        note = '<span class="sr"> (chosen)</span>' if token == chosen else ""
        lines.append(
            f"<tr{mark}><td><code>{escape(spell(token))}</code>{note}</td>"
            f'<td class="number">{100 * chance:.1f} %</td><td class="bar" aria-hidden="true">'
            f'<i style="width:{100 * min(chance, 1):.1f}%;background:{colour}"></i></td></tr>'
        )
    return (
        f"<table><caption>{escape(title)}</caption><thead class='sr'><tr><th>token</th>"
        f"<th>probability</th><th>bar</th></tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )
