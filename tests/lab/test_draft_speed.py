"""What prompt lookup earns in other engines: their adapter, their clock, their turns."""

from functools import partial
from itertools import count

import gguf
import pytest
import torch

from lab.benchmarks import draft_peers
from lab.benchmarks.synthetic import write_adapters
from ramole_core.base.model import load_base
from ramole_core.base.shapes import read_shapes
from ramole_core.pool.tensors import AdapterTensors


def test_an_adapter_of_a_llama_is_written_as_gguf_names_and_orders_it(tmp_path):
    torch.manual_seed(0)
    outputs = {"self_attn.q_proj": 24, "self_attn.k_proj": 12, "mlp.down_proj": 8}
    made = {path: (torch.randn(2, 6), torch.randn(o, 2)) for path, o in outputs.items()}
    tensors = AdapterTensors({f"model.layers.3.{path}": pair for path, pair in made.items()})
    file = tmp_path / "a.gguf"
    draft_peers.write_gguf(tensors, file, heads=(4, 2))
    read = {one.name: torch.tensor(one.data) for one in gguf.GGUFReader(file).tensors}
    names = dict(zip(outputs, ("attn_q", "attn_k", "ffn_down"), strict=True))
    assert len(read) == 6
    for path, (A, B) in tensors.modules.items():
        name = names[path.removeprefix("model.layers.3.")]
        assert torch.equal(read[f"blk.3.{name}.weight.lora_a"], A)
        wanted = B.clone()
        if name != "ffn_down":  # a head's halves alternate, row by row
            for row in range(len(B)):
                head, place = divmod(row, 6)
                wanted[6 * head + 2 * (place % 3) + place // 3] = B[row]
        assert torch.equal(read[f"blk.3.{name}.weight.lora_b"], wanted)
    fields = gguf.GGUFReader(file).fields
    assert fields["adapter.lora.alpha"].contents() == 2.0  # over the rank: B has the scale


@pytest.mark.parametrize("changes", [False, True])
def test_ways_take_turns_and_the_first_pass_is_not_counted(changes):
    asked, number = [], count()

    def answer(ids, lookup):
        asked.append(lookup)
        slow = 90.0 if next(number) < 4 else 10.0
        return (slow if lookup else 20.0), 40, [*ids, int(changes and lookup and len(asked) == 5)]

    found = draft_peers.take_turns(answer, [[1], [2]], passes=2)
    off, on = [False, False], [True, True]
    assert asked == [*off, *on, *on, *off, *off, *on]
    assert (found["ratio"], found["low"], found["high"]) == (2.0, 2.0, 2.0)
    assert (found["tokens_per_second"], found["without"]) == (4.0, 2.0)
    assert found["same_answers"] is not changes


def test_short_answers_are_asked_again_and_those_of_one_token_have_no_ratio():
    asked = []

    def answer(ids, lookup, *, behind):
        asked.append(ids)
        return 1.0 if behind else 0.0, behind, ids

    found = draft_peers.take_turns(partial(answer, behind=20), [[1], [2]], passes=1)
    assert found["ratio"] == 1.0 and asked == 4 * [[1], [2], [1]]
    assert draft_peers.take_turns(partial(answer, behind=0), [[1]], passes=1) == {"ratio": None}


@pytest.mark.parametrize("lookup", [False, True])
def test_transformers_counts_what_comes_behind_the_first_tokens(lookup, tiny_llama, tmp_path):
    base = load_base(
        str(tiny_llama), data_dir=tmp_path, quantization="none", dtype="float32", device="cpu"
    )
    shapes = read_shapes(base.folder)
    made = {"shapes": dict(list(shapes.items())[:2]), "ranks": [2], "dtype": torch.float32}
    (name,) = write_adapters(tmp_path / "pool", **made)
    answer = draft_peers.by_transformers(base, tmp_path / "pool" / name, new=12)
    seconds, counted, ids = answer([5, 6, 7, 8, 5, 6, 7, 8], lookup)
    assert 0 < len(ids) <= 12 and 0 <= counted < len(ids) and seconds >= 0
    if not lookup:
        assert counted == len(ids) - 1
