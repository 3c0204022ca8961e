"""Turns as token ids: the whole is the template's own rendering, whatever the template does."""

import pytest
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ramole_core import RamoleError, Request
from ramole_core.engine.prompt import encode_prompt, read_prompt
from tests.conftest import TEMPLATE

TALK = [("Hello there", "Hi!"), ("And you?", "  Fine,\nthanks. ")]
MANY = 10_000


@pytest.fixture(params=["tiny", "real"])
def tokenizer(request):
    folder = "tiny_llama" if request.param == "tiny" else "real_base_folder"
    return AutoTokenizer.from_pretrained(request.getfixturevalue(folder))


@pytest.fixture
def tiny(tiny_llama):
    return AutoTokenizer.from_pretrained(tiny_llama)


def rendered(tokenizer, request: Request) -> list[int]:
    """The template once over everything, written out by hand."""
    said = [{"role": "system", "content": request.system}] if request.system else []
    for user, assistant in (turn[:2] for turn in request.history):
        said += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    said.append({"role": "user", "content": request.prompt})
    text = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_the_parts_are_the_whole_and_each_is_a_turn(tokenizer, system):
    request = Request("Why is that?", history=TALK, system=system)
    prompt = read_prompt(request, tokenizer, context=MANY)
    assert prompt.ids == rendered(tokenizer, request)
    assert prompt.dropped == 0 and prompt.room == request.max_new_tokens
    first, second, last = map(tokenizer.decode, prompt.parts)
    assert first.endswith("Hi!<|im_end|>\n") and "Hello there" in first
    assert (system in first) if system else True
    assert second == (
        "<|im_start|>user\nAnd you?<|im_end|>\n<|im_start|>assistant\n  Fine,\nthanks. <|im_end|>\n"
    )
    assert last == "<|im_start|>user\nWhy is that?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("raw", [False, True])
def test_one_turn_is_what_training_sees(tokenizer, raw):
    request = Request("Why is that?", raw=raw)
    prompt = read_prompt(request, tokenizer, context=MANY)
    assert prompt.parts == (tuple(encode_prompt(request, tokenizer)),)
    assert prompt.ids == encode_prompt(request, tokenizer)


def test_a_longer_conversation_begins_with_the_parts_of_the_shorter(tokenizer):
    """What was read for a turn is read again by the next one."""
    short = read_prompt(Request("A", history=TALK), tokenizer, context=MANY)
    more = read_prompt(Request("B", history=[*TALK, ("A", "said")]), tokenizer, context=MANY)
    assert more.parts[:2] == short.parts[:2]
    assert more.ids[: len(short.ids)] == short.ids


CLOSES = TEMPLATE + "{% if not add_generation_prompt %}the end{% endif %}"
FORGETS = "{% for m in messages %}{% if loop.last or m['role'] == 'user' %}[{{ m['content'] }}]" + (
    "{% endif %}{% endfor %}"
)
LAST = "{{ messages[-1]['content'] }}"
COUNTS = "{{ messages | length }} messages: " + TEMPLATE
GLUED = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


@pytest.mark.parametrize("template", [CLOSES, FORGETS, LAST, COUNTS, GLUED])
def test_the_whole_stays_whole_where_a_prefix_is_rendered_otherwise(tiny, template):
    tiny.chat_template = template
    request = Request("Why is that?", history=TALK, system="Be brief.")
    prompt = read_prompt(request, tiny, context=MANY)
    assert prompt.ids == rendered(tiny, request)
    assert len(prompt.parts) == 3 and prompt.parts[-1]


def test_a_boundary_is_where_the_rendering_stops_being_a_prefix(tiny):
    tiny.chat_template = CLOSES
    request = Request("Why?", history=TALK)
    first, second, _ = map(tiny.decode, read_prompt(request, tiny, context=MANY).parts)
    assert first.endswith("Hi!<|im_end|>\n") and second.endswith("thanks. <|im_end|>\n")
    tiny.chat_template = FORGETS  # [Hello there][Hi!] against [Hello there][And you?]
    first, second, last = map(tiny.decode, read_prompt(request, tiny, context=MANY).parts)
    assert (first, second, last) == ("[Hello there][", "And you?][", "Why?]")


def test_a_token_that_reaches_over_a_boundary_belongs_to_the_later_turn():
    """What the assistant said ends in c, what the user says begins with d, and cd is one token."""
    vocabulary = {token: n for n, token in enumerate([*"abcdefghijk", "cd"])}
    glued = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE(vocab=vocabulary, merges=[("c", "d")]))
    )
    glued.chat_template = GLUED
    request = Request("jk", history=[("ab", "c"), ("defg", "hi")])
    prompt = read_prompt(request, glued, context=MANY)
    words = [glued.convert_ids_to_tokens(list(part)) for part in prompt.parts]
    assert words == [["a", "b"], ["cd", *"efghi"], ["j", "k"]]


def test_a_template_that_refuses_is_one_sentence(tiny):
    tiny.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system here') }}{% endif %}"
        + TEMPLATE
    )
    with pytest.raises(RamoleError, match="No system here.*leave out the system prompt"):
        read_prompt(Request("a", system="b", history=TALK), tiny, context=MANY)
    assert read_prompt(Request("a", history=TALK), tiny, context=MANY).parts
    tiny.chat_template = "{{ messages + 1 }}"
    with pytest.raises(RamoleError, match="concatenate list.*ask in one turn, or with raw=True"):
        read_prompt(Request("a", history=TALK), tiny, context=MANY)
    with pytest.raises(RamoleError, match="ask with raw=True, or set RAMOLE_CHAT_TEMPLATE"):
        read_prompt(Request("a"), tiny, context=MANY)
    assert read_prompt(Request("a", raw=True), tiny, context=MANY).parts


# --- the context ----------------------------------------------------------------------------------


def ask(n: int, *, new=10, **more) -> Request:
    """A conversation of n earlier turns."""
    history = [(f"question {i}", f"answer {i}") for i in range(n)]
    return Request("and now?", history=history, max_new_tokens=new, **more)


def test_what_does_not_fit_is_told_in_numbers(tiny):
    request = ask(3)
    length = len(rendered(tiny, request))
    assert read_prompt(request, tiny, context=length + 1).room == 1
    with pytest.raises(RamoleError) as told:
        read_prompt(request, tiny, context=length)
    assert f"{length} tokens in 4 turns" in str(told.value)
    assert f"at most {length} " in str(told.value) and "drop_turns=True" in str(told.value)
    assert "by 1 tokens" in str(told.value)


@pytest.mark.parametrize("left", range(4))
def test_turns_are_dropped_from_the_front_until_the_answer_fits(tiny, left):
    request = ask(3, system="Be brief.", drop_turns=True)
    kept = Request(
        "and now?", history=request.history[3 - left :], max_new_tokens=10, system="Be brief."
    )
    length = len(rendered(tiny, kept))
    prompt = read_prompt(request, tiny, context=length + 10)
    assert prompt.dropped == 3 - left and len(prompt.parts) == left + 1
    assert prompt.ids == rendered(tiny, kept) and prompt.room == 10


def test_the_turn_that_is_answered_is_never_dropped(tiny):
    alone = Request("and now?", max_new_tokens=10)
    length = len(rendered(tiny, alone))
    prompt = read_prompt(ask(3, drop_turns=True), tiny, context=length + 2)
    assert (prompt.dropped, prompt.room, len(prompt.parts)) == (3, 2, 1)
    with pytest.raises(RamoleError, match="shorten the prompt"):
        read_prompt(ask(3, drop_turns=True), tiny, context=length)


def test_given_tokens_count_into_the_answer(tiny):
    length = len(rendered(tiny, ask(1)))
    request = ask(1, prefix_ids=[1, 2, 3])
    assert read_prompt(request, tiny, context=MANY).room == 10
    assert read_prompt(request, tiny, context=length + 4).room == 4
    with pytest.raises(RamoleError, match="3 tokens of the answer.*has ended"):
        read_prompt(request, tiny, context=length + 3)
