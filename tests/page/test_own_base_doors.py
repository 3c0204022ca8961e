"""A fresh base of one's own, of Llama-2's shape and without a chat template: every door answers."""

import asyncio
import io
import json
import math

import httpx
import pytest
import torch
from gradio_client.exceptions import AppError
from transformers import LlamaConfig, LlamaForCausalLM

from ramole_core import TRAINING_STEPS, Ramole, Request, Settings, model_notes, untrained
from ramole_core.cli import main
from ramole_core.methods import DEFAULT_METHOD, METHOD_LIST
from tests.conftest import save_tiny_tokenizer
from tests.page.test_api import speak_mcp
from tests.support.serving import REPOSITORY, app, client_of
from ui.header import status_html
from ui.parts.fields import untrained_html

CHAT = [["Hello", "Hi."]]
NOTE = "no chat template, so conversations are written as plain turns"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """As many heads for keys as for queries, an output head of its own, and no template."""
    folder = tmp_path_factory.mktemp("llama-2")
    tokenizer = save_tiny_tokenizer(folder)
    (folder / "chat_template.jinja").unlink()
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=36,
        intermediate_size=56,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=3,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def settings(base, tmp_path_factory):
    """With some of the sample pool that ships, all of which is another base's."""
    pool = tmp_path_factory.mktemp("pool")
    for name in ("nl2bash", "dart", "_router", "_retriever", "_base"):
        (pool / name).symlink_to(REPOSITORY / "adapters" / name)
    return {
        "base_model": str(base),
        "quantization": "none",
        "data_dir": tmp_path_factory.mktemp("data"),
        "adapters_dir": pool,
    }


@pytest.fixture
def home(settings, monkeypatch):
    for name, value in settings.items():
        monkeypatch.setenv(f"RAMOLE_{name.upper()}", str(value))


def test_python_answers_with_defaults_raw_and_chat(settings):
    chat = {"system": "Be brief.", "history": CHAT}
    with Ramole(Settings(**settings)) as ramole:
        for how in ({}, {"raw": True}, chat, {"method": "base", "raw": True}):
            answer = ramole.generate([Request("Hello", max_new_tokens=3, **how)])[0]
            assert answer.new_tokens and answer.adapters == []
            assert all(map(math.isfinite, answer.scores))
        notes = model_notes(ramole)
        ready = {"ready": True, "stage": "ready", "fraction": 1.0, "error": None}
        assert NOTE in notes[0] and NOTE in status_html(
            ready, exact=True, model="tiny", notes=notes
        )
        assert NOTE not in status_html(ready, exact=True, model="tiny")
        assert set(untrained(ramole)) >= {"ramole", "moe", "mole"}
        html = untrained_html(ramole)
        steps = {step.command.split("ramole_core ")[1].split(" --")[0] for step in TRAINING_STEPS}
        assert steps == {"train router", "train retriever", "calibrate"}
        for step in TRAINING_STEPS:
            assert f"{step.command}   # {step.minutes} minutes: " in html
        assert str(ramole.settings.trained_dir).endswith("/trained")
        assert "RAMOLE_DATA_DIR/trained" in html and "--overwrite" in html


def checks(capsys) -> dict[str, dict]:
    assert main(["doctor", "--json"]) == 0
    return {one["name"]: one for one in json.loads(capsys.readouterr().out)["checks"]}


def test_the_command_line_answers_and_tells_it_once(home, capsys, monkeypatch):
    for words, typed in (
        ("generate Hello", b""),
        ("generate Hello --raw --json", b""),
        ("chat", b"Hello\nAnd you?\n"),
        ("batch -", b"Hello\n"),
    ):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(typed)))
        assert main([*words.split(), "--max-new-tokens", "3"]) == 0
        said = capsys.readouterr()
        assert said.out and said.err.count(NOTE) == 1, words
        if "json" in words or "batch" in words:
            told = json.loads(said.out)
            assert told["method"] == DEFAULT_METHOD and told["text"]
        assert words != "chat" or "no adapter; " in said.err
    found = checks(capsys)
    assert found["chat template"]["state"] == "note" and NOTE in found["chat template"]["says"]
    assert found["router"]["state"] == "note" and "train router" in found["router"]["says"]


def test_a_template_of_the_operators_is_what_the_model_reads(home, capsys, monkeypatch):
    def answer(*said: str) -> dict:
        assert main(["generate", *said, "--max-new-tokens", "3", "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    plain = answer("Hello")
    template = "{% for m in messages %}<{{ m.content }}>{% endfor %}"
    monkeypatch.setenv("RAMOLE_CHAT_TEMPLATE", template)
    chat, raw = answer("Hello"), answer("<Hello>", "--raw")
    assert chat["text"] == raw["text"] and chat["new_tokens"] == raw["new_tokens"]
    assert chat["prompt_tokens"] == raw["prompt_tokens"] < plain["prompt_tokens"]
    says = checks(capsys)["chat template"]["says"]
    assert NOTE not in says and "RAMOLE_CHAT_TEMPLATE" in says


@pytest.fixture(scope="module")
def server(settings, tmp_path_factory):
    """The page, running from here on: a command that is run meanwhile would ask it."""
    with app(tmp_path_factory.mktemp("page"), **settings) as running:
        yield running


def test_app_listens_before_torch_and_answers_with_the_real_core(server):
    told = httpx.get(f"{server.url}/health", timeout=30).json()
    assert told["status"] in ("loading", "ok") and told["adapters"] == 2
    client = client_of(server.url)
    text, told = client.predict("hello", method="base", max_new_tokens=4, api_name="/ask")
    assert told["new_tokens"] <= 4 and told["finish_reason"] in ("length", "eos")
    how = {"method": "base", "max_new_tokens": 4, "api_name": "/ask"}
    rest, whole = client.predict("hello", prefix_ids=told["token_ids"][:2], **how)
    assert (rest, whole["token_ids"]) == (text, told["token_ids"])
    assert whole["new_tokens"] == told["new_tokens"] - 2
    _, second = client.predict("and now?", history=[["hello", text, []]], **how)
    assert second["prompt_tokens"] > told["prompt_tokens"] + len("and now?")
    long = [["hello " * 90, "yes"], ["hello", "yes"]]
    with pytest.raises(AppError, match="in 3 turns, .* or pass drop_turns=True"):
        client.predict("and now?", history=long, **how)
    _, kept = client.predict("and now?", history=long, drop_turns=True, **how)
    assert kept["dropped_turns"] == 1
    assert httpx.get(f"{server.url}/health", timeout=30).json()["status"] == "ok"
    client.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # mcp renames its own client function
def test_the_page_and_its_doors_answer(server):
    client = client_of(server.url)
    for how in ({}, {"raw": True}, {"history": CHAT}, {"method": "base"}):
        _, told = client.predict("Hello", max_new_tokens=3, api_name="/ask", **how)
        assert told["new_tokens"] and told["method"] in (DEFAULT_METHOD, "base")
    (told,) = client.predict(["Hello"], max_new_tokens=3, api_name="/ask_batch")
    assert told["new_tokens"]
    said = {"prompt": "Hello", "max_new_tokens": 3}
    _, (told,) = asyncio.run(speak_mcp(server.url, [("ask", said)]))
    assert not told.isError and str(DEFAULT_METHOD) in told.content[0].text
    config = httpx.get(f"{server.url}/config", timeout=60).json()
    (block,) = [
        value
        for one in config["components"]
        if 'id="untrained"' in (value := str(one["props"].get("value")))
    ]
    assert TRAINING_STEPS[0].command in block
    models = httpx.get(f"{server.url}/v1/models", timeout=60).json()["data"]
    listed = {one["id"] for one in models}
    trained = {row.name for row in METHOD_LIST if row.training}
    assert DEFAULT_METHOD in listed and not trained & listed
    said = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}
    for model, status in ((DEFAULT_METHOD, 200), ("base", 200), ("ramole", 404)):
        url = f"{server.url}/v1/chat/completions"
        found = httpx.post(url, json={"model": model, **said}, timeout=60)
        assert found.status_code == status, found.text
    client.close()
