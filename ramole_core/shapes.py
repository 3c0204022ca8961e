"""The letters of every tensor in this package.

b  requests in a batch             i, o  a linear layer's input, output size
l  tokens of a request             r     rank of one adapter
k  adapters mixed for a request    R     ranks of a request's adapters, concatenated (sum of r)
p  distinct adapters in a batch    s     rank of the RouterLoRA
n  adapters in the pool            d     size of a retrieval vector
"""

from jaxtyping import Float
from torch import Tensor

LoraA = Float[Tensor, "r i"]
LoraB = Float[Tensor, "o r"]  # alpha/r is already folded in
RouterA = Float[Tensor, "s i"]
RouterB = Float[Tensor, "o s"]  # the router's own scale is already folded in
