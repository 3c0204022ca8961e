"""A base without a chat template, with a setting's, with a bad one; tokens that it lacks."""

import shutil

import pytest
from tokenizers import Tokenizer, decoders, models, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ramole_core import RamoleError, Request
from ramole_core.base.chat_template import (
    NEXT_TURN,
    check_marks,
    complete_template,
    default_template,
    ends_turns_itself,
)
from ramole_core.base.model import load_base, load_tokenizer
from ramole_core.engine.prompt import encode_prompt, read_prompt
from ramole_core.training.rows import render_prompt
from tests.conftest import TEMPLATE

TALK = [("What is 2 + 2?", "4"), ("And 3 + 3?", "6")]
WHOLE = (
    "Be brief.\n\nUser:\nWhat is 2 + 2?\nAssistant:\n4{end}\n"
    "User:\nAnd 3 + 3?\nAssistant:\n6{end}\nUser:\nSure?\nAssistant:\n"
)


@pytest.fixture
def tiny(tiny_llama):
    return AutoTokenizer.from_pretrained(tiny_llama)


def words_tokenizer(*, begins: bool, ends: bool = True) -> PreTrainedTokenizerFast:
    """Of letters, as Llama's: where it `begins`, <s> stands before every text."""
    vocabulary = {c: n for n, c in enumerate(["<s>", "</s>", *map(chr, range(10, 127))])}
    letters = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    if begins:
        letters.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    letters.decoder = decoders.Fuse()
    marks = {"bos_token": "<s>"} | ({"eos_token": "</s>"} if ends else {})
    return PreTrainedTokenizerFast(tokenizer_object=letters, **marks)


@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize("ends", [False, True])
def test_without_a_template_turns_are_plain_and_told(begins, ends):
    tokenizer = words_tokenizer(begins=begins, ends=ends)
    note = complete_template(tokenizer, template=None)
    assert note is not None and "RAMOLE_CHAT_TEMPLATE" in note
    request = Request("Sure?", history=TALK, system="Be brief.")
    prompt = read_prompt(request, tokenizer, context=10_000)
    wanted = ("<s>" if begins else "") + WHOLE.format(end="</s>" if ends else "")
    assert tokenizer.decode(prompt.ids) == wanted
    first, second, last = map(tokenizer.decode, prompt.parts)
    assert first.endswith("Assistant:\n4" + ("</s>\n" if ends else "\n"))
    assert second.startswith("User:\nAnd 3") and last == "User:\nSure?\nAssistant:\n"
    assert not ends_turns_itself(tokenizer) and NEXT_TURN == "\nUser:"
    assert render_prompt(tokenizer, "Sure?") == encode_prompt(Request("Sure?"), tokenizer)


def test_a_template_that_is_there_stays(tiny):
    assert complete_template(tiny, template=None) is None
    assert tiny.chat_template == TEMPLATE and ends_turns_itself(tiny)


@pytest.mark.parametrize("as_file", [False, True])
def test_the_setting_replaces_it(tiny, tmp_path, as_file):
    other = "{% for m in messages %}[{{ m['content'] }}]{% endfor %}"
    file = tmp_path / "chat.jinja"
    file.write_text(other, "utf-8")
    assert complete_template(tiny, template=str(file) if as_file else other) is None
    assert tiny.decode(encode_prompt(Request("Hi"), tiny)) == "[Hi]"


BAD = {
    "RAMOLE_CHAT_TEMPLATE cannot write .*unset it": "{% for m in messages %}",
    "what the user says is not in what it writes": "{# nothing #}",
    "can only concatenate|unsupported operand": "{{ messages + 1 }}",
    "nor a file that can be read": "/no/such/file.jinja",
    "RAMOLE_CHAT_TEMPLATE=~nosuchuser/a.*whole path": "~nosuchuser/a",
}


@pytest.mark.parametrize("message", BAD)
def test_a_setting_that_writes_nothing_is_refused_in_a_sentence(tiny, message):
    with pytest.raises(RamoleError, match=message) as refused:
        complete_template(tiny, template=BAD[message])
    assert "\n" not in str(refused.value)


def test_a_folder_loads_with_its_note_and_the_setting_takes_it_away(tiny_llama, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_llama, folder)
    (folder / "chat_template.jinja").unlink()
    load = {"data_dir": tmp_path, "quantization": "none", "device": "cpu"}
    base = load_base(str(folder), **load)
    assert len(base.notes) == 1 and "no chat template" in base.notes[0]
    assert load_tokenizer("m", folder).chat_template == base.tokenizer.chat_template
    assert load_base(str(folder), chat_template=TEMPLATE, **load).notes == ()
    assert load_tokenizer("m", folder, chat_template=TEMPLATE).chat_template == TEMPLATE


def test_a_template_of_its_own_that_fails_is_a_note_and_raw_is_answered(tiny_llama, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_llama, folder)
    (folder / "chat_template.jinja").write_text("{{ messages + 1 }}")
    base = load_base(str(folder), data_dir=tmp_path, quantization="none", device="cpu")
    assert "ask with raw=True, or set RAMOLE_CHAT_TEMPLATE" in base.notes[0]
    assert encode_prompt(Request("Hi", raw=True), base.tokenizer)
    with pytest.raises(RamoleError, match="refuses this conversation.*ask with raw=True, or set"):
        encode_prompt(Request("Hi"), base.tokenizer)


def test_marks_beyond_the_model_are_refused_when_it_loads(tiny):
    check_marks("a/folder", tiny, vocabulary=258)
    with pytest.raises(RamoleError, match=r"a/folder.* 257 \('<\|im_end\|>'\).*0 to 256; set"):
        check_marks("a/folder", tiny, vocabulary=257)
    tiny.chat_template = default_template(tiny)
    with pytest.raises(RamoleError, match="token 257"):  # its end
        check_marks("a/folder", tiny, vocabulary=257)
    tiny.add_tokens(["<unused>"])
    check_marks("a/folder", tiny, vocabulary=258)
