"""Chat templates for base models without one, or with a broken one.

    User:
    Which city is the capital of France?
    Assistant:
    Paris</s>
    User:
    ...

What the tokenizer puts before a text comes first, then the system prompt and an empty line; an
answer of before ends with the end token, where there is one. A base model that was not trained on
turns continues with the user's next one, so `NEXT_TURN` ends its answers.
"""

from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase

from ramole_core.base.files import local_path
from ramole_core.errors import RamoleError, first_line

MARK = "{#- the plain turns of RAMoLE -#}"
"""Marks the default template; it is not rendered."""
TURNS = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}{{ message['content'] + '\\n\\n' }}"
    "{%- elif message['role'] == 'user' -%}{{ 'User:\\n' + message['content'] + '\\n' }}"
    "{%- else -%}{{ 'Assistant:\\n' + message['content'] + END + '\\n' }}"
    "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'Assistant:\\n' }}{%- endif -%}"
)
NEXT_TURN = "\nUser:"
"""Stop string of an answer under the default template."""
PROBE = "Hello, world?"
ENGLISH = 'The quick brown fox jumps over the lazy dog.\n0123456789, (it\'s) "so": a - b?'
NOTE = (
    "The base model has no chat template, so conversations are written as plain turns (User:, "
    "Assistant:); RAMOLE_CHAT_TEMPLATE sets another, raw=True takes none."
)


def complete_template(tokenizer: PreTrainedTokenizerBase, *, template: str | None) -> str | None:
    """Give the tokenizer a chat template: this one (a path, or the template itself), else its own,
    else the plain turns. Returns a note for its users, if any.

    Raises RamoleError where the template that is given cannot write a conversation.
    """
    if template is not None:
        tokenizer.chat_template = _read(template)
        if (reason := _fault(tokenizer)) is not None:
            raise RamoleError(
                f"RAMOLE_CHAT_TEMPLATE cannot write a user's message ({reason}); correct it, or "
                "unset it."
            )
        return None
    if tokenizer.chat_template is None:
        tokenizer.chat_template = default_template(tokenizer)
    return note_on(tokenizer)


def note_on(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """A note for users on the tokenizer's chat template; None where it is usual."""
    if not ends_turns_itself(tokenizer):
        return NOTE
    if (reason := _fault(tokenizer)) is None:
        return None
    return (
        f"The base model's chat template cannot write a user's message ({reason}); ask with "
        "raw=True, or set RAMOLE_CHAT_TEMPLATE to another."
    )


def default_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The plain turns, with the beginning and the end that this tokenizer's texts have."""
    begins = tokenizer.bos_token_id is not None and (
        list(tokenizer(PROBE)["input_ids"])[:1] == [tokenizer.bos_token_id]
    )
    end = "''" if tokenizer.eos_token is None else "eos_token"
    return MARK + ("{{- bos_token -}}" if begins else "") + TURNS.replace("END", end)


def ends_turns_itself(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the model was trained on turns; False under the plain template."""
    return not str(tokenizer.chat_template or "").startswith(MARK)


def turn_end_of(tokenizer: PreTrainedTokenizerBase, *, raw: bool) -> str:
    """The text that ends an answer in place of an end token; empty where the model has one, or the
    prompt is `raw`."""
    return "" if raw or ends_turns_itself(tokenizer) else NEXT_TURN


def check_marks(source: str, tokenizer: PreTrainedTokenizerBase, *, vocabulary: int) -> None:
    """Raise RamoleError where the model's `vocabulary` lacks tokens of plain English or of the
    template."""
    ids = [*tokenizer(ENGLISH)["input_ids"], *_marks(tokenizer)]
    if (largest := max(ids, default=0)) >= vocabulary:
        raise RamoleError(
            f"The tokenizer of {source} gives plain texts token {largest} "
            f"({tokenizer.convert_ids_to_tokens(largest)!r}), but the model has tokens 0 to "
            f"{vocabulary - 1}; set RAMOLE_BASE_MODEL to a folder whose files belong together."
        )


def check_known(ids: Iterable[int], tokenizer: PreTrainedTokenizerBase, *, vocabulary: int) -> None:
    """Raise RamoleError where the model, which has `vocabulary` tokens, lacks one of a text's."""
    if (largest := max(ids, default=0)) >= vocabulary:
        text = tokenizer.convert_ids_to_tokens(largest)
        spelled = "" if text is None else f" ({text!r} of the tokenizer)"
        raise RamoleError(
            f"The text has token {largest}{spelled}, but the base model has tokens 0 to "
            f"{vocabulary - 1}; leave it out."
        )


def _marks(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens of an empty turn, and the end token."""
    end = tokenizer.eos_token_id
    found = [end] if isinstance(end, int) else []
    if _fault(tokenizer) is None:
        found += tokenizer(_render(tokenizer), add_special_tokens=False)["input_ids"]
    return found


def _fault(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The template's error on one user's turn; None where it works."""
    try:
        written = _render(tokenizer)
    except Exception as error:  # a template is a program
        return first_line(error).rstrip(".")
    return None if PROBE in written else "what the user says is not in what it writes"


def _render(tokenizer: PreTrainedTokenizerBase) -> str:
    messages = [{"role": "user", "content": PROBE}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def _read(template: str) -> str:
    """Return the text itself, or that of the file at this path."""
    if "{" in template:
        return template
    try:
        return local_path("RAMOLE_CHAT_TEMPLATE", template).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise RamoleError(
            f"RAMOLE_CHAT_TEMPLATE={template} is neither a template, which has {{ in it, nor a "
            f"file that can be read ({getattr(error, 'strerror', None) or error}); correct it."
        ) from None
