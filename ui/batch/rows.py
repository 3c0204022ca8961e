"""The text of the tab Batch as rows, with an error for each bad line."""

from html import escape

from ramole_core import (
    BadRow,
    Batch,
    BatchLimits,
    Ramole,
    RamoleError,
    batch_text,
    read_batch,
    refuse_unfit,
)

from ..session.uploads import taken

MAX_ROWS = 2_000
MAX_BYTES = 2 * 2**20
LIMITS = BatchLimits(rows=MAX_ROWS, characters=100_000, adapters=32, columns=100)
KINDS = {"automatic": None, "jsonl": "jsonl", "csv": "csv", "one prompt a line": "lines"}
ENDINGS = (".jsonl", ".ndjson", ".csv", ".tsv", ".txt")
MAX_SHOWN = 30
"""Refused rows that are listed; the results have all of them."""


def text_of(path: str) -> tuple[str, str]:
    """(text, kind in words) of an uploaded file, which is gone then; raises RamoleError."""
    with taken([path]) as (file,):
        if file.suffix.lower() not in ENDINGS:
            raise RamoleError(
                f"{file.name} does not end in {', '.join(ENDINGS)}; save it as one of these."
            )
        if file.stat().st_size > MAX_BYTES:
            raise RamoleError(f"{file.name} is larger than {_most()}")
        text, said = batch_text(file.read_bytes(), file.name)
    return text, next(words for words, kind in KINDS.items() if kind == said)


def read(
    ramole: Ramole,
    text: str,
    kind: str,
    method: object,
    k: object,
    max_new_tokens: object,
    *,
    owner: str | None,
) -> Batch:
    """The rows that can run and those that cannot; method, k and length are for rows without them.
    Raises RamoleError where there is no row."""
    if not isinstance(text, str) or kind not in KINDS:
        raise RamoleError("The rows are not a text; paste them again.")
    if len(text) > MAX_BYTES:
        raise RamoleError(f"The rows are longer than {_most()}")
    defaults = {"method": method, "k": k, "max_new_tokens": max_new_tokens}
    batch = read_batch(text, kind=KINDS[kind], defaults=defaults, owner=owner, limits=LIMITS)
    return refuse_unfit(ramole, batch, owner=owner)


def verdict_html(batch: Batch) -> str:
    """How many rows will run, and a sentence for each that will not."""
    kind = "one prompt a line" if batch.kind == "lines" else batch.kind
    parts = [f"<p><strong>{_rows(len(batch.rows))}</strong> ready, read as {kind}.</p>"]
    if batch.unused:
        names = escape(", ".join(batch.unused))
        parts.append(f"<p>Carried along to the results, not used: {names}.</p>")
    if batch.bad:
        shown = "".join(map(_bad, batch.bad[:MAX_SHOWN]))
        more = len(batch.bad) - MAX_SHOWN
        rest = f"<p>… and {more} more; the results have each.</p>" if more > 0 else ""
        others = ", or run the others" if batch.rows else ""
        parts.append(
            f"<p><strong>{_rows(len(batch.bad))}</strong> cannot run; correct "
            f'{"it" if len(batch.bad) == 1 else "them"} in the text{others}.</p><ul tabindex="0" '
            f'aria-label="Rows that cannot run">{shown}</ul>{rest}'
        )
    colour = "good" if not batch.bad else "fair" if batch.rows else "bad"
    return f'<div class="rm-batch-verdict {colour}" role="status">{"".join(parts)}</div>'


def refused_html(sentence: str) -> str:
    """The error for a file or a text without rows."""
    return f'<div class="rm-batch-verdict bad" role="alert"><p>{escape(sentence)}</p></div>'


def _bad(row: BadRow) -> str:
    begins = f" <code>{escape(row.text)}</code>" if row.text else ""
    return f"<li><b>Line {row.line}:</b> {escape(row.sentence)}{begins}</li>"


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _most() -> str:
    return f"{MAX_BYTES // 2**20} MB; split it, or use the command line: batch FILE."
