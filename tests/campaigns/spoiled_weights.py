"""What a stranger may do to the weights of an adapter: to the file's header, and to its tensors."""

import json
import struct

import numpy as np

from tests.adapter_files import PREFIX
from tests.campaigns.upload import JUNK, MOST_RANK, NESTED, Upload, flipped

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
