"""One token in words: effects as a bar, the entropy, the likely tokens of base and mixture.

Pure functions data -> HTML; token text passes through `html.escape`.
"""

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from ramole_core import Explanation, mean_contribution, mean_weights

from .did import did_html, sentence
from .palette import BASE, MIXTURE, chip_html, ink_of, letter_of
from .run import Run, entropy, strongest

CLOSE = '<button type="button" class="close" aria-label="Close the token\'s panel">×</button>'
PICK = (
    '<p class="quiet">Press a token (a piece of a word) of the answer, or use the arrow keys, to '
    "see what each adapter did to it, and what the base alone would have said there.</p>"
)


def spell(piece: str) -> str:
    """A token as it can be read: spaces and line breaks made visible."""
    if piece == "":
        return "(no text)"
    return piece.replace("\n", "↵").replace(" ", "␣").replace("\t", "⇥")


def token_html(run: Run, index: int, *, turn: int = 0, closable: bool = True) -> str:
    """Heading, and each adapter's effect on one generated token, with contributions, weights and
    the gate's entropy behind it; where effects were not measured, shares of the contributions.

    `turn` is the number of an earlier turn of a conversation, 0 for the newest answer; `closable`:
    with a button that closes its panel.
    """
    piece = escape(spell(run.pieces[index]))
    where = f"Turn {turn}, token" if turn else "Token"
    said = f"{where} {index + 1} of {len(run.pieces)}: <code>{piece}</code>"
    head = f'<div class="head"><h2>{said}</h2>{CLOSE if closable else ""}</div>'
    here = slice(index, index + 1)
    gates, present = run.gates[here], run.present[here]
    if not len(gates) or not run.experts:
        return head + '<p class="quiet alone">No adapter was at work here.</p>'
    leader, places = strongest(run.shares[index]), run.places
    k = len(run.experts)
    H, even = float(entropy(gates, present)[0]), float(np.log(k))
    weights = mean_weights(gates, present)[0]
    contributed = mean_contribution(run.contribution[here])[0]
    against = f" (all even: log {k} = {even:.2f})" if k > 1 else ""
    entropy_said = f"Entropy of the gate (what sets the weights): {H:.2f} nats{against}."
    told = zip(contributed, weights, strict=True)
    notes = [f"contribution {float(c):.4f}, weight {float(w):.3f}" for c, w in told]
    if (did := run.did(index)) is not None:
        told = did_html(did, [f"; {note}" for note in notes])
        return f'{head}<p>{sentence(did)}</p>{told}<p class="quiet">{entropy_said}</p>'
    said = (
        f"<strong>{letter_of(places[leader])} {escape(run.experts[leader])}</strong> "
        "contributed most."
        if leader >= 0
        else "No adapter stands out."
    )
    experts = list(zip(run.experts, places, strict=True))
    return f"{head}<p>{said} {entropy_said}</p>{_stack(experts, run.shares[index], notes)}"


def explanation_html(explanation: Explanation, chosen: str) -> str:
    """The likeliest next tokens of base and of mixture side by side; the chosen one is marked."""
    sides = (
        ("Bare base", explanation.base, BASE),
        ("Mixture", explanation.mixture, MIXTURE),
    )
    said = ""
    if explanation.base:
        favourite, most = explanation.base[0]
        same = ", this very token" if favourite == chosen else ""
        code = f"<code>{escape(spell(favourite))}</code>"
        said = f"<p>The base's favourite here was {code} ({100 * most:.0f} %){same}.</p>"
    return said + _likely(sides, chosen)


def waiting_html(reason: str) -> str:
    """The placeholder of the explanation."""
    return f'<p class="quiet" role="status">{escape(reason)}</p>'


def _stack(
    experts: Sequence[tuple[str, int]],
    shares: Sequence[float],
    notes: Sequence[str],
) -> str:
    """`experts`: each with its number for letter and colour."""
    parts, items = [], []
    for (name, place), share, note in zip(experts, shares, notes, strict=True):
        ink, width = ink_of(place), 100 * float(share)
        label = ("−" if "weight -" in note else "") + letter_of(place) if width > 6 else ""
        parts.append(
            f'<i style="width:{width:.2f}%;background:{ink.colour};color:{ink.text}">{label}</i>'
        )
        items.append(
            f'<li>{chip_html(place)}<span class="name">{escape(name)}</span>'
            f'<span class="share">{width:.0f} %</span> <span class="quiet">{note}</span></li>'
        )
    return (
        f'<div class="stack" aria-hidden="true">{"".join(parts)}</div>'
        f'<ul class="legend" aria-label="Share of each adapter">{"".join(items)}</ul>'
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


def changed_html(
    before: Sequence[tuple[str, float]], after: Sequence[tuple[str, float]], chosen: str
) -> str:
    """The likeliest next tokens as they were and as they are with something switched off."""
    sides = (("As it was", before, MIXTURE), ("With the change", after, BASE))
    return _likely(sides, chosen)


def _likely(sides: Iterable[tuple[str, Sequence[tuple[str, float]], str]], chosen: str) -> str:
    """The likeliest tokens of each side: its title, they, and the colour of its bars."""
    tables = (_side(title, rows, colour, chosen) for title, rows, colour in sides)
    return f'<div class="likely">{"".join(tables)}</div>'
