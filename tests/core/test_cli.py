"""The command line: words to requests, answers to streams and JSON, errors to one line."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ramole_core.cli import main
from ramole_core.errors import RamoleError
from ramole_core.methods import METHOD_LIST
from ramole_core.mixes import Mix
from ramole_core.request import Fitting, Generation, Request, Step
from ramole_core.terminal.console import progress_bar, write_table
from tests.support.adapter_files import arrays_of, write_adapter
from tests.support.fake_ramole import WORDS, FakeRamole
from tests.support.few_prompts import few_reference_prompts  # noqa: F401  a fixture
from tests.support.tiny_bases import BASES, save_tiny_base
from tests.support.workers import REPOSITORY, python

TEXT = "".join(WORDS).replace("The", "[bold]The")


class Door(FakeRamole):
    """A fake system with a word of markup in each answer; keeps what it was asked."""

    def __init__(self):
        super().__init__(loaded=False)
        self.asked: list[object] = []
        self.model_facts = None
        self.pool.names += ["x", "y"]
        self.hub = SimpleNamespace(near=lambda text, k, exclude: [])

    def __exit__(self, *_: object) -> None:
        self.asked.append("closed")

    def load(self, progress) -> None:
        super().load(lambda stage, fraction: progress("reading [the] base", fraction))

    def retrieve(self, text, k=3, exclude=(), owner=None):
        self.asked.append((text, k, tuple(exclude), owner))
        return super().retrieve(text, k, exclude, owner)

    def _names(self, request: Request) -> list[str]:
        return list(request.adapters or ("ant", "bee"))

    def stream(self, request: Request) -> Iterator[Step]:
        self.asked.append(request)
        for _, item in self.stream_batch([request]):
            item = replace(item, text=item.text.replace("The", "[bold]The"))
            if isinstance(item, Generation):
                named = request.adapters is not None
                return replace(item, scores=[float("nan")] * len(item.scores)) if named else item
            yield item


@pytest.fixture(autouse=True)
def nobody_s_page(monkeypatch, tmp_path):
    """Of a page that somebody runs on this machine the command line does not know."""
    monkeypatch.setenv("RAMOLE_DATA_DIR", str(tmp_path / "data"))


@pytest.fixture
def door(monkeypatch) -> Door:
    made = Door()
    monkeypatch.setattr("ramole_core.ramole.Ramole", lambda *settings: made)
    return made


def test_every_option_of_generate_reaches_the_request(door: Door, capsys):
    words = "generate hello --method mixture --k 5 --adapter x --adapter y --weight 0.25"
    words += " --weight -0.5 --exclude z --max-new-tokens 7 --temperature 0.7 --top-p 0.9 --seed 3"
    assert main([*words.split(), "--stop", "a b", "--stop", "c", "--system", "Be brief.",
                 "--owner", "me"]) == 0  # fmt: skip
    assert door.asked == [
        Request(
            "hello",
            method="mixture",
            k=5,
            adapters=("x", "y"),
            weights=(0.25, -0.5),
            exclude=("z",),
            max_new_tokens=7,
            temperature=0.7,
            top_p=0.9,
            seed=3,
            stop=("a b", "c"),
            system="Be brief.",
            trace=False,
            owner="me",
        ),
        "closed",
    ]


def test_an_unsaid_option_is_the_request_s_own_default(door: Door, capsys):
    assert main(["generate", "hello"]) == 0
    assert door.asked[0] == Request("hello", trace=False)


def test_examples_come_from_a_file_and_a_mix_by_name(door: Door, tmp_path, capsys, monkeypatch):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"inputs": "a", "targets": "b"}\nc => d\n')
    found = Fitting("lorahub", ("x", "y"), ("1", "2"), 4, 4, (0.5, -1.25), 1.5, 2.0, 3.25)

    def stream(request, fitting=lambda how: None):
        fitting(replace(found, step=1))
        fitting(found)
        return Door.stream(door, request)

    door.stream = stream
    door.check_mix_name = lambda name, owner: None
    words = f"generate hello --method lorahub --examples {file} --keep spam --owner me"
    assert main(words.split()) == 0
    assert door.asked[0].examples == (("a", "b"), ("c", "d"))
    assert [mix.name for mix in door.mixes("me")] == ["spam"] and not door.mixes("you")
    err = capsys.readouterr().err
    assert "Finding weights: step 1 of 4, loss 1.500 so far" in err
    assert "Found weights: x 0.500, y -1.250; loss of the examples 1.500, 2.000 at the" in err
    assert "Kept as the mix spam; --mix spam asks with it." in err
    del door.stream
    assert main(["generate", "hello", "--mix", "spam"]) == 0
    assert door.asked[-2] == Request("hello", mix="spam", trace=False)
    assert main(["generate", "hello", "--keep", "spam"]) == 2
    file.write_text("nothing")
    assert main(["generate", "hello", "--examples", str(file)]) == 2
    said = capsys.readouterr().err
    assert "add --examples FILE" in said and "Line 1 of the examples is 'nothing'" in said


def test_what_cannot_be_kept_is_said_before_anything_is_asked(door: Door, tmp_path, capsys):
    file = tmp_path / "pairs.jsonl"
    file.write_text("c => d")

    def taken(name, owner):
        raise RamoleError(f"There is a mix {name} already.")

    door.check_mix_name = taken
    assert main(f"generate hi --method lorahub --examples {file} --keep spam".split()) == 2
    assert main(f"generate hi --trace {tmp_path / 'none' / 'a.npz'}".split()) == 2
    said = capsys.readouterr().err.splitlines()
    assert "a mix spam already" in said[0] and "none for --trace; make it." in said[1]
    assert door.asked == ["closed"]


@pytest.mark.parametrize("command", [["generate", "-"], ["retrieve", "-"], ["chat"]])
def test_bytes_that_are_no_text_are_one_line(command, door: Door, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9"), "utf-8"))
    assert main(command) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "Standard input is not utf-8 text; save it in that coding."


def test_a_file_of_endless_brackets_is_one_line(door: Door, tmp_path, capsys):
    deep = tmp_path / "deep.jsonl"
    deep.write_text("[" * 100_000)
    assert main(["generate", "hi", "--history", str(deep)]) == 2
    assert main(["add", str(tmp_path), "--examples", str(deep)]) == 2
    deep.write_text('{"text": ["a"]}')
    assert main(["add", str(tmp_path), "--examples", str(deep)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert "not a JSON list of turns" in said[0]
    assert all('is not {"text": "..."} on every line' in line for line in said[1:])
    assert len(said) == 3


def test_mixes_are_listed_and_forgotten(door: Door, capsys):
    gone = []
    mix = Mix("spam", "lorahub", ("x", "y"), ("1", "2"), (0.5, -1.25), 1.5)
    door.mixes = lambda owner: [mix]
    door.remove_mix = lambda name, owner: gone.append((name, owner))
    assert main(["mixes"]) == 0 and "x 0.500, y -1.250" in capsys.readouterr().out
    assert main(["mixes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mixes"][0]["weights"] == [0.5, -1.25]
    assert main(["mixes", "--remove", "spam", "--owner", "me"]) == 0 and gone == [("spam", "me")]


def test_text_goes_to_stdout_and_all_else_to_stderr(door: Door, capsys):
    assert main(["generate", "hello"]) == 0
    out, err = capsys.readouterr()
    assert out == TEXT + "\n"
    assert "reading [the] base" in err and err.count("reading [the] base") == 1
    assert err.splitlines()[-1] == "ant 0.90, bee 0.70; 8 tokens in 1.5 s (eos)"


MARKUP = ["[b]", r"ends \[/b]", "[/]", "ends \\", ":smile:", "[link=x]"]


@pytest.mark.parametrize("text", MARKUP)
def test_what_rich_would_read_as_markup_is_printed_as_it_is(capsys, monkeypatch, text):
    write_table(("name", "about"), [("ant", text)])
    assert capsys.readouterr().out.splitlines()[-1].split() == ["ant", *text.split()]
    monkeypatch.setenv("FORCE_COLOR", "1")  # a bar, as in a terminal
    with progress_bar("reading") as tell:
        tell(text, 0.5)
    assert f"reading: {text}" in capsys.readouterr().err


def test_json_is_all_of_stdout(door: Door, capsys):
    assert main(["generate", "hello", "--json", "--seed", "3", "--adapter", "x"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["text"] == TEXT
    assert answer["adapters"] == ["x"] and answer["similarities"] == [None]
    assert answer["seed"] == 3 and answer["router_checksum"] == "ab" * 32
    assert answer["weights_checksums"] == {"ramole": "ab" * 32}
    assert answer["base_checksum"] is None and answer["finish_reason"] == "eos"


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_a_trace_is_written(door: Door, capsys, tmp_path: Path, suffix: str):
    file = tmp_path / f"out{suffix}"
    assert main(["generate", "hello", "--trace", str(file)]) == 0
    if suffix == ".npz":
        with np.load(file) as kept:
            told = dict(kept)
        told |= {name: json.loads(str(told[name])) for name in ("request", "facts")}
    else:
        told = json.loads(file.read_text())
    assert np.shape(told["weights"]) == (10, 5, 2, 2)
    request, facts = told["request"], told["facts"]
    assert request["prompt"] == "hello" and facts["router_checksum"] == "ab" * 32
    assert facts["adapters"] == {"ant": "c" * 64, "bee": "c" * 64}


def test_a_dash_reads_the_prompt_from_stdin(door: Door, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("two\nlines\n"))
    assert main(["generate", "-"]) == 0
    asked = door.asked[0]
    assert isinstance(asked, Request) and asked.prompt == "two\nlines"


def test_retrieve(door: Door, capsys):
    assert main(["retrieve", "hi", "-k", "2", "--exclude", "z", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert door.asked == [("hi", 2, ("z",), None), "closed"]
    assert answer["adapters"] == ["ant", "bee"] and answer["similarities"] == [0.9, 0.7]
    assert main(["retrieve", "hi"]) == 0
    table = "adapter similarity ant 0.900 bee 0.700 cat 0.500"
    assert capsys.readouterr().out.split() == table.split()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["ask"], "No such command 'ask'"),
        (["generate"], "Missing argument 'prompt'"),
        (["generate", "x", "--k", "many"], "'--k'"),
        (["generate", "x", "--kk", "3"], "--kk"),
        (["generate", "  "], "The prompt is empty; type one."),
        (["generate", "x", "--weight", "1"], "weights needs adapters"),
        (["add"], "Missing argument 'source"),
        (["add", "x", "--examples", "/nonexistent/e.txt"], "/nonexistent/e.txt"),
        (["train", "adapter"], "Missing option '--data'"),
        (["generate", "x", "--trace", "a.png"], "a.png ends in neither .npz nor .json; rename it."),
        (["generate", "x", "--method", "ramol"], "Unknown method 'ramol'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(words, sentence: str, door: Door, capsys):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and sentence in err
    assert len(err.splitlines()) == 1 and len(err) < 300
    assert not door.loaded and not [one for one in door.asked if one != "closed"]


def test_a_refusal_with_line_breaks_is_still_one_line(door: Door, capsys, monkeypatch):
    def refuse(*_, **__):
        raise RamoleError("first [red]\nsecond")

    monkeypatch.setattr(Door, "retrieve", refuse)
    assert main(["retrieve", "hi"]) == 2
    assert capsys.readouterr() == ("", "first [red] second\n")
    assert door.asked == ["closed"]


def test_ctrl_c_ends_in_one_line(door: Door, capsys, monkeypatch):
    def interrupted(*_):
        yield Step(0, "Blue", None)
        raise KeyboardInterrupt

    monkeypatch.setattr(Door, "stream", interrupted)
    assert main(["generate", "hello"]) == 130
    out, err = capsys.readouterr()
    assert out == "Blue" and err.splitlines()[-1] == "Stopped."
    assert door.asked == ["closed"]


def test_several_engines_without_ray_say_what_to_install(capsys, monkeypatch):
    monkeypatch.setattr("ramole_core.serving.running.find_spec", lambda name: None)
    assert main(["serve"]) == 2
    assert "make setup SERVE=1" in capsys.readouterr().err


def test_a_bad_setting_is_one_sentence(capsys, monkeypatch):
    monkeypatch.setenv("RAMOLE_PORT", "many")
    assert main(["list"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and "RAMOLE_PORT='many'" in err


def test_turns_and_pairs_in_a_file_with_a_byte_order_mark_are_read(tmp_path):
    from ramole_core.terminal.console import read_pairs, read_turns

    file = tmp_path / "file"
    for text, read in (('[["Hello", "Hi."]]', read_turns), ("say => red", read_pairs)):
        file.write_text(text, encoding="utf-8")
        plain = read(file)
        file.write_text(text, encoding="utf-8-sig")
        assert read(file) == plain != ()


@pytest.mark.parametrize(
    ("host", "variable", "listening", "address"),
    [
        (None, "", "127.0.0.1", "127.0.0.1"),
        (None, "0.0.0.0", "0.0.0.0", "127.0.0.1"),
        (None, "192.0.2.7", "192.0.2.7", "192.0.2.7"),
        ("192.0.2.8", "192.0.2.7", "192.0.2.8", "192.0.2.8"),
        ("::1", "", "::1", "[::1]"),
        ("[::1]", "", "::1", "[::1]"),
        ("::", "", "::", "127.0.0.1"),
    ],
)
def test_the_host_or_gradios_variable_is_listened_on_by_one_page_and_by_one_over_engines(
    monkeypatch, host, variable, listening, address
):
    from ramole_core.serving.running import ServeProcess
    from ramole_core.settings import load_settings

    said, pages = [], []
    serve = SimpleNamespace(start=lambda **options: said.append(options["http_options"]["host"]))
    ray = SimpleNamespace(init=lambda **options: None, serve=serve)
    monkeypatch.setattr(os, "environ", os.environ | {"GRADIO_SERVER_NAME": variable})
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.serve", serve)
    monkeypatch.setattr(ServeProcess, "_deploy", lambda self, page: pages.append(page))
    settings = load_settings(host=host)
    ServeProcess(settings, engines=2, cpus=1, page="ui.mounted:mounted").start()
    assert said == [listening] and settings.url == f"http://{address}:7860/"
    (page,) = pages
    assert load_settings(**page.settings).listening == settings.listening


def test_doctor_says_where_each_setting_comes_from(monkeypatch, tmp_path: Path):
    from ramole_core.cli.doctor import setting_rows
    from ramole_core.settings import Settings, load_settings

    (tmp_path / ".env").write_text("RAMOLE_MAX_RANK=31\nRAMOLE_PORT=7001\nRAMOLE_HOST=\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAMOLE_PORT", "7002")
    monkeypatch.setenv("RAMOLE_AUTH", "ann:secret,bob:hush")
    monkeypatch.setenv("RAMOLE_DEVICE", "")
    rows = {row.name: (row.value, row.origin) for row in setting_rows(load_settings())}
    assert len(rows) == len(Settings.model_fields)
    assert rows["RAMOLE_MAX_RANK"] == ("31", ".env")
    assert rows["RAMOLE_PORT"] == ("7002", "environment")
    assert rows["RAMOLE_AUTH"] == ("ann:***,bob:***", "environment")
    assert rows["RAMOLE_DEVICE"] == ("auto", "default")
    assert rows["RAMOLE_HOST"] == ("", "default")


def test_doctor_reports_a_bad_setting_and_exits_2(capsys, monkeypatch):
    monkeypatch.setenv("RAMOLE_QUANTIZATION", "int3")
    assert main(["doctor", "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert report["healthy"] is False and report["versions"]["torch"]
    assert [check["state"] for check in report["checks"]] == ["broken"]
    assert "RAMOLE_QUANTIZATION='int3'" in report["checks"][0]["says"]


# The real thing, on a tiny random model


def lora_folder(folder: Path, *, seed: int) -> Path:
    """A LoRA of rank 3 on two modules of the tiny Llama (i = 32 and 56, o = 24 and 32)."""
    sizes = {"self_attn.v_proj": (32, 24), "mlp.down_proj": (56, 32)}
    shapes = {f"model.layers.1.{path}": size for path, size in sizes.items()}
    arrays = {name: 3 * array for name, array in arrays_of(seed=seed, shapes=shapes).items()}
    return write_adapter(folder, arrays=arrays)


def answer_of(*words: str, capsys) -> dict:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_an_adapter_comes_is_found_is_used_and_goes(home: Path, capsys):
    (home / "red.txt").write_text("paint it red\nred paint please\n")
    (home / "sea.jsonl").write_text('{"text": "how deep is the ocean"}\n{"text": "sea depth"}\n')
    red, sea = lora_folder(home / "one", seed=1), lora_folder(home / "two", seed=2)
    added = answer_of(
        "add", str(red), "--name", "red", "--examples", f"{home}/red.txt", capsys=capsys
    )
    assert added["adapter"]["rank"] == 3 and added["adapter"]["scale"] == 2.0
    assert added["adapter"]["modules"] == ["v_proj", "down_proj"]
    files = [str(file) for file in sorted(sea.iterdir())]
    assert main(["add", *files, "--name", "sea", "--examples", f"{home}/sea.jsonl"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Added sea: rank 3, v_proj, down_proj, scale 2.")
    assert "Nearest: red" in out
    listed = answer_of("list", capsys=capsys)
    assert [card["name"] for card in listed["adapters"]] == ["red", "sea"]
    assert listed["adapters"][1]["examples"] == ["how deep is the ocean", "sea depth"]
    assert "ranks" not in listed["adapters"][0], "a line for each of its modules"
    assert "ranks" in answer_of("list", "--full", capsys=capsys)["adapters"][0]
    found = answer_of("retrieve", "what is the depth of the sea?", "-k", "2", capsys=capsys)
    assert found["adapters"] == ["sea", "red"]
    assert found["similarities"][0] > found["similarities"][1] + 0.2
    assert len(found["base_checksum"]) == 64 and found["router_checksum"] is None

    words = ("generate", "sea?", "--max-new-tokens", "6")
    using = answer_of(*words, "--method", "selection", capsys=capsys)
    bare = answer_of(*words, "--method", "base", capsys=capsys)
    assert using["adapters"] == ["sea"] and bare["adapters"] == []
    assert using["text"] != bare["text"]
    assert using["base_checksum"] == found["base_checksum"]

    assert main(["remove", "sea"]) == 0
    assert capsys.readouterr().out == "Removed sea.\n"
    assert main(["remove", "sea"]) == 2
    assert "sea" in capsys.readouterr().err
    assert main(["list"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 2 and rows[1].split()[:2] == ["red", "3"]


def test_a_process_of_its_own_answers_and_writes_the_trace(home: Path, capsys):
    assert main(["add", str(lora_folder(home / "one", seed=1)), "--name", "red"]) == 0
    trace = home / "out.npz"
    words = ("generate", "-", "--adapter", "red", "--method", "mixture", "--max-new-tokens", "5")
    words = ("-m", "ramole_core", *words, "--trace", str(trace))
    spoken = python(*words, stdin="paint it\n")
    assert spoken.returncode == 0 and "Traceback" not in spoken.stderr, spoken.stderr
    assert spoken.stderr.splitlines()[-1].startswith("red; ")
    with np.load(trace) as file:
        told = dict(file)
    assert spoken.stdout == f"{told['answer']}\n" and told["adapters"].tolist() == ["red"]
    weights = told["weights"]
    assert (
        weights.shape[0] == len(told["tokens"]) and 1 <= len(weights) - told["prompt_length"] <= 5
    )
    assert weights.shape[1] == 3 and weights.shape[3] == 1
    assert weights[:-1].max() == 1.0 and weights[-1].max() == 0.0


def test_errors_of_the_real_thing_are_one_line(home: Path, capsys):
    for words, named in (
        (["generate", "x", "--adapter", "nobody"], "nobody"),
        (["generate", "x", "--method", "magic"], "magic"),
        (["add", "/nonexistent"], "/nonexistent"),
        (["list", "--owner"], "--owner"),
    ):
        assert main(words) == 2
        out, err = capsys.readouterr()
        said = [line for line in err.splitlines() if not line.startswith(("Getting", "Adding"))]
        assert out == "" and len(said) == 1 and named in said[0]
    done = python("-m", "ramole_core", "remove", "nobody")
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "nobody" in done.stderr


def test_doctor_gpu_without_a_card_is_one_sentence(home: Path, capsys, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for words in (["doctor", "--gpu"], ["doctor", "--gpu", "--json"]):
        assert main(words) == 2
        out, err = capsys.readouterr()
        assert out == "" and "needs an NVIDIA GPU" in err and len(err.splitlines()) == 1


def test_doctor_on_a_base_that_is_not_served_exits_2_with_the_sentence(
    home: Path, capsys, monkeypatch
):
    base = save_tiny_base(BASES["doge"], home / "doge")
    capsys.readouterr()
    monkeypatch.setenv("RAMOLE_BASE_MODEL", str(base))
    assert main(["doctor", "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    (said,) = [one["says"] for one in report["checks"] if one["state"] == "broken"]
    assert not report["healthy"] and "\n" not in said
    assert "attends by a mask of its own; this architecture (DogeForCausalLM) is not" in said


def test_doctor_on_a_whole_and_on_a_damaged_pool(home: Path, capsys):
    assert main(["add", str(lora_folder(home / "one", seed=1)), "--name", "red"]) == 0
    capsys.readouterr()
    assert main(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert "RAMOLE_DTYPE" in out and "float32" in out and "environment" in out
    assert "1 shared adapters" in out and "broken" not in out
    assert "served and own logits of" in " ".join(out.split())
    manifest = next((home / "data").rglob("red/manifest.json"))
    manifest.write_text("{")
    assert main(["doctor", "--json"]) == 2
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert any(
        c["name"] == "pool" and c["state"] == "broken" and "red" in c["says"] for c in checks
    )


def test_doctor_says_how_this_cpu_multiplies(home: Path, capsys, monkeypatch):
    monkeypatch.setenv("RAMOLE_DTYPE", "bfloat16")
    assert main(["doctor", "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    (said,) = [one["says"] for one in checks if one["name"] == "products"]
    assert re.fullmatch(r"by .+ ms a token \(quantization none\), .+ [\d,]+ steps a second", said)
    monkeypatch.setenv("RAMOLE_DTYPE", "float32")
    assert main(["doctor", "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert "products" not in {one["name"] for one in checks}


def test_doctor_notes_that_another_process_writes(home: Path, capsys):
    code = (
        "import time; from ramole_core import Ramole\n"
        "with Ramole(): print(1, flush=True); time.sleep(99)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE
    ) as p:
        try:
            assert p.stdout is not None and p.stdout.readline() == b"1\n"
            assert main(["list"]) == 2
            assert f"process {p.pid}" in capsys.readouterr().err
            assert main(["doctor", "--json"]) == 0
            checks = json.loads(capsys.readouterr().out)["checks"]
        finally:
            p.send_signal(signal.SIGKILL)
    busy = [check for check in checks if f"process {p.pid}" in check["says"]]
    assert [check["state"] for check in busy] == ["note"]


@pytest.mark.parametrize(
    ("missing", "words", "sentence"),
    [
        ("lab", ["evaluate", "--quick", "data"], "The command evaluate needs the folder lab/"),
        ("lab", ["benchmark", "--quick", "data"], "The command benchmark needs the folder lab/"),
        (
            "rouge_score",
            ["evaluate", "--data", "data"],
            "evaluate needs rouge_score, which is not installed; run `pip",
        ),
    ],
)
def test_a_command_of_the_laboratory_without_what_it_needs_is_a_sentence(missing, words, sentence):
    code = f"import sys; sys.modules['{missing}'] = None; "
    done = python("-c", code + "from ramole_core.cli import main; exit(main())", *words)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done
    assert sentence in done.stderr


def test_methods_are_listed_with_what_they_need(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("RAMOLE_ADAPTERS_DIR", str(tmp_path))
    monkeypatch.setenv("RAMOLE_BASE_MODEL", str(tmp_path))
    assert main(["methods", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    usable = {row["name"]: row["usable"] for row in told["methods"]}
    assert told["default"] == "ramole_plus" and usable["ramole_plus"] and not usable["ramole"]
    assert list(usable) == [row.name for row in METHOD_LIST]
    assert main(["methods"]) == 0
    table = capsys.readouterr().out
    assert "ramole_plus (default)" in table and "needs training" in table


# --- conversations --------------------------------------------------------------------------------


TURNS = [["one", "1"], ["two", "2", ["x"]], ["three", "", []]]


class Terminal(io.StringIO):
    """Standard input as somebody types it."""

    def isatty(self) -> bool:
        return True


def typed(monkeypatch, text: str, *, terminal: bool = False) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(text) if terminal else io.StringIO(text))


def asked(door: Door) -> list[Request]:
    return [one for one in door.asked if isinstance(one, Request)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "talk.json"
    path.write_text(json.dumps(TURNS))
    return path


def test_generate_takes_earlier_turns_from_a_file(door, file, capsys):
    assert main(["generate", "and now?", "--history", str(file), "--drop-turns", "--json"]) == 0
    assert asked(door) == [Request("and now?", history=TURNS, drop_turns=True, trace=False)]
    told = json.loads(capsys.readouterr().out)
    assert told["history"] == [["one", "1", None], *TURNS[1:]] and told["drop_turns"] is True


@pytest.mark.parametrize("command", [["generate", "x"], ["chat"]])
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not a JSON list of turns"),
        ('{"a": 1}', "is not a JSON list of turns"),
        ('[["a"]]', "Turn 1 of history is ['a']; give (user, assistant)"),
        (None, "give one that is there"),
    ],
)
def test_a_file_of_no_turns_is_one_sentence(command, text, sentence, door, file, capsys):
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    assert main([*command, "--history", str(file)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and sentence in err and len(err.splitlines()) == 1 and door.asked == []


@pytest.mark.parametrize("terminal", [True, False])
def test_each_line_is_a_turn_and_each_turn_tells_its_adapters(terminal, door, capsys, monkeypatch):
    typed(monkeypatch, "one\n\n  two \n/new\nthree\n/exit\nfour\n", terminal=terminal)
    assert main(["chat", "--k", "2", "--seed", "3", "--system", "Be brief."]) == 0
    how = {"method": "ramole_plus", "k": 2, "seed": 3, "system": "Be brief."}
    first = ("one", TEXT, ["ant", "bee"])
    assert asked(door) == [
        Request("one", **how),
        Request("two", history=[first], **how),
        Request("three", **how),
    ]
    out, err = capsys.readouterr()
    assert out == (TEXT + "\n") * 3
    assert err.count("ant 0.90 (50%), bee 0.70 (50%); 8 tokens") == 3
    assert "A new conversation." in err and ("/exit or Ctrl-D" in err) == terminal
    assert door.asked[-1] == "closed"


def test_a_chat_goes_on_from_a_file_until_it_begins_anew(door, file, capsys, monkeypatch):
    typed(monkeypatch, "a\nb\n/new\nc\n")
    assert main(["chat", "--history", str(file), "--drop-turns", "--adapter", "x"]) == 0
    one, two, three = asked(door)
    assert one.history == Request("x", history=TURNS).history and one.drop_turns
    assert two.history == (*one.history, ("a", TEXT, ("x",))) and three.history == ()
    assert one.adapters == ("x",)


def test_a_chat_as_json_is_all_of_stdout(door, capsys, monkeypatch):
    typed(monkeypatch, "a\nb\n")
    assert main(["chat", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [turn["prompt"] for turn in told["turns"]] == ["a", "b"]
    assert told["turns"][1]["history"] == [["a", TEXT, ["ant", "bee"]]]
    assert told["router_checksum"] == "ab" * 32


def test_what_a_turn_cannot_do_ends_a_script_and_not_a_talk(door, capsys, monkeypatch):
    answer = Door.stream

    def stream(self, request):
        if request.prompt == "bad":
            raise RamoleError("The conversation is too long.")
        return answer(self, request)

    monkeypatch.setattr(Door, "stream", stream)
    typed(monkeypatch, "a\nbad\nb\n", terminal=True)
    assert main(["chat"]) == 0
    assert [one.prompt for one in asked(door)] == ["a", "b"] and len(asked(door)[1].history) == 1
    assert "> The conversation is too long.\n" in capsys.readouterr().err
    door.asked.clear()
    typed(monkeypatch, "a\nbad\nb\n")
    assert main(["chat"]) == 2
    assert [one.prompt for one in asked(door)] == ["a"]
    assert capsys.readouterr().err.splitlines()[-1] == "The conversation is too long."


def test_a_real_chat_keeps_to_its_adapters_and_drops_what_does_not_fit(home, capsys, monkeypatch):
    assert main(["add", str(lora_folder(home / "one", seed=1)), "--name", "red"]) == 0
    long = "paint it " * 26
    typed(monkeypatch, f"paint it\n{long}\n{long}\n")
    words = ["chat", "--method", "mixture", "--max-new-tokens", "4"]
    assert main(words) == 2
    assert "in 3 turns, and the base model reads" in capsys.readouterr().err
    typed(monkeypatch, f"paint it\n{long}\n{long}\n")
    assert main([*words, "--drop-turns", "--json"]) == 0
    out, err = capsys.readouterr()
    assert [turn["adapters"] for turn in json.loads(out)["turns"]] == [["red"]] * 3
    assert "left out: 2." in err


def test_help_lists_what_may_be_typed_and_asks_nothing(door, monkeypatch, capsys):
    typed(monkeypatch, "/help\n/exit\n", terminal=True)
    assert main(["chat"]) == 0 and asked(door) == []
    told = capsys.readouterr()
    assert all(word in told.out + told.err for word in ("/exit", "/new"))
