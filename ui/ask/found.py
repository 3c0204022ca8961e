"""Beside the answer: the adapters found and how similar they are, and how long each stage took.

Pure functions data -> HTML; every name and number passes through `html.escape`.
"""

import math
from collections.abc import Sequence
from html import escape

import gradio as gr

from ramole_core import Evidence, Request

from ..charts.palette import chip_html, ink_of, places_of
from ..charts.run import FoundAdapter, Run
from ..parts.asked import (
    counted,
    decoding_words,
    ending,
    mixed_words,
    signed,
    verdict_html,
)
from ..parts.events import scripted

MIN_QUEUE_SECONDS = 0.005
"""Seconds in the queue from which they are shown."""
MAX_VISIBLE = 5
"""Adapters of a list outside the fold."""
LEFT, NEXT = "Left out: the next most similar", "Most similar, not taken"
NEARER = "Left out, though some are more similar"
RESPONDS = "How an adapter responds to the words counts too, not similarity alone."
"""Heading where the method examined the adapters."""
COSINE = "Similarity: the cosine between the prompt and up to 20 example inputs of each adapter."
NO_RETRIEVAL = "No adapter is mixed; the nearest ones are shown for comparison."
BESIDE = """
<section class="beside"><h2>The base alone, without adapters</h2><div class="plain"></div>
<p class="quiet same">It read the same conversation, the mixture's earlier answers included.</p>
</section>
"""
BESIDE_JS = """
const plain = element.querySelector('.plain');
function draw() { plain.textContent = props.value || '…'; }
watch('value', draw);
draw();
"""


def found_html(
    found: Sequence[FoundAdapter],
    evidence: Evidence | None = None,
    *,
    asked: Request | None = None,
    before: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> str:
    """Similarity bars, best first; those not taken are paler. The number stands beside each bar.

    `evidence` says why the base answers, or the adapters of the turn before; where there is none,
    `asked` says who chose them. `before` are the adapters that earlier turns had, which keep their
    letters and colours; `notes` say what came of adapters of the Hub.
    """
    if not found and asked is None and not notes:
        return '<p class="quiet">The adapters nearest to the prompt appear here.</p>'
    taken = [one for one in found if one.taken]
    others = [one for one in found if not one.taken]
    parts = [f'<p class="quiet note">{escape(note)}</p>' for note in notes]
    nearer = taken and others and max(o.score for o in others) > min(t.score for t in taken)
    compared = not any(math.isnan(one.score) for one in taken)
    scores = {one.name: one.score for one in taken}
    parts += [verdict_html(evidence, asked, scores, nearest=compared and not nearer)]
    if taken:
        parts += [_bars("Mixed into this answer, and how similar to the prompt", taken, before)]
    elif others:
        parts += [f'<p class="quiet">{NO_RETRIEVAL}</p>']
    if others and taken:
        why = f'<p class="quiet">{RESPONDS}</p>' if nearer and evidence is not None else ""
        title = NEARER if nearer else LEFT
        bars = _list(others)
        parts += [f"<details><summary>{title}</summary>{bars}{why}</details>"]
    elif others:
        parts += [_bars(NEXT, others)]
    parts += [f'<p class="quiet">{COSINE}</p>'] if found else []
    return f'<div class="found">{"".join(parts)}</div>'


def timing_html(run: Run) -> str:
    """Why the answer ended, and in a fold, which has the downloads too (`style.css`), how it was
    asked and how long each stage took."""
    answer = run.answer
    stages = [("mixed by", mixed_words(run.request)), ("decoding", decoding_words(run.request))]
    if "retrieve" in answer.extra:
        stages.append(("finding adapters", _seconds(answer.extra["retrieve"])))
    if answer.extra.get("queue", 0) >= MIN_QUEUE_SECONDS:
        stages.append(("in the queue", _seconds(answer.extra["queue"])))
    if (how := answer.fitted) is not None:
        pairs = zip(how.adapters, how.weights, strict=True)
        found = ", ".join(f"{name} {signed(weight, '.3f')}" for name, weight in pairs)
        stages.append(("weights found", found))
        stages.append(("loss of the examples", f"{how.start:.3f} → {how.loss:.3f}"))
        stages.append((f"{how.step} steps of search", _seconds(how.seconds)))
    stages.append(("to the first token", _seconds(answer.first_token_seconds)))
    rest = answer.seconds - answer.first_token_seconds
    if answer.new_tokens > 1 and rest > 0:
        stages.append(("after it", f"{(answer.new_tokens - 1) / rest:.1f} tokens/s"))
    read = "conversation" if run.request.history else "prompt"
    stages.append((read, counted(answer.prompt_tokens, "token")))
    stages.append(("answer", counted(answer.new_tokens, "token")))
    rows = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in stages)
    why = escape(ending(answer.finish_reason))
    return (
        f'<p class="quiet">Ended because {why}.</p><details class="more"><summary>More: times and '
        f'the trace</summary><dl class="timing">{rows}</dl></details>'
    )


def beside_view(*, elem_id: str) -> gr.HTML:
    """The bare base's answer; the value is its text, which Gradio sends on as it grows."""
    return scripted("", BESIDE, BESIDE_JS, elem_id=elem_id)


def _bars(title: str, rows: Sequence[FoundAdapter], before: Sequence[str] | None = None) -> str:
    """A heading and its list."""
    return f"<h2>{escape(title)}</h2>{_list(rows, before)}"


def _list(rows: Sequence[FoundAdapter], before: Sequence[str] | None = None) -> str:
    """With letters and colours unless `before` is None."""
    items, lettered = [], before is not None
    for place, one in zip(places_of([one.name for one in rows], before or ()), rows, strict=True):
        unknown = math.isnan(one.score)
        width = 0 if unknown else 100 * min(max(one.score, 0.0), 1.0)
        value = one.without if unknown else f"{one.score:.3f}"
        chip, fill = "", "var(--rm-quiet)"
        if lettered:
            chip, fill = chip_html(place), ink_of(place).colour
        bar = (
            f'<span class="bar" aria-hidden="true"><i style="width:{width:.1f}%;'
            f'background:{fill}"></i></span>'
        )
        about = f'<span class="about">{escape(one.about)}</span>' if one.about and lettered else ""
        items.append(
            f'<li>{chip}<span class="name">{escape(one.name)}</span>'
            f'<span class="score">{value}</span>{"" if unknown else bar}{about}</li>'
        )
    kind = "taken" if lettered else "others"
    rest = "".join(items[MAX_VISIBLE:])
    if rest:
        more = f"{len(items) - MAX_VISIBLE} more"
        rest = f'<details><summary>{more}</summary><ol class="{kind}">{rest}</ol></details>'
    return f'<ol class="{kind}">{"".join(items[:MAX_VISIBLE])}</ol>{rest}'


def _seconds(value: float) -> str:
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.2f} s"
