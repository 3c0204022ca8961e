"""An adapter as PEFT writes it, and what a stranger may do to its files before it is uploaded."""

import io
import json
import random
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from tests.adapter_files import CONFIG, PREFIX, WEIGHTS, pack

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


def made(number: int, *, seed: int, shapes: Shapes) -> tuple[str, Upload]:
    """Upload `number` of a campaign: what was done to it, and its zip."""
    dice = random.Random(f"{seed}.{number}")
    upload = sound(dice, shapes)
    family = dice.choice(list(FAMILIES))
    change = dice.choice(FAMILIES[family])
    if family in ("tensors", "sound"):
        change(upload)
    upload.weights = pack(upload.arrays)
    if family in ("header", "config", "cards"):
        change(upload)
    upload.files[WEIGHTS] = upload.weights
    upload.files.setdefault(CONFIG, json.dumps(upload.config).encode())
    upload.zipped = zip_of(upload.files)
    if family == "zip":
        change(upload)
    return f"{family}: {change.__name__}", upload


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


# The header of the weights


def header_of(weights: bytes) -> tuple[str, bytes]:
    (length,) = struct.unpack("<Q", weights[:8])
    return weights[8 : 8 + length].decode(), weights[8 + length :]


def with_header(upload: Upload, text: str | bytes) -> None:
    body = header_of(upload.weights)[1]
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    upload.weights = struct.pack("<Q", len(raw)) + raw + body


def flip_header(u: Upload) -> None:
    u.weights = flipped(u.weights, u.dice, end=8 + len(header_of(u.weights)[0]))


def lie_about_length(u: Upload) -> None:
    length = u.dice.choice((0, 1, 7, 2**31, 2**63, 2**64 - 1, u.dice.randrange(2**40)))
    u.weights, u.refused = struct.pack("<Q", length) + u.weights[8:], True


def cut_weights(u: Upload) -> None:
    u.weights, u.refused = u.weights[: u.dice.randrange(len(u.weights))], True


def add_bytes(u: Upload) -> None:
    u.weights, u.refused = u.weights + bytes(u.dice.randint(1, 5000)), True


def edit_entry(u: Upload) -> None:
    header = json.loads(header_of(u.weights)[0])
    entry = header[u.any()]
    entry[u.dice.choice(("dtype", "shape", "data_offsets"))] = u.dice.choice(
        (*JUNK, "F64", "I8", "F8_E4M3", "BF16", [2, 3], [-1, 5], [0, 2**47], [0.5, 1.5], [2**80, 1])
    )
    with_header(u, json.dumps(header))


def overlap_entries(u: Upload) -> None:
    header = json.loads(header_of(u.weights)[0])
    one, other = list(header)[:2]
    header[one]["data_offsets"] = header[other]["data_offsets"]
    with_header(u, json.dumps(header))
    u.refused = True


def name_a_tensor_twice(u: Upload) -> None:
    text, _ = header_of(u.weights)
    name = u.any()
    entry = json.dumps({name: json.loads(text)[name]})[1:-1]
    with_header(u, text[:-1] + "," + entry + "}")
    u.refused = True


def write_odd_header(u: Upload) -> None:
    odd = ("", "[]", "null", "{}", NESTED, '{"a":' + NESTED + "}", "{" + '"a":{},' * 9999, "\ud800")
    with_header(u, u.dice.choice(odd))
    u.refused = True


def add_metadata(u: Upload) -> None:
    header = json.loads(header_of(u.weights)[0])
    with_header(u, json.dumps({"__metadata__": u.dice.choice(JUNK), **header}))


# The tensors


def put_no_number(u: Upload) -> None:
    array = u.arrays[u.any()]
    array.flat[u.dice.randrange(array.size)] = u.dice.choice((np.nan, np.inf, -np.inf, 3e38))
    u.refused = True


def drop_half(u: Upload) -> None:
    del u.arrays[u.any()]
    u.refused = True


def rename_tensor(u: Upload) -> None:
    old = u.any()
    other = u.dice.choice(
        (
            "lm_head.weight",
            f"{PREFIX}model.embed_tokens.lora_embedding_A",
            f"{PREFIX}lm_head.lora_A.weight",
            old.replace("layers.", "layers.9"),
            old.replace("lora_", "lora_magnitude_vector_"),
            old + ".bias",
            "../" + old,
            "x" * 3000,
            "",
            "\u0000",
        )
    )
    u.arrays[other] = u.arrays.pop(old)
    u.refused = True


def turn_tensor(u: Upload) -> None:
    name = u.any()
    u.refused = u.arrays[name].shape[0] != u.arrays[name].shape[1]
    u.arrays[name] = np.ascontiguousarray(u.arrays[name].T)


def reshape_tensor(u: Upload) -> None:
    name = u.any()
    array, (a, b) = u.arrays[name], u.arrays[name].shape
    shapes = ((a, b, 1), (1, a, b), (a * b,), (a + 1, b), (a, b + 1), (0, b), (a, 0))
    u.arrays[name] = np.resize(array, u.dice.choice(shapes))
    u.refused = True


def raise_rank(u: Upload) -> None:
    rank = u.dice.choice((MOST_RANK + 1, 400))
    for name in list(u.arrays):
        array = u.arrays[name]
        size = (rank, array.shape[1]) if "lora_A" in name else (array.shape[0], rank)
        u.arrays[name] = np.resize(array, size)
    u.refused = True


def change_dtype(u: Upload) -> None:
    kind = u.dice.choice(("f2", "u2", "i8"))
    u.arrays = {name: array.astype(kind) for name, array in u.arrays.items()}
    u.refused = True if kind == "i8" else None


# The configuration


def said(u: Upload, raw: str | bytes) -> None:
    u.files[CONFIG] = raw if isinstance(raw, bytes) else raw.encode("utf-8", "surrogatepass")


def put_junk_into_config(u: Upload) -> None:
    names = "r lora_alpha peft_type use_rslora rank_pattern alpha_pattern init_lora_weights bias"
    name = u.dice.choice([*names.split(), "base_model_name_or_path", "target_modules", "unknown"])
    u.config[name] = u.dice.choice(JUNK)


def change_equation(u: Upload) -> None:
    name = u.dice.choice(list(CHANGES_THE_EQUATION))
    u.config[name] = CHANGES_THE_EQUATION[name]
    u.refused = True


def say_absurd_scale(u: Upload) -> None:
    u.config["lora_alpha"] = u.dice.choice((-1, 0, 1e9, 10**400, "8", True))
    u.refused = True


def write_slow_pattern(u: Upload) -> None:
    slow = ("(a+)+$", "(.*)*x", "(((.+)+)+)+y", ".*" * 40 + "z", "(?=(\\w+)+)\\1!", "x" * 5000)
    kind = u.dice.choice(("rank_pattern", "alpha_pattern"))
    u.config[kind] = {u.dice.choice(slow): 2, u.dice.choice(slow) + "q": 3}


def write_many_patterns(u: Upload) -> None:
    u.config["rank_pattern"] = {f"layer{n}": n + 1 for n in range(u.dice.choice((999, 30_000)))}


def cut_config(u: Upload) -> None:
    raw = json.dumps(u.config)
    said(u, raw[: u.dice.randrange(len(raw))])
    u.refused = True


def flip_config(u: Upload) -> None:
    said(u, flipped(json.dumps(u.config).encode(), u.dice))


def write_odd_config(u: Upload) -> None:
    odd = (
        "",
        "[]",
        "null",
        "7",
        NESTED,
        '{"r": 2, "r": 3}',
        '{"r": NaN}',
        '{"a": "\ud800"}',
        "{" * 9,
    )
    said(u, u.dice.choice((*odd, " " * (2**20 + 1), b"\xff\xfe{\x00}\x00")))
    u.refused = True


# The words beside them


def write_odd_card(u: Upload) -> None:
    aliases = "a: &a [x,x]\n" + "".join(
        f"{c}: &{c} [*{b},*{b}]\n" for b, c in zip("abcdefgh", "bcdefghi", strict=True)
    )
    odd = (
        u.dice.randbytes(5000),
        b"---\n" + aliases.encode() + b"---\nwords\n",
        b"---\n!!python/object/apply:os.system ['true']\n---\nwords",
        b"---\nlicense: [mit, {a: b}]\n---\n" + b"#" * 50_000,
        b"<script>alert(1)</script><!--" * 2000,
        b"[" * 50_000 + b"](x)",
        b"**" * 50_000,
        b"\x00\x1b[31m\xe2\x80\xae words",
        b"a" * (2**20 + 1),
        b"",
    )
    u.files["README.md"] = u.dice.choice(odd)


def write_odd_examples(u: Upload) -> None:
    odd = (
        u.dice.randbytes(3000),
        b"{}\n" * 60_000,
        b'{"text": 7}\n{"text": null}\n{"text": ["a"]}\n',
        b'{"text": "' + b"x" * 400_000 + b'"}\n',
        NESTED.encode(),
        b'{"text": "\\ud800"}\n',
        b'{"text": ' + b"9" * 6000 + b"}\n",
        b"\n" * 500_000,
        b'{"text": "a"}' * 2000,
        b"",
    )
    u.files[u.dice.choice(("examples.jsonl", "examples.json"))] = u.dice.choice(odd)


def add_files(u: Upload) -> None:
    names = ("train.json", "manifest.json", "tokenizer.json", ".DS_Store", "a/b/c.txt", "x" * 200)
    u.files[u.dice.choice(names)] = u.dice.randbytes(300)


# The zip


def flip_zip(u: Upload) -> None:
    u.zipped = flipped(u.zipped, u.dice)


def flip_directory(u: Upload) -> None:
    u.zipped = flipped(u.zipped, u.dice, begin=u.zipped.index(b"PK\x01\x02"))


def cut_zip(u: Upload) -> None:
    u.zipped, u.refused = u.zipped[: u.dice.randrange(len(u.zipped))], True


def surround_zip(u: Upload) -> None:
    u.zipped = u.dice.choice((u.dice.randbytes(99) + u.zipped, u.zipped + u.dice.randbytes(99)))


def add_member(u: Upload) -> None:
    """One that no archive of an adapter has."""
    name = u.dice.choice(
        ("../evil.txt", "/etc/evil", "C:\\evil", "a\\..\\..\\evil", "inner.zip", "m.tar.gz")
        + ("adapter_model.bin", "weights.pkl", "x.pt", "a/../../b", "/", "..", "one:two")
    )
    u.zipped, u.refused = zip_of({**u.files, name: b"evil"}), True


def add_link(u: Upload) -> None:
    held = io.BytesIO(u.zipped)
    with zipfile.ZipFile(held, "a") as archive:
        link = zipfile.ZipInfo("link.txt")
        link.external_attr = u.dice.choice((0o120777, 0o010644, 0o020644)) << 16
        archive.writestr(link, "/etc/passwd")
    u.zipped, u.refused = held.getvalue(), True


def double_member(u: Upload) -> None:
    held = io.BytesIO(u.zipped)
    with zipfile.ZipFile(held, "a") as archive:
        name = u.dice.choice((WEIGHTS, CONFIG))
        info = zipfile.ZipInfo(name)
        archive.NameToInfo.pop(name)
        archive.writestr(info, u.files[name])
    u.zipped, u.refused = held.getvalue(), True


def encrypt_member(u: Upload) -> None:
    data = bytearray(u.zipped)
    data[data.index(b"PK\x01\x02") + 8] |= 1
    u.zipped, u.refused = bytes(data), True


def blow_up(u: Upload) -> None:
    name = u.dice.choice((WEIGHTS, CONFIG, "README.md", "examples.jsonl"))
    u.zipped, u.refused = zip_of({**u.files, name: bytes(30 * 2**20)}), True


def add_many(u: Upload) -> None:
    many = {f"f{n}.txt": b"" for n in range(u.dice.choice((65, 3000)))}
    u.zipped, u.refused = zip_of(many | u.files), True


def pack_two_folders(u: Upload) -> None:
    two = {f"{top}/{name}": data for top in "ab" for name, data in u.files.items()}
    u.zipped, u.refused = zip_of(two), True


def pack_one_folder(u: Upload) -> None:
    how = u.dice.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    u.zipped = zip_of({f"top/{name}": data for name, data in u.files.items()}, how=how)


def pack_rarely(u: Upload) -> None:
    how = u.dice.choice((zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    u.zipped, u.refused = zip_of(u.files, how=how), True


def leave_out(u: Upload) -> None:
    gone = u.dice.choice((WEIGHTS, CONFIG))
    u.zipped, u.refused = zip_of({n: d for n, d in u.files.items() if n != gone}), True


def be_no_zip(u: Upload) -> None:
    u.zipped, u.refused = u.dice.choice((b"", b"PK", u.dice.randbytes(3000), u.weights)), True


def name_oddly(u: Upload) -> None:
    u.name = u.dice.choice(("a" * 150 + ".zip", "..zip", "<b>.zip", "\u202e.zip", "%2e%2e.zip"))


def leave_sound(u: Upload) -> None:
    u.refused = False


FAMILIES: dict[str, tuple[Callable[[Upload], None], ...]] = {
    "header": (
        *(flip_header, lie_about_length, cut_weights, add_bytes, edit_entry, overlap_entries),
        *(name_a_tensor_twice, write_odd_header, add_metadata),
    ),
    "tensors": (
        *(put_no_number, drop_half, rename_tensor, turn_tensor, reshape_tensor, raise_rank),
        change_dtype,
    ),
    "config": (
        *(put_junk_into_config, change_equation, say_absurd_scale, write_slow_pattern),
        *(write_many_patterns, cut_config, flip_config, write_odd_config),
    ),
    "cards": (write_odd_card, write_odd_examples, add_files),
    "zip": (
        *(flip_zip, flip_directory, cut_zip, surround_zip, add_member, add_link, double_member),
        *(encrypt_member, blow_up, add_many, pack_two_folders, pack_one_folder, pack_rarely),
        *(leave_out, be_no_zip, name_oddly),
    ),
    "sound": (leave_sound,),
}
