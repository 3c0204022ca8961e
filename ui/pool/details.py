"""One adapter in full and as a zip, its nearest ones, the verdict on an upload, a prompt to try."""

import json
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from ramole_core import AdapterCard, Hit

from ..parts.asked import counted
from ..parts.downloads import fresh_folder
from ..parts.markup import escaped, shortened
from ..session.removed import UNDO_SECONDS, Removal
from .cards import badges_html, in_words, ranks_in_words

NOTHING = '<p class="rm-empty">Choose an adapter to see its numbers, neighbours and examples.</p>'
UNDO = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('.rm-undo');
  if (button) trigger('click', {token: button.dataset.token});
});
"""
TRAINING_FILE = "train.json"
CARD_FILE = "README.md"
MAX_CARD = 20_000
"""Characters of a model card that are shown."""


def details_html(
    card: AdapterCard, neighbours: Sequence[Hit], *, yours: bool, card_text: str
) -> str:
    """One adapter: its numbers, its neighbours, its notes, its examples, its model card."""
    rows = [
        ("Rank", ranks_in_words(card)),
        ("Modules", ", ".join(card.modules)),
        ("Layers", _layers(card.layers)),
        ("Scale (alpha/r)", _scales(card)),
        ("Parameters", f"{card.parameters:,} ({card.dtype})"),
        ("File", f"{in_words(card.bytes)}, SHA-256 {card.sha256[:16]}…"),
        ("Made for", card.base_model or "not said; its shapes fit the base model here"),
        ("Licence", card.licence or "not given"),
        ("Added", _when(card.added)),
        ("Vector from", _vector(card)),
    ]
    table = "".join(
        f'<tr><th scope="row">{escaped(k)}</th><td>{escaped(v)}</td></tr>' for k, v in rows
    )
    parts = [
        f'<h3 class="rm-detail-title" tabindex="-1">{escaped(card.name)}</h3>',
        f'<ul class="rm-badges">{badges_html(card, yours=yours)}</ul>',
        f"<p>{escaped(card.description)}</p>" if card.description else "",
        _list("Notes", card.notes),
        f'<table class="rm-numbers">{table}</table>',
        neighbours_html(neighbours),
        _fold(f"Examples ({len(card.examples)})", _list("", card.examples[:20])),
        _fold("Model card", f"<pre>{escaped(card_text)}</pre>" if card_text else ""),
    ]
    return f'<section class="rm-detail">{"".join(parts)}</section>'


def neighbours_html(neighbours: Sequence[Hit]) -> str:
    """The nearest adapters with their cosine similarity, as words and as a bar."""
    if not neighbours:
        return ""
    items = "".join(
        f"<li><span>{escaped(hit.name)}</span>"
        '<span class="rm-bar" aria-hidden="true">'
        f'<i style="width:{100 * min(max(hit.score, 0.0), 1.0):.1f}%"></i>'
        f"</span><span>{hit.score:.2f}</span></li>"
        for hit in neighbours
    )
    return f'<h4>Nearest adapters (similarity)</h4><ul class="rm-near">{items}</ul>'


def verdict_html(
    label: str, outcome: str, sentence: str, *, notes: Sequence[str] = (), near: str = ""
) -> str:
    """The verdict on one upload; `outcome` is `usable`, `usable with a note` or `refused`."""
    kind = {"usable": "good", "usable with a note": "fair"}.get(outcome, "bad")
    sign = {"good": "✓", "fair": "✓", "bad": "✕"}[kind]
    return (
        f'<div class="rm-verdict rm-{kind}"><p><b><span aria-hidden="true">{sign}</span> '
        f"{escaped(label)}: {escaped(outcome)}.</b> {escaped(sentence)}</p>"
        f"{_list('', notes)}{near}</div>"
    )


def card_text(folder: Path) -> str:
    """The model card as it was written, cut where it grows too long; empty where there is none."""
    try:
        text = (folder / CARD_FILE).read_text(encoding="utf-8-sig", errors="replace")
    except OSError:
        return ""
    return text[:MAX_CARD] + ("\n…" if len(text) > MAX_CARD else "")


def training_command(folder: Path) -> str:
    """The command that trained the adapter, where the folder records it; else empty."""
    try:
        said = json.loads((folder / TRAINING_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return ""
    command = said.get("command") if isinstance(said, dict) else None
    if isinstance(command, list):
        return " ".join(str(word) for word in command)
    return command if isinstance(command, str) else ""


def _when(added: str) -> str:
    """A moment as `2026-01-02 03:04 UTC`; what is none stays as it is."""
    try:
        return f"{datetime.fromisoformat(added).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return added


def _layers(layers: Sequence[int]) -> str:
    if layers and list(layers) == list(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]} to {layers[-1]} ({len(layers)})"
    return ", ".join(str(layer) for layer in layers)


def _scales(card: AdapterCard) -> str:
    scales = sorted(set(card.scales.values())) or [card.scale]
    return f"{scales[0]:.4g}" if len(scales) == 1 else f"{scales[0]:.4g} to {scales[-1]:.4g}"


def _vector(card: AdapterCard) -> str:
    return {
        "examples": f"the mean of {counted(len(card.texts), 'example input')}",
        "card": "the model card's words; add examples to be found more surely",
        "name": "the name alone; add examples to be found more surely",
    }[card.vector_from]


def _list(title: str, items: Sequence[str]) -> str:
    if not items:
        return ""
    head = f"<h4>{escaped(title)}</h4>" if title else ""
    return head + "<ul>" + "".join(f"<li>{escaped(item)}</li>" for item in items) + "</ul>"


def _fold(title: str, inside: str) -> str:
    if not inside:
        return ""
    return f"<details><summary>{escaped(title)}</summary>{inside}</details>"


SHOWN = 80
"""Characters of the prompt on the button."""
TRY = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('.rm-try');
  if (button) window.ramoleTry('Ask', button.dataset.prompt);
});
"""


def try_html(card: AdapterCard) -> str:
    """The button; nothing for an adapter without examples."""
    if not card.examples:
        return ""
    prompt = card.examples[0]
    return (
        '<p class="rm-offer">A prompt to try: <button type="button" class="rm-try" '
        f'data-prompt="{escaped(prompt)}">{escaped(shortened(prompt, SHOWN))}</button></p>'
    )


def removals_html(removals: Sequence[tuple[Removal, float]]) -> str:
    """A line for each, which vanishes when its seconds are over."""
    lines = "".join(
        f'<div class="rm-removed" style="animation-delay:{left:.0f}s"><p>'
        f"{escaped(one.name)} was removed. "
        f'<button type="button" class="rm-undo" data-token="{escaped(one.token)}">Undo'
        f'<span class="rm-hidden"> the removal of {escaped(one.name)}</span></button> '
        f'<span class="quiet">Possible for {UNDO_SECONDS / 60:.0f} minutes from its removal, as '
        "long as this page stays open and its room is not needed.</span></p></div>"
        for one, left in removals
    )
    return f'<div role="status">{lines}</div>'


FILES = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "README.md",
    "examples.jsonl",
    "train.json",
)


def write_bundle(folder: Path, name: str) -> Path:
    """`<name>.zip` in a new folder of Gradio's cache with a random name; in it the files of
    `folder`, in a folder `<name>`.

    The weights are stored, not packed: they do not shrink. Times are fixed, so that the same
    adapter gives the same bytes.
    """
    target = fresh_folder() / f"{name}.zip"
    with zipfile.ZipFile(target, "w") as bundle:
        for file in FILES:
            path = folder / file
            if path.is_file() and not path.is_symlink():
                entry = zipfile.ZipInfo(f"{name}/{file}", date_time=(2024, 1, 1, 0, 0, 0))
                entry.external_attr = 0o644 << 16
                stored = file.endswith(".safetensors")
                entry.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
                with path.open("rb") as source, bundle.open(entry, "w") as goal:
                    while block := source.read(2**20):
                        goal.write(block)
    return target
