"""A batch in words and numbers: progress, one row in full, and all rows as a table."""

from html import escape

from ramole_core import BadRow, BatchRow

from ..charts.run import NAMED, UNCOMPARED
from ..parts.asked import ending
from ..parts.markup import clipped, notice_html
from .picture import finite, shared
from .run import BatchRun, RowRun

HEADERS = [
    *("row", "id", "prompt", "answer", "method", "adapters (share)", "tokens"),
    *("first token, s", "all, s", "ended because"),
]
WIDTHS = [f"{n}px" for n in (52, 96, 204, 246, 86, 160, 74, 88, 64, 130)]
MAX_CELL = 400
"""Characters of a prompt or an answer in the table; the downloads have all."""


def progress_html(run: BatchRun | None) -> str:
    """Rows, speed and time, in numbers with a bar above them."""
    if run is None:
        return ""
    count, total = run.count(), len(run.items)
    over = count["answered"] + count["refused"] + count["stopped"]
    tiles = [("answered", f"{count['answered']:,} of {total - count['refused']:,}")]
    if not run.ended.is_set():
        tiles += [("running", f"{count['runs']:,}"), ("waiting", f"{count['waits']:,}")]
    if count["stopped"]:
        tiles.append(("stopped", f"{count['stopped']:,}"))
    if count["refused"]:
        tiles.append(("refused", f"{count['refused']:,}"))
    speed = "tokens/s, all together" if run.ended.is_set() else "tokens/s now"
    tiles += [(speed, f"{run.speed:.1f}"), ("tokens", f"{run.tokens:,}")]
    tiles.append(("time", _clock(run.elapsed)))
    done = sum(item.done for item in run.items) / max(total, 1)
    if not run.ended.is_set() and 0.05 < done < 1 and run.elapsed:
        tiles.append(("about left", _clock(run.elapsed * (1 - done) / done)))
    shown = "".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in tiles)
    said = f"{over} of {total} rows have ended"
    return (
        f'<div class="rm-batch-progress"><progress max="100" value="{100 * done:.1f}" '
        f'aria-label="{said}">{said}</progress><dl>{shown}</dl></div>'
    )


def standing_html(run: BatchRun) -> str:
    """One sentence on the run's progress."""
    if run.error:
        return notice_html(run.error, kind="wrong")
    if run.ended.is_set():
        if run.count()["stopped"]:
            return notice_html("Stopped. What was answered is below, and can be downloaded.")
        return notice_html("All rows have ended; the results are below.", kind="ready")
    if run.cancelled.is_set():
        return notice_html("Stopping…", kind="busy")
    if run.place:
        return notice_html(
            f"Every row of the batch is taken; your next one is number {run.place} in the queue.",
            kind="busy",
        )
    return notice_html(run.note or "Answering…", kind="busy")


def table_of(run: BatchRun | None) -> list[list[str | int | float | None]]:
    """A row for each that has ended, in the order of the file; the picture's twin in text."""
    if run is None:
        return []
    return [_cells(item) for item in run.items if item.state not in ("waits", "runs")]


def row_html(run: BatchRun | None, number: int) -> str:
    """One row in full: prompt, answer, adapters with similarity, share and weight."""
    if run is None or not 1 <= number <= len(run.items):
        return ""
    item = run.items[number - 1]
    parts = [
        f'<section class="rm-batch-row" aria-label="Request {number}"><h3>Request {number}'
        f' <span class="quiet">line {item.row.line}: {escape(_state(item))}</span></h3>',
        _block("Prompt", item.prompt),
    ]
    if item.text or item.state in ("runs", "answered"):
        so_far = ", as far as it has come" if item.state == "runs" else ""
        parts.append(_block(f"Answer{so_far}", item.text or "…"))
    if item.sentence:
        parts.append(notice_html(item.sentence, kind="wrong"))
    if item.experts:
        parts.append("<h4>Adapters</h4>" + _adapters(item))
    elif item.answer is not None:
        parts.append('<p class="quiet">No adapter: the base model alone.</p>')
    return "".join(parts) + "</section>"


def _block(title: str, text: str) -> str:
    return (
        f'<h4>{title}</h4><div class="plain" tabindex="0" role="group" aria-label="{title}">'
        f"{escape(text)}</div>"
    )


def _adapters(item: RowRun) -> str:
    nothing = [None] * len(item.experts)
    told = zip(
        item.experts, item.shares or nothing, item.weights or nothing, item.scores, strict=False
    )
    asked = item.row.request if isinstance(item.row, BatchRow) else None
    without = UNCOMPARED if asked is None or asked.adapters is None else NAMED
    rows = []
    for name, share, weight, score in told:
        said = finite(score)
        rows.append(
            f'<tr><th scope="row">{escape(name)}</th>'
            f"<td>{without if said is None else f'{said:.3f}'}</td>"
            f'<td class="bar"><i style="width:{100 * (share or 0):.0f}%"></i></td>'
            f"<td>{'' if share is None else f'{share:.2f}'}</td>"
            f"<td>{'' if weight is None else f'{weight:.2f}'}</td></tr>"
        )
    return (
        '<table><thead><tr><th scope="col">adapter</th><th scope="col">similarity</th>'
        '<th scope="col" colspan="2">share</th><th scope="col">mean weight</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _cells(item: RowRun) -> list[str | int | float | None]:
    row, answer = item.row, item.answer
    bad = isinstance(row, BadRow)
    return [
        row.index + 1,
        "" if bad or row.id is None else str(row.id),
        clipped(item.prompt, MAX_CELL),
        clipped(item.text, MAX_CELL),
        "" if bad else row.request.method,
        shared(item),
        answer.new_tokens if answer else None,
        round(answer.first_token_seconds, 2) if answer else None,
        round(answer.seconds, 2) if answer else None,
        _state(item) + (f": {item.sentence}" if item.sentence else ""),
    ]


def _state(item: RowRun) -> str:
    if item.state == "stopped":
        return "not answered" if item.sentence else "stopped by you"
    if item.state != "answered" or item.answer is None:
        return {"waits": "waits for its turn", "runs": "runs"}.get(item.state, item.state)
    return ending(item.answer.finish_reason)


def _clock(seconds: float) -> str:
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds + 0.5), 60)
    return f"{minutes}:{rest:02d} min"
