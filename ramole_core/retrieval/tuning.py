"""A retriever's tuning: a small LoRA of the sentence encoder, a metric after it, or both.

Its folder holds `retriever.json` with the record of the run and the window it was trained with; for
a LoRA, `adapter_model.safetensors` and `adapter_config.json` as PEFT writes them; for a metric,
`metric.safetensors` (`metric.py`). `train retriever` writes both, and the encoder reads them.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ramole_core.errors import RamoleError
from ramole_core.retrieval.metric import MAX_CHARACTERS, METRIC, Metric

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]
"""Start and end of a token in its text, in characters."""
WEIGHTS, CONFIG, RECORD = "adapter_model.safetensors", "adapter_config.json", "retriever.json"


def spans_of(
    tokenizer: "PreTrainedTokenizerBase",
) -> Callable[[Sequence[str]], list[list[Span]]]:
    """The tokens of texts by a tokenizer of transformers, nothing cut and nothing added."""
    return lambda texts: tokenizer(
        [*texts], add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )["offset_mapping"]


@dataclass(frozen=True)
class Window:
    """The tokens of a text that are read; the instruction comes before them."""

    head: Annotated[int, "Tokens read at a text's start."]
    tail: Annotated[int, "Tokens read at its end."]
    """Tokens at the end, where many prompts have the question."""

    def __post_init__(self) -> None:
        if min(self.head, self.tail) < 0 or self.head + self.tail < 1:
            raise RamoleError(
                f"A window of head {self.head} and tail {self.tail} reads no text; give 0 or more "
                "at each end, and 1 or more in all."
            )

    def cut(
        self, texts: Sequence[str], spans: Callable[[Sequence[str]], Sequence[Sequence[Span]]]
    ) -> list[str]:
        """Remove the middle of texts longer than head + tail tokens; `spans` gives the tokens."""
        half = MAX_CHARACTERS // 2
        texts = [t if len(t) <= 2 * half else f"{t[:half]} {t[-half:]}" for t in texts]
        return [
            text if len(span) <= self.head + self.tail else self._ends(text, span)
            for text, span in zip(texts, spans(texts) if texts else [], strict=True)
        ]

    def _ends(self, text: str, span: Sequence[Span]) -> str:
        parts = []
        if self.head:
            parts.append(text[: span[self.head - 1][1]])
        if self.tail:  # span[-0] would be the first
            parts.append(text[span[-self.tail][0] :])
        return " ".join(parts)


@dataclass(frozen=True)
class Tuning:
    """An encoder's tuning."""

    folder: Path
    encoder_checksum: str | None
    """Of the encoder that it was trained on; None: not recorded."""
    window: Window | None
    """None: the encoder's own."""
    metric: Metric | None = None
    """None: the encoder's vectors are used as they are."""

    @property
    def has_lora(self) -> bool:
        """Whether the encoder's weights change."""
        return (self.folder / WEIGHTS).is_file()


def read_tuning(folder: Path) -> Tuning | None:
    """The tuning in `folder`; None where there is none. Raises RamoleError for a broken record."""
    measured = (folder / METRIC).is_file()
    if not measured and not (folder / WEIGHTS).is_file():
        return None
    if not measured and not (folder / RECORD).is_file():
        return Tuning(folder, None, None)
    try:
        said = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        head, tail = int(said["window"]["head"]), int(said["window"]["tail"])
        checksum = str(said["encoder_checksum"])
        share, words = 0.0, 0
        if measured:
            share, words = float(said["metric"]["share"]), int(said["metric"]["words"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RamoleError(
            f"{folder / RECORD} cannot be read ({error!r}); train the retriever anew, or delete "
            f"{folder}."
        ) from None
    try:
        window = Window(head, tail)
    except RamoleError as error:
        raise RamoleError(f"{folder / RECORD} cannot be used: {error}") from None
    metric = Metric.load(folder, share=share, words=words) if measured else None
    return Tuning(folder, checksum, window, metric)


def fold(weights: "Mapping[str, Tensor]", tuning: Tuning) -> None:
    """Add the LoRA's update to the encoder's weights, by name: W + alpha/r B A, in float32.

    A folded encoder is as fast as an untuned one, and needs no PEFT. Raises RamoleError where a
    tensor has no place.
    """
    import torch
    from safetensors.torch import load_file

    config = json.loads((tuning.folder / CONFIG).read_text(encoding="utf-8"))
    scale = config["lora_alpha"] / config["r"]
    tensors = load_file(tuning.folder / WEIGHTS)
    for name, A in tensors.items():
        if not name.endswith(".lora_A.weight"):
            continue
        path = name.removesuffix(".lora_A.weight").removeprefix("base_model.model.")
        B = tensors.get(f"{name.removesuffix('.lora_A.weight')}.lora_B.weight")
        weight = weights.get(f"{path}.weight")
        if B is None or weight is None or (B.shape[0], A.shape[1]) != tuple(weight.shape):
            raise RamoleError(f"{name} has no place in this encoder; train the retriever anew.")
        with torch.no_grad():
            weight += scale * (B.float() @ A.float())
