"""The peers, timed as our engine is: `transformers.generate` bare, and PEFT in four ways.

Each has a copy of the base of its own, in the same weights and dtype, reads the same token ids and
generates exactly as many tokens (min_new_tokens = max_new_tokens), greedily. PEFT's adapters stay
in the base's dtype, which is faster than its default of float32. X-LoRA recomputes the whole text
for every token, as PEFT's own implementation does: it refuses a cache of keys and values.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import cast

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from lab.benchmarks.record import Measured
from ramole_core.base.model import BaseModel, load_base
from ramole_core.cli.timed_engine import now, rates

LoadBase = Callable[[], BaseModel]
Generate = Callable[..., torch.Tensor]


class Clock(LogitsProcessor):
    """A mark for each token: generate calls it between a forward and the choice."""

    def __init__(self, device: torch.device):
        self._device = device
        self.marks: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.marks.append(now(self._device))
        return scores


class Peer:
    """One way to serve without us; a subclass says what differs."""

    name: str

    def __init__(self, base: BaseModel, generate: Generate):
        self.base, self._generate = base, generate

    def measure(self, prompts: Sequence[str], names: Sequence[str], new_tokens: int) -> Measured:
        """One batch from its start to its last token."""
        ids = self._encode(prompts)
        return self._timed(ids, new_tokens, **self._options(len(prompts), names))

    def _options(self, rows: int, names: Sequence[str]) -> dict[str, object]:
        """Arguments of `generate` beside the usual ones."""
        return {}

    def _encode(self, prompts: Sequence[str]) -> torch.Tensor:
        rows = [self.base.tokenizer(prompt)["input_ids"] for prompt in prompts]
        return torch.tensor(rows, device=self.base.device)

    def _timed(self, ids: torch.Tensor, new_tokens: int, **options: object) -> Measured:
        clock = Clock(self.base.device)
        began = now(self.base.device)
        with torch.no_grad(), quiet():
            made = self._generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                min_new_tokens=new_tokens,
                max_new_tokens=new_tokens,
                do_sample=False,
                pad_token_id=self.base.tokenizer.eos_token_id,
                logits_processor=LogitsProcessorList([clock]),
                **options,
            )
        ended = now(self.base.device)
        assert made.shape[1] == ids.shape[1] + new_tokens, "a peer stopped early"
        marks = clock.marks
        return {
            **rates(
                prompt_tokens=ids.numel(),
                prefill_seconds=marks[0] - began,
                new_tokens=len(ids) * (len(marks) - 1),
                decode_seconds=marks[-1] - marks[0],
            ),
            "seconds": ended - began,
        }


class Bare(Peer):
    """The base model alone."""

    name = "transformers_generate"

    def __init__(self, load: LoadBase):
        base = load()
        super().__init__(base, cast(Generate, base.model.generate))


class OneEach(Peer):
    """PEFT, one adapter a request in one batch: `generate(adapter_names=[...])`."""

    name = "peft_one_each"

    def __init__(self, load: LoadBase, folders: Sequence[Path]):
        from peft import PeftModel

        base = load()
        with quiet():
            model = PeftModel.from_pretrained(
                base.model, str(folders[0]), folders[0].name, autocast_adapter_dtype=False
            )
            for folder in folders[1:]:
                model.load_adapter(str(folder), folder.name, autocast_adapter_dtype=False)
        self.model = model.eval()
        super().__init__(base, self.model.generate)

    def _options(self, rows: int, names: Sequence[str]) -> dict[str, object]:
        return {"adapter_names": [names[row % len(names)] for row in range(rows)]}


class Switching(Peer):
    """PEFT, one request after another, its adapter made the active one before each."""

    name = "peft_switching"

    def __init__(self, one_each: OneEach):
        super().__init__(one_each.base, one_each.model.generate)
        self._set_adapter = one_each.model.set_adapter

    def measure(self, prompts: Sequence[str], names: Sequence[str], new_tokens: int) -> Measured:
        runs = []
        ids = self._encode(prompts)
        began = now(self.base.device)
        for row in range(len(prompts)):
            self._set_adapter(names[row % len(names)])
            runs.append(self._timed(ids[row : row + 1], new_tokens))
        ended = now(self.base.device)
        prefill = sum(run["prefill_seconds"] for run in runs)
        decode = sum((new_tokens - 1) / run["decode_tokens_per_second"] for run in runs)
        return {
            **rates(
                prompt_tokens=ids.numel(),
                prefill_seconds=prefill,
                new_tokens=len(runs) * (new_tokens - 1),
                decode_seconds=decode,
            ),
            "seconds": ended - began,
        }


class Arrow(Peer):
    """PEFT's Arrow: the same adapters for every request, mixed for each token by prototypes."""

    name = "peft_arrow"

    def __init__(self, load: LoadBase, folders: Sequence[Path]):
        from peft import ArrowConfig, create_arrow_model

        base = load()
        with quiet():
            model = create_arrow_model(
                base.model,
                task_specific_adapter_paths=[str(folder) for folder in folders],
                arrow_config=ArrowConfig(top_k=len(folders), rng_seed=0),
                autocast_adapter_dtype=False,
            )
        super().__init__(base, model.eval().generate)


class XLora(Peer):
    """PEFT's X-LoRA: the same adapters for every request, weights for each token from a first
    pass of the bare base. The weights of its (untrained) classifier do not change its cost."""

    name = "peft_xlora"

    def __init__(self, load: LoadBase, folders: Sequence[Path]):
        from peft import XLoraConfig, get_peft_model

        base = load()
        base.model.config.use_cache = False
        config = XLoraConfig(
            task_type="CAUSAL_LM",
            hidden_size=base.model.config.get_text_config().hidden_size,
            adapters={str(number): str(folder) for number, folder in enumerate(folders)},
        )
        torch.manual_seed(0)
        with quiet():
            model = get_peft_model(base.model, config, autocast_adapter_dtype=False)
        super().__init__(base, model.eval().generate)


@contextmanager
def quiet() -> Iterator[None]:
    """PEFT and transformers warn on loading and on every call of this kind; nothing to act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def base_loader(base: BaseModel, *, data_dir: Path) -> LoadBase:
    """Load further copies of the same base, for the peers change the model they are given."""
    return partial(
        load_base, str(base.folder), data_dir=data_dir, quantization=base.quantization,
        dtype=str(base.dtype).removeprefix("torch."), device=base.device.type,
    )  # fmt: skip
