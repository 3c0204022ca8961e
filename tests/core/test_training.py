"""Laws over every kind of training: resumes bit-equal, stops by patience, writes nothing half."""

import json
import time
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from math import inf, nan
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn

from ramole_core.base.model import BaseModel, dequantised
from ramole_core.base.shapes import read_shapes
from ramole_core.composition import Lora
from ramole_core.errors import RamoleError
from ramole_core.training import weights_folder
from ramole_core.training.adapter import attach_lora, train_adapter, trained_parameters
from ramole_core.training.card import Provenance, write_record
from ramole_core.training.checkpoint import Progress
from ramole_core.training.loop import Paused, Trainable, TrainingRun, train
from ramole_core.training.loss import answer_loss, can_share, row_losses, token_losses
from ramole_core.training.material import Material
from ramole_core.training.method import train_method
from ramole_core.training.recipe import AdapterRecipe, MethodRecipe, RetrieverRecipe, Schedule
from ramole_core.training.retriever import measure_tasks, train_retriever
from ramole_core.training.rows import (
    BatchOrder,
    Encoded,
    Row,
    Task,
    collate,
    encode_row,
    encode_rows,
    read_task,
)
from ramole_core.training.sampled_adapters import Near
from tests.support.tiny_encoder import COLOURS, SONGS, write_encoder
from tests.support.tiny_training import build_base, make_loras, make_task, write_rows

SCHEDULE = Schedule(
    steps=5, batch_rows=4, learning_rate=2e-2, warmup=2, evaluate_every=2, checkpoint_every=2,
    dev_rows=3, patience=3,
)  # fmt: skip
NAMES = ("red", "blue", "loud")
SHAPES = {
    "model.layers.0.self_attn.q_proj": (24, 24),
    "model.layers.0.self_attn.k_proj": (24, 12),
    "model.layers.1.mlp.down_proj": (36, 24),
}
TEXTS = {
    "colour": tuple(f"say {c} {n} please" for c in COLOURS for n in range(4)),
    "song": tuple(f"sing {s} {n} now" for s in SONGS for n in range(4)),
    "count": tuple(f"{n} 7 8 {n}" for n in range(6)),
}


@dataclass(frozen=True)
class World:
    """A tiny base, its adapters and tasks; a tiny encoder."""

    base: BaseModel
    loras: dict[str, dict[str, Lora]]
    tasks: list[Task]
    encoder: Path
    data: Path

    def adapter(self, schedule: Schedule, run: TrainingRun) -> Progress:
        recipe = AdapterRecipe("colours", rank=3, alpha=6.0, schedule=schedule)
        origin = Provenance(
            "base", self.base.checksum, "none", "float32", run.command, "mit", "Colours."
        )

        def finish(folder, task, counts, progress):
            write_record(folder, recipe, task, progress, counts=counts, origin=origin)

        return train_adapter(recipe, data=self.data, base=self.base, run=run, finish=finish)

    def method(self, name: str, schedule: Schedule, run: TrainingRun, **changes) -> Progress:
        names = changes.pop("names", NAMES)
        given = Material(
            {one: self.loras[one] for one in names},
            [task for task in self.tasks if task.name in names],
            self.base,
            read_shapes(self.base.folder) if name == "llava_mole" else SHAPES,
            near=Near(lambda texts: [sorted(NAMES, key=lambda n: n not in t) for t in texts], "n"),
        )
        recipe = MethodRecipe(name, changes.pop("settings", {}), schedule=schedule, **changes)
        return train_method(recipe, given, run)

    def retriever(self, schedule: Schedule, run: TrainingRun, measured: object = ()) -> Progress:
        return train_retriever(
            RetrieverRecipe(rank=3, alpha=6.0, tasks=2, schedule=schedule),
            texts=TEXTS,
            run=run,
            measure=lambda embed: measure_tasks(
                embed, examples=TEXTS, prompts=TEXTS, tuned=tuple(TEXTS)
            ),
            measured=measured,
            source=str(self.encoder),
        )


KINDS: dict[str, Callable[[World, Schedule, TrainingRun], Progress]] = {
    "adapter": World.adapter,
    "ramole": lambda world, s, run: world.method("ramole", s, run),
    "ramole of what is found": lambda world, s, run: world.method("ramole", s, run, retrieved=2),
    "llava_mole": lambda world, s, run: world.method("llava_mole", s, run),
    "ca_lora": lambda world, s, run: world.method("ca_lora", s, run, names=("red", "blue")),
    "retriever": World.retriever,
}
"""Every loop that takes steps."""
MEASURED = {"lorauter": lambda world, s, run: world.method("lorauter", s, run, settings=ROWS)}
ROWS = {"rows": 5}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    base = build_base(torch.float32, folder)
    ranks = {"red": 2, "blue": 3, "loud": 5}
    loras = make_loras(SHAPES, ranks, lacks="blue", size=0.3)
    tasks = [make_task(name) for name in NAMES]
    data = write_rows(folder / "colours.jsonl", "red")
    (folder / "encoder").mkdir()
    return World(base, loras, tasks, write_encoder(folder / "encoder"), data)


def tensors_in(folder: Path) -> dict[str, bytes]:
    """The tensor files of a folder, each as it lies there."""
    return {file.name: file.read_bytes() for file in folder.glob("*.safetensors")}


def record_in(folder: Path) -> dict:
    """The record of a run."""
    (file,) = (f for f in folder.glob("*.json") if f.name != "adapter_config.json")
    return json.loads(file.read_text())


class Killed(Exception):
    """What ends a run in the middle."""


def kill_at(call: int) -> Callable[[Progress, int], None]:
    calls = []

    def report(progress: Progress, steps: int) -> None:
        calls.append(progress.step)
        if len(calls) == call:
            raise Killed

    return report


@pytest.mark.parametrize("kind", [*KINDS, *MEASURED])
def test_an_interrupted_run_ends_as_one_that_never_stopped(kind, world, tmp_path, monkeypatch):
    """Paused, killed, ended by a full disk while it writes; each time taken up again."""
    fit = (KINDS | MEASURED)[kind]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    unbroken = fit(world, SCHEDULE, TrainingRun(whole))

    def check_half() -> None:
        assert [path.name for path in broken.iterdir()] == [".checkpoint"]
        torch.rand(7)  # a new process does not begin with the same generator

    with pytest.raises(Paused):
        fit(world, SCHEDULE, TrainingRun(broken, deadline=time.monotonic()))
    check_half()
    if kind in KINDS:
        last = 8 if kind == "ca_lora" else 2  # in the second adapter
        with pytest.raises(Killed):
            fit(world, SCHEDULE, TrainingRun(broken, report=kill_at(last)))
        check_half()
    with monkeypatch.context() as patch:

        def fill_disk(tensors, file, **_):
            file.write_bytes(b"half")
            raise OSError("No space left on device")

        patch.setattr(weights_folder, "save_file", fill_disk)
        with pytest.raises(OSError, match="No space"):
            fit(world, SCHEDULE, TrainingRun(broken))
    check_half()
    steps = []
    resumed = fit(
        world, SCHEDULE, TrainingRun(broken, report=lambda progress, _: steps.append(progress))
    )
    assert len(steps) <= 1, "it had done all of its steps"
    assert resumed.train_losses == unbroken.train_losses
    assert resumed.dev_losses == unbroken.dev_losses
    assert tensors_in(broken) == tensors_in(whole) != {}
    assert sorted(p.name for p in broken.iterdir()) == sorted(p.name for p in whole.iterdir())
    assert ".checkpoint" not in {path.name for path in broken.iterdir()}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "found" not in kind])
def test_it_stops_when_the_dev_loss_has_stopped_falling(kind, world, tmp_path):
    """Steps so long that the loss soon rises."""
    wild = replace(SCHEDULE, steps=60, learning_rate=0.9, evaluate_every=1, patience=2)
    progress = KINDS[kind](world, wild, TrainingRun(tmp_path))
    runs = 2 if kind == "ca_lora" else 1
    assert progress.step == len(progress.train_losses) < 30 * runs
    record = record_in(tmp_path)
    assert record["kept_step"] == progress.kept_step <= progress.step - 2 * runs
    if runs == 1:
        name = "loss" if kind == "retriever" else kind
        losses = [one[name] for one in progress.dev_losses]
        assert losses.index(min(losses)) == progress.kept_step


@pytest.mark.parametrize("change", ["recipe", "quantization", "rows", "template"])
def test_a_run_goes_on_with_what_it_began_with_alone(change, world, tmp_path):
    data = write_rows(tmp_path / "colours.jsonl", "red")
    own = replace(world, data=data)
    with pytest.raises(Paused):
        own.adapter(SCHEDULE, TrainingRun(tmp_path / "a", deadline=0.0))
    schedule = SCHEDULE
    if change == "recipe":
        schedule = replace(SCHEDULE, steps=10)
    elif change == "quantization":
        own = replace(own, base=replace(own.base, quantization="int4"))
    elif change == "template":
        tokenizer = copy(own.base.tokenizer)
        tokenizer.chat_template = "Q: {{ messages[-1]['content'] }} A:"
        own = replace(own, base=replace(own.base, tokenizer=tokenizer))
    else:
        write_rows(data, "blue")
    with pytest.raises(RamoleError, match="another recipe, base model or data"):
        own.adapter(schedule, TrainingRun(tmp_path / "a"))


def test_a_retriever_goes_on_with_the_texts_that_it_was_measured_on(world, tmp_path):
    with pytest.raises(Paused):
        world.retriever(SCHEDULE, TrainingRun(tmp_path, deadline=0.0), measured=("a",))
    with pytest.raises(RamoleError, match="another recipe, base model or data"):
        world.retriever(SCHEDULE, TrainingRun(tmp_path), measured=("b",))


# --- the loop alone -------------------------------------------------------------------------------


def toy(losses: list[float], **changes) -> Trainable:
    """Two parameters, one of which no gradient reaches; the dev losses are those given."""
    a, still = nn.Parameter(torch.tensor([3.0, -2.0])), nn.Parameter(torch.ones(3))
    left = iter(losses)
    return Trainable(
        **{
            "name": "toy",
            "parameters": {"a": a, "still": still},
            "loss": lambda step: (a - step).square().sum(),
            "dev_loss": lambda: {"toy": next(left)},
            "facts": {"recipe": "toy"},
            "epoch": 7,
            **changes,
        }
    )


def test_the_best_measured_weights_are_kept_and_a_nan_is_never_the_best(tmp_path):
    seen: list[torch.Tensor] = []
    losses = [nan, 5.0, 4.0, nan, 4.0, 3.0, 3.5, 3.2, 3.1, 1.0]
    one = toy(losses)

    def watch(progress: Progress, steps: int) -> None:
        seen.append(one.parameters["a"].detach().clone())

    schedule = Schedule(steps=50, evaluate_every=1, patience=3)
    progress = train(one, schedule, TrainingRun(tmp_path, report=watch))
    assert (progress.step, progress.kept_step) == (8, 5)
    assert len(progress.dev_losses) == 9
    assert torch.equal(one.parameters["a"], seen[5]) and not torch.equal(seen[5], seen[8])
    ended = toy([])  # resumed after its end: no step, no measurement, the same weights
    again = train(ended, schedule, TrainingRun(tmp_path))
    assert torch.equal(ended.parameters["a"], seen[5]) and again.kept_step == progress.kept_step
    plain = toy([1.0] * 9)
    assert (
        train(plain, replace(schedule, steps=8, patience=0), TrainingRun(tmp_path / "b")).kept_step
        == 8
    )


@pytest.mark.parametrize("patience", [0, 1])
def test_a_run_that_diverged_leaves_no_weights(patience, tmp_path):
    one = toy([nan] * 9, save=lambda folder, progress: (folder / "w").write_text("nan"))
    one = replace(one, loss=lambda step: one.parameters["a"].sum() * nan)
    schedule = Schedule(steps=4, evaluate_every=1, patience=patience)
    with pytest.raises(RamoleError, match="diverged: after step [14] .* lower --learning-rate"):
        train(one, schedule, TrainingRun(tmp_path))
    assert not (tmp_path / "w").exists()


def test_a_parameter_that_no_gradient_reaches_is_taken_up_again(tmp_path):
    schedule = Schedule(steps=6, evaluate_every=6)
    whole = toy([1.0, 2.0])
    train(whole, schedule, TrainingRun(tmp_path / "whole"))
    with pytest.raises(Paused):
        train(toy([1.0]), schedule, TrainingRun(tmp_path / "broken", deadline=0.0))
    broken = toy([2.0])
    train(broken, schedule, TrainingRun(tmp_path / "broken"))
    assert torch.equal(broken.parameters["a"], whole.parameters["a"])
    held = load_file(TrainingRun(tmp_path / "broken").checkpoint)
    assert "exp_avg/a" in held and "exp_avg/still" not in held


def test_a_parameter_that_a_step_does_not_reach_moves_on_as_in_an_unbroken_run(tmp_path):
    def sometimes() -> Trainable:
        a, b = nn.Parameter(torch.tensor([3.0, -2.0])), nn.Parameter(torch.ones(3))
        loss = lambda step: a.square().sum() + (b.square().sum() if step in (0, 5) else 0)  # noqa: E731
        return toy([], parameters={"a": a, "b": b}, loss=loss, dev_loss=dict)

    schedule, whole = Schedule(steps=6, evaluate_every=6, checkpoint_every=1), sometimes()
    train(whole, schedule, TrainingRun(tmp_path / "whole"))
    for step in range(1, 6):
        with pytest.raises(Killed):
            train(sometimes(), schedule, TrainingRun(tmp_path / f"{step}", report=kill_at(step)))
        broken = sometimes()
        train(broken, schedule, TrainingRun(tmp_path / f"{step}"))
        for name, parameter in whole.parameters.items():
            assert torch.equal(broken.parameters[name], parameter), (step, name)


def test_a_deadline_leaves_one_step_and_a_finished_run_alone(tmp_path):
    schedule, steps = Schedule(steps=2, evaluate_every=9), []
    with pytest.raises(Paused):
        train(toy([1.0]), schedule, TrainingRun(tmp_path, report=lambda p, _: steps.append(p.step),
                                        deadline=0.0))  # fmt: skip
    assert steps == [0, 1]
    assert train(toy([2.0]), schedule, TrainingRun(tmp_path, deadline=0.0)).step == 2


def test_epochs_are_counted_in_steps(tmp_path):
    progress = train(toy([1.0] * 9), Schedule(epochs=1.5), TrainingRun(tmp_path))
    assert progress.step == 11  # 1.5 x 7
    assert Schedule(steps=4).counted(7).steps == 4


def test_patience_needs_a_dev_loss(tmp_path):
    with pytest.raises(RamoleError, match="none is measured here; leave patience out"):
        train(toy([], dev_loss=dict), Schedule(patience=1), TrainingRun(tmp_path))
    assert TrainingRun(tmp_path).deadline == inf


# --- an adapter -----------------------------------------------------------------------------------


@pytest.fixture
def tiny_base(tmp_path):
    return build_base(torch.float32, tmp_path)


@pytest.fixture
def data(tmp_path):
    return write_rows(tmp_path / "colours.jsonl", "red")


def recipe(steps=9, **changes):
    schedule = replace(SCHEDULE, steps=steps, patience=0, evaluate_every=4, checkpoint_every=3)
    return AdapterRecipe("colours", rank=3, alpha=6.0, schedule=schedule, **changes)


def test_a_file_is_split_and_a_folder_is_not(tmp_path, data):
    task = read_task(data)
    assert (len(task.train), len(task.dev), task.name) == (37, 4, "colours")
    folder = tmp_path / "task"
    folder.mkdir()
    write_rows(folder / "train.jsonl", "red", count=13)
    write_rows(folder / "dev.jsonl", "red", count=5)
    assert [len(part) for part in (read_task(folder).train, read_task(folder).dev)] == [13, 5]


@pytest.mark.parametrize("text", ["not json", '{"inputs": "a"}', '["inputs", "targets"]'])
def test_a_bad_row_is_named(tmp_path, text):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"inputs": "a", "targets": "b"}\n' + text)
    with pytest.raises(RamoleError, match=r"bad\.jsonl line 2"):
        read_task(path)


def test_too_few_rows_and_no_file_are_refused(tmp_path):
    with pytest.raises(RamoleError, match="at least 10"):
        read_task(write_rows(tmp_path / "few.jsonl", "red", count=9))
    with pytest.raises(RamoleError, match="not found"):
        read_task(tmp_path / "none.jsonl")


def test_rows_end_with_the_end_token_and_long_ones_are_left_out(tiny_base):
    tokenizer = tiny_base.tokenizer
    row = encode_row(tokenizer, Row("say red", "red 5"))
    assert row.answer[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(row.answer[:-1]).strip() == "red 5"
    long = Row("say " * 50, "red")
    assert len(encode_rows(tokenizer, [long, Row("say", "red")], max_tokens=40)) == 1
    with pytest.raises(RamoleError, match="fits into 40 tokens"):
        encode_rows(tokenizer, [long], max_tokens=40)


def test_only_answer_tokens_are_learnt(tiny_base):
    """The picked positions give the loss of the full product, with every other label ignored."""
    model = dequantised(tiny_base)
    rows = [Encoded((3, 4, 5, 6), (7, 8)), Encoded((9, 3), (4, 5, 6, 7, 8))]
    batch = collate(rows)
    ours = answer_loss(model, batch)
    labels = torch.tensor([[-100] * 4 + [7, 8, -100], [-100, -100, 4, 5, 6, 7, 8]])
    reference = model(input_ids=batch.ids, labels=labels).loss
    torch.testing.assert_close(ours, reference, atol=1e-5, rtol=1e-5)
    everything = model(input_ids=batch.ids, labels=batch.ids).loss
    assert abs(everything - reference) > 1e-3


def test_padding_and_order_do_not_change_a_rows_loss(tiny_base):
    model = dequantised(tiny_base)
    rows = [Encoded((3, 4, 5, 6, 9), (7, 8)), Encoded((9,), (4, 5, 6)), Encoded((3, 3), (5,))]
    together = row_losses(model, rows, batch_rows=2)
    alone = torch.stack([token_losses(model, collate([row])).mean() for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert together.unique().numel() == 3


SHARING = [
    Encoded((3, 4, 5, 6, 9), (7, 8)),
    Encoded((3, 4, 5, 9), (4, 5, 6)),
    Encoded((3, 4, 5, 6), (5,)),
]


def test_what_all_rows_begin_with_is_read_once_for_the_same_loss_and_gradients(tiny_base):
    adapted = attach_lora(tiny_base, recipe(1))
    with torch.no_grad():
        for name, one in trained_parameters(adapted).items():
            one.normal_(std=0.1 if "lora_B" in name else 0.3)
    model, found, read = adapted.get_base_model(), [], []
    model.get_input_embeddings().register_forward_pre_hook(
        lambda _, args: read.append(tuple(args[0].shape))
    )
    assert can_share(model, SHARING)
    read.clear()
    for share in (False, True):
        loss = answer_loss(model, collate(SHARING, share=share))
        adapted.zero_grad()
        loss.backward()
        found.append([loss, *(p.grad.clone() for p in trained_parameters(adapted).values())])
    assert read == [(3, 7), (1, 3), (3, 4)]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)
    assert max(float(one.abs().max()) for one in found[0][1:]) > 1e-3
    losses = [row_losses(model, SHARING, share=share) for share in (False, True)]
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-6)


def test_a_model_whose_first_tokens_see_later_ones_shares_nothing(tiny_base):
    model = dequantised(tiny_base)
    model.get_input_embeddings().register_forward_hook(lambda _, args, out: out + out.mean(1, True))
    assert not can_share(model, SHARING)


def test_batches_hold_every_row_once_an_epoch_and_start_anywhere():
    rows = [Encoded(tuple(range(n)), (1,)) for n in range(2, 15)]
    schedule = Schedule(batch_rows=5, seed=3)
    order = BatchOrder(rows, schedule)
    epoch = [order(step) for step in range(3)]
    assert sorted(len(row) for batch in epoch for row in batch) == list(range(3, 16))
    assert max(len(b[-1]) - len(b[0]) for b in epoch) <= 4
    assert BatchOrder(rows, schedule)(4) == [order(3), order(4)][1]
    assert BatchOrder(rows, replace(schedule, seed=4))(0) != epoch[0]


def test_the_loss_falls_and_peft_reads_the_files(tiny_base, tmp_path, data):
    out = tmp_path / "adapter"
    progress = train_adapter(recipe(24), data=data, run=TrainingRun(out), base=tiny_base)
    assert progress.dev_losses[-1]["adapter"] < 0.7 * progress.dev_losses[0]["adapter"]
    assert sorted(path.name for path in out.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    tensors = load_file(out / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    task = read_task(data)
    rows = encode_rows(tiny_base.tokenizer, task.dev[:3], max_tokens=224)
    plain = dequantised(tiny_base)
    before = row_losses(plain, rows).mean().item()
    adapted = PeftModel.from_pretrained(plain, str(out))
    after = row_losses(adapted.get_base_model(), rows).mean().item()
    assert before == pytest.approx(progress.dev_losses[0]["adapter"], abs=1e-4)
    assert after == pytest.approx(progress.dev_losses[-1]["adapter"], abs=5e-2)


def test_it_begins_with_the_weights_of_another_adapter(tiny_base, tmp_path, data):
    """The first dev loss is the other's last; a run that goes on begins with the same weights."""
    first = train_adapter(recipe(24), data=data, run=TrainingRun(tmp_path / "a"), base=tiny_base)
    go_on = partial(train_adapter, recipe(4), data=data, base=tiny_base, start=tmp_path / "a")
    second = go_on(run=TrainingRun(tmp_path / "b"))
    kept, begun = first.dev_losses[-1]["adapter"], second.dev_losses[0]["adapter"]
    assert begun == pytest.approx(kept, abs=5e-2)  # the file is in bfloat16
    assert begun < 0.7 * first.dev_losses[0]["adapter"]
    with pytest.raises(RamoleError, match="other ranks, modules or layers"):
        train_adapter(
            replace(recipe(4), rank=2),
            data=data, run=TrainingRun(tmp_path / "c"), base=tiny_base, start=tmp_path / "a",
        )  # fmt: skip
    with pytest.raises(RamoleError, match="cannot be read as an adapter's weights"):
        go_on(run=TrainingRun(tmp_path / "c"), start=tmp_path / "none")
    with pytest.raises(Paused):
        go_on(run=TrainingRun(tmp_path / "d", deadline=0.0))
    with pytest.raises(RamoleError, match="belongs to another recipe"):
        go_on(run=TrainingRun(tmp_path / "d"), start=tmp_path / "b")


def test_weights_that_autocast_copies_are_seen_to_move(tmp_path, data):
    """Autocast's cache would freeze the first step's bf16 copies of the LoRA."""
    base = build_base(torch.bfloat16, tmp_path)
    progress = train_adapter(recipe(24), data=data, run=TrainingRun(tmp_path / "a"), base=base)
    assert progress.dev_losses[-1]["adapter"] < 0.8 * progress.dev_losses[0]["adapter"]


def test_layers_modules_and_scaling_reach_the_config(tiny_base, tmp_path, data):
    chosen = recipe(3, modules=("q_proj", "down_proj"), layers=(1,), rslora=True)
    train_adapter(chosen, data=data, run=TrainingRun(tmp_path / "a"), base=tiny_base)
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["down_proj", "q_proj"]
    assert (config["use_rslora"], config["r"], config["lora_alpha"]) == (True, 3, 6)
    paths = {
        name.split(".lora_")[0] for name in load_file(tmp_path / "a/adapter_model.safetensors")
    }
    assert paths == {
        "base_model.model.model.layers.1.self_attn.q_proj",
        "base_model.model.model.layers.1.mlp.down_proj",
    }


def test_impossible_recipes_are_refused():
    with pytest.raises(RamoleError, match="rank 0"):
        AdapterRecipe("a", rank=0)
    for wrong, sentence in (
        ({"learning_rate": 5.0}, "learning rate is 5"),
        ({"steps": 0}, "steps is 0"),
        ({"dev_rows": -1}, "--dev-rows is -1"),
        ({"patience": -1}, "patience -1 and epochs 0"),
    ):
        with pytest.raises(RamoleError, match=sentence):
            Schedule(**wrong)


def test_the_rate_warms_up_and_ends_at_a_tenth():
    schedule = Schedule(steps=50, warmup=5, learning_rate=1e-3)
    rates = [schedule.rate(step) for step in range(50)]
    assert rates[0] == pytest.approx(2e-4)
    assert max(rates) == rates[5] == pytest.approx(1e-3)
    assert 1e-4 < rates[-1] < 1.1e-4
