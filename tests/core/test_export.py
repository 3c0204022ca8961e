"""`merge`: adapters as one adapter, exact or cut, as PEFT and llama.cpp read it, or not at all."""

import errno
import json
import os
import re
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from ramole_core import RamoleError, Settings
from ramole_core.base.shapes import read_shapes
from ramole_core.cli import main
from ramole_core.composition import Lora, Sites
from ramole_core.composition.trained import WeightsFolder
from ramole_core.export.gguf_file import permuted, tensors_of
from ramole_core.export.low_rank import concatenate, cut
from ramole_core.export.merge import merge_adapters
from ramole_core.export.sources import read_sources
from ramole_core.layers.plain import install
from ramole_core.pool import write_manifest
from tests.laws.test_peft_kinds import ALL, ATTENTION, load_base, write_by_peft
from tests.support.tiny_methods import plain_of

KINDS = {
    "ant": {"r": 5, "lora_alpha": 8, "target_modules": ALL},
    "bee": {"r": 3, "lora_alpha": 5, "target_modules": ATTENTION, "use_rslora": True},
    "cat": {"r": 2, "lora_alpha": 3, "target_modules": ["down_proj", "q_proj"],
            "rank_pattern": {r"layers\.1\.mlp\.down_proj": 6}, "layers_to_transform": [0, 1]},
}  # fmt: skip
"""Adapters of unequal ranks, alphas, modules and layers."""


@pytest.fixture(scope="module")
def world(tiny_llama, tmp_path_factory):
    """Settings of a pool of two adapters and a folder beside it with a third."""
    root = tmp_path_factory.mktemp("export")
    shapes = read_shapes(tiny_llama)
    for n, (name, kind) in enumerate(KINDS.items()):
        folder = root / ("elsewhere" if name == "cat" else "adapters") / name
        write_by_peft(tiny_llama, folder, **kind)
        rescale(folder, n)
        if name != "cat":
            (folder / "examples.jsonl").write_text(f'{{"text": "what {name} does"}}\n')
            write_manifest(folder, name=name, shapes=shapes)
    settings = Settings(
        base_model=str(tiny_llama), adapters_dir=root / "adapters", data_dir=root / "data"
    )
    sources = read_sources(
        ["ant", "bee", str(root / "elsewhere" / "cat")], settings=settings, shapes=shapes
    )
    return settings, shapes, sources, root


def rescale(folder: Path, n: int) -> None:
    """Other weights for each, since the helper seeds all alike."""
    file = folder / "adapter_model.safetensors"
    pick = torch.Generator().manual_seed(n)
    tensors = {
        name: torch.randn(t.shape, generator=pick) * float(t.std())
        for name, t in load_file(file).items()
    }
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.fixture
def cli(world, monkeypatch, capsys):
    """Runs `merge` with these words, in the world's settings."""
    settings, *_ = world
    for name in ("base_model", "adapters_dir", "data_dir"):
        monkeypatch.setenv(f"RAMOLE_{name.upper()}", str(getattr(settings, name)))

    def run(*words) -> dict:
        assert main(["merge", *map(str, words), "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return run


def ours(world, method, *, weights=None, **options):
    """Logits of the plain form, with these adapters of the world."""
    settings, shapes, sources, _ = world
    model = load_base(settings.base_model)
    installed = install(model, shapes)
    names = ("ant", "bee", "cat")
    pool = {name: source.loras for name, source in zip(names, sources, strict=True)}
    mix = plain_of(
        method, pool, Sites(tuple(shapes), shapes), trained={}, weights=weights, options=options
    )
    with torch.no_grad(), installed.mixer.mixing([mix]):
        return model(IDS).logits


IDS = torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(2))
EVERY = [
    ("mixture", None, {}),
    ("mixture", (1.5, -0.4, 0.0), {}),
    ("fusion", None, {}),
    ("lego", None, {"rank": 4, "align": True}),
    ("lego", (0.6, 0.5, -0.2), {}),
    ("ties", None, {"density": 0.6}),
    ("dare", (0.5, 1.0, 0.2), {"products": True, "rank": 9}),
]


@pytest.mark.parametrize(("method", "weights", "options"), EVERY)
def test_peft_loads_what_was_merged(world, cli, tmp_path, method, weights, options):
    root = world[-1]
    words = [method, "ant", "bee", root / "elsewhere" / "cat", "--out", tmp_path / "new"]
    words += [] if weights is None else ["--weights", ",".join(map(str, weights))]
    for name, value in options.items():
        words += ["--option", f"{name}={json.dumps(value)}"]
    said = cli(*words)
    assert said["adapters"] == ["ant", "bee", "cat"] and len(said["base_checksum"]) == 64
    base = load_base(world[0].base_model)
    with torch.no_grad():
        bare = base(IDS).logits
        model = PeftModel.from_pretrained(base, str(tmp_path / "new")).eval()
        got = model(IDS).logits
    expected = ours(world, method, weights=weights, **options)
    assert (got - bare).abs().max() > 0.05
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)
    assert said["exact"] == (method == "mixture")
    assert (said["error"]["overall"] < 1e-6) == (method == "mixture")


def test_the_pool_takes_it_and_its_examples(world, cli, tmp_path):
    settings, shapes, _, root = world
    cli("mixture", "ant", "bee", root / "elsewhere" / "cat", "--out", tmp_path / "new")
    (source,) = read_sources([str(tmp_path / "new")], settings=settings, shapes=shapes)
    card = source.card
    assert card.examples == ("what ant does", "what bee does")
    assert set(card.scales.values()) == {1.0}
    assert card.ranks["model.layers.0.self_attn.q_proj"] == 5 + 3 + 2
    assert card.ranks["model.layers.2.self_attn.q_proj"] == 5 + 3
    assert card.ranks["model.layers.1.mlp.down_proj"] == 5 + 6
    assert card.ranks["model.layers.2.mlp.up_proj"] == 5
    assert "cat (sha256" in (tmp_path / "new" / "README.md").read_text()
    files = {"adapter_model.safetensors", "adapter_config.json", "README.md", "examples.jsonl"}
    assert {file.name for file in (tmp_path / "new").iterdir()} == files


def test_a_cut_says_what_it_left_out(world):
    _, shapes, sources, root = world
    weights, rank = (0.7, -1.2, 0.4), 4
    how = {"shapes": shapes, "trained": WeightsFolder(root)}
    made = merge_adapters(sources, "mixture", weights=weights, rank=rank, **how)
    assert made.rank == rank and not made.exact
    apart, whole, worst = 0.0, 0.0, {}
    lost, own = dict.fromkeys(KINDS, 0.0), dict.fromkeys(KINDS, 0.0)
    for path in made.loras:
        parts = {
            source.name: (lora.B @ lora.A).double()
            for source in sources
            if (lora := source.loras.get(path))
        }
        by_name = dict(zip(KINDS, weights, strict=True))
        full = sum(by_name[name] * part for name, part in parts.items())
        U, S, Vh = torch.linalg.svd(full, full_matrices=False)
        U, Vh = U[:, :rank], Vh[:rank]
        near = U @ torch.diag(S[:rank]) @ Vh
        got = made.loras[path].B @ made.loras[path].A
        torch.testing.assert_close(got.double(), near, atol=1e-5, rtol=0)
        off = float((full - near).square().sum())
        apart, whole = apart + off, whole + float(full.square().sum())
        worst[path] = (off / float(full.square().sum())) ** 0.5
        for name, part in parts.items():
            own[name] += float(part.square().sum())
            if torch.linalg.matrix_rank(full) > rank:
                lost[name] += float((part - U @ U.T @ part @ Vh.T @ Vh).square().sum())
    assert 0.05 < made.error.overall == pytest.approx((apart / whole) ** 0.5, rel=1e-4)
    path = max(worst, key=worst.get)
    assert made.error.worst_module == path
    assert made.error.worst == pytest.approx(worst[path], rel=1e-4)
    expected = {name: (lost[name] / own[name]) ** 0.5 for name in KINDS}
    assert made.error.by_adapter == pytest.approx(expected, rel=1e-3)
    assert all(part > 0.05 for part in expected.values())


@pytest.mark.parametrize("method", ["mixture", "lego"])
def test_one_adapter_is_compressed(world, method):
    """By truncated SVD, which is the nearest there is, and by clusters of its units."""
    _, shapes, sources, root = world

    def made(rank, method=method):
        how = {"shapes": shapes, "trained": WeightsFolder(root)}
        return merge_adapters(sources[:1], method, rank=rank, **how)

    assert made(0).error.overall < 1e-6 and made(5).error.overall < 1e-6
    errors = [made(rank).error.overall for rank in (4, 2, 1)]
    assert 0.05 < errors[0] < errors[-1] and [made(n).rank for n in (4, 2)] == [4, 2]
    if method == "mixture":
        assert errors == sorted(errors) and errors[-1] < 1
    other = "lego" if method == "mixture" else "mixture"
    assert (errors[1] < made(2, other).error.overall) == (method == "mixture")


def test_a_cut_shares_its_norm_and_has_no_more_rows_than_inputs():
    torch.manual_seed(0)
    whole = Lora(A=torch.randn(9, 7), B=torch.randn(11, 9))
    near = cut(whole, 4).lora
    torch.testing.assert_close(near.A.norm(dim=1), near.B.norm(dim=0))
    assert cut(whole, 30).lora.A.shape[0] == 7


def test_a_gguf_has_llama_cpp_s_names_and_rows(world, cli, tmp_path):
    settings, shapes, sources, _ = world
    file = tmp_path / "new.gguf"
    said = cli("mixture", "bee", world[-1] / "elsewhere" / "cat", "--gguf", file)
    assert said["out"] is None and said["gguf"] == str(file)
    reader = gguf.GGUFReader(file)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.type"] == "adapter" and fields["general.architecture"] == "llama"
    assert fields["adapter.type"] == "lora" and fields["adapter.lora.alpha"] == 6.0
    tensors = {t.name: np.array(t.data) for t in reader.tensors}
    made = {p: concatenate([s.loras.get(p) for s in sources[1:]], [0.5, 0.5]) for p in shapes}
    heads = {"q": 4, "k": 2}
    for path, lora in made.items():
        if lora is None:
            continue
        layer, short = int(path.split(".")[2]), path.rpartition(".")[2]
        label = {"o_proj": "attn_output", "down_proj": "ffn_down"}.get(short, f"attn_{short[0]}")
        A, B = (tensors.pop(f"blk.{layer}.{label}.weight.lora_{half}") for half in "ab")
        r = A.shape[0]
        D = fields["adapter.lora.alpha"] / r * B @ A
        expected = (lora.B @ lora.A).numpy()
        if short[0] in heads and short != "o_proj":
            n = heads[short[0]]
            rows = []
            for head in range(n):
                first = head * 12
                rows += [first + at for pair in range(6) for at in (pair, pair + 6)]
            expected = expected[rows]
        np.testing.assert_allclose(D, expected, atol=1e-5)
    assert not tensors, "nothing else is in it"


def test_only_the_llama_architecture_has_its_rows_moved():
    config = {"num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 1}
    path = "model.layers.1.self_attn.q_proj"
    lora = Lora(A=torch.randn(2, 7), B=torch.randn(12, 2))
    for kind, moved in (("llama", True), ("mistral", True), ("qwen2", False), ("qwen3", False)):
        tensors = tensors_of({path: lora}, {**config, "model_type": kind})
        B = tensors["blk.1.attn_q.weight.lora_b"]
        assert np.array_equal(B, permuted(lora.B.numpy(), 3)) == moved
        assert np.array_equal(B, lora.B.numpy()) != moved
    with pytest.raises(RamoleError, match="architecture gpt2.*convert_lora_to_gguf"):
        tensors_of({path: lora}, {**config, "model_type": "gpt2"})


MERGING = "merge by one of fusion, lorahub, lego, ties, dare"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["arrow", "ant", "bee"], f"arrow is a gate.*{MERGING}"),
        (["similarity", "ant", "bee"], "weighs adapters by a prompt"),
        (["smear", "ant", "bee"], f"by a prompt.*; {MERGING},"),
        (["selection", "ant", "bee"], "takes 1 of 2 adapters"),
        (["base", "ant"], "takes 0 of 1 adapters"),
        (["mixtrue", "ant"], "Unknown method 'mixtrue'"),
        (["lego", "ant", "--option", "colour=1"], "no option 'colour'; it has rank, align"),
        (["lego", "ant", "--rank", "1000"], "from 0 to 256"),
        (["lego", "ant", "ant"], "The adapter ant is there twice"),
        (["lego", "ant", "~nosuchuser/bee"], "~nosuchuser/bee: nobody has that home"),
        (["lego", "ants"], "no adapter 'ants' in the pool.*ant"),
        (["mixture", "ant", "bee", "--weights", "1"], "1 weights for 2 adapters"),
        (["mixture", "ant", "--weights", "one"], "--weights one is not understood"),
        (["mixture", "ant", "--weights", "nan"], "--weights nan is not understood"),
        (["mixture", "ant", "bee", "--weights", "0,0"], "changes nothing"),
    ],
)
def test_what_cannot_be_merged_is_one_sentence(cli, tmp_path, capsys, words, sentence):
    assert main(["merge", *words, "--out", str(tmp_path / "new")]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(sentence, said), said
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(cli, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    (tmp_path / "there.gguf").write_text("mine")
    assert main(["merge", "lego", "ant"]) == 2
    assert "no place to write" in capsys.readouterr().err
    for option, name in (("--out", "there"), ("--gguf", "there.gguf"), ("--out", "no/where")):
        assert main(["merge", "lego", "ant", option, str(tmp_path / name)]) == 2
        assert ("is there already" in (said := capsys.readouterr().err)) or "no folder" in said
    assert (tmp_path / "there.gguf").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there", "there.gguf"]


@pytest.mark.parametrize("place", ["write_bytes", "write_text"])
def test_a_full_disk_leaves_nothing(cli, tmp_path, monkeypatch, capsys, place):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, place, full)
    places = ["--out", str(tmp_path / "new"), "--gguf", str(tmp_path / "new.gguf")]
    assert main(["merge", "mixture", "ant", "bee", *places]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "could not be written (No space left on device), and nothing is left of it" in said
    assert not list(tmp_path.iterdir())


def test_two_adapters_of_one_name_are_told_apart(world):
    settings, shapes, _, root = world
    copy = root / "again" / "ant"
    write_by_peft(Path(settings.base_model), copy, **KINDS["bee"])
    sources = read_sources(["ant", str(copy)], settings=settings, shapes=shapes)
    assert [source.name for source in sources] == ["ant", str(copy)]
