"""Any sentence-transformers model as an encoder; each text is read by itself."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from torch import nn
from transformers.utils import logging as transformers_logging

from ramole_core.base.kernel_linear import kernel_linears
from ramole_core.errors import RamoleError
from ramole_core.kernels.threads import kernels_alone
from ramole_core.retrieval.tuning import Span, Tuning, fold, spans_of


class AnyEncoder:
    """A sentence-transformers model; its products are kernels' where every one has a kernel."""

    def __init__(self, folder: Path, tuning: Tuning | None):
        """Its tuning's LoRA is added to the weights. Raises what its loaders raise."""
        with _quiet():
            from sentence_transformers import SentenceTransformer

            self._model = model = SentenceTransformer(
                str(folder),
                device="cpu",
                local_files_only=True,
                model_kwargs={"use_safetensors": True},
            ).eval()
        if tuning is not None and tuning.has_lora:
            if model.transformers_model is None:
                raise RamoleError("a LoRA needs an encoder with a transformer in it")
            fold(dict(model.transformers_model.named_parameters()), tuning)
        model.float()
        every = [path for path, layer in model.named_modules() if isinstance(layer, nn.Linear)]
        ours = kernel_linears(model)
        for path, layer in ours.items():
            model.set_submodule(path, layer)
        self._apart = kernels_alone if every and set(every) <= set(ours) else nullcontext
        named = model.default_prompt_name
        self._prompt = model.prompts.get(named) if named else None

    def spans(self, texts: Sequence[str]) -> list[list[Span]]:
        """The first and last character of each token, of each text, before anything is cut."""
        return spans_of(self._model.tokenizer)(texts)

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Tokens of all texts, those that mark beginning and end included, before it is cut."""
        return sum(map(len, self._model.tokenizer([*texts])["input_ids"]))

    def read(self, texts: Sequence[str]) -> list[Float32[np.ndarray, "d"]]:
        """The vector of each, not yet of unit length."""
        rows = []
        with torch.inference_mode(), self._apart():
            for text in texts:
                given = self._model.preprocess([text], prompt=self._prompt)
                rows.append(self._model(given)["sentence_embedding"][0].float().numpy())
        return rows


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence progress bars, reports and deprecations of third parties."""
    bars = transformers_logging.is_progress_bar_enabled()
    before = logging.root.manager.disable
    transformers_logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        if bars:
            transformers_logging.enable_progress_bar()
