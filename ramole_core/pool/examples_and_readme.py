"""The texts beside the weights: example inputs, and the model card's description and licence."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from ramole_core.errors import AdapterRefused, RamoleError
from ramole_core.pool.markdown import drop_hidden, split_front, unwrap_emphasis, unwrap_links
from ramole_core.text_file import read_text

EXAMPLES, README = "examples.jsonl", "README.md"
EXAMPLES_JSON = "examples.json"
"""The same as one JSON list, which other tools write; read where there is no examples.jsonl."""
MAX_EXAMPLES = 200
"""Most examples of one adapter."""
MAX_EXAMPLE = 2000
"""Characters."""
MAX_TEXT = 2**20
"""Bytes of README.md."""
MAX_EXAMPLE_BYTES = 3 * 2**20
"""Bytes of examples.jsonl: as many as MAX_EXAMPLES of the longest take in any script."""
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


def read_example_file(path: Path) -> list[str]:
    """Example inputs, one a line: plain text, or {"text": ...} where the name ends in .jsonl.
    Raises RamoleError where one is none, or there are none."""
    found = [line for line in read_text(path).split("\n") if line.strip()]
    if path.suffix == ".jsonl":
        texts = [text for line in found if (text := _example(line)) is not None]
        if len(texts) < len(found):
            raise RamoleError(f'{path} is not {{"text": "..."}} on every line; correct it.')
        found = texts
    if not found:
        raise RamoleError(f"{path} has no example inputs; write one a line.")
    return found


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
        rows = json.loads(text) if len(text) <= MAX_EXAMPLE_BYTES else None
    except (ValueError, RecursionError):
        rows = None
    if not isinstance(rows, list):
        return [], [unused]
    said = [row.get("text") if isinstance(row, dict) else row for row in rows[:MAX_LINES]]
    return _usable(said, EXAMPLES_JSON, len(rows))


def parse_examples(text: bytes) -> tuple[list[str], list[str]]:
    """Examples of an examples.jsonl, and notes on the lines that cannot be used."""
    if len(text) > MAX_EXAMPLE_BYTES:
        much = f"{len(text)} bytes, more than {MAX_EXAMPLE_BYTES}"
        return [], [f"{EXAMPLES} has {much}; it is not used."]
    try:
        lines = text.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        return [], [f"{EXAMPLES} is not UTF-8; it is not used."]
    filled = [line for line in lines if line.strip()]
    return _usable([_example(line) for line in filled[:MAX_LINES]], EXAMPLES, len(filled))


def _usable(said: Sequence[object], file: str, count: int) -> tuple[list[str], list[str]]:
    """The examples among what a file's lines say, the first of `count`, and notes on the others."""
    kept = [text.strip() for text in said if isinstance(text, str) and not _problem(text)]
    notes = []
    if count > len(said):
        notes.append(f"The first {len(said)} of {count} lines of {file} are read.")
    if bad := len(said) - len(kept):
        notes.append(
            f"{bad} lines of {file} are not used; expected "
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
