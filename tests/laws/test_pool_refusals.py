"""Every refusal of the pool: its sentence, and a data folder that is what it was before."""

import json
import os
import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ramole_core import AdapterRefused
from ramole_core.pool import Limits
from tests.support.adapter_files import (
    CONFIG,
    PREFIX,
    WEIGHTS,
    arrays_of,
    open_pool,
    pack,
    pair_arrays,
    tree_of,
    write_adapter,
)

Q0 = "model.layers.0.self_attn.q_proj"
REFUSALS: dict[str, tuple[str, Callable[[Path], object]]] = {}


def refusal(name: str, sentence: str):
    """Registers what makes the source of a refused upload, with a part of its sentence."""

    def register(make: Callable[[Path], object]):
        assert name not in REFUSALS
        REFUSALS[name] = (sentence, make)
        return make

    return register


def by_config(name: str, sentence: str, config: dict[str, object] | str) -> None:
    refusal(name, sentence)(lambda tmp: write_adapter(tmp / "a", config=config))


def by_weights(name: str, sentence: str, **spoil) -> None:
    refusal(name, sentence)(
        lambda tmp: write_adapter(tmp / "a", weights=pack(pair_arrays(Q0), **spoil))
    )


def by_tensor(name: str, sentence: str, tensor: str, shape=(3, 3), value: float = 0.1) -> None:
    arrays = {**pair_arrays(Q0), PREFIX + tensor: np.full(shape, value, "f4")}
    refusal(name, sentence)(lambda tmp: write_adapter(tmp / "a", arrays=arrays))


def by_value(name: str, sentence: str, half: str, value: float, config=None) -> None:
    arrays = pair_arrays(Q0)
    array = arrays[f"{PREFIX}{Q0}.lora_{half}.weight"]
    array[1, 2] = value
    refusal(name, sentence)(lambda tmp: write_adapter(tmp / "a", arrays=arrays, config=config))


def zipped(tmp: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(tmp / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile's own, about a name that is there twice
            for member, data in members:
                archive.writestr(member, data)
    return tmp / "a.zip"


def files_of(tmp: Path, top: str = "") -> list[tuple[str, bytes]]:
    """Members of a zip that make a sound adapter."""
    return [(top + path.name, path.read_bytes()) for path in write_adapter(tmp / "a").iterdir()]


def by_member(name: str, sentence: str, member: str, data: bytes = b"x", mode: int = 0, **more):
    info = zipfile.ZipInfo(member)
    info.external_attr = mode << 16
    info.compress_type = more.get("compression", zipfile.ZIP_DEFLATED)
    refusal(name, sentence)(lambda tmp: zipped(tmp, *files_of(tmp), (info, data)))


def by_members(name: str, sentence: str, members: Callable[[Path], list[tuple[str, bytes]]]):
    refusal(name, sentence)(lambda tmp: zipped(tmp, *members(tmp)))


def spoiled_zip(change: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
    def make(tmp: Path) -> Path:
        file = zipped(tmp, *files_of(tmp))
        file.write_bytes(change(file.read_bytes()))
        return file

    return make


def by_bytes(name: str, sentence: str, change: Callable[[bytes], bytes]) -> None:
    """Changes the bytes of a sound zip."""
    refusal(name, sentence)(spoiled_zip(change))


def by_change(name: str, sentence: str, change: Callable[[Path], object]) -> None:
    """Changes the folder of a sound adapter."""

    def make(tmp: Path) -> Path:
        change(write_adapter(tmp / "a"))
        return tmp / "a"

    refusal(name, sentence)(make)


def by_files(name: str, sentence: str, **made) -> None:
    """Writes other files, weights or tensors than a sound adapter's."""
    refusal(name, sentence)(lambda tmp: write_adapter(tmp / "a", **made))


# The configuration

for field, value, word in [
    ("use_dora", True, "is DoRA"),
    ("bias", "all", "base's biases"),
    ("bias", "lora_only", "base's biases"),
    ("lora_bias", True, "bias of its own"),
    ("modules_to_save", ["lm_head"], "whole trained modules"),
    ("trainable_token_indices", [5, 7], "trains tokens"),
    ("layer_replication", [[0, 2], [1, 3]], "repeats layers"),
    ("alora_invocation_tokens", [], "aLoRA"),
    ("use_qalora", True, "QA-LoRA"),
    ("use_bdlora", {"nblocks": 2}, "BD-LoRA"),
    ("kasa_config", {"beta": 0.1}, "KaSA"),
    ("monteclora_config", {"num_samples": 3}, "MonteCLoRA"),
    ("arrow_config", {"top_k": 3}, "Arrow router"),
    ("target_parameters", ["experts.up"], "bare parameters"),
    ("peft_type", "IA3", "expected LORA"),
    ("use_rslora", "yes", "expected true or false"),
    ("init_lora_weights", "mystery", "not known to leave the base"),
    ("init_lora_weights", ["pissa"], "not known to leave the base"),
]:
    by_config(f"config: {field}={value}", word, {field: value})
for start in ("pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga", "PiSSA"):
    by_config(f"config: start {start}", "changes the base's weights", {"init_lora_weights": start})
for field in ("r", "lora_alpha"):
    for bad in (0, -4, None, "8", True, [8], 10**400):
        sentence = f"says {field}=.*expected a .* number above 0"
        by_config(f"config: {field}={str(bad)[:9]}", sentence, {field: bad})
    for bad in ("NaN", "Infinity", "1e999"):
        other = "lora_alpha" if field == "r" else "r"
        text = f'{{"peft_type": "LORA", "{other}": 4, "{field}": {bad}}}'
        by_config(f"config: {field} {bad}", f"says {field}=.*number above 0", text)
by_config("config: r is no whole number", "expected a whole number", {"r": 2.5})
by_config("config: rank_pattern value", "rank_pattern.*above 0", {"rank_pattern": {"q": 0}})
by_config("config: alpha_pattern value", "alpha_pattern.*above 0", {"alpha_pattern": {"q": "x"}})
by_config("config: pattern is a list", "expected an object", {"rank_pattern": ["q_proj"]})
for key in (r"(?=q)q_proj", r"(q)\1", "(unclosed", "(?P<a", "x" * 600, "((a{1,1000}){1,1000}){9}"):
    sentence = "google-re2 cannot compile"
    by_config(f"config: pattern {key[:12]}", sentence, {"alpha_pattern": {key: 4}})
by_config("config: twice the same key", "'r' twice", '{"peft_type": "LORA", "r": 4, "r": 8}')
by_config("config: twice deep inside", "'q' twice", '{"rank_pattern": {"q": 4, "q": 8}}')
by_config("config: no JSON", "not valid JSON", "r: 8")
by_config("config: a list", "a JSON object was expected", "[1]")
by_config("config: nested without end", "not valid JSON", "[" * 200_000)
by_config("config: too long", "at most 1048576 are read", {"x": "y" * 2**20})
by_config("config: absurd scale", "over the rank", {"lora_alpha": 1e7})

# The safetensors file


def header_of(**changes) -> Callable[[dict], None]:
    """Changes the first tensor's entry."""
    return lambda header: header[next(iter(header))].update(changes)


def doubled() -> str:
    header: dict[str, object] = {}
    pack(pair_arrays(Q0), change=header.update)
    name, entry = next(iter(header.items()))
    text = json.dumps(header)
    return text[:-1] + f', "{name}": {json.dumps(entry)}}}'


by_weights("header: longer than allowed", "at most 4194304 are read", length=2**40)
by_weights("header: longer than the file", "does not fit", length=2**20)
by_weights("header: duplicate keys", "lora_A.weight' twice", header=doubled())
by_weights("header: no JSON", "not valid JSON", header="no")
by_weights("header: a list", "a JSON object was expected", header="[]")
by_weights("header: no tensor", "takes? 0 bytes but", header="{}")
by_weights("header: odd entry", "nothing else", header='{"x": {"dtype": "F32"}}')
by_weights("header: entry is a list", "nothing else", header='{"x": [1]}')
by_weights("header: odd metadata", "__metadata__", header='{"__metadata__": 3}')
by_weights(
    "header: metadata that no other reader takes",
    "__metadata__ is not an object of texts",
    change=lambda header: header.update({"__metadata__": {"format": 0}}),
)
by_weights("header: dtype", "expected F32, F16 or BF16", change=header_of(dtype="F64"))
by_weights("header: negative shape", "has the shape", change=header_of(shape=[-3, -12]))
by_weights("header: shape of floats", "has the shape", change=header_of(shape=[3.0, 12]))
by_weights("header: huge shape", "has the shape", change=header_of(shape=[2**62, 4]))
by_weights("header: bytes do not add up", "does not take", change=header_of(shape=[3, 13]))
by_weights("header: offsets beyond", "was expected", change=header_of(data_offsets=[9000, 9144]))
by_weights("header: offsets reversed", "does not take", change=header_of(data_offsets=[144, 0]))
by_weights("header: overlapping", "was expected", change=lambda h: h.update(copy=[*h.values()][0]))
by_weights("file: bytes left over", "are there", tail=b"MZ\x90 something else")
by_files("file: empty", "fewer than the 8", weights=b"")
PICKLE = b"\x80\x04\x95\x0b\0\0\0\0\0\0\0cos\nsystem\n."
by_files("file: a pickle under another name", "not a sound safetensors file", weights=PICKLE)
by_files("file: no tensor at all", "holds no tensor", arrays={})

# Tensors

by_tensor("tensor: DoRA magnitude", "DoRA magnitude", Q0 + ".lora_magnitude_vector", (20,))
by_tensor("tensor: modules_to_save", "whole module", "lm_head.modules_to_save.weight")
by_tensor("tensor: saved lm_head", "all adapters share", "lm_head.weight")
by_tensor("tensor: saved embedding", "all adapters share", "model.embed_tokens.weight")
by_tensor("tensor: saved GPT-2 embedding", "all adapters share", "transformer.wte.weight")
by_tensor("tensor: embedding LoRA", "LoRA on an embedding", "model.embed_tokens.lora_embedding_A")
by_tensor("tensor: LoRA on the output", "which all adapters share", "lm_head.lora_A.weight")
by_tensor("tensor: bias of B", "is a bias", Q0 + ".lora_B.bias", (20,))
by_tensor("tensor: bias of the base", "is a bias", Q0 + ".bias", (20,))
by_tensor("tensor: trained tokens", "trained tokens", "model.embed.token_adapter.trainable_x")
by_tensor("tensor: AdaLoRA", "AdaLoRA", Q0 + ".lora_E", (3, 1))
by_tensor("tensor: KaSA", "KaSA", Q0 + ".lora_diag", (3,))
by_tensor("tensor: bare parameter", "bare parameters", "model.mlp.base_layer.lora_A.weight")
by_tensor("tensor: unknown", "no half of a LoRA pair", Q0 + ".something.weight")
by_tensor("tensor: two adapters", "more than one adapter", Q0 + ".lora_A.other.weight")
by_tensor(
    "tensor: module the base lacks",
    "which this base does not have .it has model.layers.1.self_attn.q_proj",
    "model.layers.7.self_attn.q_proj.lora_A.weight",
)


def arrays_of_shapes(A: tuple[int, ...], B: tuple[int, ...]) -> dict[str, np.ndarray]:
    shapes = {"A": A, "B": B}
    return {f"{PREFIX}{Q0}.lora_{half}.weight": np.full(shapes[half], 0.1, "f4") for half in "AB"}


for name, sentence, A, B in [
    ("inputs do not fit", "expects A .r, 12. and B .20, r.", (3, 13), (20, 3)),
    ("outputs do not fit", "expects A .r, 12. and B .20, r.", (3, 12), (21, 3)),
    ("three dimensions", "this base expects", (3, 12, 1), (20, 3)),
    ("ranks differ", "ranks 3 .A. and 4 .B.", (3, 12), (20, 4)),
    ("rank 0", "rank of at least 1", (0, 12), (20, 0)),
    ("rank over the limit", "has rank 17; at most 16", (17, 12), (20, 17)),
]:
    by_files(f"tensor: {name}", sentence, arrays=arrays_of_shapes(A, B))
for half, other in ("AB", "BA"):
    arrays = {k: v for k, v in arrays_of().items() if k != f"{PREFIX}{Q0}.lora_{half}.weight"}
    by_files(f"tensor: {half} is missing", f"has lora_{other} but no lora_{half}", arrays=arrays)
for half in "AB":
    for value in (np.nan, np.inf, -np.inf):
        by_value(f"values: {value} in {half}", f"lora_{half} of .* NaN or Inf", half, value)
    by_value(
        f"values: huge in {half}", "reach 1e.05|reach 1.2e.06", half, 6e5 if half == "B" else 1e5
    )
by_value("values: absurd update", "root mean square", "B", 4e3)
by_value("values: absurd with its scale", "reach", "B", 9.0, {"lora_alpha": 9000})


arrays = {k: (v.view("u4") >> 16).astype("u2") for k, v in pair_arrays(Q0).items()}
arrays[f"{PREFIX}{Q0}.lora_A.weight"][0, 0] = 0x7FC0
by_files("values: NaN in bfloat16", "NaN or Inf", arrays=arrays)

# Files and folders

for pickle in ("adapter_model.bin", "optimizer.pt", "rng_state.pth", "x.PKL", "model.ckpt"):
    by_files(f"folder: {pickle}", "can run code", files={pickle: b"x"})
by_change(
    "folder: only a pickle", "can run code", lambda f: (f / WEIGHTS).rename(f / "adapter_model.bin")
)
refusal("file: a pickle by itself", "can run code")(
    lambda tmp: write_adapter(tmp / "a", files={"adapter_model.bin": b"x"}) / "adapter_model.bin"
)
by_change(
    "folder: no weights",
    "adapter_model.safetensors is missing .found 'adapter_config.json'",
    lambda f: (f / WEIGHTS).unlink(),
)
by_change(
    "folder: no configuration", "adapter_config.json is missing", lambda f: (f / CONFIG).unlink()
)
by_change(
    "folder: weights are a pipe",
    "not a plain file",
    lambda f: (f / WEIGHTS).unlink() or os.mkfifo(f / WEIGHTS),
)
refusal("path: a pipe", "not a plain file")(lambda tmp: os.mkfifo(tmp / "p.zip") or tmp / "p.zip")
by_files("folder: over the size", "larger than 2 MiB", weights=bytes(2**21 + 1))
by_files("folder: words over the size", "larger than 2 MiB", files={"README.md": bytes(2**21)})
refusal("path: missing", "nothing at")(lambda tmp: tmp / "nowhere")
refusal("path: missing in a list", "no file at")(
    lambda tmp: [write_adapter(tmp / "a") / WEIGHTS, tmp / "nowhere.json"]
)
refusal("path: one file of the two", "adapter_config.json is missing: drop")(
    lambda tmp: [write_adapter(tmp / "a") / WEIGHTS]
)
refusal("path: nothing dropped", "No file was given")(lambda tmp: [])
refusal("path: the same name twice", "Two files are named")(
    lambda tmp: [write_adapter(tmp / "a") / CONFIG, write_adapter(tmp / "b") / CONFIG]
)
refusal("path: some text", "neither a folder nor a zip")(
    lambda tmp: write_adapter(tmp / "a", files={"x.txt": b"hello"}) / "x.txt"
)
refusal("hub: odd name", "names no Hub repository")(lambda tmp: "hf:../../etc/passwd")
refusal("hub: no owner", "names no Hub repository")(lambda tmp: "hf:bert")

# Zips

_FOUR_SYMBOLS = np.random.default_rng(0).integers(4, size=2_200_000, dtype="u1").tobytes()
"""A quarter as large when packed."""

by_member("zip: link", "a link or device", "link", b"/etc/passwd", 0o120777)
by_member("zip: device", "a link or device", "device", mode=0o020666)
by_member("zip: absolute", "absolute or odd path", "/etc/cron.d/x")
by_member("zip: drive letter", "absolute or odd path", "C:/x")
by_member("zip: backslashes", "absolute or odd path", "..\\x")
by_member("zip: climbs out", "climbs out", "a/../../x")
by_member("zip: archive in it", "another archive", "inner.zip")
by_member("zip: tar in it", "another archive", "a/inner.TAR")
by_member("zip: pickle", "can run code", "adapter_model.bin")
by_member("zip: high ratio", "times as many", "README.md", bytes(800_000))
by_member("zip: rare compression", "rare way", "x", compression=zipfile.ZIP_LZMA)
by_member("zip: over the size unpacked", "larger than 2 MiB", "x", _FOUR_SYMBOLS)
by_member("zip: over the size packed", "larger than 2 MiB", "x", os.urandom(2_200_000))


by_members("zip: twice the same name", "twice", lambda tmp: [(CONFIG, b"{}"), (CONFIG, b"[]")])
by_members(
    "zip: too many members",
    "65 members .*expected at most 64",
    lambda tmp: [(f"{n}.txt", b"x") for n in range(65)],
)
by_members(
    "zip: two adapters", "holds 2 folders", lambda tmp: files_of(tmp, "a/") + files_of(tmp, "b/")
)
by_members(
    "zip: no adapter in it", "adapter_model.safetensors is missing .found nothing", lambda tmp: []
)


def at_directory(data: bytes, offset: int, value: bytes) -> bytes:
    """Overwrites a field of the first member in the zip's table of contents."""
    at = data.index(b"PK\x01\x02") + offset
    return data[:at] + value + data[at + len(value) :]


by_bytes("zip: encrypted", "encrypted", lambda d: at_directory(d, 8, b"\x01"))
by_bytes("zip: wrong checksum", "damaged or incomplete", lambda d: at_directory(d, 16, b"\0\0\0\0"))
by_bytes(
    "zip: lies about a size",
    "damaged or incomplete",
    lambda d: at_directory(d, 24, struct.pack("<I", 100)),
)
by_bytes(
    "zip: directory without end",
    "expected at most 64 files",
    lambda d: d[:-10] + struct.pack("<I", 2**30) + d[-6:],
)
by_bytes("zip: zip64", "zip64 directory", lambda d: d[:-22] + b"PK\x06\x07" + bytes(16) + d[-22:])
by_bytes(
    "zip: cut short", "damaged or incomplete: a zip's end is missing", lambda d: d[: len(d) // 2]
)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    with open_pool(folder, limits=Limits(max_upload_mb=2, max_rank=16)) as pool:
        pool.add(write_adapter(folder / "there", seed=9), owner="ada")
        yield pool


@pytest.mark.parametrize("name", REFUSALS)
def test_refused_with_its_sentence_and_no_trace(pool, tmp_path, name):
    sentence, make = REFUSALS[name]
    source = make(tmp_path)
    data = pool.all_cards()[0].folder.parents[2]
    assert data.name == "data"
    before, cards = tree_of(data), pool.all_cards()
    with pytest.raises(AdapterRefused, match=sentence) as error:
        pool.add(source, name="wanted", examples=["one"], owner="ada")
    assert tree_of(data) == before and pool.all_cards() == cards
    text = str(error.value)
    assert 40 < len(text) < 700 and text.isprintable() and text.endswith((".", "?")), text


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"name": "_router"}, "kept for RAMoLE's own"),
        ({"name": "***"}, "no letter or digit"),
        ({"name": ""}, "no letter"),
        ({"name": "日本"}, "no"),
        ({"name": "there"}, "another name, 'there-2' for instance"),
        ({"owner": ""}, "owner"),
        ({"owner": "pool"}, "owner"),
        ({"owner": "x" * 300}, "owner"),
        ({"examples": "hello"}, "a list of texts"),
        ({"examples": 5}, "a list of texts"),
        ({"examples": [1, 2]}, "Example 1 is 1, and no text"),
        ({"examples": ["ok", "  "]}, "Example 2 is empty"),
        ({"examples": ["y" * 2001]}, "has 2001 characters"),
    ],
)
def test_what_is_said_of_a_sound_adapter_is_refused_too(pool, tmp_path, said, sentence):
    cards = pool.all_cards()
    with pytest.raises(AdapterRefused, match=sentence):
        pool.add(write_adapter(tmp_path / "a", seed=3), **{"owner": "ada", **said})
    assert pool.all_cards() == cards


def test_the_sound_adapter_they_all_spoil_is_accepted(pool, tmp_path):
    """Else a refusal above could have another reason than the one it names."""
    for number, source in enumerate(
        (
            write_adapter(tmp_path / "a", seed=20),
            write_adapter(tmp_path / "b", weights=pack(pair_arrays(Q0))),
            spoiled_zip(lambda data: data)(tmp_path),
            write_adapter(tmp_path / "c", arrays=arrays_of_shapes((3, 12), (20, 3))),
            write_adapter(tmp_path / "d", arrays=arrays_of_shapes((16, 12), (20, 16))),
        )
    ):
        card = pool.add(source, name=f"sound-{number}", owner="ada")
        pool.remove(card.name, "ada")


@pytest.mark.parametrize("kind", ["weights", "config", "zip"])
def test_whatever_the_bytes_nothing_but_a_refusal_comes_out(pool, tmp_path, kind):
    """Bytes changed at random: accepted, or AdapterRefused; never another error, never a trace."""
    chance = random.Random(kind)
    config = {"rank_pattern": {"q_proj": 3}, "use_rslora": False, "bias": "none"}
    folder = write_adapter(tmp_path / "a", arrays=pair_arrays(Q0), config=config)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    packed = spoiled_zip(lambda data: data)(tmp_path).read_bytes()
    data = pool.all_cards()[0].folder.parents[2]
    before, refused = tree_of(data), set()
    for _ in range(120):  # a campaign does it by the thousand
        name = {"weights": WEIGHTS, "config": CONFIG, "zip": "a.zip"}[kind]
        sound = packed if kind == "zip" else files[name]
        spoiled = bytearray(sound)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(spoiled) if kind != "weights" else 270)
            if chance.random() < 0.5:
                spoiled[at] = chance.randrange(256)
            elif chance.random() < 0.5:
                del spoiled[at]
            else:
                spoiled[at:at] = chance.choice([b"9", b"-", b'"', b"[", b"}", b"e99", b"null"])
        target = tmp_path / name if kind == "zip" else folder / name
        target.write_bytes(spoiled)
        try:
            pool.add(target if kind == "zip" else folder, name="wanted", owner="ada")
        except AdapterRefused as error:
            refused.add(str(error)[:40])
        else:
            pool.remove("wanted", "ada")
        assert tree_of(data) == before
    assert len(refused) > 3
