"""The texts beside the weights: example inputs, and the model card's description and licence."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from ramole_core.errors import AdapterRefused
from ramole_core.pool.markdown import drop_hidden, split_front, unwrap_emphasis, unwrap_links

EXAMPLES, README = "examples.jsonl", "README.md"
EXAMPLES_JSON = "examples.json"
"""The same as one JSON list, which other tools write; read where there is no examples.jsonl."""
MAX_EXAMPLES = 200
"""Most examples of one adapter."""
MAX_EXAMPLE = 2000
"""Characters."""
MAX_TEXT = 2**20
"""Bytes of examples.jsonl or README.md."""
MAX_LINES = 10_000
"""Lines of examples.jsonl that are parsed, since bad ones cost time too."""
MAX_DESCRIPTION = 1000
"""Characters."""

_BLANKS = "[More Information Needed]"
"""Placeholders of PEFT's model card template."""


def check_examples(examples: Sequence[str]) -> tuple[list[str], list[str]]:
    """The examples to keep, stripped, and notes on those that are not; raises AdapterRefused
    for one that cannot be used."""
    if isinstance(examples, str) or not isinstance(examples, Sequence):
        raise AdapterRefused(
            f"examples={examples!r:.60}; give a list of texts, such as ['a', 'b']."
        )
    kept = []
    for number, text in enumerate(examples[:MAX_EXAMPLES], start=1):
        if problem := _problem(text):
            raise AdapterRefused(f"Example {number} {problem}; correct it or leave it out.")
        kept.append(text.strip())
    notes = []
    if len(examples) > MAX_EXAMPLES:
        notes.append(f"The first {MAX_EXAMPLES} of {len(examples)} examples are kept.")
    return kept, notes


def write_examples(folder: Path, examples: Sequence[str]) -> None:
    """`{"text": ...}` a line; without examples there is no file."""
    path = folder / EXAMPLES
    if not examples:
        path.unlink(missing_ok=True)
        return
    lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in examples)
    path.write_text("".join(lines), encoding="utf-8")


def read_examples(folder: Path) -> tuple[list[str], list[str]]:
    """The examples of an upload's folder, and notes; examples.json goes, for the pool keeps
    examples.jsonl."""
    path, listed = folder / EXAMPLES, folder / EXAMPLES_JSON
    try:
        if path.exists():
            return parse_examples(path.read_bytes())
        return _listed(listed.read_bytes()) if listed.exists() else ([], [])
    finally:
        listed.unlink(missing_ok=True)


def _listed(text: bytes) -> tuple[list[str], list[str]]:
    """Examples of a JSON list of texts, or of objects with a text."""
    unused = f'{EXAMPLES_JSON} is not used; expected a JSON list of texts, or of {{"text": "..."}}.'
    try:
        rows = json.loads(text) if len(text) <= MAX_TEXT else None
    except (ValueError, RecursionError):
        rows = None
    if not isinstance(rows, list):
        return [], [unused]
    said = [row.get("text") if isinstance(row, dict) else row for row in rows]
    texts = [{"text": text} if isinstance(text, str) else None for text in said]
    kept, notes = parse_examples("\n".join(map(json.dumps, texts)).encode())
    return kept, [note.replace(EXAMPLES, EXAMPLES_JSON) for note in notes]


def parse_examples(text: bytes) -> tuple[list[str], list[str]]:
    """Examples of an examples.jsonl, and notes on the lines that cannot be used."""
    if len(text) > MAX_TEXT:
        return [], [f"{EXAMPLES} has {len(text)} bytes, more than {MAX_TEXT}; it is not used."]
    try:
        lines = text.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        return [], [f"{EXAMPLES} is not UTF-8; it is not used."]
    kept: list[str] = []
    bad = 0
    filled = [line for line in lines if line.strip()]
    for line in filled[:MAX_LINES]:
        example = _example(line)
        if example is None or _problem(example):
            bad += 1
        else:
            kept.append(example.strip())
    notes = []
    if len(filled) > MAX_LINES:
        notes.append(f"The first {MAX_LINES} of {len(filled)} lines of {EXAMPLES} are read.")
    if bad:
        notes.append(
            f"{bad} lines of {EXAMPLES} are not used; expected "
            f'{{"text": "..."}} with 1 to {MAX_EXAMPLE} characters.'
        )
    if len(kept) > MAX_EXAMPLES:
        notes.append(f"The first {MAX_EXAMPLES} of {len(kept)} examples are kept.")
    return kept[:MAX_EXAMPLES], notes


def _example(line: str) -> str | None:
    try:
        word = json.loads(line)
    except (ValueError, RecursionError):
        return None
    text = word.get("text") if isinstance(word, dict) else None
    return text if isinstance(text, str) else None


def _problem(text: str) -> str | None:
    if not isinstance(text, str):
        return f"is {text!r:.60}, and no text"
    if not text.strip():
        return "is empty"
    if len(text) > MAX_EXAMPLE:
        return f"has {len(text)} characters, more than {MAX_EXAMPLE}"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "holds characters that are not Unicode text"
    return None


def parse_readme(text: bytes) -> tuple[str | None, str, list[str]]:
    """Licence, description and notes of a model card."""
    if len(text) > MAX_TEXT:
        return None, "", [f"{README} has {len(text)} bytes, more than {MAX_TEXT}."]
    try:
        card = text.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return None, "", [f"{README} is not UTF-8; it is not used."]
    front, body = split_front(card)
    licence = re.search(r"^licen[cs]e:[ \t]*[\"']?([\w.+-]{1,60})", front, re.MULTILINE)
    return licence[1] if licence else None, _describe(body), []


def _describe(body: str) -> str:
    """The first words of the card, without headings, comments, code and tables."""
    if body.count(_BLANKS) > 3:
        return ""
    lines = [
        line.strip()
        for line in drop_hidden(body).split("\n")
        if not line.lstrip().startswith(("#", "|", "![", "<")) and _BLANKS not in line
    ]
    words = " ".join(unwrap_emphasis(unwrap_links(" ".join(lines))).split())
    if len(words) <= MAX_DESCRIPTION:
        return words
    return words[:MAX_DESCRIPTION].rpartition(" ")[0] + " ..."
