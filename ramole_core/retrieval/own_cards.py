"""Two built-in cards: the base model's, and that of follow-up messages.

An adapter's card shows inputs of its task. The base's shows prompts without a task, the other one
second messages that continue a task. Written for this purpose, in kinds and sentences that the
evaluation's prompts do not have (`training/prompts/`), so that nothing is measured on its own card.
"""

import hashlib
import json

EVERYDAY: dict[str, tuple[str, ...]] = {
    "feelings": (
        "I had a terrible argument with my mother and can't stop thinking about it.",
        "Nobody at work seems to notice what I do. It makes me sad.",
        "I'm so proud, my daughter took her first steps today!",
        "How do people get over a broken heart?",
        "I feel overwhelmed. Say something kind to me.",
    ),
    "gifts and names": (
        "What could I give to an uncle who has everything?",
        "We are getting a puppy. What shall we call him?",
        "I need a slogan for a bakery that only sells rye bread.",
        "Think of a theme for a costume evening.",
        "Come up with a name for a band of retired plumbers.",
    ),
    "work": (
        "My boss wants me to work on Saturdays. How can I say no politely?",
        "What does a project manager do all day?",
        "I have to give a talk and my hands shake every time.",
        "Is it a bad sign if a company has no reviews from employees?",
        "How long should a CV be?",
    ),
    "role play": (
        "Pretend you are a grumpy lighthouse keeper and I am a lost sailor.",
        "You are my personal trainer. Shout at me.",
        "Act as a tour guide on Mars.",
        "Let's play twenty questions, you think of an animal.",
        "Be a wizard who sells umbrellas. I enter your shop.",
    ),
    "what if": (
        "What if the earth had two moons?",
        "Imagine that everybody could read minds for an hour.",
        "How would a city without streets work?",
        "What would dinosaurs look like if they had survived until now?",
        "Suppose I could stop time, what would be the danger?",
    ),
    "how it works": (
        "How does a piano make its sound?",
        "Walk me through what a central bank does.",
        "Why do cats purr?",
        "I don't get what makes magnets stick, please go slowly.",
        "What is an ecosystem, with a pond as the picture?",
    ),
    "hobbies": (
        "I'd like to start painting with watercolours. What do I need?",
        "Which knitting pattern is easy for the very first scarf?",
        "How can I get better at chess without a coach?",
        "My photos of the night sky are always blurred.",
        "Is it hard to keep bees in a town?",
    ),
    "culture": (
        "Recommend three films for an evening with teenagers.",
        "Why is Mozart still so popular?",
        "What makes a painting a masterpiece?",
        "I liked The Hobbit. What else could I read?",
        "What is jazz, and where should I begin to listen?",
    ),
    "thoughts": (
        "Does free will exist?",
        "What is the meaning of life, in your own words?",
        "Are numbers invented or discovered?",
        "Why do we find some things beautiful?",
        "Can one be happy and lazy at the same time?",
    ),
    "manners and words": (
        "How do I sound more polite when I speak English?",
        "What do you say in a lift with a stranger?",
        "Is it rude to leave a wedding before the cake?",
        "Explain the word serendipity with a little scene.",
        "Toast for a retirement dinner, two minutes, warm and funny.",
    ),
    "body and sport": (
        "What should I eat before a marathon?",
        "My knee clicks when I climb stairs. Is that normal?",
        "How many hours of sleep does a grown-up need?",
        "Which is healthier, swimming or cycling?",
        "Help me to drink less coffee.",
    ),
    "home and machines": (
        "My laptop has become very slow, what can I try?",
        "The washing machine smells. How do I clean it?",
        "Why is the internet worse in the kitchen?",
        "How do I choose a mattress?",
        "What can be done with stale bread and old bananas?",
    ),
}
"""Prompts that the base answers by itself, by kind."""

GOING_ON = (
    "and this one: the roof is made of slate",
    "And this?",
    "next: a bird on the wire",
    "next one, please",
    "now the same with Thursday",
    "same again for the second part",
    "ok, and for the other two",
    'then what about "it has stopped raining"?',
    "What about the last line?",
    "another one: Peter lost his hat",
    "one more: the lake is frozen",
    "now shorter",
    "make it longer",
    "and if there were 12?",
    "and of Norway?",
    "can you do it in capital letters instead?",
    "again, but with blue",
    "what about this: we are late",
    "also the ones from May",
    "and who was it?",
    "and where?",
    "only the first two",
    "sorted the other way round",
    "in the present tense this time",
)
"""Messages that name no task and continue the one before."""


def everyday_texts() -> tuple[str, ...]:
    """The base's card."""
    return tuple(text for texts in EVERYDAY.values() for text in texts)


def cards_checksum() -> str:
    """SHA-256 of both cards, which their vectors depend on."""
    return hashlib.sha256(json.dumps([everyday_texts(), GOING_ON]).encode()).hexdigest()
