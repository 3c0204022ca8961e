"""Prompts of an exact number of tokens, equal for every system."""

import random

from transformers import PreTrainedTokenizerBase

from ramole_core.errors import RamoleError

WORDS = (
    "the river town keeps a small market where people trade bread, cloth and news every week; "
    "when the first boats come in, children run down to the water and count the sails"
).split()
TRIES = 200


def make_prompt(tokenizer: PreTrainedTokenizerBase, *, tokens: int, seed: int) -> str:
    """A text that the tokenizer splits into exactly so many tokens; deterministic."""
    chance = random.Random(f"{seed}/{tokens}")
    for _ in range(TRIES):
        text = " ".join(chance.choices(WORDS, k=tokens))
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        start = len(tokenizer("")["input_ids"])  # what the tokenizer puts around every text
        cut = str(tokenizer.decode(ids[: tokens - start])).strip()
        if cut and len(tokenizer(cut)["input_ids"]) == tokens:
            return cut
    raise RamoleError(
        f"No prompt of exactly {tokens} tokens was found for this base model's tokenizer."
    )


def make_prompts(
    tokenizer: PreTrainedTokenizerBase, *, tokens: int, count: int, seed: int = 0
) -> list[str]:
    """Different prompts of the same length."""
    return [make_prompt(tokenizer, tokens=tokens, seed=seed + n) for n in range(count)]
