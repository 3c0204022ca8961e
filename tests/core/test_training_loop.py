"""Laws over every kind of training: resumes bit-equal, stops by patience, writes nothing half."""

import json
import time
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from math import inf, nan
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ramole_core.base.model import BaseModel
from ramole_core.base.shapes import read_shapes
from ramole_core.composition import Lora
from ramole_core.errors import RamoleError
from ramole_core.training import weights_folder
from ramole_core.training.adapter import train_adapter
from ramole_core.training.card import Provenance, write_record
from ramole_core.training.checkpoint import Progress
from ramole_core.training.loop import Paused, Trainable, TrainingRun, train
from ramole_core.training.material import Material
from ramole_core.training.method import train_method
from ramole_core.training.recipe import AdapterRecipe, MethodRecipe, RetrieverRecipe, Schedule
from ramole_core.training.retriever import measure_tasks, train_retriever
from ramole_core.training.rows import Task
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
    with pytest.raises(RamoleError, match="patience -1 and epochs 0"):
        Schedule(patience=-1)
    assert TrainingRun(tmp_path).deadline == inf
