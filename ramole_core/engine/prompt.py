"""A request on its way into the engine: its prompt as token ids, read once, and its adapters."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from ramole_core.composition import Candidate
from ramole_core.errors import RamoleError
from ramole_core.request import Request


@dataclass(frozen=True)
class Prompt:
    """A prompt that was read."""

    ids: list[int]
    room: int
    """Most tokens that the answer may have."""


@dataclass(frozen=True)
class Prepared:
    """A request that can be submitted."""

    request: Request
    candidates: Sequence[Candidate]
    """Its adapters."""
    prompt: Prompt


def encode_prompt(request: Request, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of the prompt as the model sees it; training uses the same.

    Raises RamoleError where the base model's tokenizer has no chat template.
    """
    if request.raw:
        return list(tokenizer(request.prompt)["input_ids"])
    if tokenizer.chat_template is None:
        raise RamoleError(
            "The base model has no chat template; ask with raw=True, or choose an instruct model."
        )
    messages = [{"role": "user", "content": request.prompt}]
    if request.system is not None:
        messages.insert(0, {"role": "system", "content": request.system})
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(str(text), add_special_tokens=False)["input_ids"])


def room_for_answer(request: Request, length: int, *, context: int) -> int:
    """Most tokens the answer may have; raises RamoleError where the prompt fills the context."""
    if length >= context:
        raise RamoleError(
            f"The prompt has {length} tokens, and the base model reads at most {context} with its "
            f"answer; shorten the prompt by {length - context + 1} tokens or more."
        )
    return min(request.max_new_tokens, context - length)
