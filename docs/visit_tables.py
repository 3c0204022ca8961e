"""The table of docs/visits.md: thirty prompts, who was found and how the answer begins, by pool."""

import json
from pathlib import Path

from ui.results.markdown import plain

EARLIER, NOW = "visits_before.json", "visits.json"


def visits(results: Path) -> str:
    """Both files side by side; a prompt is a row."""
    files = [json.loads((results / name).read_text("utf-8")) for name in (EARLIER, NOW)]
    before, now = ({_asked(row): row for row in one["rows"]} for one in files)
    heads = [f"{one['date']}, {one['quantization']}" for one in files]
    lines = [f"| prompt | {heads[0]} | {heads[1]} |", "|---|---|---|"]
    lines += [
        f"| {plain(asked)} | {_answer(before[asked])} | {_answer(now[asked])} |" for asked in now
    ]
    found = [f"{one['found_right']} of {one['of']}" for one in files]
    return "\n".join([*lines, "", f"All right adapters were found for {found[0]}, {found[1]}."])


def _asked(row: dict) -> str:
    """The prompt, or a chat's turns."""
    prompt = row["prompt"]
    return prompt if isinstance(prompt, str) else " // ".join(prompt)


def _answer(row: dict) -> str:
    """Adapters, and the first characters of the answer."""
    return f"{plain(', '.join(row['found']))}: {plain(row['begins'])}"
