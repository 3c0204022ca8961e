"""The prompts written for the evaluation: as many as promised, each once, none an example."""

import json
import re
from collections import Counter
from pathlib import Path

from ramole_core.training.prompt_sets import (
    read_everyday,
    read_follow_ups,
    read_phrased,
    read_uploads,
)
from ui.parts.prompts import LIVE

ADAPTERS = Path(__file__).parents[2] / "adapters"
POOL = {path.parent.name for path in ADAPTERS.glob("[!_]*/manifest.json")}


def normal(text: str) -> str:
    """A text without case, marks and runs of blanks, as two people would write the same."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def test_follow_ups_cover_the_pool_and_changes_reach_the_base_too():
    chats = read_follow_ups()
    kept, changed = chats[:56], chats[56:]
    assert all(one.continues for one in kept) and len(changed) == 32
    assert {one.adapter for one in kept} == POOL
    assert all(not one.continues for one in changed)
    assert {one.adapter for one in changed} <= POOL
    expected = Counter(one.expected for one in changed)
    assert set(expected) - {None} <= POOL and len(expected) >= 15
    assert 8 <= expected[None] <= 15


def test_each_set_has_as_many_of_each_kind():
    assert set(Counter(one.family for one in read_everyday()).values()) == {15}
    assert Counter(one.adapter for one in read_phrased()) == dict.fromkeys(POOL, 5)
    uploads = read_uploads()
    assert [(len(one.examples), len(one.prompts)) for one in uploads] == [(20, 10)] * 5
    assert not {one.name for one in uploads} & POOL


def test_no_text_stands_twice_or_is_an_example_of_an_adapter_or_of_the_page():
    chats, uploads = read_follow_ups(), read_uploads()
    texts = [one.text for one in (*read_everyday(), *read_phrased())]
    texts += [text for one in chats for text in (one.first, one.then)]
    texts += [text for one in uploads for text in (*one.examples, *one.prompts)]
    shown = [one.prompt for one in LIVE]
    for path in ADAPTERS.glob("[!_]*/examples.jsonl"):
        shown += [json.loads(line)["text"] for line in path.read_text("utf-8").splitlines()]
    found = Counter(map(normal, texts)) + Counter({*map(normal, shown)})
    assert len(texts) == 150 + 120 + 88 + 88 + 100 + 50 and len(shown) > 23 * 19
    assert [text for text, times in found.items() if times > 1] == []
