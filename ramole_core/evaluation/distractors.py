"""Strangers to crowd a pool with: adapters of random weights, and spoilt copies of sample adapters.

Each task is two ways to ask and something to ask about, filled at random from small word lists.
Some are close to a sample adapter's task on purpose (headlines sorted by topic, commas restored,
Python instead of SQL), so that finding the right adapter is not free.
"""

import json
import random
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from ramole_core.pool import Pool
from ramole_core.training.rows import read_task

WHO = (
    "the night porter, two cartographers, a retired judge, the choir of Arnholt, "
    "our new neighbour, an apprentice baker, the lighthouse keeper, Professor Lindqvist, "
    "a busload of tourists, the chess club, my younger cousin, a travelling dentist, "
    "the harbour council, Mrs Okafor"
).split(", ")
DID = (
    "repaired, painted over, gave away, forgot about, argued over, photographed, auctioned, "
    "carried, quietly replaced, apologised for, insisted on, measured"
).split(", ")
WHAT = (
    "a brass telescope, the last tram ticket, three crates of oranges, a stained-glass window, "
    "the village clock, an old accordion, the wrong suitcase, a map of the caves, the spare boat, "
    "a letter from 1931, the garden wall, forty paper lanterns"
).split(", ")
WHERE = (
    "beside the canal, at the ferry terminal, behind the town hall, on the upper terrace, "
    "in a snowed-in cabin, under the viaduct, near Port Ellis, at the spring fair"
).split(", ")
WHEN = (
    "before sunrise, last Thursday, during the storm, after the concert, in the summer of 1987, "
    "while nobody watched, a week too late, on market day"
).split(", ")
THING = (
    "kettle, headphones, rucksack, desk lamp, bicycle pump, tent, blender, keyboard, raincoat, "
    "alarm clock, coffee grinder, yoga mat"
).split(", ")
VERDICT = (
    "stopped working within days, is lighter than I expected, arrived with a dent, does just that, "
    "is worth every cent, smells of plastic, made my mornings easier, came without a manual"
).split(", ")
TOPIC = (
    "volcanoes, bees, chess openings, tidal power, sourdough, jazz drumming, origami, glaciers, "
    "medieval trade, knots, sleep, railways"
).split(", ")
FILES = (
    "log files, photographs, csv files, empty folders, backups, text files, links, archives"
).split(", ")


def _sentence(chance: random.Random) -> str:
    parts = (WHO, DID, WHAT, WHERE, WHEN)
    text = " ".join(chance.choice(part) for part in parts)
    return text[0].upper() + text[1:] + "."


def _pair(chance: random.Random) -> str:
    return f"Sentence 1: {_sentence(chance)}\nSentence 2: {_sentence(chance)}"


def _passage(chance: random.Random) -> str:
    return " ".join(_sentence(chance) for _ in range(4))


def _dialogue(chance: random.Random) -> str:
    return "\n".join(f"{name}: {_sentence(chance)}" for name in ("Ana", "Bo", "Ana", "Bo"))


def _review(chance: random.Random) -> str:
    first, second = chance.sample(VERDICT, 2)
    return f"The {chance.choice(THING)} {first}, and the box {second}."


def _headline(chance: random.Random) -> str:
    return " ".join(word.capitalize() for word in _sentence(chance).rstrip(".").split()[:8])


def _words(chance: random.Random) -> str:
    return ", ".join(word.split()[-1] for word in chance.sample(WHAT, 4))


def _topic(chance: random.Random) -> str:
    return chance.choice(TOPIC)


def _thing(chance: random.Random) -> str:
    return chance.choice(THING)


def _files(chance: random.Random) -> str:
    return f"{chance.choice(FILES)} larger than {chance.randint(2, 900)} kB"


def _numbers(chance: random.Random) -> str:
    return ", ".join(str(chance.randint(2, 99)) for _ in range(5))


def _bare(chance: random.Random) -> str:
    return _sentence(chance).replace(",", "").replace("'", "").rstrip(".").lower()


Filler = Callable[[random.Random], str]
TASKS: dict[str, tuple[Filler, str, str]] = {
    "product_mood": (_review, "Is this product review positive or negative? {}", "{}\nSentiment:"),
    "star_rating": (_review, "How many stars would this buyer give? {}", "{}\nStars from 1 to 5:"),
    "refund_request": (
        _review,
        "Does this customer ask for a refund? {}",
        "{}\nRefund, yes or no?",
    ),
    "to_french": (_sentence, "Translate to French: {}", "{}\nHow is this said in French?"),
    "to_german": (_sentence, "Translate into German: {}", "English: {}\nGerman:"),
    "from_latin": (_topic, "Which Latin words are about {}?", "Give a Latin proverb on {}."),
    "chat_summary": (_dialogue, "Summarize this conversation:\n{}", "{}\nWhat did they agree on?"),
    "next_turn": (_dialogue, "Continue the dialogue with one line.\n{}", "{}\nWhat comes next?"),
    "entailment": (_pair, "Does sentence 1 imply sentence 2?\n{}", "{}\nEntailment or not?"),
    "paraphrase": (_pair, "Do these say the same thing?\n{}", "{}\nParaphrase, yes or no?"),
    "likeness": (_pair, "Rate the similarity of the two from 0 to 5.\n{}", "{}\nSimilarity score:"),
    "news_topic": (_headline, "World, sports, business or science? {}", "{}\nTopic of this news:"),
    "headline": (_passage, "Write a headline for this article. {}", "{}\nGive it a title."),
    "sarcasm": (_headline, "Is this tweet sarcastic? {}", "{} #monday\nIrony or not?"),
    "emoji": (_sentence, "Which emoji fits this message? {}", "{}\nAdd one emoji."),
    "hashtags": (_sentence, "Suggest three hashtags: {}", "{}\nHashtags for this post:"),
    "spam": (_review, "Is this text message spam? WIN NOW! {}", "SMS: {}\nSpam or ham?"),
    "email_subject": (_passage, "Write a subject line for this email: {}", "{}\nSubject:"),
    "commas": (_bare, "Add the missing punctuation: {}", "{}\nPut commas and a full stop in."),
    "spelling": (_bare, "Correct the spelling mistakes: {}", "{}\nFix every typo."),
    "word_break": (
        lambda chance: _bare(chance).replace(" ", ""),
        "Insert the spaces: {}",
        "{}\nSegment this into words.",
    ),
    "grammar": (_bare, "Is this sentence grammatical? {}", "{}\nAcceptable or not?"),
    "passive": (_sentence, "Rewrite in the passive voice: {}", "{}\nMake it passive."),
    "future_tense": (
        _sentence,
        "Put this in the future tense: {}",
        "{}\nSay it in the future.",
    ),
    "formal": (_sentence, "Make this more formal: {}", "{}\nRewrite it politely for a letter."),
    "bard": (_sentence, "Say this as Shakespeare would: {}", "{}\nIn Elizabethan English:"),
    "haiku": (_topic, "Write a haiku about {}.", "Three lines, 5-7-5, on {}."),
    "limerick": (_thing, "Write a limerick about a {}.", "A funny rhyme on a {}, please."),
    "story_start": (_words, "Begin a story with these words: {}", "Words: {}\nOpening line:"),
    "odd_one_out": (_words, "Which word does not belong: {}?", "{}\nFind the odd one out."),
    "names": (_passage, "List the people and places named: {}", "{}\nNamed entities:"),
    "keyphrases": (_passage, "Extract the keyphrases. {}", "{}\nKey phrases of this abstract:"),
    "coreference": (_pair, "Who does 'they' refer to?\n{}", "{}\nWhom does the pronoun mean?"),
    "cause": (_sentence, "What was the cause of this? {}", "{}\nWhat happened as a result?"),
    "trivia": (_topic, "Quiz question about {}: name its inventor.", "Trivia on {}: which year?"),
    "explain_child": (_topic, "Explain {} to a six-year-old.", "What are {}, in simple words?"),
    "shell": (_files, "Write a bash command to delete {}.", "Linux one-liner that finds {}:"),
    "python": (_numbers, "Write a Python function that returns [{}].", "def sort([{}]) in Python:"),
    "sequence": (_numbers, "Continue the series: {}, ...", "{}\nSort these from large to small."),
    "recipe": (_words, "A recipe title with {}?", "Cook something from: {}"),
}
"""By name: what is asked about, and two ways to ask."""

RANKS = (4, 6, 8, 16)


def write_examples(count: int, *, rows: int = 20, seed: int = 0) -> Iterator[tuple[str, list[str]]]:
    """`count` tasks by name, each with `rows` example inputs; at most as many as TASKS has."""
    if count > len(TASKS):
        raise ValueError(f"{count} tasks were asked for, but only {len(TASKS)} are invented here")
    for name, (fill, *frames) in list(TASKS.items())[:count]:
        chance = random.Random(f"{seed}/{name}")
        yield name, [frames[row % 2].format(fill(chance)) for row in range(rows)]


def usual_sizes(pool: Pool) -> dict[str, tuple[int, int, float]]:
    """(i, o, median Frobenius norm of B A) by module path, over the sample adapters."""
    norms: dict[str, list[float]] = {}
    shapes: dict[str, tuple[int, int]] = {}
    for card in pool.cards():
        for path, (A, B) in pool.tensors(card).modules.items():
            wide_a, wide_b = A.float(), B.float()
            # |BA|^2 = sum over (B^T B) * (A A^T), two r x r matrices
            squared = ((wide_b.T @ wide_b) * (wide_a @ wide_a.T)).sum()
            norms.setdefault(path, []).append(float(squared.clamp(min=0).sqrt()))
            shapes[path] = (A.shape[1], B.shape[0])
    return {
        path: (*shapes[path], float(torch.tensor(found).median())) for path, found in norms.items()
    }


def write_stranger(
    folder: Path, sizes: dict[str, tuple[int, int, float]], *, rank: int, seed: int
) -> Path:
    """An adapter of random directions on the modules of `sizes`, as PEFT would save it."""
    random_numbers = torch.Generator().manual_seed(seed)
    tensors = {}
    for path, (i, o, norm) in sizes.items():
        A = torch.randn(rank, i, generator=random_numbers)
        B = torch.randn(o, rank, generator=random_numbers)
        B *= norm / torch.linalg.matrix_norm(B @ A)
        for half, value in (("A", A), ("B", B)):
            key = f"base_model.model.{path}.lora_{half}.weight"
            tensors[key] = value.to(torch.bfloat16).contiguous()
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    said = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank}
    said |= {"target_modules": sorted({path.rpartition(".")[2] for path in sizes}), "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(said))
    return folder


def read_examples(
    data: Path, count: int, *, but: Collection[str], rows: int = 20, seed: int = 0
) -> Iterator[tuple[str, list[str]]]:
    """As `write_examples`, but of `count` tasks of the data itself, those in `but` left out."""
    found = sorted(path.parent.name for path in data.glob("*/train.jsonl"))
    others = [name for name in found if name not in but]
    for name in random.Random(seed).sample(others, count):
        train = read_task(data / name).train
        yield name, [row.inputs for row in random.Random(f"{seed}/{name}").sample(train, rows)]


NOISES = (1.0, 2.0, 4.0)
"""Of spoilt copies: noise in A and in B, over the root mean square of each."""


def write_copy(folder: Path, pool: Pool, name: str, *, noise: float, seed: int) -> Path:
    """The sample adapter `name` with Gaussian noise in every A and B, as PEFT would save it."""
    random_numbers = torch.Generator().manual_seed(seed)
    tensors, ranks, alphas = {}, {}, {}
    for path, (A, B) in pool.tensors(pool.card(name)).modules.items():
        for half, value in (("A", A.float()), ("B", B.float())):
            drawn = torch.randn(value.shape, generator=random_numbers)
            value = value + noise * value.square().mean().sqrt() * drawn
            key = f"base_model.model.{path}.lora_{half}.weight"
            tensors[key] = value.to(torch.bfloat16).contiguous()
        ranks[path] = alphas[path] = A.shape[0]  # the scale is folded into B
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    r = max(ranks.values())
    said = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": r, "lora_alpha": r, "bias": "none"}
    said |= {"rank_pattern": ranks, "alpha_pattern": alphas}
    said |= {"target_modules": sorted({path.rpartition(".")[2] for path in ranks})}
    (folder / "adapter_config.json").write_text(json.dumps(said))
    return folder


def spoil(
    pool: Pool, samples: Iterable[tuple[str, list[str]]], *, each: int, seed: int
) -> list[str]:
    """Add `each` spoilt copies of every sample adapter, with example inputs of its own task in
    disjoint parts of the given ones; their names in the pool."""
    names = []
    with tempfile.TemporaryDirectory() as folder:
        for place, (name, examples) in enumerate(samples):
            for n in range(each):
                noise = NOISES[(place + n) % len(NOISES)]
                label = f"copy{n + 1}-{name}"
                made = write_copy(
                    Path(folder) / label, pool, name, noise=noise, seed=seed + 10 * place + n
                )
                names.append(pool.add(made, name=label, examples=examples[n::each]).name)
    return names


def crowd(pool: Pool, strangers: Iterable[tuple[str, list[str]]], *, seed: int) -> list[str]:
    """Add a stranger for each name and its example inputs; their names in the pool."""
    sizes = usual_sizes(pool)
    names = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, examples) in enumerate(strangers):
            made = write_stranger(
                Path(folder) / name, sizes, rank=RANKS[number % len(RANKS)], seed=seed + number
            )
            names.append(pool.add(made, name=f"other-{name}", examples=examples).name)
    return names
