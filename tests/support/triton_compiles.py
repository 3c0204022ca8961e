"""Compile the kernel of `layers/triton_mixing.py` for cards that are not here, as a program: Triton
needs none for it. Prints the bytes of each binary, by capability."""

import json

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ramole_core.layers.triton_mixing import OUTPUTS, PAGES, _mix

FULL = "*fp32"
NUMBERS = ("M", "start_j", "width", "s", "size", "most", "n", "b", "k", "first")


def compiled(capability: int, kind: str) -> int:
    """Bytes of the binary for models of this dtype."""
    signature = {f"y{j}": kind for j in range(4)} | {f"B{j}": kind for j in range(4)}
    signature |= {f"o{j}": "i32" for j in range(4)} | {"inner": kind, "gram": FULL, "late": FULL}
    signature |= {"row_of": "*i64", "acts": "*i8", "present": "*u8"}
    signature |= dict.fromkeys(("pages", "slots", "counts", "asks"), "*i32")
    signature |= dict.fromkeys(("own", "fixed", "bias", "usual", "alphas", "lengths"), FULL)
    signature |= dict.fromkeys(NUMBERS, "i32")
    fixed = {"LATE": True, "TRACED": True, "K": 4, "S": 8, "R": PAGES, "O": OUTPUTS}
    signature |= dict.fromkeys(fixed, "constexpr")
    source = ASTSource(fn=_mix, signature=signature, constexprs=fixed)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    return len(made.asm["cubin"])


if __name__ == "__main__":
    kinds = {80: "*bf16"}
    print(json.dumps({one: compiled(one, kind) for one, kind in kinds.items()}))
