"""CA-LoRA: it starts as the inherited LoRA, learns from a teacher, and is served per adapter."""

import json
from contextlib import closing
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from lab.evaluation.ca_lora_table import SYSTEMS, WHOLE
from lab.evaluation.cells import Cell, pair_systems
from lab.evaluation.compressed_base import prune, round_to_levels, write_compressed
from ramole_core import RamoleError, Request
from ramole_core.base.model import load_base
from ramole_core.composition import METHODS, Ask, Candidate, Sites, Trained, decide
from ramole_core.composition.ca_lora import fold, inherit, recovered_checksums
from ramole_core.layers.plain import place
from ramole_core.layers.plain.mix import mix_at
from ramole_core.methods import complete_options
from ramole_core.training.loop import TrainingRun
from ramole_core.training.loss import answer_loss, last_hidden, row_losses
from ramole_core.training.material import Material
from ramole_core.training.method import train_method
from ramole_core.training.recovery import Recovery, distance
from ramole_core.training.rows import collate, encode_rows
from tests.core.test_ramole import ASK, ramole as ramole  # noqa: F401  the fixture
from tests.support.tiny_methods import adapter_of
from tests.support.tiny_training import SHAPES, build_base, make_loras, make_task, method_recipe

SITES = Sites(tuple(SHAPES), SHAPES)


def two_loras():
    """The first lacks a module."""
    return make_loras(SHAPES, {"red": 2, "blue": 3}, lacks="red", size=0.3)


def recipe(steps=6, **settings):
    settings = {"rank": 4, "alpha": 10.0, **settings}
    schedule = {"steps": steps, "evaluate_every": 3, "checkpoint_every": 2, "dev_rows": 6}
    return method_recipe("ca_lora", settings, **schedule)


@pytest.fixture
def base(tmp_path):
    """A tiny base, pruned: what it lost is what there is to recover."""
    whole = build_base(torch.float32, tmp_path)
    folder = write_compressed(whole.folder, tmp_path / "pruned", how="pruned40")
    made = load_base(
        str(folder), data_dir=tmp_path / "data", quantization="none", dtype="float32", device="cpu"
    )
    return whole, made


def run(base, out, names=("red", "blue"), changed=None, command="", **changes):
    whole, compressed = base
    loras = two_loras()
    tasks = [make_task(name) for name in names]
    given = Material({name: loras[name] for name in names}, tasks, compressed, SHAPES, **changes)
    return train_method(changed or recipe(), given, TrainingRun(out, command))


def recovery(student, teacher, loras):
    checksums = {name: name for name in loras}
    return Recovery(student, teacher, loras=loras, shapes=SHAPES, checksums=checksums)


# --- the equation at its start --------------------------------------------------------------------


@pytest.mark.parametrize("lacking", [False, True])
def test_at_the_start_it_is_the_inherited_lora(lacking):
    loras = two_loras()["red"]
    torch.manual_seed(1)
    start = inherit(loras, SITES, recipe().settings)
    known = {"adapters": [{"name": "ant", "checksum": "ant"}]}
    path = SITES.paths[1 if lacking else 0]
    assert (path in loras) is not lacking
    x, updates = torch.randn(1, 3, 24), []
    for moved in (0.0, 0.5):
        tensors = {n: t + moved * n.endswith("a2") for n, t in start.items()}
        trained = Trained(fold(tensors, recipe().settings), "a sum", known)
        (one,) = METHODS["ca_lora"].bring([Candidate("ant", 0.5, "ant", dict)], trained)
        adapter = adapter_of("ant", one.load(), SITES)
        ask = Ask((adapter,), SITES, complete_options("ca_lora", None), None, trained)
        mix = place(decide(METHODS["ca_lora"], ask), [adapter.loras], SITES)
        updates.append(mix_at(mix, path, x, None).update)
    first, later = updates
    own = torch.zeros(1, 3, 24 if not lacking else 12)
    if not lacking:
        own = x @ loras[path].A.T @ loras[path].B.T
    torch.testing.assert_close(first, own)
    a1 = start[f"0/{path}.a1"]
    bypass = torch.nn.functional.gelu(x @ a1.T).sum(-1, keepdim=True) * 0.5 * (10 / 4)
    assert bypass.abs().max() > 0.1
    torch.testing.assert_close(later - first, bypass.expand_as(first))


def test_what_it_brings_is_known_by_both_checksums():
    known = {"adapters": [{"name": n, "checksum": n} for n in ("ant", "bee")]}
    tensors = {
        f"{n}/{path}.{part}": torch.full((2, i) if part in "A a1" else (o, 2), n + 1.0)
        for n in range(2)
        for path, (i, o) in SHAPES.items()
        for part in ("A", "B", "a1", "a2")
    }
    method, trained = METHODS["ca_lora"], Trained(tensors, "a sum", known)
    given = Candidate("bee", 0.5, "bee", dict)
    (one,) = method.bring([given], trained)
    assert one.checksum == recovered_checksums(trained)[1] != "bee"
    assert (one.name, one.score) == ("bee", 0.5) and (one.load()[SITES.paths[0]].A == 2.0).all()
    assert method.bring([one], trained) == [one]
    assert method.bring([given], None) == [given], "weights that are given are the adapter's own"
    with pytest.raises(RamoleError, match="cat is not one of them.*train it again"):
        method.check([Candidate("cat", 0.5, "cat", dict)], trained)


# --- training -------------------------------------------------------------------------------------


def test_the_loss_falls_and_the_file_is_what_was_measured(base, tmp_path):
    progress = run(base, tmp_path / "out", changed=recipe(16, distil=0.5), command="a command")
    for name in ("red", "blue"):
        losses = [entry[name] for entry in progress.dev_losses if name in entry]
        assert losses[-1] < 0.7 * losses[0]
    assert progress.step == 32 and len(progress.train_losses) == 32
    tensors = load_file(tmp_path / "out" / "ca_lora.safetensors")
    config = json.loads((tmp_path / "out" / "ca_lora_config.json").read_text())
    assert [one["name"] for one in config["adapters"]] == ["red", "blue"]
    assert config["command"] == "a command" and config["trained_on"] == ["red", "blue"]
    files = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert files == ["ca_lora.safetensors", "ca_lora_config.json"]
    loras = two_loras()
    for n, name in enumerate(("red", "blue")):
        for path in SHAPES:
            assert (f"{n}/{path}.A" in tensors) == (path in loras[name])
            assert tensors[f"{n}/{path}.a2"].abs().max() > 0
            if path in loras[name]:
                assert not torch.equal(tensors[f"{n}/{path}.A"].float(), loras[name][path].A)
    own = {k[2:]: t for k, t in tensors.items() if k.startswith("1/")}
    rows = encode_rows(base[1].tokenizer, make_task("blue").dev, max_tokens=224)
    with closing(recovery(base[1], base[1], loras)) as models:
        with models.mixing({f"0/{k}": t for k, t in own.items()}, "blue"):
            served = row_losses(models.student.plain, rows).mean().item()
    assert served == pytest.approx(progress.dev_losses[-1]["blue"], abs=2e-2)


def test_it_learns_from_the_teacher_and_starts_where_the_adapter_is(base):
    whole, compressed = base
    loras, rows = two_loras(), encode_rows(base[0].tokenizer, make_task("red").train, max_tokens=99)
    with closing(recovery(compressed, whole, loras)) as models:
        start = models.start(recipe(), "red")
        plain, taught = (
            models.loss(start, recipe(distil=d), "red", rows=rows[:5]) for d in (0.0, 2.0)
        )
        batch = collate(rows[:5])
        with torch.no_grad(), models.student.gated_by(None, names=[("red",)]):
            inherited = answer_loss(models.student.plain, batch)
            ours = last_hidden(models.student.plain, batch)
        with torch.no_grad(), models.teacher.gated_by(None, names=[("red",)]):
            aim = last_hidden(models.teacher.plain, batch)
        torch.testing.assert_close(plain, inherited, rtol=1e-4, atol=1e-4)
        far = distance(ours, aim, real=batch.real)
        assert far > 0.05
        torch.testing.assert_close(taught - plain, 2.0 * far, rtol=1e-3, atol=1e-4)
        taught.backward()
        assert all(t.grad is not None for t in start.values())
        moved = {n.rpartition(".")[2] for n, t in start.items() if t.grad.abs().max() > 0}
        assert moved == {"A", "B", "a2"}, "a1 waits for a2"


def test_two_adapters_of_one_content_are_refused(base, tmp_path):
    with pytest.raises(RamoleError, match="two have the same content"):
        run(base, tmp_path / "twice", checksums={"red": "one", "blue": "one"})


# --- serving --------------------------------------------------------------------------------------


def test_it_takes_the_nearest_that_was_trained_or_the_one_that_is_named(ramole):  # noqa: F811
    asked = [
        Request("What is 3 plus 4?", method="ca_lora", **ASK),
        Request("What is 3 plus 4?", method="ca_lora", exclude=("sums",), **ASK),
        Request("What is 3 plus 4?", method="ca_lora", adapters=("poems",), **ASK),
    ]
    answers = ramole.generate(asked)
    assert answers[0].adapters == ["sums"] and answers[2].adapters == ["poems"]
    assert len(answers[1].adapters) == 1 and answers[1].adapters != ["sums"]
    given = replace(asked[2], weights=(1.0,))
    lone = ramole.generate([given, replace(given, method="mixture", weights=None)])
    assert lone[0].trace.token_ids == lone[1].trace.token_ids, "the adapter as it was uploaded"
    assert answers[2].trace.token_ids != lone[0].trace.token_ids


# --- compression ----------------------------------------------------------------------------------


def test_rounding_keeps_four_levels_a_group_and_pruning_the_largest():
    torch.manual_seed(3)
    weight = torch.randn(3, 150)
    rounded = round_to_levels(weight, bits=2)
    for row in range(3):
        for start in (0, 64, 128):
            group, own = rounded[row, start : start + 64], weight[row, start : start + 64]
            assert len(group.unique().tolist()) <= 4
            step = (own.max() - own.min()) / 3
            assert (group - own).abs().max() <= step / 2 + 1e-6
            torch.testing.assert_close(group.max(), own.max())
    pruned = prune(weight, share=0.4)
    assert (pruned == 0).sum() == 180
    kept = pruned != 0
    assert torch.equal(pruned[kept], weight[kept])
    assert weight[kept].abs().min() >= weight[~kept].abs().max()
    flat = torch.ones(2, 64)
    torch.testing.assert_close(round_to_levels(flat, bits=2), flat)


def test_a_compressed_base_loads_as_any_other(base, tmp_path):
    whole, compressed = base
    for path in SHAPES:
        own = whole.model.get_submodule(path).weight
        other = compressed.model.get_submodule(path).weight
        assert (other == 0).float().mean() == pytest.approx(0.4, abs=0.01)
        kept = other != 0
        assert torch.equal(other[kept], own.bfloat16().float()[kept])
    words = [one.model.get_input_embeddings().weight for one in base]
    assert torch.equal(words[1], words[0].bfloat16().float())
    with pytest.raises(RamoleError, match="'9bit' is not known; choose nf4, int4, 2bit"):
        write_compressed(whole.folder, tmp_path / "none", how="9bit")


def test_the_table_is_paired_over_the_tasks_that_all_systems_have():
    def cell(score, loss):
        return Cell([score, score], [score, score], [["a"], ["a"]], 1.0, {"loss": [loss, loss]})

    found = {
        system: {name: cell(10.0 * n + m, 1.0 * n) for m, name in enumerate(("a", "b"))}
        for n, system in enumerate((WHOLE, *SYSTEMS))
    }
    del found["inherited"]["b"]
    table = pair_systems(found, ("a", "b"), ours="ca_lora")
    assert table["ca_lora"]["score"]["mean"] == 40.0
    assert table["inherited"]["score"]["ca_lora_minus"]["mean"] == 30.0
    assert table["inherited"]["loss"]["by_task"] == {"a": 1.0}
    assert pair_systems({"ca_lora": {}}, ("a",), ours="ca_lora") == {}
