"""What prompt lookup earns in transformers and in llama.cpp, on the same prompts as our drafts.

Both serve one adapter of a task: PEFT's on the base's weights in bfloat16, llama.cpp's on the
base's GGUF. Each prompt is answered with and without lookup, in turns; counted is from the first
token to the last. An answer may change with lookup, since its bits depend on how many rows are
read.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from transformers import TextStreamer

from lab.benchmarks.llama_cpp import find_llama
from lab.benchmarks.peers import base_loader, quiet
from ramole_core.base.model import dequantised
from ramole_core.engine.prompt import encode_prompt
from ramole_core.request import Request

if TYPE_CHECKING:
    from ramole_core import Ramole
    from ramole_core.base.model import BaseModel
    from ramole_core.pool.tensors import AdapterTensors

PEERS = "transformers", "llama_cpp"
MIN_COUNTED = 60
"""Tokens of a pass, or one step that waits for a core decides the figure."""
DRAFTED = 10
"""Tokens of a lookup: what both propose."""
SILENT: list[Any] = []
"""llama.cpp's log goes nowhere; it calls this as long as the process runs."""
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Modules of a Llama, as GGUF names them."""
Answer = Callable[[Any, bool], tuple[float, int, Any]]
"""Of a prompt, with or without drafts: seconds from the first token on, how many tokens came in
them, and the answer."""


def measure_peers(
    ramole: "Ramole", name: str, prompts: Sequence[str], *, gguf: Path, new: int, passes: int
) -> dict[str, object]:
    """What lookup earns each peer with the adapter `name` on these prompts; `gguf` is the base's.

    llama.cpp has a process of its own: on CPUs with a matrix unit it configures a thread's tiles
    once, and PyTorch, which uses them too, releases them.
    """
    base, card = ramole.base, ramole.pool.card(name)
    ids = [encode_prompt(Request(prompt), base.tokenizer) for prompt in prompts]
    load = base_loader(base, data_dir=ramole.settings.data_dir)
    theirs = by_transformers(load(), card.folder, new=new)
    found: dict[str, object] = {"transformers": take_turns(theirs, ids, passes=passes)}
    config = base.model.config
    heads = (config.num_attention_heads, config.num_key_value_heads)
    with TemporaryDirectory() as folder, ProcessPoolExecutor(1, get_context("spawn")) as apart:
        file = Path(folder) / "adapter.gguf"
        write_gguf(ramole.pool.tensors(card), file, heads=heads)
        how = {"ends": _ends(base), "new": new, "threads": torch.get_num_threads()}
        found["llama_cpp"] = apart.submit(_llama_cpp, gguf, file, ids, passes, how).result()
    return found


def _llama_cpp(
    gguf: Path, adapter: Path, ids: Sequence[Sequence[int]], passes: int, how: Mapping[str, Any]
) -> dict[str, object]:
    return take_turns(by_llama_cpp(gguf, adapter, **how), ids, passes=passes)


def _ends(base: "BaseModel") -> list[int]:
    found = base.model.generation_config.eos_token_id
    return [found] if isinstance(found, int) else [*(found or ())]


def take_turns(answer: Answer, prompts: Sequence[Any], *, passes: int) -> dict[str, object]:
    """Tokens a second of both ways, and the median of their ratios; one pass is not counted. Of
    short answers MIN_COUNTED tokens are counted in each."""
    ratios, best = [], {True: float("inf"), False: float("inf")}
    same = True
    for turn in range(passes + 1):
        took, said = {}, {}
        for lookup in (True, False) if turn % 2 else (False, True):
            took[lookup], said[lookup] = _seconds_a_token(answer, prompts, lookup=lookup)
        same &= said[True] == said[False]
        if turn and all(took.values()):
            ratios.append(took[False] / took[True])
            best = {lookup: min(best[lookup], took[lookup]) for lookup in best}
    if not ratios:
        return {"ratio": None}
    return {
        "tokens_per_second": round(1 / best[True], 1),
        "without": round(1 / best[False], 1),
        "ratio": round(median(ratios), 2),
        "low": round(min(ratios), 2),
        "high": round(max(ratios), 2),
        "same_answers": same,
    }


def _seconds_a_token(
    answer: Answer, prompts: Sequence[Any], *, lookup: bool
) -> tuple[float, list[Any]]:
    """Seconds a token behind the first ones, 0 where there is none; and the answers."""
    spent, counted, said = 0.0, 0, []
    for ids in cycle(prompts):
        if len(said) >= len(prompts) and (counted >= MIN_COUNTED or not counted):
            break
        seconds, count, made = answer(ids, lookup)
        spent += seconds
        counted += count
        said.append(made)
    return spent / max(counted, 1), said[: len(prompts)]


class _Marks(TextStreamer):
    """When `generate` gives the prompt, and each time some tokens, and how many."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.counts: list[int] = []

    def put(self, value: torch.Tensor) -> None:
        self.times.append(time.perf_counter())
        self.counts.append(value.numel())

    def end(self) -> None:
        pass


def by_transformers(base: "BaseModel", adapter: Path, *, new: int) -> Answer:
    """PEFT's adapter and `generate(prompt_lookup_num_tokens=...)`."""
    from peft import PeftModel

    with quiet():
        model = PeftModel.from_pretrained(
            dequantised(base), str(adapter), autocast_adapter_dtype=False
        )
    model.eval()

    def answer(ids: Sequence[int], lookup: bool) -> tuple[float, int, list[int]]:
        marks, rows = _Marks(), torch.tensor([list(ids)], device=base.device)
        asked = {"prompt_lookup_num_tokens": DRAFTED} if lookup else {}
        with torch.no_grad(), quiet():
            made = model.generate(
                input_ids=rows,
                attention_mask=torch.ones_like(rows),
                max_new_tokens=new,
                do_sample=False,
                pad_token_id=base.tokenizer.eos_token_id,
                streamer=marks,
                **asked,
            )
        _, _, *rest = marks.counts
        return marks.times[-1] - marks.times[1], sum(rest), made[0, len(ids) :].tolist()

    return answer


def by_llama_cpp(
    base: Path, adapter: Path, *, ends: Sequence[int], new: int, threads: int
) -> Answer:
    """llama.cpp with its package's prompt lookup; `adapter` is a GGUF that `write_gguf` made."""
    api: Any = find_llama()
    SILENT[:] = SILENT or [api.llama_log_callback(lambda level, text, data: None)]
    api.llama_log_set(SILENT[0], None)
    speculative: Any = __import__("llama_cpp.llama_speculative", fromlist=["x"])
    drafts = speculative.LlamaPromptLookupDecoding(num_pred_tokens=DRAFTED)
    options = {"model_path": str(base), "lora_path": str(adapter), "verbose": False}
    options |= {"n_ctx": 2048, "n_batch": 2048, "n_threads": threads, "n_threads_batch": threads}
    models = {
        lookup: api.Llama(**options, draft_model=drafts if lookup else None)
        for lookup in (True, False)
    }

    def answer(ids: Sequence[int], lookup: bool) -> tuple[float, int, list[int]]:
        made, times, model = [], [], models[lookup]
        model.reset()
        for token in model.generate(list(ids), temp=0.0, reset=True):
            times.append(time.perf_counter())
            made.append(int(token))
            if token in ends or len(made) == new:
                break
        return times[-1] - times[0], len(made) - 1, made

    return answer


def write_gguf(tensors: "AdapterTensors", file: Path, *, heads: tuple[int, int]) -> None:
    """Write an adapter of a Llama as llama.cpp reads it; its scale is in B. `heads`: of queries,
    and of keys, whose rows GGUF has in pairs."""
    from gguf import GGUFType, GGUFWriter, Keys

    writer = GGUFWriter(file, "llama")
    writer.add_type(GGUFType.ADAPTER)
    writer.add_string(Keys.Adapter.TYPE, "lora")
    for path, (A, B) in tensors.modules.items():
        block, _, module = path.partition("layers.")[2].partition(".")
        name = NAMES[module]
        if name in ("attn_q", "attn_k"):
            count = heads[name == "attn_k"]
            B = B.view(count, 2, -1, B.shape[1]).transpose(1, 2).reshape(B.shape)
        for half, tensor in (("lora_a", A), ("lora_b", B)):
            writer.add_tensor(f"blk.{block}.{name}.weight.{half}", tensor.float().numpy())
    writer.add_float32(Keys.Adapter.LORA_ALPHA, float(_rank(tensors)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _rank(tensors: "AdapterTensors") -> int:
    """Of every module: alpha over it is the scale, which B has already."""
    (rank,) = {A.shape[0] for A, _ in tensors.modules.values()}
    return rank
