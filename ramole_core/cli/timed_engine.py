"""An engine, timed: requests go into its scheduler, and every token's time is noted; and prompts of
an exact number of tokens, equal for every system.

For `doctor --gpu` (`gpu_side.py`) and for benchmarks.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from ramole_core.engine.request_state import RequestState
from ramole_core.errors import RamoleError
from ramole_core.ramole import Ramole
from ramole_core.request import Generation, Request, Step


@dataclass(frozen=True)
class MixSpec:
    """A way to mix: a method and how many adapters it gets."""

    method: str
    k: int
    trace: bool = False

    @property
    def label(self) -> str:
        """`base`, `selection`, `ramole_k3`, `ramole_k3_trace`."""
        k = f"_k{self.k}" if self.k and self.method != "selection" else ""
        return self.method + k + ("_trace" if self.trace else "")


BASE, SELECTION, MIXTURE = MixSpec("base", 0), MixSpec("selection", 1), MixSpec("mixture", 3)
RAMOLE = MixSpec("ramole", 3)
WORDS = (
    "the river town keeps a small market where people trade bread, cloth and news every week; "
    "when the first boats come in, children run down to the water and count the sails"
).split()
TRIES = 200


class OurEngine:
    """A loaded Ramole whose engine is stepped by this thread alone."""

    def __init__(self, ramole: Ramole):
        self.ramole = ramole
        self._engine = ramole.engine
        self._device = ramole.base.device

    @property
    def idle(self) -> bool:
        """Whether no request runs or waits."""
        return self._engine.scheduler.idle

    def stats(self) -> dict[str, float]:
        """The engine's own counters, and the bytes it holds."""
        return {name: float(value) for name, value in self._engine.stats().items()}

    def pack(self, names: Sequence[str], *, tell: Callable[[float], None]) -> None:
        """Write the engine's own file of each adapter where there is none: a server does this at
        an adapter's first use."""
        for number, name in enumerate(names):
            one = Request("pack", method="selection", adapters=(name,))
            for candidate in self.ramole.candidates([one])[0]:
                self._engine.pack(candidate)
            tell((number + 1) / len(names))

    def forget(self, *, files: bool) -> None:
        """Drop every prefix and every adapter, so that their next use reads them: as after a start
        of the server, with `files` of the machine."""
        self._engine.forget_prefixes()
        self._engine.forget_adapters(files=files)

    def read(self, names: Sequence[str]) -> None:
        """Read the packed files of these adapters into the system's memory."""
        for name in names:
            one = Request("read", method="selection", adapters=(name,))
            for candidate in self.ramole.candidates([one])[0]:
                units = self._engine.store.get(candidate.checksum, candidate.load)
                for tensor in (*units.A, *(B for each in units.B for B in each)):
                    tensor.sum()

    def submit(self, request: Request) -> RequestState:
        """Queue one request; returns the state by which `step` refers to it."""
        return self._engine.submit(self.ramole.prepare([request])[0])

    def step(self) -> list[tuple[RequestState, Step | Generation]]:
        """One iteration of the running batch; raises RamoleError where a request failed."""
        events = []
        for state, item in self._engine.step():
            if isinstance(item, RamoleError):
                raise item
            events.append((state, item))
        return events

    def measure(self, requests: Sequence[Request]) -> dict[str, float]:
        """Time all requests at once, from submission to the last token, without cached prefixes."""
        self._engine.forget_prefixes()
        began = now(self._device)
        states = [self.submit(request) for request in requests]
        rows = {state.number: row for row, state in enumerate(states)}
        marks: list[list[float]] = [[] for _ in requests]
        answers: list[Generation] = []
        while len(answers) < len(requests):
            events = self.step()
            mark = now(self._device)
            for state, item in events:
                if isinstance(item, Generation):
                    answers.append(item)
                else:
                    marks[rows[state.number]].append(mark)
        start, end, tokens = full_window(marks)
        return {
            **rates(
                prompt_tokens=sum(answer.prompt_tokens for answer in answers),
                prefill_seconds=start - began,
                new_tokens=tokens,
                decode_seconds=end - start,
            ),
            "seconds": max(row[-1] for row in marks) - began,
        }


def make_prompt(tokenizer: PreTrainedTokenizerBase, *, tokens: int, seed: int) -> str:
    """A text that the tokenizer splits into exactly so many tokens; deterministic."""
    chance = random.Random(f"{seed}/{tokens}")
    for _ in range(TRIES):
        text = " ".join(chance.choices(WORDS, k=tokens))
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        start = len(tokenizer("")["input_ids"])  # what the tokenizer puts around every text
        cut = str(tokenizer.decode(ids[: tokens - start])).strip()
        if cut and len(tokenizer(cut)["input_ids"]) == tokens:
            return cut
    raise RamoleError(
        f"No prompt of exactly {tokens} tokens was found for this base model's tokenizer."
    )


def make_prompts(
    tokenizer: PreTrainedTokenizerBase, *, tokens: int, count: int, seed: int = 0
) -> list[str]:
    """Different prompts of the same length."""
    return [make_prompt(tokenizer, tokens=tokens, seed=seed + n) for n in range(count)]


def make_requests(
    prompts: Sequence[str], mix: MixSpec, *, names: Sequence[str], new_tokens: int
) -> list[Request]:
    """One request a prompt; row j mixes the adapters j, j + 1, ... of `names`, round and round."""
    return [
        Request(
            prompt,
            method=mix.method,
            adapters=[names[(row + j) % len(names)] for j in range(mix.k)] or None,
            max_new_tokens=new_tokens,
            ignore_eos=True,
            raw=True,
            trace=mix.trace,
        )
        for row, prompt in enumerate(prompts)
    ]


def now(device: torch.device) -> float:
    """The time in seconds, after pending GPU work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def rates(
    *, prompt_tokens: int, prefill_seconds: float, new_tokens: int, decode_seconds: float
) -> dict[str, float]:
    """Tokens per second of both phases; `new_tokens` are those of the decode phase alone, and a
    run that ends at the first token has none."""
    found = {
        "prefill_tokens_per_second": prompt_tokens / prefill_seconds,
        "prefill_seconds": prefill_seconds,
    }
    if new_tokens:
        found["decode_tokens_per_second"] = new_tokens / decode_seconds
    return found


def full_window(marks: Sequence[Sequence[float]]) -> tuple[float, float, int]:
    """The window in which all rows decode, from the last first token to the first row's end: start,
    end, and its tokens. `marks`: the times of each row's tokens."""
    start = max(row[0] for row in marks)
    end = min(row[-1] for row in marks)
    return start, end, sum(start < mark <= end for row in marks for mark in row)
