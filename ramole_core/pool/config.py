"""Read adapter_config.json: fields that are used, only noted, or refused.

y = W x + (alpha/r) B A x is the only forward that RAMoLE runs, so every field of PEFT's LoraConfig
that makes another one is refused. Fields read against peft 0.21 (`peft/tuners/lora/config.py`).
"""

import math
import re
from codecs import BOM_UTF8
from collections.abc import Callable
from dataclasses import dataclass

from ramole_core.errors import AdapterRefused
from ramole_core.pool.patterns import MAX_KEYS, Patterns
from ramole_core.pool.strict_json import parse_object, shorten

CONFIG = "adapter_config.json"
MAX_CONFIG = 2**20
PEFT_DEFAULT = {"r": 8, "lora_alpha": 8}

_OF_MIXTURES = re.compile(r"(.*\.)?(gate_up_proj|down_proj|(gate|router)\.weight)")
"""Parameters of experts and their router, which a base may have as linear layers
(`pairs.py`)."""


def _are_of_mixtures(word: object) -> bool:
    return isinstance(word, list) and all(
        isinstance(name, str) and _OF_MIXTURES.fullmatch(name) for name in word
    )


_REFUSED: dict[str, tuple[Callable[[object], bool], str]] = {
    "use_dora": (bool, "is DoRA, whose magnitudes rescale the base's weights; train without DoRA"),
    "bias": (
        lambda word: word not in (None, "none"),
        "trains the base's biases, which an adapter here cannot change; train with bias='none'",
    ),
    "lora_bias": (bool, "gives LoRA B a bias of its own; train with lora_bias=False"),
    "modules_to_save": (
        bool,
        "carries whole trained modules of the base, which would replace everyone's; train "
        "without modules_to_save",
    ),
    "trainable_token_indices": (
        bool,
        "trains tokens of the vocabulary, which is shared by all adapters; train without them",
    ),
    "layer_replication": (
        bool,
        "repeats layers of the base, so it belongs to another, deeper model; train without it",
    ),
    "alora_invocation_tokens": (
        lambda word: word is not None,
        "is activated LoRA (aLoRA), which switches on in mid-prompt; train a plain LoRA",
    ),
    "use_qalora": (bool, "is QA-LoRA, which pools the layer's inputs; train a plain LoRA"),
    "use_bdlora": (bool, "is block-diagonal LoRA (BD-LoRA); train a plain LoRA"),
    "kasa_config": (bool, "is KaSA, which truncates the base's weights; train a plain LoRA"),
    "monteclora_config": (bool, "is MonteCLoRA, which samples its weights; train a plain LoRA"),
    "arrow_config": (
        bool,
        "is an Arrow router over other adapters, not an adapter; add those adapters instead",
    ),
    "target_parameters": (
        lambda word: bool(word) and not _are_of_mixtures(word),
        "adapts bare parameters beside a mixture's experts and router; use target_modules",
    ),
}
_KEEPS_BASE = {"gaussian", "eva", "orthogonal", "mica"}
"""`init_lora_weights` that leave the base's weights as they are."""
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")

_NOTED = {
    "megatron_config": "it was trained with Megatron's parallel layers",
    "velora_config": "VeLoRA concerns training only",
}
_KNOWN = {
    *_REFUSED,
    *_NOTED,
    *PEFT_DEFAULT,
    *"""task_type peft_type auto_mapping peft_version base_model_name_or_path revision
    inference_mode target_modules exclude_modules lora_dropout fan_in_fan_out use_rslora
    init_lora_weights layers_to_transform layers_pattern rank_pattern alpha_pattern
    megatron_core loftq_config
    eva_config corda_config lora_ga_config qalora_group_size runtime_config
    ensure_weight_tying""".split(),
}


@dataclass(frozen=True)
class LoraScaling:
    """The configuration's ranks and scales; shapes decide the ranks."""

    r: int
    alpha: float
    ranks: Patterns
    alphas: Patterns
    use_rslora: bool
    base_model: str | None
    notes: tuple[str, ...]

    def rank_of(self, path: str) -> int:
        """The rank that the configuration gives the module."""
        rank = self.ranks.value_of(path)
        return self.r if rank is None else int(rank)

    def scale_of(self, path: str, rank: int) -> float:
        """alpha/r, or alpha/sqrt(r) for rsLoRA, of a module whose tensors have `rank`."""
        alpha = self.alphas.value_of(path)
        if alpha is None:
            alpha = self.alpha
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank


def read_config(text: bytes) -> LoraScaling:
    """Check an adapter_config.json; raises AdapterRefused."""
    if len(text) > MAX_CONFIG:
        raise AdapterRefused(
            f"{CONFIG} has {len(text)} bytes; at most {MAX_CONFIG} are read: shorten it."
        )
    word = parse_object(text.removeprefix(BOM_UTF8), CONFIG)
    kind = word.get("peft_type", "LORA")
    if str(kind).upper() != "LORA":
        raise AdapterRefused(
            f"{CONFIG} says peft_type={shorten(kind)}; expected LORA: only LoRA adapters can be "
            "mixed."
        )
    for field, (is_set, why) in _REFUSED.items():
        if is_set(word.get(field)):
            raise AdapterRefused(f"{CONFIG} says {field}={shorten(word[field])}: this {why}.")
    _check_start(word.get("init_lora_weights", True))
    use_rslora = word.get("use_rslora", False) or False
    if not isinstance(use_rslora, bool):
        raise AdapterRefused(
            f"{CONFIG} says use_rslora={shorten(use_rslora)}; expected true or false: correct it."
        )
    base = word.get("base_model_name_or_path")
    return LoraScaling(
        r=int(_positive("r", word.get("r", PEFT_DEFAULT["r"]), whole=True)),
        alpha=_positive("lora_alpha", word.get("lora_alpha", PEFT_DEFAULT["lora_alpha"])),
        ranks=_patterns("rank_pattern", word.get("rank_pattern"), whole=True),
        alphas=_patterns("alpha_pattern", word.get("alpha_pattern"), whole=False),
        use_rslora=use_rslora,
        base_model=_printable(base) if isinstance(base, str) and base else None,
        notes=tuple(_notes(word)),
    )


def _check_start(word: object) -> None:
    start = word.lower() if isinstance(word, str) else word
    if start is None or isinstance(start, bool):
        return
    if isinstance(start, str) and start in _KEEPS_BASE:
        return
    known = isinstance(start, str) and start.startswith(_CHANGES_BASE)
    what = "changes the base's weights" if known else "is not known to leave the base as it is"
    raise AdapterRefused(
        f"{CONFIG} says init_lora_weights={shorten(word)}, a start that {what}; save the adapter "
        "converted to a plain LoRA (save_pretrained with path_initial_model_for_weight_conversion)."
    )


def _positive(field: str, word: object, *, whole: bool = False) -> float:
    """`word` as a finite positive number; raises AdapterRefused."""
    number: float | None = None
    if isinstance(word, int | float) and not isinstance(word, bool):
        try:
            number = float(word)
        except OverflowError:
            number = math.inf
    if number is None or not math.isfinite(number) or number <= 0 or (whole and number % 1):
        kind = "whole" if whole else "finite"
        raise AdapterRefused(
            f"{CONFIG} says {field}={shorten(word)}; expected a {kind} number above 0: correct it."
        )
    return number


def _patterns(field: str, word: object, *, whole: bool) -> Patterns:
    if word and (not isinstance(word, dict) or len(word) > MAX_KEYS):
        raise AdapterRefused(
            f"{CONFIG} says {field}={shorten(word)}; expected an object of at most {MAX_KEYS} "
            "module names or expressions, each with a number: correct it."
        )
    keys = word if isinstance(word, dict) else {}
    values = {
        key: _positive(f"{field}[{shorten(key)}]", value, whole=whole)
        for key, value in keys.items()
    }
    return Patterns(field, values, file=CONFIG)


def _notes(word: dict[str, object]) -> list[str]:
    notes = [
        f"{CONFIG} has no {field}; PEFT's default {value} is taken."
        for field, value in PEFT_DEFAULT.items()
        if field not in word
    ]
    if word.get("lora_dropout"):
        notes.append("lora_dropout concerns training only and is not applied.")
    if word.get("inference_mode") is False:
        notes.append("inference_mode=false is not needed: adapters here are never trained further.")
    notes += [f"{field} is not used: {why}." for field, why in _NOTED.items() if word.get(field)]
    if unknown := sorted(set(word) - _KNOWN):
        shown = ", ".join(shorten(key) for key in unknown[:8]) + (", ..." if unknown[8:] else "")
        notes.append(f"{CONFIG} has keys that are not known here and not used: {shown}.")
    return notes


def _printable(text: str) -> str:
    return text[:200].encode("utf-8", "replace").decode()
