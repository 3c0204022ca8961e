"""LORAUTER: which adapters the nearest tasks bring, and the table of losses that says so."""

import json
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from ramole_core import RamoleError
from ramole_core.composition import METHODS, Trained, VisibleAdapter
from ramole_core.methods import complete_options
from ramole_core.training.loop import TrainingRun
from ramole_core.training.material import Material
from ramole_core.training.method import train_method
from ramole_core.training.recipe import MethodRecipe, Schedule
from ramole_core.training.rows import Row, Task, encode_row
from ramole_core.training.task_table import draw_rows
from tests.support.tiny_training import SHAPES, build_base, make_loras

NAMES = ("ant", "bee", "cat", "dog", "eel")
SCORES = dict(zip(NAMES, (0.71, 0.64, 0.2, 0.35, 0.5), strict=True))
MEASURED = ("ant", "bee", "cat", "dog")
LOSSES = torch.tensor(
    [
        [0.9, 0.4, 1.2, 0.7],  # ant: bee, dog, ant, cat
        [1.0, 0.3, 1.1, 0.8],  # bee: itself, dog, ant, cat
        [2.0, 2.1, 0.1, 1.9],  # cat: itself, dog, ant, bee
        [0.6, 1.6, 1.5, 0.2],  # dog: itself, ant, cat, bee
    ]
)
"""Of what came later, eel, nothing is known."""
TABLE = Trained(
    {"losses": LOSSES}, "table", {"adapters": [{"name": n, "checksum": f"{n}!"} for n in MEASURED]}
)


def choose(k, *, named=(), exclude=(), trained: Trained | None = TABLE, order=NAMES, **options):
    known = [
        VisibleAdapter(
            name,
            f"{name}!",
            SCORES[name],
            open=name in named if named else name not in exclude,
            excluded=name in exclude,
        )
        for name in order
    ]
    options = complete_options("lorauter", options)
    shares = METHODS["lorauter"].choose(known, k, options=options, trained=trained)
    return {known[n].name: share for n, share in shares.items()}


def expected(brings, temperature=0.2):
    """Shares where each of these tasks brings this adapter."""
    e = {task: math.exp(SCORES[task] / temperature) for task in brings}
    found = dict.fromkeys(brings.values(), 0.0)
    for task, adapter in brings.items():
        found[adapter] += e[task] / sum(e.values())
    return pytest.approx(found, rel=1e-9)


def test_the_nearest_tasks_bring_the_best_adapters():
    assert choose(1) == {"bee": pytest.approx(1.0)}
    assert choose(3) == expected({"ant": "bee", "bee": "bee", "eel": "eel"})
    every = {"ant": "bee", "bee": "bee", "eel": "eel", "dog": "dog", "cat": "cat"}
    assert choose(9) == expected(every)
    assert choose(9, order=NAMES[::-1]) == expected(every)
    assert choose(3, temperature=0.02) == expected({"ant": "bee", "bee": "bee", "eel": "eel"}, 0.02)


def test_a_task_whose_adapter_is_excluded_is_an_unseen_task():
    assert choose(2, exclude=("bee",)) == expected({"ant": "dog", "eel": "eel"})
    read = choose(2, exclude=("bee",), masked_tasks=True)
    assert read == expected({"ant": "dog", "bee": "dog"})
    assert choose(9, exclude=("eel",), masked_tasks=True).keys() == {"bee", "dog", "cat"}, (
        "of a task that nobody measured, nothing is left where its own adapter may not be taken"
    )


def test_named_adapters_are_all_that_a_task_can_bring():
    assert choose(2, named=("ant", "cat")) == expected({"ant": "ant", "bee": "ant"})
    assert choose(1, named=("eel",)) == expected({"eel": "eel"})


def test_without_a_table_each_task_has_its_own_adapter():
    assert choose(2, trained=None) == expected({"ant": "ant", "bee": "bee"})


# --- the table ------------------------------------------------------------------------------------

RECIPE = MethodRecipe("lorauter", {"rows": 3}, schedule=Schedule(max_tokens=12, seed=4))


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A tiny base, three adapters of unequal rank, the first lacking modules, and their tasks."""
    base = build_base(torch.float32, tmp_path_factory.mktemp("tasks"))
    loras = make_loras(SHAPES, {"red": 2, "blue": 5, "loud": 3}, lacks="red", size=0.4)
    words = "0 1 2 3 4 5 6".split()
    tasks = [
        Task(
            name, tuple(Row(f"say {name} {w}", f"{w} {name}" * (n % 2 + 1)) for w in words), (), ""
        )
        for n, name in enumerate(loras)
    ]
    return base, SHAPES, loras, tasks


def measure(parts, folder, recipe=RECIPE, report=lambda progress, steps: None):
    base, shapes, loras, tasks = parts
    given = Material(loras, tasks, base, shapes, {name: f"{name}!" for name in loras})
    train_method(recipe, given, TrainingRun(folder, report=report))
    return load_file(folder / "lorauter.safetensors")["losses"]


def merged_loss(parts, name, rows):
    """Mean answer loss, row by row, of the base with the adapter added into its weights."""
    base, _, loras, _ = parts
    before = {path: base.model.get_submodule(path).weight.clone() for path in loras[name]}
    for path, lora in loras[name].items():
        base.model.get_submodule(path).weight += lora.B @ lora.A
    losses = []
    for row in rows:
        ids = torch.tensor([[*row.prompt, *row.answer]])
        logits = base.model(ids).logits[0, len(row.prompt) - 1 : -1]
        losses.append(F.cross_entropy(logits, torch.tensor(row.answer)).item())
    for path, weight in before.items():
        base.model.get_submodule(path).weight.copy_(weight)
    return sum(losses) / len(losses)


def test_the_table_is_each_adapter_alone_on_each_task(parts, tmp_path):
    base, _, loras, tasks = parts
    table = measure(parts, tmp_path)
    rows = [draw_rows(base.tokenizer, task, RECIPE) for task in tasks]
    known = {encode_row(base.tokenizer, row) for task in tasks for row in task.train}
    assert all(len(set(each)) == 3 and set(each) <= known for each in rows)
    with torch.no_grad():
        expected = torch.tensor(
            [[merged_loss(parts, name, each) for name in loras] for each in rows]
        )
    assert expected.std() > 0.1
    torch.testing.assert_close(table, expected, rtol=1e-4, atol=1e-4)
    record = json.loads((tmp_path / "lorauter_config.json").read_text())
    assert record["adapters"] == [{"name": n, "checksum": f"{n}!"} for n in loras]
    assert record["recipe"]["split"] == "train" and not (tmp_path / ".checkpoint").exists()


def test_a_run_that_was_stopped_goes_on_where_it_was(parts, tmp_path):
    def stop(progress, steps):
        if progress.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(parts, tmp_path, report=stop)
    assert not (tmp_path / "lorauter.safetensors").exists()
    with pytest.raises(RamoleError, match="another recipe, base model or data; delete its folder"):
        measure(parts, tmp_path, replace(RECIPE, settings={"rows": 2}))
    steps = []
    table = measure(parts, tmp_path, report=lambda progress, _: steps.append(progress.step))
    assert steps == [2, 3]
    torch.testing.assert_close(table, measure(parts, tmp_path / "again"), rtol=0, atol=0)


def test_a_table_begins_with_no_weights(parts, tmp_path):
    base, shapes, loras, tasks = parts
    given = Material(loras, tasks, base, shapes, start=TABLE)
    with pytest.raises(RamoleError, match="lorauter cannot begin with trained weights"):
        train_method(RECIPE, given, TrainingRun(tmp_path))


def test_too_few_rows_are_refused_in_a_sentence(parts, tmp_path):
    with pytest.raises(RamoleError, match="7 training rows have at most 12.*8 are.*rows=7"):
        measure(parts, tmp_path, replace(RECIPE, settings={"rows": 8}))
