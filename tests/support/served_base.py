"""A tiny base of any family as it is served, and the same model by itself with hooks of our own."""

import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ramole_core import Request
from ramole_core.base.architecture import model_class
from ramole_core.base.shapes import read_shapes
from ramole_core.composition import LoraSet, Trained
from ramole_core.engine import reference
from ramole_core.engine.build import checked_engine
from ramole_core.engine.engine import Engine, EngineSizes
from tests.support.hooked_experts import mixtures_hooked
from tests.support.tiny_engine import TinyEngine

RANKS = {"ant": 2, "bee": 7, "cat": 3, "dog": 5}
NARROW = ("cat", "dog")
"""Adapters of the attention alone: PEFT moves others' names to the experts of a mixture."""


def _is_narrow(path: str) -> bool:
    return "att" in path and "gate" not in path


class ServedBase(TinyEngine):
    """Checked as a base is when it loads."""

    def __init__(self, folder: Path):
        self.folder = folder
        super().__init__(folder)

    def build(self, sizes: EngineSizes | None) -> Engine:
        self.shapes = read_shapes(self.folder)
        self._sites = type(self._sites)(tuple(self.shapes), self.shapes)
        self.trained = {"_router": self.random_router()}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reference, "PROMPTS", reference.PROMPTS[:2])
            return checked_engine(self.base, self._make, file=None)

    def _make(self, own) -> Engine:
        return Engine(
            self.base,
            shapes=self.shapes,
            weights=lambda method: self.trained.get(method.row.weights),
            own=own,
        )

    def adapter(self, content: str, rank: int) -> LoraSet:
        whole = super().adapter(content, rank)
        narrow = content in NARROW
        return {path: one for path, one in whole.items() if not narrow or _is_narrow(path)}

    def random_router(self, s: int = 5):
        """A RouterLoRA of rank s, its scale in B_r."""
        pick = torch.Generator().manual_seed(4)
        found = {}
        for path, (i, o) in self.shapes.items():
            found[f"{path}.A_r"] = torch.randn(s, i, generator=pick) * i**-0.5
            found[f"{path}.B_r"] = torch.randn(o, s, generator=pick) * o**-0.5
        return Trained(found)

    def logits(self, prompts: Sequence[str], method: str, names: Sequence[str] = ()) -> Tensor:
        """[b, v] after each prompt, read side by side."""
        chosen = [(name, RANKS[name]) for name in names]
        asked = [
            self.engine.prepare(
                Request(text, method=method, raw=True, max_new_tokens=1), self.chosen(chosen)
            )
            for text in prompts
        ]
        return self.engine.next_logits(asked)

    def answers(self, prompts: Sequence[str], n: int) -> list[list[int]]:
        """n tokens of the base for each, all at once."""
        said = {"method": "base", "raw": True, "max_new_tokens": n, "ignore_eos": True}
        states = [self.submit(Request(text, **said), ()) for text in prompts]
        self.finish()
        return [self.heard.pop(state).tokens for state in states]

    def ids(self, text: str) -> list[int]:
        return list(self.base.tokenizer(text)["input_ids"])

    @cached_property
    def own(self):
        """The model of transformers, by its own code."""
        kind = model_class(self.base.model.config)
        model = kind.from_pretrained(self.folder, dtype=torch.float32).eval()
        model.generation_config.eos_token_id = model.config.eos_token_id = None
        return model

    @torch.inference_mode()
    def own_logits(self, text: str) -> Tensor:
        return self.own(input_ids=torch.tensor([self.ids(text)]), use_cache=False).logits[0, -1]

    @torch.inference_mode()
    def generated(self, text: str, n: int) -> list[int]:
        ids = torch.tensor([self.ids(text)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = self.own.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=n,
                do_sample=False,
                pad_token_id=0,
            )
        return found[0, ids.shape[1] :].tolist()

    @contextmanager
    def mixed(self, names: Sequence[str], *, even: bool = False):
        """The own model with eq. 6-11 of RAMoLE (arXiv 2406.16989) in hooks on its layers, or with
        `even` weights."""
        loras = [self.adapter(name, RANKS[name]) for name in names]
        hooks = {path: self._hook(path, loras, even) for path in self.shapes}
        with mixtures_hooked(self.own, hooks) as rest:
            handles = [
                self.own.get_submodule(path).register_forward_hook(hooks[path]) for path in rest
            ]
            yield
            for handle in handles:
                handle.remove()

    def _hook(self, path: str, loras: Sequence[LoraSet], even: bool):
        router: Mapping[str, Tensor] = self.trained["_router"].tensors
        A_r, B_r = router[f"{path}.A_r"].double(), router[f"{path}.B_r"].double()

        def add(module: torch.nn.Module, args: tuple[Tensor, ...], y: Tensor) -> Tensor:
            x = args[0].double()
            nothing = torch.zeros_like(y.double())
            v = [
                x @ one[path].A.double().T @ one[path].B.double().T if path in one else nothing
                for one in loras
            ]
            q, scores = x @ A_r.T, []
            for update in v:
                scores.append((q * (update @ B_r)).sum(-1) / len(A_r) ** 0.5)
            alpha = torch.stack(scores, -1).mul(0.0 if even else 1.0).softmax(-1)
            total = sum(alpha[..., n, None] * update for n, update in enumerate(v))
            return (y.double() + total).to(y.dtype)

        return add

    @torch.inference_mode()
    def peft_logits(self, text: str, name: str) -> Tensor:
        """Of the own model with that adapter, by PEFT."""
        from peft import LoraConfig, get_peft_model

        lora = self.adapter(name, RANKS[name])
        every = "|".join(map(re.escape, lora))  # a list of names would be shortened
        config = LoraConfig(r=RANKS[name], lora_alpha=RANKS[name], target_modules=f"({every})")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = get_peft_model(self.own, config)
            for path, one in lora.items():
                layer = model.get_submodule(f"base_model.model.{path}")
                layer.lora_A["default"].weight.copy_(one.A)
                layer.lora_B["default"].weight.copy_(one.B)
            found = model(input_ids=torch.tensor([self.ids(text)]), use_cache=False).logits[0, -1]
            model.unload()
        return found
