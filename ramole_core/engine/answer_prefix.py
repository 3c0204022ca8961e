"""The given beginning of an answer: the model continues from these tokens."""

from transformers import PreTrainedTokenizerBase

from ramole_core.engine.decoding import TextStream
from ramole_core.errors import RamoleError
from ramole_core.request import Request


def check_prefix(
    request: Request,
    tokenizer: PreTrainedTokenizerBase,
    *,
    eos: frozenset[int],
    vocabulary: int,
) -> None:
    """Raise RamoleError where `prefix_ids` has a token that the base lacks, or an answer that has
    ended; `vocabulary` is the number of the base's tokens."""
    if not request.prefix_ids:
        return
    if (largest := max(request.prefix_ids)) >= vocabulary:
        raise RamoleError(
            f"prefix_ids has {largest}, but the base model's tokens are 0 to {vocabulary - 1}; "
            "give tokens of this base, such as a trace has."
        )
    text = TextStream(tokenizer, stop=request.stop)
    for n, token in enumerate(request.prefix_ids, 1):
        if token in eos and not request.ignore_eos:
            raise RamoleError(
                f"Token {n} of prefix_ids, {token}, ends the answer; leave it out, or pass "
                "ignore_eos=True."
            )
        text.push(token)
        if text.stopped:
            raise RamoleError(
                f"At token {n} prefix_ids has a stop string, so the answer has ended; give fewer "
                "tokens, or other stop strings."
            )
