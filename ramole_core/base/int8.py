"""An output head in int8: half the bytes of the largest weight that every token meets.

Each row has a scale of its own, the row's largest size over 127. Only on a CPU, by our own kernel;
the input embedding, which many models tie to the head, stays as it is.
"""

from torch import Tensor, nn
from transformers import PreTrainedModel

from ramole_core.errors import RamoleError
from ramole_core.kernels.narrow import rounded_to_bytes
from ramole_core.kernels.weight import Input, Weight


class Int8Linear(nn.Module):
    """y = x W^T + bias, W [o, i] held as int8 numbers and a scale a row."""

    scales: Tensor
    """float32 [o]."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        """Of a weight [o, i] in float32 or bfloat16 on the CPU; its own `weight` is the numbers."""
        super().__init__()
        numbers, scales = rounded_to_bytes(weight.detach())
        self.weight = nn.Parameter(numbers, requires_grad=False)
        self.register_buffer("scales", scales)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.kernel().multiply(Input(x))

    def kernel(self) -> Weight:
        """The weight where it lies."""
        o, i = self.weight.shape
        return Weight(self.weight, (o, i), scales=self.scales, bias=self.bias)


def round_head(source: str, model: PreTrainedModel) -> None:
    """Put the head in int8 in the place of the model's; raises RamoleError where it has no plain
    one on the CPU."""
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear or head.weight.device.type != "cpu":
        raise RamoleError(
            f"{source} has no plain output head on the CPU that int8 could hold; set "
            "RAMOLE_HEAD=full."
        )
    model.set_output_embeddings(Int8Linear(head.weight, head.bias))
