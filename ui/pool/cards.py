"""Adapters as cards: badges in plain words, search and filters.

All text of an adapter is untrusted, so it passes `escaped`.
"""

from collections.abc import Callable, Collection, Sequence

from ramole_core import AdapterCard

from ..parts.markup import description_of, escaped

ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj", "c_attn", "qkv_proj", "query_key_value"}
MLP = {"gate_proj", "up_proj", "down_proj", "c_fc", "gate_up_proj", "fc1", "fc2"}


def in_words(size: int) -> str:
    """Return bytes in words: `1.4 MB`."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{max(size, 100) / 1e3:.1f} kB"


def ranks_in_words(card: AdapterCard) -> str:
    """`rank 8`, or `ranks 4 to 16` where modules differ."""
    ranks = sorted(set(card.ranks.values())) or [card.rank]
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"


def modules_in_words(card: AdapterCard) -> str:
    """Where the adapter sits: attention, MLP or both, how many kinds of module, which layers."""
    kinds = set(card.modules)
    places = [word for word, names in (("attention", ATTENTION), ("MLP", MLP)) if kinds & names]
    others = len(kinds - ATTENTION - MLP)
    words = " and ".join(places) or "linear layers"
    if others and places:
        words += f" and {others} more"
    layers = len(card.layers)
    return f"{words}, {layers} layer{'s' if layers != 1 else ''}"


MADE_FOR = "Made for "
"""Start of the note of an adapter for another base."""


def badges(card: AdapterCard, *, yours: bool) -> list[tuple[str, str, str]]:
    """(kind, words, what they mean) of one adapter; the kind is only for its colour."""
    found = [
        ("sample" if card.sample else "whose", *_whose(card, yours)),
        ("fact", ranks_in_words(card), "the inner size of the update, read from the weights"),
        ("fact", modules_in_words(card), ", ".join(card.modules)),
        ("fact", f"scale {card.scale:.3g}", "alpha/r, by which the update is multiplied"),
        ("fact", in_words(card.bytes), f"{card.parameters:,} parameters, {card.dtype}"),
        _examples_badge(card),
        ("fact", f"licence {card.licence}", "as its model card says")
        if card.licence
        else ("note", "licence not given", "the model card names none"),
    ]
    notes = list(card.notes)
    if other := [note for note in notes if note.startswith(MADE_FOR)]:
        words = other[0].partition(",")[0]
        found.append(("note", words[:1].lower() + words[1:], other[0]))
        notes.remove(other[0])
    if notes:
        count = len(notes)
        found.append(("note", f"{count} note{'s' if count > 1 else ''}", " ".join(notes)))
    return found


def _whose(card: AdapterCard, yours: bool) -> tuple[str, str]:
    if card.sample:
        return "sample", "part of the sample pool, for everyone"
    if yours:
        return "yours", "uploaded in this browser tab, and gone with it"
    return "shared", "uploaded by someone, for everyone"


def _examples_badge(card: AdapterCard) -> tuple[str, str, str]:
    count = len(card.examples)
    if count:
        words = f"{count} example{'s' if count > 1 else ''}"
        return "fact", words, "its place among the others comes from its example inputs"
    return (
        "note",
        "no examples",
        f"its place among the others comes from its {card.vector_from} alone; add examples",
    )


def badges_html(card: AdapterCard, *, yours: bool) -> str:
    """The badges as list items, each with its meaning as a tooltip."""
    return "".join(
        f'<li class="rm-badge rm-{kind}" title="{escaped(meaning)}">{escaped(words)}</li>'
        for kind, words, meaning in badges(card, yours=yours)
    )


def cards_html(cards: Sequence[AdapterCard], *, yours: Collection[str], total: int) -> str:
    """The pool: one article a card, each with a button that carries the adapter's name."""
    if not cards:
        words = "No adapter matches; change the search." if total else "The pool is empty."
        return f'<p class="rm-empty">{words}</p>'
    articles = "".join(
        f'<article class="rm-card" aria-label="{escaped(card.name)}">'
        f"<h3>{escaped(card.name)}</h3>"
        f'<p title="{escaped(card.description)}">'
        f"{escaped(description_of(card, most=180) or 'No description.')}</p>"
        f'<ul class="rm-badges">{badges_html(card, yours=card.key in yours)}</ul>'
        f'<button type="button" class="rm-open" data-name="{escaped(card.name)}">'
        f'Details<span class="rm-hidden"> of {escaped(card.name)}</span></button></article>'
        for card in cards
    )
    every = f"{total} adapter{'' if total == 1 else 's'}"
    shown = f"{len(cards)} of {every}" if len(cards) < total else every
    return f'<p class="rm-count" role="status">{shown}</p><div class="rm-cards">{articles}</div>'


def matching(
    cards: Sequence[AdapterCard], *, search: str, show: str, order: str, yours: Collection[str]
) -> list[AdapterCard]:
    """The cards that hold every word of the search and pass the filter: one's own first, then in
    order."""
    words = {*search.casefold().split()}
    keep: dict[str, Callable[[AdapterCard], bool]] = {
        "samples": lambda card: card.sample,
        "yours": lambda card: card.key in yours,
        "with notes": lambda card: bool(card.notes) or not card.examples,
    }
    orders: dict[str, Callable[[AdapterCard], int | list[int]]] = {
        "largest rank": lambda card: -card.rank,
        "largest file": lambda card: -card.bytes,
        "newest": lambda card: [-ord(letter) for letter in card.added],
    }
    found = [
        card for card in cards if keep.get(show, lambda card: True)(card) and _holds(card, words)
    ]
    by_name = sorted(found, key=lambda card: card.name)
    in_order = sorted(by_name, key=orders.get(order, lambda card: 0))
    return sorted(in_order, key=lambda card: card.key not in yours)


def _holds(card: AdapterCard, words: Collection[str]) -> bool:
    parts = (card.name, card.description, card.licence or "", card.base_model or "")
    text = " ".join((*parts, *card.modules, ranks_in_words(card))).casefold()
    return all(word in text for word in words)
