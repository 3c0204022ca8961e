"""The prompts written for the evaluation: as many as promised, each once, none an example."""

import json
import re
from collections import Counter
from pathlib import Path

from ramole_core.training.prompt_sets import (
    FollowUp,
    read_everyday,
    read_follow_ups,
    read_phrased,
    read_uploads,
)
from ui.parts.prompts import LIVE

ADAPTERS = Path(__file__).parents[2] / "adapters"
POOL = {path.parent.name for path in ADAPTERS.glob("[!_]*/manifest.json")}
OPEN = (
    "Who are you?",
    "Explain photosynthesis to a child",
    "Write a short poem about the sea",
    "Once upon a time",
    "Hi",
)
"""Of the seven that the issue names, those that no adapter does."""


def normal(text: str) -> str:
    """A text without case, marks and runs of blanks, as two people would write the same."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def own_texts() -> dict[str, list[str]]:
    """The texts of each set that retrieval is asked with."""
    uploads = read_uploads()
    return {
        "everyday": [one.text for one in read_everyday()],
        "phrased": [one.text for one in read_phrased()],
        "first": [one.first for one in read_follow_ups()],
        "then": [one.then for one in read_follow_ups()],
        "examples": [text for one in uploads for text in one.examples],
        "prompts": [text for one in uploads for text in one.prompts],
    }


def shown_texts() -> set[str]:
    """What adapters' examples and the page's buttons show."""
    rows = [
        json.loads(line)["text"]
        for path in ADAPTERS.glob("[!_]*/examples.jsonl")
        for line in path.read_text("utf-8").splitlines()
    ]
    return {normal(text) for text in (*rows, *(one.prompt for one in LIVE))}


def test_everyday_has_ten_families_of_fifteen():
    families = Counter(one.family for one in read_everyday())
    assert len(families) == 10 and set(families.values()) == {15}
    assert set(OPEN) <= {one.text for one in read_everyday()}


def test_everyday_people_write_differently():
    texts = [one.text for one in read_everyday()]
    lower = [text for text in texts if text == text.lower()]
    assert 20 <= len(lower) <= 60
    assert sum(len(text.split()) <= 4 for text in texts) >= 10
    assert sum(len(text.split()) >= 20 for text in texts) >= 10
    assert sum(text.rstrip().endswith("?") for text in texts) >= 40


def test_each_adapter_is_asked_for_in_five_ways():
    assert Counter(one.adapter for one in read_phrased()) == dict.fromkeys(POOL, 5)
    assert "How do I list hidden files in bash?" in {
        one.text for one in read_phrased() if one.adapter == "nl2bash"
    }


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


def test_five_uploads_with_examples_and_prompts():
    uploads = read_uploads()
    assert [(len(one.examples), len(one.prompts)) for one in uploads] == [(20, 10)] * 5
    assert not {one.name for one in uploads} & POOL


def test_no_text_stands_in_two_sets_or_twice_in_one():
    found = Counter(normal(text) for texts in own_texts().values() for text in texts)
    assert sum(found.values()) == 150 + 120 + 88 + 88 + 100 + 50
    assert [text for text, times in found.items() if times > 1] == []


def test_no_text_is_an_example_of_an_adapter_or_of_the_page():
    shown = shown_texts()
    assert len(shown) > 23 * 19
    for name, texts in own_texts().items():
        assert [text for text in texts if normal(text) in shown] == [], name


PHRASES = {
    "banking77": "bank customer:",
    "clickbait": "is the following a clickbait title",
    "clinc_intent": "a user says:",
    "common_gen": "concepts:",
    "dart": "turn these triples into text",
    "e2e_nlg": "restaurant data:",
    "fix_punct": "missing punctuation",
    "mawps_svamp": "answer with a number",
    "mbpp": "your code should pass this test",
    "ner_wnut17": "named entities",
    "nl2bash": "write a bash command:",
    "nl2regex": "regular expression matching",
    "para_crawl_enes": "translate to",
    "poem_sentiment": "feeling of the following verse",
    "scitail": "options:",
    "sentiment_transfer": "rewrite this review",
    "sms_spam": "is this text message spam",
    "snips_json": "voice command",
    "snli": "it is not possible to tell",
    "spider_sql": "tables:",
    "squad_v1": "read this passage",
    "true_case": "fix the capital letters",
    "wiki_split": "split this long sentence",
    "word_segment": "segment this text",
}
"""Words of each task's training data that somebody who never saw it would hardly hit."""


def test_phrased_keeps_clear_of_the_templates():
    for one in read_phrased():
        said = one.text.casefold()
        assert PHRASES[one.adapter] not in said and "options:" not in said, one


def test_whether_a_chat_continues_is_what_it_expects():
    assert FollowUp("a", "", "", "", "a").continues
    assert not FollowUp("a", "", "", "", None).continues
