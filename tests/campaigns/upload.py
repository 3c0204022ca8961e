"""An adapter as PEFT writes it, and the bytes of the zip in which it is uploaded."""

import io
import random
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tests.adapter_files import PREFIX

Shapes = Mapping[str, tuple[int, int]]
"""(i, o) of the base's linear layers."""
Arrays = dict[str, np.ndarray]
MOST_RANK = 256

JUNK = (None, True, -1, 0, 1e308, -0.0, "", "x" * 9999, [], [[]], {}, {"": 0}, "\u202e\x00", 2**70)
"""Values that a field does not expect."""
NESTED = "[" * 30_000 + "]" * 30_000
CHANGES_THE_EQUATION: dict[str, object] = {
    "use_dora": True,
    "bias": "all",
    "lora_bias": True,
    "modules_to_save": ["lm_head"],
    "trainable_token_indices": [1],
    "layer_replication": [[0, 1]],
    "peft_type": "IA3",
    "init_lora_weights": "pissa",
    "alora_invocation_tokens": [1, 2],
    "target_parameters": ["weight"],
}
"""Settings of PEFT with which it is no plain LoRA any more."""


@dataclass
class Upload:
    """The files of an adapter, and then the bytes of a zip."""

    dice: random.Random
    arrays: Arrays
    config: dict[str, object]
    weights: bytes = b""
    files: dict[str, bytes] = field(default_factory=dict)
    zipped: bytes = b""
    name: str = "upload.zip"
    refused: bool | None = None
    """Whether it must be refused; None: who reads it decides."""

    def any(self) -> str:
        """The name of one tensor."""
        return self.dice.choice(list(self.arrays))


def sound(dice: random.Random, shapes: Shapes) -> Upload:
    """An adapter on one to three modules, which has to be taken."""
    rank = dice.randint(1, 4)
    numbers = np.random.default_rng(dice.randrange(2**32))
    arrays: Arrays = {}
    for path in dice.sample(list(shapes), dice.randint(1, 3)):
        i, o = shapes[path]
        arrays[f"{PREFIX}{path}.lora_A.weight"] = numbers.normal(size=(rank, i)).astype("f4") * 0.3
        arrays[f"{PREFIX}{path}.lora_B.weight"] = numbers.normal(size=(o, rank)).astype("f4") * 0.3
    made = Upload(dice, arrays, {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank})
    made.files["examples.jsonl"] = b'{"text": "where is the cat"}\n'
    made.files["README.md"] = b"---\nlicense: mit\n---\n\n# Cats\n\nFinds cats.\n"
    return made


def zip_of(files: Mapping[str, bytes], *, how: int = zipfile.ZIP_DEFLATED) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", how) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return held.getvalue()


def flipped(data: bytes, dice: random.Random, *, begin: int = 0, end: int | None = None) -> bytes:
    spoiled = bytearray(data)
    for _ in range(dice.choice((1, 1, 3, 30))):
        spoiled[dice.randrange(begin, end or len(data))] ^= 1 << dice.randrange(8)
    return bytes(spoiled)
