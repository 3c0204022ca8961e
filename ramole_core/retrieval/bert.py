"""A BERT sentence encoder that reads several texts in one forward, each with the bits it has alone.

Their tokens lie one after the other in one row. Products are our kernels', of which no row hangs on
another; sums, norms and GELU read their own numbers alone; attention is called for each text by
itself. The layers are transformers' BertModel's and sentence-transformers' mean, whose imports
alone take six seconds of processor time, longer than all the rest of a first prompt.
"""

import json
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers import Encoding, Tokenizer
from torch import Tensor
from torch.nn import functional as F

from ramole_core.kernels.threads import kernels_alone
from ramole_core.kernels.weight import Input, Weight
from ramole_core.retrieval.tuning import Span, Tuning, fold

MAX_TOKENS = 512
"""Most tokens in one forward, unless one text has more."""
WHOLE = 64
"""Numbers of a row that PyTorch computes alike; it computes the remainder differently."""
CONFIG, MODULES, SENTENCE = "config.json", "modules.json", "sentence_bert_config.json"
TOKENIZER, POOLING, PROMPTS = (
    "tokenizer.json",
    "1_Pooling/config.json",
    "config_sentence_transformers.json",
)
EXPECTED = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
SIZES = (
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
)
NORMS = ("attention.output", "output")
LINEARS = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)


class Bert:
    """The encoder of a folder that `can_read`, on the CPU in float32."""

    def __init__(self, folder: Path, tuning: Tuning | None):
        """Its tuning's LoRA is added to the weights."""
        config, sentence = _json(folder / CONFIG), _json(folder / SENTENCE)
        [file] = folder.glob("*.safetensors")
        weights = {
            name.removeprefix("bert."): tensor.float()
            for name, tensor in load_file(file).items()
            if tensor.is_floating_point()
        }
        if tuning is not None and tuning.has_lora:
            fold(weights, tuning)
        self._weights = weights
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        special = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        self._most = sentence["max_seq_length"] - special
        self._prompt = default_prompt(folder)
        self._heads, self._eps = config["num_attention_heads"], config["layer_norm_eps"]
        paths = [f"encoder.layer.{n}" for n in range(config["num_hidden_layers"])]
        self._layers = [_Layer(self, path, self._heads) for path in paths]

    def spans(self, texts: Sequence[str]) -> list[list[Span]]:
        """The first and last character of each token, of each text, before anything is cut."""
        return [one.offsets for one in self._encoded(texts)]

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Tokens of all texts, those that mark beginning and end included, before it is cut."""
        return sum(len(self._tokenizer.post_process(one).ids) for one in self._encoded(texts))

    def read(self, texts: Sequence[str]) -> list[Float32[np.ndarray, "d"]]:
        """The vector of each, of unit length but for rounding."""
        rows, part, tokens = [], [], 0
        for one in self._encoded([self._prompt + text for text in texts]):
            one.truncate(self._most)
            ids = self._tokenizer.post_process(one).ids
            if part and tokens + len(ids) > MAX_TOKENS:
                rows += self._forward(part)
                part, tokens = [], 0
            part.append(ids)
            tokens += len(ids)
        return rows + self._forward(part)

    def _encoded(self, texts: Sequence[str]) -> list[Encoding]:
        return [self._tokenizer.encode(text, add_special_tokens=False) for text in texts]

    def _forward(self, given: Sequence[Sequence[int]]) -> list[Float32[np.ndarray, "d"]]:
        cuts = [*pairwise(accumulate(map(len, given), initial=0))]
        places = torch.cat([torch.arange(len(ids)) for ids in given])
        table = "embeddings.{}_embeddings.weight".format
        with torch.inference_mode(), kernels_alone():
            x = self._weights[table("word")][torch.tensor([id for ids in given for id in ids])]
            x = x + self._weights[table("token_type")][0]
            x = self._normed("embeddings", (x + self._weights[table("position")][places])[None])
            for layer in self._layers:
                x = layer(x, cuts)
            means = [x[:, start:end].sum(1) / (end - start) for start, end in cuts]
            return [F.normalize(mean)[0].numpy() for mean in means]

    def _normed(self, path: str, x: Float[Tensor, "1 n d"]) -> Float[Tensor, "1 n d"]:
        path = f"{path}.LayerNorm"
        weight, bias = self._weights[f"{path}.weight"], self._weights[f"{path}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, self._eps)

    def _linear(self, path: str) -> Weight:
        weight = self._weights.pop(f"{path}.weight").contiguous()
        size = weight.shape[0], weight.shape[1]
        return Weight(weight, size, bias=self._weights.pop(f"{path}.bias"))


class _Layer:
    """One layer: attention of each text to itself, then the two products."""

    def __init__(self, bert: Bert, path: str, heads: int):
        self._normed, self._heads = bert._normed, heads
        self._q, self._k, self._v, self._o, self._up, self._down = (
            bert._linear(f"{path}.{name}") for name in LINEARS
        )
        self._after_attention, self._after = (f"{path}.{name}" for name in NORMS)

    def __call__(
        self, x: Float[Tensor, "1 n d"], cuts: Sequence[tuple[int, int]]
    ) -> Float[Tensor, "1 n d"]:
        given = Input(x)
        q, k, v = (
            layer.multiply(given).view(1, x.shape[1], self._heads, -1).transpose(1, 2)
            for layer in (self._q, self._k, self._v)
        )
        mixed = torch.cat([attend(q, k, v, start, end) for start, end in cuts], 1).flatten(2)
        x = self._normed(self._after_attention, self._o.multiply(Input(mixed)) + x)
        wide = F.gelu(self._up.multiply(Input(x)))
        return self._normed(self._after, self._down.multiply(Input(wide)) + x)


def attend(
    q: Float[Tensor, "1 h n c"],
    k: Float[Tensor, "1 h n c"],
    v: Float[Tensor, "1 h n c"],
    start: int,
    end: int,
) -> Float[Tensor, "1 m h c"]:
    """Attention of the tokens from `start` to `end` to one another."""
    own = slice(None), slice(None), slice(start, end)
    return F.scaled_dot_product_attention(q[own], k[own], v[own]).transpose(1, 2)


def can_read(folder: Path) -> bool:
    """Whether a folder's encoder is a BERT with the mean of its tokens, of sizes at which no text's
    place in the row shows in its bits, and no other setting that would change vectors."""
    files = CONFIG, MODULES, SENTENCE, TOKENIZER, POOLING
    if not all((folder / name).is_file() for name in files):
        return False
    config, sentence, pooling = (_json(folder / name) for name in (CONFIG, SENTENCE, POOLING))
    modules = [one["type"].rsplit(".", 1)[-1] for one in _json(folder / MODULES)]
    modes = [name for name, is_on in pooling.items() if name.startswith("pooling_mode_") and is_on]
    return (
        all(config.get(name, value) == value for name, value in EXPECTED.items())
        and not config.get("is_decoder")
        and all(isinstance(config.get(name), int) for name in SIZES)
        and isinstance(config.get("layer_norm_eps"), float)
        and not config["hidden_size"] % WHOLE
        and not config["intermediate_size"] % WHOLE
        and modules in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])
        and [*modes, pooling.get("pooling_mode")] in (["pooling_mode_mean_tokens", None], ["mean"])
        and pooling.get("include_prompt", True)
        and set(sentence) <= {"max_seq_length", "do_lower_case"}
        and 0 < (sentence.get("max_seq_length") or 0) <= config["max_position_embeddings"]
        and not sentence.get("do_lower_case")
        and _spells_alike(folder)
        and _has_weights(folder, config["num_hidden_layers"])
    )


def _spells_alike(folder: Path) -> bool:
    """Whether `tokenizer.json` writes letters as transformers' BertTokenizer would, which reads
    `tokenizer_config.json` instead."""
    file = folder / "tokenizer_config.json"
    said = _json(file) if file.is_file() else {}
    normal = _json(folder / TOKENIZER).get("normalizer") or {}
    return normal.get("type") == "BertNormalizer" and (
        normal.get("lowercase"),
        normal.get("strip_accents"),
        normal.get("handle_chinese_chars"),
    ) == (
        said.get("do_lower_case", True),
        said.get("strip_accents"),
        said.get("tokenize_chinese_chars", True),
    )


def _has_weights(folder: Path, layers: int) -> bool:
    files = [*folder.glob("*.safetensors")]
    if len(files) != 1:
        return False
    with safe_open(files[0], framework="pt") as opened:
        names = {name.removeprefix("bert.") for name in opened.keys()}  # noqa: SIM118
    needed = {f"embeddings.{one}_embeddings.weight" for one in ("word", "token_type", "position")}
    norms = ["embeddings", *(f"encoder.layer.{n}.{at}" for n in range(layers) for at in NORMS)]
    paths = [f"{one}.LayerNorm" for one in norms]
    paths += [f"encoder.layer.{n}.{at}" for n in range(layers) for at in LINEARS]
    return needed | {f"{path}.{kind}" for path in paths for kind in ("weight", "bias")} <= names


def default_prompt(folder: Path) -> str:
    """The encoder's own prompt, which comes before each text; mostly none."""
    said = _json(folder / PROMPTS) if (folder / PROMPTS).is_file() else {}
    return (said.get("prompts") or {}).get(said.get("default_prompt_name")) or ""


def _json(file: Path):
    return json.loads(file.read_text(encoding="utf-8"))
