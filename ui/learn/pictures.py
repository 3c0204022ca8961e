"""Steps 1 to 3, 8 and 9 as pictures: pool, vectors, similarities, a batch, selection."""

from collections.abc import Sequence

from ramole_core import AdapterCard

from ..charts.palette import NOBODY, chip_html, ink_of, letter_of, places_of
from ..parts.asked import signed
from ..parts.markup import description_of, escaped, shortened
from .facts import legible, word
from .frames import ABOVE, BELOW, bar, box, figure, table
from .kept import MEANING, K, PromptVectors, alone, judged, margin, vectors

ACROSS = 64
"""Cells in a row of a drawn vector."""
CELL = 10
FULL = 0.1
"""Number from which the colour is full."""
LONG = 110
"""Most characters of a prompt in a table."""
DOES = {"dart": "turns facts into sentences", "clickbait": "judges headlines"}
"""The adapters whose vectors are drawn."""


def pool_html(cards: Sequence[AdapterCard]) -> str:
    """Every adapter of the sample pool: name, purpose, size."""
    rows = [
        (
            f"<code>{escaped(card.name)}</code>",
            escaped(description_of(card, most=240, sentence=True)),
            f"{card.parameters:,}",
        )
        for card in sorted(cards, key=lambda card: card.name)
    ]
    drawn = table("The pool", ("adapter", "what its author says it does", "numbers"), rows)
    return figure(
        drawn,
        f"The {len(rows)} adapters of the pool. “Numbers” says how many an adapter holds; the base "
        "of the recorded runs, SmolLM2-135M-Instruct, has about 135 million.",
    )


def vectors_html() -> str:
    """The prompt's vector above those of the nearest and of the farthest adapter."""
    kept = vectors()
    rows = [("The prompt", kept.vector)]
    rows += [(f"<code>{escaped(name)}</code>", one) for name, one in kept.adapters.items()]
    strips = "".join(
        f'<div class="vector"><h3>{name}</h3>{strip(one[:MEANING])}'
        f'<p class="quiet">Begins {", ".join(signed(n, ".4f") for n in one[:4])}, …</p></div>'
        for name, one in rows
    )
    lists = zip(*(one[:MEANING] for _, one in rows), strict=True)
    twin = table(
        "The numbers that are drawn",
        ("place", *(name for name, _ in rows)),
        (
            [str(n), *(signed(value, ".4f") for value in each)]
            for n, each in enumerate(lists, start=1)
        ),
    )
    prompt = f'<p class="asked">{escaped(kept.prompt)}</p>'
    return figure(
        prompt + strips,
        f"The first {MEANING} of {len(kept.vector):,} numbers, a cell each, line by line: blue "
        "above zero, orange below, the farther from zero, the stronger. "
        + " and ".join(
            f"<code>{escaped(name)}</code> has the prompt's colour in {agreeing(kept, name)}"
            for name in kept.adapters
        )
        + f" of {MEANING} cells; by chance about {MEANING // 2} agree. A triple is a thing, a "
        "property and its value. "
        + "; ".join(f"<code>{escaped(n)}</code> {DOES[n]}" for n in kept.adapters if n in DOES)
        + ".",
        twin=twin,
    )


def agreeing(kept: PromptVectors, name: str) -> int:
    """In how many of the drawn places the adapter's number has the sign of the prompt's."""
    pairs = list(zip(kept.vector, kept.adapters[name], strict=True))[:MEANING]
    return sum((a > 0) == (b > 0) for a, b in pairs)


def strip(values: Sequence[float]) -> str:
    """Cells of colour, as a drawing."""
    cells = "".join(
        f'<rect x="{n % ACROSS * CELL}" y="{n // ACROSS * CELL}" width="{CELL - 1}" '
        f'height="{CELL - 1}" fill="{ABOVE if value > 0 else BELOW}" '
        f'fill-opacity="{min(abs(value) / FULL, 1):.2f}"/>'
        for n, value in enumerate(values)
    )
    down = -(-len(values) // ACROSS)
    return f'<svg viewBox="0 0 {ACROSS * CELL} {down * CELL}" aria-hidden="true">{cells}</svg>'


def nearest_html() -> str:
    """The prompt's similarity to every adapter, those taken in their colours."""
    kept: PromptVectors = vectors()
    most = max(kept.similarities.values())
    rows = [
        (
            f"{chip_html(n) if n < K else ''} <code>{escaped(name)}</code>",
            f"{score:.3f}",
            bar(score / most, ink_of(n).colour if n < K else NOBODY.colour),
            "taken" if n < K else "",
        )
        for n, (name, score) in enumerate(kept.similarities.items())
    ]
    drawn = table(
        "Similarity of the prompt to every adapter", ("adapter", "similarity", "", ""), rows
    )
    return figure(
        drawn,
        f"The similarity of the prompt of step 2 to all {len(rows)} adapters; the longest bar is "
        f"the largest. The {K} that are taken get a letter and a colour, and have them again in "
        "steps 6 and 7.",
    )


def judged_html() -> str:
    """For several prompts: the nearest adapter's similarity against the threshold."""
    shown = judged()
    most = max(max(one.similarity, one.threshold) for _, one in shown)
    rows = [
        (
            f'<span class="said">{escaped(shortened(prompt, LONG))}</span>',
            f"<code>{escaped(one.nearest or '')}</code>",
            f"{one.similarity:.3f}",
            bar(one.similarity / most, ABOVE, mark=one.threshold / most),
            f"{one.base_similarity:.3f}",
            f"{round(one.base_similarity, 3) + round(margin(one), 3):.3f}",
            "adapters" if one.decision == "adapters" else "<strong>the base</strong>",
        )
        for prompt, one in shown
    ]
    heads = ("prompt", "nearest", "its similarity", "", "the base's", "threshold", "who answers")
    return figure(
        table("Who answers", heads, rows),
        "The bar is the similarity of the nearest adapter, the tick the threshold: the similarity "
        "of the base's vector and a little more. The first lines are recorded runs. No adapter "
        "fits the last three, nor “Who are you?” and “Count the words…”.",
    )


STEPS = 24
"""Columns."""


def batch_html() -> str:
    """Each row a request, each cell a token under its leading adapter's letter and colour."""
    met: list[str] = []
    rows, told = [], []
    for run in alone():
        places = places_of(run.experts, met)
        met += run.experts
        cells = []
        for piece, leader in list(zip(run.pieces, run.leaders, strict=True))[:STEPS]:
            place = places[leader] if leader >= 0 else -1
            ink = ink_of(place)
            nobody = "no adapter needed" if run.experts else "the base alone"
            name = run.experts[leader] if leader >= 0 else nobody
            cells.append(
                f'<td style="background:{ink.colour};color:{ink.text}" '
                f'title="{escaped(f"{legible(piece)}: {name}")}">'
                f"{letter_of(place) if place >= 0 else ''}"
                f'<span class="sr"> {escaped(legible(piece))}</span></td>'
            )
        told.append((escaped(run.title), " ".join(map(word, run.pieces[:STEPS]))))
        cells += ["<td></td>"] * (STEPS - len(cells))
        names = " ".join(
            f'<span class="named">{chip_html(place)} {escaped(name)}</span>'
            for place, name in zip(places, run.experts, strict=True)
        )
        rows.append(
            f'<tr><th scope="row">{escaped(run.title)}<br>{names}</th>{"".join(cells)}</tr>'
        )
    heads = "".join(f'<th scope="col">{n}</th>' for n in range(1, STEPS + 1))
    drawn = (
        '<table class="batch"><thead><tr><th scope="col">request, and its adapters</th>'
        f"{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )
    return figure(
        box("A batch, step by step", drawn),
        f"The first {STEPS} steps of {len(rows)} recorded answers, drawn as if they shared a "
        "batch. A column is one step: every row that still runs gets one token. The letter is the "
        "adapter that made it likelier; letters and colours are given out anew here. Grey without "
        "a letter: no adapter needed, or answers alone. An empty cell: the answer has "
        "ended, and its place is free. All were made with <code>ramole_plus</code>, so the answer "
        "to step 2's prompt differs from step 6's.",
        twin=table("The tokens of each row", ("request", "its tokens, in order"), told),
    )
