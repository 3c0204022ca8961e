"""Prompts to try: one for each of many skills of the pool."""

from collections.abc import Collection
from dataclasses import dataclass

from ramole_core import DEFAULT_METHOD


@dataclass(frozen=True)
class Example:
    """A prompt to try, under a short title."""

    title: str
    prompt: str
    max_new_tokens: int = 64
    method: str = DEFAULT_METHOD
    """Method of a recorded run; a live prompt uses the form's."""
    adapters: tuple[str, ...] = ()
    """Exactly these; none: those that are found."""
    after: str = ""
    """Title of the recorded run that this one continues, as the second turn of a chat."""


GENERAL = "Say what to do, and with what."
"""Placeholder where the pool has none of the adapters below."""
SHORT = {
    "true_case": "Fix the capital letters: i live in paris",
    "sentiment_transfer": "Make this sentence negative: The food was great.",
    "word_segment": "Put spaces between the words: wewenttothebeach",
    "clickbait": "Is this headline clickbait? 21 Things Only Cat Owners Understand",
    "spider_sql": "Write an SQL query: how many singers do we have? Table singer(id, name)",
}
"""By adapter: a short prompt that it answers correctly."""
MAX_VISIBLE = 2
"""Most short prompts in the placeholder."""


def placeholder(names: Collection[str]) -> str:
    """Return the placeholder of the prompt's field: examples for adapters of these names."""
    found = [prompt for name, prompt in SHORT.items() if name in names][:MAX_VISIBLE]
    return f"Try: {'  ·  '.join(found)}" if found else GENERAL


LIVE = (
    Example(
        "Clickbait?",
        "Is the following a clickbait title? 17 Kitchen Tricks That Will Change Your Life Forever\n"
        "OPTIONS:\n- no\n- yes",
    ),
    Example(
        "Voice command to JSON",
        "Convert this voice command to JSON with its intent and slots: "
        "Put the new Sigrid song on my sunday morning playlist",
    ),
    Example(
        "Capital letters",
        "Fix the capital letters in the following text: last year maria and john visited the "
        "museum of modern art in new york.",
    ),
    Example(
        "Question to SQL",
        "Tables: boats(BoatId, Name, Town, Length)\n"
        "Question: What are the names of the boats in Bergen?\nSQL:",
    ),
    Example(
        "What does the user want?",
        'A user says: "how many litres of fuel are left in my van"\n'
        "What is the intent?\nOPTIONS:\n- gas\n- traffic\n- tire pressure\n- directions\n"
        "- oil change when\n- distance\n- gas type\n- schedule maintenance",
    ),
    Example(
        "Facts to a sentence",
        "Turn these triples into text: The Copper Kettle eatType coffee shop; The Copper Kettle "
        "area riverside; The Copper Kettle customer rating 5 out of 5; The Copper Kettle "
        "familyFriendly yes",
    ),
    Example(
        "One sentence into two",
        "The novel was published in 1952 and it was translated into nine languages , but the "
        "author never saw any of the money .\n\nRewrite the above as two sentences.",
    ),
    Example(
        "Missing commas",
        "Please punctuate the following: After the harvest the family moved to Bristol where her "
        "father opened a small bookshop",
    ),
    Example(
        "Sum in words",
        "Solve: Tom has 5 apples and buys 7 more. How many apples does he have?",
    ),
    Example("Words to regex", "lines which have a number, 5 or more times\n\nGive the regex."),
    Example(
        "Answer from a text",
        "Read this passage and answer the question.\n\nThe lighthouse on Utsira was lit for the "
        "first time in 1844. It stood beside a twin tower, which was put out in 1890.\n\n"
        "Q: In which year was the lighthouse first lit?",
    ),
    Example(
        "Python function",
        "Write a function to reverse a string.\nYour code should pass this test:\n"
        'assert reverse("boat") == "taob"',
    ),
    Example("Shell command", "Write a bash command: find all .py files in the current directory"),
    Example(
        "Bad review made good",
        "Rewrite this review so that it sounds positive instead of negative: "
        "the waiter was rude and the food was cold .",
    ),
    Example(
        "What mood?",
        "What mood is this message in, positive, negative or neutral? I passed my exam, let us "
        "celebrate tonight!",
    ),
    Example(
        "Words without spaces", "Segment this text into words: Mysisterplaysthepianoinasmallband."
    ),
    Example(
        "Spam?",
        "SMS: You have WON a free cruise! Call 0900 123 456 now to claim it, 1.50 a minute\n"
        "Is this text message spam?\nOPTIONS:\n- no\n- yes",
    ),
)
