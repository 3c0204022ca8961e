"""The trial of the contract: four kinds of method, each in a module of its own, work at once.

MoLE that masks, Arrow, LoGo and a parallel adapter are copied into temporary modules and registered
from there; nothing else of the product is touched. Each works in both forms, in a mixed batch of
all of them, with an option, with weights that `train` made, on the page's list and in `evaluate`.
`train` is tried on the product's gates of a fixed pool too.
"""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from lab.evaluation.cells import Cells
from lab.evaluation.evaluate import Rows, make_row_situations
from lab.evaluation.facts import own_facts, shared_facts
from lab.evaluation.situation_run import run_situations
from lab.evaluation.situations import Crowd
from lab.evaluation.systems import Ask as Asked, describe
from ramole_core import Ramole, RamoleError, Request
from ramole_core.base.shapes import read_shapes
from ramole_core.composition import METHODS, Trained, forget, load_trained
from ramole_core.composition.trained import config_file, weights_file
from ramole_core.methods import METHOD_LIST, find_row
from ramole_core.pool import write_manifest
from ramole_core.training import command
from ramole_core.training.rows import Row
from tests.conftest import tiny_settings
from tests.core.test_ramole import TASKS, write_lora
from tests.laws.test_layers import GPT2, LLAMA
from tests.laws.test_served_layers import World, served
from tests.support.blocks import built
from tests.support.tiny_methods import NAMES
from ui.ask.layout import AskLayout

FILES = ("mole", "arrow", "logo", "parallel")
TRIAL = Path(__file__).parents[1] / "support" / "trial"
TRIED = tuple(f"trial_{file}" for file in FILES)
POOLED = ("meteora", "moe", "smear", "mole", "lora_flow")
"""The product's own that know a fixed pool."""
ONE = {"trial_parallel"}
"""Takes one adapter."""
OTHER = {
    "trial_mole": {"heat": 0.02},
    "trial_arrow": {"top": 1},
    "trial_logo": {"module": 0},
    "trial_parallel": {"s": 3.0},
}
"""An option of each that changes what it says."""


@pytest.fixture(scope="module", autouse=True)
def tried(tmp_path_factory):
    """The four files, each in a temporary module."""
    folder, before = tmp_path_factory.mktemp("modules"), list(METHOD_LIST)
    for file in FILES:
        copy = folder / f"made_{file}.py"
        copy.write_text((TRIAL / f"{file}.py").read_text())
        spec = importlib.util.spec_from_file_location(copy.stem, copy)
        assert spec and spec.loader
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    yield
    for name in TRIED:
        forget(name)
    assert METHOD_LIST == before


def make_weights(name, sites, adapters, seed=0) -> Trained:
    """Weights of a method away from their start, as the file would give them."""
    pick = torch.Generator().manual_seed(seed)
    method = METHODS[name]
    recipe = {option.name: option.default for option in method.row.training}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tensors = method.begin(sites, adapters, recipe)
    moved = {
        name: tensor.float() + 0.3 * torch.randn(tensor.shape, generator=pick)
        if tensor.ndim
        else tensor
        for name, tensor in tensors.items()
    }
    known = [{"name": name, "checksum": checksum} for name, checksum in adapters]
    return Trained(method.finish(moved, recipe), f"made up {name}", {"adapters": known})


def rows_of(names):
    """A mixed batch: each of the four, twice, beside methods of the product."""
    every = [("ramole", ["ant", "bee"]), ("base", []), ("fusion", ["cat", "dog"])]
    for name in TRIED:
        every.append((name, names[:1] if name in ONE else names[:3]))
        every.append((name, names[:1] if name in ONE else names[::-1]))
    return [*every, ("ramole_plus", names)]


def made(config) -> World:
    """A world in which all methods of the trial have weights."""
    world = World(config)
    for name in TRIED:
        known = [(n, n) for n in (NAMES[:1] if name in ONE else NAMES)]
        world.trained[METHODS[name].row.weights] = make_weights(name, world.layout.sites, known)
    return world


@pytest.fixture(scope="module", params=[LLAMA, GPT2], ids=["llama", "gpt2"])
def world(request, tried):
    return made(request.param)


@pytest.mark.parametrize("way", ["rows", "all"])
def test_both_forms_agree_in_a_mixed_batch(world, way):
    rows = rows_of(list(NAMES))
    ids = torch.randint(0, 61, (len(rows), 5))
    expected, gates = world.plain(ids, rows)
    mixes = [world.row(method, names) for method, names in rows]
    logits, weights = served(world, ids, mixes, trace=True, way=way)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(weights.float(), gates.float(), rtol=0, atol=4e-3)
    for way_weights in weights[3 : 3 + 2 * len(TRIED)]:
        assert way_weights.any()


# --- in the whole system --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ramole(tiny_llama, tmp_path_factory, tried):
    """A pool of four adapters on a tiny base, and the weights that `train method` made for each."""
    root = tmp_path_factory.mktemp("trial")
    settings = tiny_settings(tiny_llama, root, max_batch=16)
    shapes = read_shapes(tiny_llama)
    data = root / "rows"
    for seed, (name, examples) in enumerate(TASKS.items()):
        folder = write_lora(root / "adapters" / name, shapes, rank=2 + seed, seed=seed)
        lines = [json.dumps({"text": text}) for text in examples]
        (folder / "examples.jsonl").write_text("\n".join(lines))
        write_manifest(folder, name=name, shapes=shapes)
        (data / name).mkdir(parents=True)
        for part, count in (("train", 13), ("dev", 3)):
            rows = [{"inputs": f"{examples[n % 3]} {n}", "targets": name} for n in range(count)]
            (data / name / f"{part}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.MonkeyPatch.context() as patch:
        for key, value in settings.model_dump().items():
            if value is not None and key in {"base_model", "quantization", "dtype", "device"}:
                patch.setenv(f"RAMOLE_{key.upper()}", str(value))
        patch.setenv("RAMOLE_ADAPTERS_DIR", str(settings.adapters_dir))
        patch.setenv("RAMOLE_DATA_DIR", str(settings.data_dir))
        for name in (*TRIED, *POOLED):
            adapters = "weather" if name in ONE else "weather,cooking,sums"
            words = ["method", name, "--data", str(data), "--adapters", adapters, "--json"]
            words += ["--steps", "3", "--batch-rows", "4"]
            words += [] if name in POOLED else ["--dropout", "0.2", "--retrieved", "0"]
            patch.setattr(sys, "argv", ["ramole_core", "train", *words])
            done = CliRunner().invoke(command.train_app, words)
            assert done.exit_code == 0, done.output
            said = json.loads(done.stdout)
            losses = [entry[name] for entry in said["dev_losses"]]
            assert len(losses) == 2 and losses[0] != losses[1], f"{name} has learnt nothing"
            if name in POOLED:
                assert set(said["dev_losses"][0]) == {"step", name, "uniform", "own"}
    with Ramole(settings) as made:
        yield made


def ask(name, prompt="Will it rain in Oslo?", **options):
    return Request(prompt, method=name, k=3, max_new_tokens=4, ignore_eos=True, **options)


def test_they_answer_in_one_batch_as_they_do_alone(ramole):
    requests = [ask(name) for name in TRIED] + [ask("mixture"), ask("base")]
    together = ramole.generate(requests)
    for request, answer in zip(requests, together, strict=True):
        alone = ramole.generate([request])[0]
        assert answer.trace.token_ids == alone.trace.token_ids
        np.testing.assert_allclose(answer.trace.weights, alone.trace.weights, atol=2e-3)
    known = {answer.adapters[0] for answer in together[:-1]}
    assert known <= set(TASKS)
    by_name = dict(zip(TRIED, together, strict=False))
    assert by_name["trial_mole"].adapters == ["weather", "cooking", "sums"], "all of its pool"
    assert by_name["trial_parallel"].adapters == ["weather"]
    assert len(by_name["trial_logo"].adapters) == 3


@pytest.mark.parametrize("name", TRIED)
def test_an_option_changes_what_is_said(ramole, name):
    usual, other = ramole.generate([ask(name), ask(name, options=OTHER[name])])
    if name == "trial_parallel":  # its weights are 1; the bypass is what changes
        first = ramole.explain(ask(name), 3)
        more = ramole.explain(ask(name, options=OTHER[name]), 3)
        assert first.base == more.base and first.mixture != more.mixture
    else:
        assert not np.allclose(usual.trace.weights, other.trace.weights, atol=1e-3)
    with pytest.raises(RamoleError, match=f"{name} has no option 'colour'; it has"):
        ramole.generate([ask(name, options={"colour": 1})])


@pytest.mark.parametrize("name", ["trial_mole", *POOLED])
def test_an_adapter_that_came_later_is_refused_in_a_sentence(ramole, name):
    with pytest.raises(RamoleError, match="poems is not one of them; choose.*train it again"):
        ramole.generate([ask(name, adapters=("weather", "poems"))])
    with pytest.raises(RamoleError, match="exclude names 'wether'.*weather"):
        ramole.generate([ask(name, exclude=("wether",))])
    with pytest.raises(RamoleError, match="none of them is in the pool or left by exclude"):
        ramole.generate([ask(name, exclude=("weather", "cooking", "sums"))])
    with pytest.raises(RamoleError, match=f"abstain=True, but method {name} has a fixed pool"):
        ramole.generate([ask(name, abstain=True)])
    kept = ramole.generate([ask(name, exclude=("cooking",))])[0]
    assert kept.adapters == ["weather", "sums"]
    answer = ramole.generate([ask(name, adapters=("weather", "poems"), weights=(0.5, 0.5))])[0]
    assert (answer.trace.weights[:-1] == 0.5).all(), "weights that are given need no gate"


def test_weights_that_cannot_serve_are_one_sentence_and_the_others_go_on(ramole, tmp_path):
    before, kept = ramole.settings.adapters_dir, tmp_path / "adapters"
    shutil.copytree(before, kept)
    shutil.copytree(ramole.settings.trained_dir, kept, dirs_exist_ok=True)
    rows = {name: METHODS[name].row for name in POOLED}
    files = {name: weights_file(kept / row.weights, row) for name, row in rows.items()}
    records = {name: config_file(kept / row.weights, row) for name, row in rows.items()}
    files["meteora"].unlink()
    files["moe"].write_bytes(files["moe"].read_bytes()[:100])
    save_file({"other": torch.zeros(2)}, files["mole"])
    strangers = [{"name": name, "checksum": name} for name in "abc"]
    records["lora_flow"].write_text(json.dumps({"adapters": strangers}))
    said = {
        "meteora": "no trained weights of meteora in .*train them with .*train method meteora",
        "moe": "trained weights in .*_moe cannot be read .*; restore them",
        "mole": "trained weights of mole have nothing as .*; train them again",
        "lora_flow": r"lora_flow knows the adapters .*\(a, b, c\), and weather is not one of them",
    }
    changes = {"adapters_dir": kept, "data_dir": tmp_path / "data"}
    with Ramole(ramole.settings.model_copy(update=changes)) as fresh:
        for name, sentence in said.items():
            with pytest.raises(RamoleError, match=sentence):
                fresh.generate([ask(name, adapters=("weather", "sums"))])
        together = fresh.generate([ask("mixture"), ask("trial_mole"), ask("base")])
        assert all(answer.new_tokens == 4 for answer in together)
    records["moe"].write_text("{")
    with pytest.raises(RamoleError, match="trained weights in .*_moe cannot be read"):
        load_trained(kept / "_moe", rows["moe"])


def test_checksums_of_their_weights_go_into_results(ramole):
    found = ramole.weights_checksums()
    assert set(TRIED) <= set(found) and len({found[name] for name in TRIED}) == len(TRIED)


def test_they_are_evaluated_like_any_other(ramole, tmp_path):
    crowd = Crowd(tuple(TASKS), ())
    cells = Cells(tmp_path, shared_facts(ramole, crowd), lambda name: own_facts(ramole, name))
    tasks = [Rows("weather", "sky", "em", (Row("Will it rain in Oslo?", "weather"),))]
    shared = {"tasks": tasks, "situations": ("iid",), "ask": Asked(3, 4)}
    run_situations(make_row_situations(ramole, cells, crowd, **shared), cells, systems=TRIED)
    for name in TRIED:
        assert describe(name) == METHODS[name].row.summary
        cell = cells.read("iid", name, "weather")
        assert cell is not None and cell.adapters[0]


def test_they_and_their_options_are_on_every_list_and_on_the_page(ramole):
    rows = {row.name: row for row in ramole.methods()}
    assert set(TRIED) <= set(rows) and all(rows[name].options for name in TRIED)
    assert "top=0 (how many share the weight; 0: all" in str(find_row("trial_arrow").options[0])
    entry = built(lambda: AskLayout(ramole, recorded=[], live=[])).entry
    assert set(TRIED) <= {value for _, value in entry.method.choices}
    assert set(TRIED) <= set(entry.options.groups)
    fields = {(field.method, field.name): field.default for field in entry.options.fields}
    assert fields["meteora", "top"] == 2 and fields["trial_mole", "heat"] == 1.0
