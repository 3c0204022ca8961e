"""The words of a model card: the same as ever for honest cards, and quickly whatever the text."""

import codecs
import json
import random
import re
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings, strategies as st

from ramole_core.pool import examples_and_readme, names
from ramole_core.pool.examples_and_readme import (
    MAX_DESCRIPTION,
    MAX_EXAMPLE_BYTES,
    MAX_LINES,
    MAX_TEXT,
    parse_examples,
    parse_readme,
    read_examples,
)
from ramole_core.pool.names import MAX_WANTED, clean_name
from tests.support.clocks import Spent

CARDS = sorted((Path(__file__).parents[2] / "adapters").glob("*/README.md"))
assert len(CARDS) > 5
BLANKS = "[More Information Needed]"


def by_backtracking(text: bytes) -> tuple[str | None, str]:
    """Licence and description as the regular expressions say them, in quadratic time: the naive
    twin. The vectors of the pool were made from its answers."""
    card = text.decode("utf-8").replace("\r\n", "\n")
    front, body = "", card
    if found := re.match(r"---\n(.*?\n)?---\n", card, re.DOTALL):
        front, body = found[1] or "", card[found.end() :]
    licence = re.search(r"^licen[cs]e:[ \t]*[\"']?([\w.+-]{1,60})", front, re.MULTILINE)
    return licence[1] if licence else None, described_by_backtracking(body)


def described_by_backtracking(body: str) -> str:
    if body.count(BLANKS) > 3:
        return ""
    body = re.sub(r"<!--.*?-->|^```.*?^```", " ", body, flags=re.DOTALL | re.MULTILINE)
    lines = [
        line.strip()
        for line in body.split("\n")
        if not line.lstrip().startswith(("#", "|", "![", "<")) and BLANKS not in line
    ]
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(lines))
    words = re.sub(r"[*`_]{1,3}(\S[^*`]*?)[*`_]{1,3}", r"\1", words)
    words = " ".join(words.split())
    if len(words) <= MAX_DESCRIPTION:
        return words
    return words[:MAX_DESCRIPTION].rpartition(" ")[0] + " ..."


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.parent.name)
def test_the_sample_pools_cards_are_read_as_ever(path):
    licence, description, notes = parse_readme(path.read_bytes())
    assert (licence, description) == by_backtracking(path.read_bytes())
    assert licence and description and not notes


@pytest.mark.parametrize(
    ("listed", "kept", "note"),
    [
        ('["one", {"text": "two\\nlines"}]', ["one", "two\nlines"], None),
        ('["one", 4, {"inputs": "x"}]', ["one"], "2 lines of examples.json are not used"),
        ('{"text": "one"}', [], "examples.json is not used; expected a JSON list"),
        ("[" * 5000, [], "examples.json is not used"),
        (f'["one", {"[" * 900}{"]" * 900}]', ["one"], "1 lines of examples.json are not used"),
        ('["one", "' + "x" * (MAX_EXAMPLE_BYTES - 11) + '"]', ["one"], "1 lines of examples.json"),
        ('["one", "' + "x" * (MAX_EXAMPLE_BYTES - 10) + '"]', [], "examples.json is not used"),
    ],
)
def test_one_list_of_examples_is_read_too_and_does_not_stay(tmp_path, listed, kept, note):
    (tmp_path / "examples.json").write_text(listed)
    found, notes = read_examples(tmp_path)
    assert found == kept and list(tmp_path.iterdir()) == []
    assert notes == [] if note is None else notes[0].startswith(note)
    (tmp_path / "examples.json").write_text(listed)
    (tmp_path / "examples.jsonl").write_text('{"text": "first"}')
    assert read_examples(tmp_path) == (["first"], [])
    assert [path.name for path in tmp_path.iterdir()] == ["examples.jsonl"]


def test_a_byte_order_mark_is_no_word_of_a_card_nor_of_an_example():
    card = b"---\nlicense: mit\n---\n# Boats\n\nFinds boats.\n"
    lines = b'{"text": "one"}\r\n{"text": "two"}\r\n'
    mark = codecs.BOM_UTF8
    assert parse_readme(mark + card) == parse_readme(card) == ("mit", "Finds boats.", [])
    assert parse_examples(mark + lines) == parse_examples(lines) == (["one", "two"], [])


MARKS = ["[", "]", "(", ")", "](", "<!--", "-->", "```", "`", "*", "**", "_", "---\n", "---"]
PIECES = [*MARKS, "\n", "\n```", " ", "\t", "a", "two words", "# ", "| x |", "![", "<b>", "\r\n"]
PIECES += ["license: mit\n", "licence: 'x", BLANKS, "é", "\u3000", "\x1c", "text. "]


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_any_card_is_read_as_the_expressions_read_it(text):
    licence, description, _ = parse_readme(text.encode())
    assert (licence, description) == by_backtracking(text.encode())


def mixed(size: int) -> str:
    chance = random.Random(7)
    return "".join(chance.choice(MARKS) for _ in range(size // 2))


HOSTILE = {
    **{piece: piece for piece in (*MARKS, "[a](", "[a]", "<!--\n", "\n```a", "<", "|", "---\n")},
    **{piece: piece for piece in ("#", " ", "\t", "\n", "\n\n```", "*a ", "_a ", "\r", "\r\n")},
    "blanks": BLANKS[:-1],
    "front": "---\n---",
    "licences": "\nlicense: ",
    "licence far away": "license:" + " " * 500 + "\n",
    "open comment in code": "```\n<!--\n",
}


MAX_SECONDS = 4.0
"""Of a processor, for 1 MiB, the most that is read. In linear time it takes 0.2 at most; as
expressions say it, 60 and more, and 15 for half of that."""


@pytest.mark.parametrize("prefix", ["", "---\n", "---\n\n---\nword "], ids=["", "open", "body"])
@pytest.mark.parametrize("name", [*HOSTILE, "mixed"])
def test_the_time_grows_with_the_card_and_no_faster(name, prefix):
    """A first look at little text saves hours where it fails."""
    piece = mixed(2**12) if name == "mixed" else HOSTILE[name]
    for size in (2**15, MAX_TEXT // 2 if prefix else MAX_TEXT):
        text = (prefix + piece * (size // len(piece.encode())))[: size - 8].encode()
        with Spent() as spent:
            parse_readme(text)
        assert spent.seconds < MAX_SECONDS, f"{size} bytes of {piece[:20]!r}"


@pytest.mark.parametrize("line", ["[", "{", '{"text": "', "1", "\\", " ", '{"text": "x"}\n', "[\n"])
def test_of_a_file_of_examples_so_many_lines_are_read(monkeypatch, line):
    read = []

    def loads(text: str) -> object:
        read.append(len(text))
        return json.loads(text)

    monkeypatch.setattr(examples_and_readme, "json", SimpleNamespace(loads=loads))
    text = (line * (MAX_TEXT // len(line)))[: MAX_TEXT - 8].encode()
    parse_examples(text)
    assert len(read) <= MAX_LINES and sum(read) <= len(text), "each is read once"


def test_of_a_name_of_accents_the_beginning_is_normalized(monkeypatch):
    read = []

    def normalize(form: str, text: str) -> str:
        read.append(len(text))
        return unicodedata.normalize(form, text)

    monkeypatch.setattr(names, "unicodedata", SimpleNamespace(normalize=normalize))
    assert clean_name("a" + "\u0315\u0300" * 2**16) == "a"
    assert read == [MAX_WANTED]
