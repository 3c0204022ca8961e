"""Training a router: only A_r and B_r move, the scale is folded, a killed run ends the same."""

import json
from contextlib import closing
from dataclasses import replace
from itertools import product

import pytest
import torch
from safetensors.torch import load_file

from ramole_core.composition import Trained, find_method, load_router
from ramole_core.composition.trained import load_trained
from ramole_core.errors import RamoleError
from ramole_core.training.gate import first_weights, fresh_weights, watched
from ramole_core.training.loop import TrainingRun
from ramole_core.training.loss import mean_by_row, row_losses, token_losses
from ramole_core.training.material import Material, dev_rows, mixed_rows
from ramole_core.training.method import train_method
from ramole_core.training.mixed_model import MixedModel
from ramole_core.training.recipe import MethodRecipe, Schedule
from ramole_core.training.rows import Encoded, Row, collate, encode_rows
from ramole_core.training.sampled_adapters import Near, SampledAdapters, keep_some
from tests.support.tiny_training import SHAPES, build_base, make_loras, make_task, method_recipe


@pytest.fixture
def base(tmp_path):
    return build_base(torch.float32, tmp_path)


@pytest.fixture
def loras():
    return make_loras(SHAPES, {"red": 2, "blue": 3, "loud": 5}, lacks="blue", size=0.5)


TASKS = [make_task(name) for name in ("red", "blue", "loud")]


def recipe(steps=8, **changes):
    made = method_recipe("ramole", {"rank": 4, "alpha": 10.0}, steps=steps, learning_rate=3e-2)
    return replace(made, **changes)


def run(base, loras, out, command="", report=lambda progress, steps: None, **changes):
    learning = changes.pop("recipe", recipe())
    given = Material(loras, TASKS, base, SHAPES, **changes)
    return train_method(learning, given, TrainingRun(out, command, report))


def fresh(base, loras, recipe):
    model = MixedModel(base, loras=loras, shapes=SHAPES)
    try:
        return fresh_weights(find_method("ramole"), model, [], recipe)
    finally:
        model.close()


def test_the_dev_loss_is_of_the_first_rows_that_fit(base):
    long = tuple(Row("say " * 60, "red") for _ in range(4))
    red, blue = make_task("red"), make_task("blue")
    schedule = replace(recipe().schedule, max_tokens=40, dev_rows=6)
    found = dev_rows(base, [replace(red, dev=long + red.dev), blue], schedule)
    assert [row.text for row in found] == [
        row.inputs for task in (red, blue) for row in task.dev[:3]
    ]


def test_only_the_router_moves_and_it_learns(base, loras, tmp_path):
    model_before = {name: t.clone() for name, t in base.model.state_dict().items()}
    loras_before = {
        (name, path): (m.A.clone(), m.B.clone())
        for name, modules in loras.items()
        for path, m in modules.items()
    }
    progress = run(base, loras, tmp_path / "r", recipe=recipe(30))
    first, last = progress.dev_losses[0], progress.dev_losses[-1]
    assert first["ramole"] == pytest.approx(first["uniform"], abs=1e-5)  # B_r starts at zero
    assert last["ramole"] < last["uniform"] - 1e-2
    assert last["random"] != pytest.approx(last["uniform"], abs=1e-4)
    after = base.model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in model_before.items())
    for (name, path), (A, B) in loras_before.items():
        assert torch.equal(loras[name][path].A, A) and torch.equal(loras[name][path].B, B)
    start = fresh(base, loras, recipe(30))
    end = load_file(tmp_path / "r" / "router.safetensors")
    assert set(end) == set(start)
    assert all(not torch.equal(end[name].float(), start[name]) for name in start)


def test_the_scale_is_folded_and_the_engine_reads_the_folder(base, loras, tmp_path):
    weights = {name: tensor + 0.25 for name, tensor in fresh(base, loras, recipe()).items()}
    path = next(iter(SHAPES))
    folded = find_method("ramole").finish(weights, recipe().settings)
    torch.testing.assert_close(folded[f"{path}.B_r"], weights[f"{path}.B_r"] * 2.5)
    torch.testing.assert_close(folded[f"{path}.A_r"], weights[f"{path}.A_r"])
    run(base, loras, tmp_path / "r", command="python -m ramole_core train router")
    router = load_router(tmp_path / "r", shapes=SHAPES)
    assert (router.rank, set(router.modules)) == (4, set(SHAPES))
    assert router.modules[path].A.dtype == torch.bfloat16
    config = json.loads((tmp_path / "r" / "router_config.json").read_text())
    assert config["trained_on"] == ["red", "blue", "loud"]
    assert config["base_checksum"] == base.checksum
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == [
        "router.safetensors",
        "router_config.json",
    ]


def test_the_file_gives_the_loss_that_was_measured(base, loras, tmp_path):
    progress = run(base, loras, tmp_path / "r")
    dev = [row for t in TASKS for row in encode_rows(base.tokenizer, t.dev[:3], max_tokens=224)]
    model = MixedModel(base, loras=loras, shapes=SHAPES)
    router = load_router(tmp_path / "r", shapes=SHAPES)
    router = router.to(device=base.device, dtype=base.dtype)
    with model.gated_by(router, names=[model.names]):
        served = row_losses(model.plain, dev).mean().item()
    assert served == pytest.approx(progress.dev_losses[-1]["ramole"], abs=1e-2)
    with model.gated_by(None, names=[model.names]):
        assert abs(row_losses(model.plain, dev).mean().item() - served) > 1e-3


def test_it_begins_with_weights_that_are_there(base, loras, tmp_path):
    """The first dev loss is the last of the run before, though the scale is folded in the file."""
    last = run(base, loras, tmp_path / "r").dev_losses[-1]["ramole"]
    start = load_trained(tmp_path / "r", find_method("ramole").row)
    begun = run(base, loras, tmp_path / "s", start=start)
    assert begun.dev_losses[0]["ramole"] == pytest.approx(last, abs=1e-2)
    fresh_loss = run(base, loras, tmp_path / "t").dev_losses[0]["ramole"]
    assert abs(begun.dev_losses[0]["ramole"] - fresh_loss) > 1e-2
    other = replace(recipe(), settings={"rank": 3, "alpha": 10.0})
    with pytest.raises(RamoleError, match="weights to begin with are of another base"):
        run(base, loras, tmp_path / "u", start=start, recipe=other)


@pytest.mark.parametrize(
    "known", [("red", "blue"), ("red", "blue", "grey"), ("loud", "red", "blue")]
)
@pytest.mark.parametrize("method", ["moe", "meteora", "smear", "mole", "lora_flow"])
def test_a_gate_takes_the_places_of_the_adapters_it_knows_by_their_names(method, known, base):
    """Fewer, as many others, the same in another order; `units` of mole are as many as adapters."""
    names, kind = ("blue", "loud", "red"), find_method(method)
    loras = make_loras(SHAPES, dict.fromkeys(names, 2), lacks="loud", size=0.5)
    settings = {"units": 3} if method == "mole" else {}
    learning = MethodRecipe(method, settings, schedule=Schedule(steps=1))
    with closing(MixedModel(base, loras=loras, shapes=SHAPES)) as model:
        trained = fresh_weights(kind, model, [(name, name) for name in known], learning)
        trained = {name: torch.rand_like(tensor) + 1 for name, tensor in trained.items()}
        config = {"adapters": [{"name": name, "checksum": f"{name}!"} for name in known]}
        given = Material(loras, TASKS, base, SHAPES, start=Trained(trained, config=config))
        fresh = fresh_weights(kind, model, given.known, learning)
        weights = first_weights(kind, model, learning, given)
    start = kind.resume(trained, learning.settings)
    for name, tensor in weights.items():
        dims = {"M": 2, "W": 1, "b": 1, "tau": 0}[name.rpartition(".")[2]]
        for at in product(range(len(names)), repeat=dims):
            each = [names[n] for n in at]
            if set(each) <= set(known):
                was = start[name][tuple(known.index(one) for one in each)]
            else:
                was = fresh[name][at]
            assert torch.equal(tensor[at], was)
    wrong = {name: torch.cat([tensor, tensor]) for name, tensor in trained.items() if tensor.dim()}
    given = replace(given, start=Trained(trained | wrong, config=config))
    with (
        closing(MixedModel(base, loras=loras, shapes=SHAPES)) as model,
        pytest.raises(RamoleError, match="weights to begin with are of another base"),
    ):
        first_weights(kind, model, learning, given)


def test_dropout_keeps_two_and_drops_half():
    names = ("a", "b", "c", "d", "e")
    kept = [keep_some(names, 0.5, seed=1, step=step) for step in range(400)]
    assert min(len(k) for k in kept) == 2
    assert {name for k in kept for name in k} == set(names)
    assert all(list(k) == sorted(k) for k in kept)
    assert 2.5 < sum(len(k) for k in kept) / 400 < 3.1
    assert keep_some(names, 0.0, seed=1, step=0) == names
    assert len({keep_some(names, 0.5, seed=1, step=s) for s in range(50)}) > 5


def _find(texts):
    """Its own first where a text names it, then the others as they come."""
    names = ("red", "blue", "loud")
    return [sorted(names, key=lambda name: name not in text) for text in texts]


near = Near(_find, "a sum")


FOUND = recipe(12, retrieved=2, masked=0.5)


def test_each_row_is_mixed_from_what_is_found_its_own_hidden_half_the_time(base):
    rows = mixed_rows(base, TASKS, FOUND.schedule) * 12
    companions = SampledAdapters(FOUND, ("red", "blue", "loud"), near)
    sets = companions.of_step(3, rows)
    assert {len(each) for each in sets} == {2}
    own = [row.task in each for row, each in zip(rows, sets, strict=True)]
    assert 0.4 < sum(own) / len(own) < 0.6
    assert all(
        each[0] == row.task for row, each in zip(rows, sets, strict=True) if row.task in each
    )
    assert sets == companions.of_step(3, rows) != companions.of_step(4, rows)
    assert companions.of_dev(rows) == companions.of_dev(rows)
    never = SampledAdapters(recipe(12, retrieved=2, masked=1.0), ("red", "blue", "loud"), near)
    assert not any(r.task in each for r, each in zip(rows, never.of_step(0, rows), strict=True))


def test_it_learns_over_what_is_found_and_goes_on_with_what_found_it(base, loras, tmp_path):
    whole = run(base, loras, tmp_path / "whole", recipe=FOUND, near=near)
    assert whole.dev_losses[-1]["ramole"] < whole.dev_losses[-1]["uniform"]
    assert whole.dev_losses[-1]["uniform"] != pytest.approx(
        run(base, loras, tmp_path / "all").dev_losses[-1]["uniform"], abs=1e-4
    )

    def kill(progress, steps):
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(base, loras, tmp_path / "broken", recipe=FOUND, near=near, report=kill)
    with pytest.raises(RamoleError, match="another"):
        run(base, loras, tmp_path / "broken", recipe=FOUND, near=Near(_find, "another sum"))


def test_what_finds_them_must_be_given(base, loras, tmp_path):
    with pytest.raises(RamoleError, match="nothing was given to find them with"):
        run(base, loras, tmp_path / "r", recipe=FOUND)
    with pytest.raises(RamoleError, match="its own hidden only 2 are left"):
        run(base, loras, tmp_path / "r", recipe=recipe(12, retrieved=3), near=near)
    for wrong in ({"retrieved": 1}, {"masked": 1.5}):
        with pytest.raises(RamoleError, match=next(iter(wrong))):
            recipe(**wrong)


def test_what_the_gates_did_is_told_by_each_rows_own_adapters(base, loras):
    model = MixedModel(base, loras=loras, shapes=SHAPES)
    names = [("loud", "red"), ("blue", "red"), ("loud", "red")]
    rows = mixed_rows(base, TASKS, FOUND.schedule)[:3]
    batch = collate(rows)
    alone = []
    try:
        for n, each in enumerate(names):
            with torch.no_grad(), model.gated_by(None, names=[each]):
                alone.append(token_losses(model.plain, batch)[batch.rows == n])
        mixing = model.mixing(find_method("uniform_router"), None, names=names, watch=True)
        with torch.no_grad(), mixing:
            together = token_losses(model.plain, batch)
        seen = watched(model, batch, ["red", "blue", "blue"], names)
    finally:
        model.close()
    torch.testing.assert_close(together, torch.cat(alone))
    assert seen.own.tolist() == [1, 0, -1]


def test_a_long_answer_counts_no_more_than_a_short_one():
    batch = collate([Encoded((1, 2), (3,)), Encoded((1, 2), (3, 4, 5))])
    tokens = torch.tensor([4.0, 1.0, 2.0, 3.0])
    assert mean_by_row(tokens, batch).item() == pytest.approx((4 + 2) / 2)


def test_one_adapter_is_not_enough(base, loras, tmp_path):
    with pytest.raises(RamoleError, match="only 1 was given"):
        run(base, {"red": loras["red"]}, tmp_path / "r")
