"""The text of the tab Batch as rows: what a file holds, what is wrong with which line."""

from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ramole_core import RamoleError

from .uploads import taken

if TYPE_CHECKING:
    from ramole_core import Ramole

batch_file, batch_run = (import_module(f"ramole_core.batch_{name}") for name in ("file", "run"))

MOST_ROWS = 2_000
MOST_BYTES = 2 * 2**20
LIMITS = batch_file.Limits(rows=MOST_ROWS, characters=100_000, adapters=32)
KINDS = {"automatic": None, "jsonl": "jsonl", "csv": "csv", "one prompt a line": "lines"}
ENDINGS = {**batch_file.ENDINGS, ".txt": None}
SHOWN = 30
"""Refused rows told one by one; the results have all of them."""


def text_of(path: str) -> tuple[str, str]:
    """(text, kind in words) of an uploaded file, which is gone then; raises RamoleError."""
    with taken([path]) as (file,):
        ending = file.suffix.lower()
        if ending not in ENDINGS:
            raise RamoleError(f"{file.name} is not one of {', '.join(ENDINGS)}; save it as csv.")
        if file.stat().st_size > MOST_BYTES:
            raise RamoleError(f"{file.name} is larger than {_most()}")
        text = batch_file.decode(file.read_bytes(), file.name)
    return text, next(words for words, kind in KINDS.items() if kind == ENDINGS[ending])


def read(
    ramole: "Ramole", text: str, kind: str, *, defaults: dict[str, object], owner: str | None
) -> Any:
    """The rows that can run and those that cannot, a `Batch`; raises RamoleError where none is."""
    if not isinstance(text, str) or kind not in KINDS:
        raise RamoleError("The rows are not a text; paste them again.")
    if len(text) > MOST_BYTES:
        raise RamoleError(f"The rows are longer than {_most()}")
    batch = batch_file.read_batch(
        text, kind=KINDS[kind], defaults=defaults, owner=owner, limits=LIMITS
    )
    return batch_run.refuse_unfit(ramole, batch, owner=owner)


def verdict_html(batch: Any) -> str:
    """How many rows will run, and a sentence for each that will not."""
    kind = "one prompt a line" if batch.kind == "lines" else batch.kind
    parts = [f"<p><strong>{_rows(len(batch.rows))}</strong> ready, read as {kind}.</p>"]
    if batch.unused:
        names = escape(", ".join(batch.unused))
        parts.append(f"<p>Carried along to the results, not used: {names}.</p>")
    if batch.bad:
        shown = "".join(map(_bad, batch.bad[:SHOWN]))
        more = len(batch.bad) - SHOWN
        rest = f"<p>… and {more} more; the results have each.</p>" if more > 0 else ""
        parts.append(
            f"<p><strong>{_rows(len(batch.bad))}</strong> cannot run; correct them in the text, "
            f"or run the others.</p><ul>{shown}</ul>{rest}"
        )
    kind = "fair" if batch.bad else "good"
    return f'<div class="rm-batch-verdict {kind}" role="status">{"".join(parts)}</div>'


def refused_html(sentence: str) -> str:
    """A file or a text that has no rows at all."""
    return (
        f'<div class="rm-batch-verdict bad" role="alert"><p>{escape(sentence)}</p></div>'
        if sentence
        else ""
    )


def _bad(row: Any) -> str:
    begins = f" <code>{escape(row.text)}</code>" if row.text else ""
    return f"<li><b>Line {row.line}:</b> {escape(row.sentence)}{begins}</li>"


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _most() -> str:
    return f"{MOST_BYTES // 2**20} MB; split it, or use the command line: batch FILE."
