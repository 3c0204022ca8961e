"""The uploads of a campaign: sound ones, ones with bytes changed at random, and known refusals."""

import io
import json
import random
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.laws.test_pool_refusals import REFUSALS
from tests.support.adapter_files import CONFIG, WEIGHTS, Shapes, arrays_of, pack

PIECES = (b"9", b"-", b'"', b"[", b"}", b"e99", b"null")


@dataclass(frozen=True)
class Upload:
    """The zip of an adapter."""

    zipped: bytes
    sound: bool = False
    """Whether it must be taken; False: who reads it decides."""


def made(number: int, *, seed: int, shapes: Shapes) -> tuple[str, Upload]:
    """Upload `number` of a campaign: what it is, and its zip."""
    dice = random.Random(f"{seed}.{number}")
    kind = dice.choice(("sound", "bytes", "bytes", "refusal"))
    if kind == "refusal":
        name = dice.choice(list(REFUSALS))
        if (data := refused(name)) is not None:
            return name, Upload(data)
    files = sound_files(dice, shapes)
    if kind == "sound":
        return kind, Upload(zip_of(files), sound=True)
    part = dice.choice((WEIGHTS, CONFIG, "README.md", "examples.jsonl", "zip"))
    if part == "zip":
        return f"bytes: {part}", Upload(changed(zip_of(files), dice))
    return f"bytes: {part}", Upload(zip_of({**files, part: changed(files[part], dice)}))


def sound_files(dice: random.Random, shapes: Shapes) -> dict[str, bytes]:
    """An adapter on one to three modules, which has to be taken."""
    rank = dice.randint(1, 4)
    seed = dice.randrange(2**32)
    paths = dice.sample(list(shapes), dice.randint(1, 3))
    arrays = arrays_of(*paths, rank=rank, seed=seed, shapes=shapes)
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank}
    return {
        WEIGHTS: pack(arrays),
        CONFIG: json.dumps(config).encode(),
        "README.md": b"---\nlicense: mit\n---\n\n# Cats\n\nFinds cats.\n",
        "examples.jsonl": b'{"text": "where is the cat"}\n',
    }


def changed(data: bytes, dice: random.Random) -> bytes:
    """The bytes with some changed, deleted or put in, at its beginning more often."""
    spoiled = bytearray(data)
    for _ in range(dice.choice((1, 1, 3, 30))):
        at = dice.randrange(min(len(spoiled), dice.choice((300, len(data)))))
        if dice.random() < 0.6:
            spoiled[at] ^= 1 << dice.randrange(8)
        elif dice.random() < 0.5:
            del spoiled[at:]
        else:
            spoiled[at:at] = dice.choice(PIECES)
        if not spoiled:
            break
    return bytes(spoiled)


def refused(name: str) -> bytes | None:
    """The zip of a refusal of the pool's tests; None where it is no folder or file of its own."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = REFUSALS[name][1](Path(folder))
        if not isinstance(source, Path) or not source.exists():
            return None
        if source.is_file():
            return source.read_bytes()
        if any(not path.is_file() for path in source.iterdir()):
            return None
        return zip_of({path.name: path.read_bytes() for path in source.iterdir()})


def zip_of(files: Mapping[str, bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return held.getvalue()
