"""The results of a batch as files: all of it as jsonl, the main columns as csv."""

import json
from pathlib import Path

from ramole_core import BadRow, Generation

from ..parts.downloads import fresh_folder, write_csv
from .picture import finite
from .run import BatchRun, RowRun

COLUMNS = (
    *("index", "line", "id", "prompt", "method", "text", "adapters", "shares", "mean_weights"),
    *(
        "effects",
        "base_logprob",
        "logprob",
        "similarities",
        "finish_reason",
        "prompt_tokens",
        "new_tokens",
        "seconds",
    ),
    *("first_token_seconds", "error", "row"),
)


def write_results(run: BatchRun, *, into: Path | None = None) -> tuple[Path, Path]:
    """(jsonl, csv) in a new folder with a random name; old folders are removed."""
    folder = fresh_folder(into)
    records = [record_of(item) for item in run.items]
    lines, table = folder / "ramole-batch.jsonl", folder / "ramole-batch.csv"
    with lines.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    extra = dict.fromkeys(name for record in records for name in record.get("extra", {}))
    rows = (
        [_cell(record.get(name)) for name in COLUMNS]
        + [_cell(record.get("extra", {}).get(name)) for name in extra]
        for record in records
    )
    return lines, write_csv(table, [*COLUMNS, *extra], rows)


def record_of(item: RowRun) -> dict:
    """One row with all that is known of it; the file's own columns under `extra`."""
    row, answer = item.row, item.answer
    record: dict[str, object] = {"index": row.index, "line": row.line}
    if isinstance(row, BadRow):  # no request at all
        return {**record, "row": row.text, "error": item.sentence}
    record |= {"id": row.id, "prompt": item.prompt, "method": row.request.method}
    if row.request.history:
        record["history"] = row.request.history
    if answer is None:
        waits = item.state in ("waits", "runs")
        why = item.sentence or ("Not answered yet." if waits else "Stopped before it ran.")
        return {**record, "error": why, "extra": dict(row.extra)}
    return {
        **record,
        "text": answer.text,
        "adapters": list(item.experts),
        "shares": [round(share, 4) for share in item.shares or ()],
        "mean_weights": [round(weight, 4) for weight in item.weights or ()],
        **_effects(answer),
        "similarities": [finite(score) for score in item.scores],
        "finish_reason": answer.finish_reason,
        "prompt_tokens": answer.prompt_tokens,
        "new_tokens": answer.new_tokens,
        "seconds": round(answer.seconds, 4),
        "first_token_seconds": round(answer.first_token_seconds, 4),
        "stages": {name: round(value, 4) for name, value in answer.extra.items()},
        "extra": dict(row.extra),
    }


def _effects(answer: Generation) -> dict[str, object]:
    """Sums over the tokens, in nats, where the row requests them."""
    if answer.effects is None or answer.logprob is None or answer.base_logprob is None:
        return {}
    return {
        "effects": [round(float(one), 3) for one in answer.effects.sum(0)],
        "base_logprob": round(float(answer.base_logprob.sum()), 3),
        "logprob": round(float(answer.logprob.sum()), 3),
    }


def _cell(value: object) -> object:
    """A cell of the csv: lists with `|` between, objects as JSON."""
    if isinstance(value, list):
        return "|".join("" if item is None else str(item) for item in value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value
