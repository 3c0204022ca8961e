"""The Hub's adapters as a table: which fit, which do not, and why; all text is untrusted."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from ..parts.markup import escaped

if TYPE_CHECKING:
    from ramole_core import Listed

SHOW = ["all", "fits", "refused", "fetched"]
MAX_ROWS = 100
"""Rows that are shown at once; the search finds the others."""
HEADS = (
    "adapter",
    "verdict",
    "licence",
    "downloads",
    "MiB",
    "rank",
    "what its card says, or why not",
)
VERDICTS = {
    "fits": "fits by its header",
    "checked": "fits, read whole",
    "refused": "cannot be used",
}


def kept(rows: "Sequence[Listed]", here: Collection[str], *, search: str, show: str):
    """Filter by every word of `search`, and by `show`."""
    words = search.lower().split()
    kinds = {
        "all": lambda one: True,
        "fits": lambda one: one.verdict != "refused",
        "refused": lambda one: one.verdict == "refused",
        "fetched": lambda one: one.repo in here,
    }
    wanted = kinds.get(show, kinds["all"])
    return [one for one in rows if wanted(one) and all(word in _text(one) for word in words)]


def table_html(
    rows: "Sequence[Listed]", here: Collection[str], *, search: str = "", show: str = "all"
) -> str:
    """The table of those that match, and how many there are."""
    if not rows:
        return '<p class="rm-empty">Nothing is listed yet.</p>'
    found = kept(rows, here, search=search, show=show)
    refused = sum(one.verdict == "refused" for one in rows)
    said = (
        f"{len(rows)} are listed: {len(rows) - refused} fit, {refused} cannot be used; the "
        f"weights of {len(here)} are here. "
    )
    if len(found) > MAX_ROWS:
        said += f"The first {MAX_ROWS} of {len(found)} are shown."
    elif len(found) < len(rows):
        said += f"{len(found)} match."
    heads = "".join(f'<th scope="col">{head}</th>' for head in HEADS)
    body = "".join(_row(one, one.repo in here) for one in found[:MAX_ROWS])
    return (
        f"<p>{said.strip()}</p>"
        '<div class="rm-twin"><div class="rm-twin-box" tabindex="0" role="region" '
        'aria-label="Adapters of the Hub"><table class="rm-hub">'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div></div>"
    )


def _row(one: "Listed", here: bool) -> str:
    verdict = VERDICTS[one.verdict] + (", weights are here" if here else "")
    cells = (
        verdict,
        one.licence or "–",
        f"{one.downloads:,}",
        f"{one.bytes / 2**20:.1f}" if one.bytes else "–",
        one.rank or "–",
        one.reason or one.description[:300] or "Its card says nothing.",
    )
    row = "".join(f"<td>{escaped(cell)}</td>" for cell in cells)
    return f'<tr class="rm-{one.verdict}"><th scope="row">{escaped(one.repo)}</th>{row}</tr>'


def _text(one: "Listed") -> str:
    said = (one.repo, one.name, one.licence or "", one.description, one.reason, *one.examples)
    return " ".join(said).lower()
