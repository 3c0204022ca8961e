"""Training an adapter: only answers count, the loss falls, a killed run ends as an unbroken one."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from ramole_core.base.model import dequantised
from ramole_core.errors import RamoleError
from ramole_core.training.adapter import attach_lora, train_adapter, trained_parameters
from ramole_core.training.loop import Paused, TrainingRun
from ramole_core.training.loss import answer_loss, can_share, row_losses, token_losses
from ramole_core.training.recipe import AdapterRecipe, Schedule
from ramole_core.training.rows import (
    BatchOrder,
    Encoded,
    Row,
    collate,
    encode_row,
    encode_rows,
    read_task,
)
from tests.support.tiny_training import build_base


def write_rows(path, count, *, word="red"):
    lines = [
        json.dumps({"inputs": f"say {word} {'please ' * (n % 3)}{n % 7}", "targets": f"{word} 5"})
        for n in range(count)
    ]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def tiny_base(tmp_path):
    return build_base(torch.float32, tmp_path)


@pytest.fixture
def data(tmp_path):
    return write_rows(tmp_path / "colours.jsonl", 41)


def recipe(steps=9, **changes):
    schedule = Schedule(
        steps=steps,
        batch_rows=4,
        learning_rate=2e-2,
        warmup=2,
        evaluate_every=4,
        checkpoint_every=3,
        dev_rows=3,
    )
    return AdapterRecipe("colours", rank=3, alpha=6.0, schedule=schedule, **changes)


def test_a_file_is_split_and_a_folder_is_not(tmp_path, data):
    task = read_task(data)
    assert (len(task.train), len(task.dev), task.name) == (37, 4, "colours")
    folder = tmp_path / "task"
    folder.mkdir()
    write_rows(folder / "train.jsonl", 13)
    write_rows(folder / "dev.jsonl", 5)
    assert [len(part) for part in (read_task(folder).train, read_task(folder).dev)] == [13, 5]


@pytest.mark.parametrize("text", ["not json", '{"inputs": "a"}', '["inputs", "targets"]'])
def test_a_bad_row_is_named(tmp_path, text):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"inputs": "a", "targets": "b"}\n' + text)
    with pytest.raises(RamoleError, match=r"bad\.jsonl line 2"):
        read_task(path)


def test_too_few_rows_and_no_file_are_refused(tmp_path):
    with pytest.raises(RamoleError, match="at least 10"):
        read_task(write_rows(tmp_path / "few.jsonl", 9))
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
    with pytest.raises(RamoleError, match="learning rate is 5"):
        Schedule(learning_rate=5.0)
    with pytest.raises(RamoleError, match="steps is 0"):
        Schedule(steps=0)
    with pytest.raises(RamoleError, match="--dev-rows is -1"):
        Schedule(dev_rows=-1)


def test_the_rate_warms_up_and_ends_at_a_tenth():
    schedule = Schedule(steps=50, warmup=5, learning_rate=1e-3)
    rates = [schedule.rate(step) for step in range(50)]
    assert rates[0] == pytest.approx(2e-4)
    assert max(rates) == rates[5] == pytest.approx(1e-3)
    assert 1e-4 < rates[-1] < 1.1e-4
