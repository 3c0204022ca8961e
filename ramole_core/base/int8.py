"""An output head in int8: half the bytes of the largest weight.

Each row has a scale of its own, the row's largest size over 127. Only on a CPU, by our own kernel;
the input embedding, which many models tie to the head, stays as it is.
"""

from torch import nn
from transformers import PreTrainedModel

from ramole_core.base.packed import PackedLinear
from ramole_core.errors import RamoleError
from ramole_core.kernels.narrow import from_bytes, rounded_to_bytes


class Int8Linear(PackedLinear):
    """A linear layer of int8 numbers [o, i] and float32 scales [o]."""

    narrowed = staticmethod(rounded_to_bytes)
    as_numbers = staticmethod(from_bytes)


def round_head(source: str, model: PreTrainedModel) -> None:
    """Replace the model's head by one in int8; raises RamoleError where it has no plain one on the
    CPU."""
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear or head.weight.device.type != "cpu":
        raise RamoleError(
            f"{source} has no plain output head on the CPU that int8 could hold; set "
            "RAMOLE_HEAD=full."
        )
    model.set_output_embeddings(Int8Linear(head.weight, head.bias))
