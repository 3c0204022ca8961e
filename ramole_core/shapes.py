"""The letters of every tensor in this package.

b  requests in a batch             i, o  a linear layer's input, output size
l  tokens of a request             r     rank of one adapter
k  adapters mixed for a request    R     ranks of a request's adapters, concatenated (sum of r)
p  distinct adapters in a batch    s     rank of the RouterLoRA
n  adapters in the pool            d     size of a retrieval vector
"""

from jaxtyping import Float, Int
from torch import Tensor

Inputs = Float[Tensor, "b l i"]
Update = Float[Tensor, "b l o"]
Weights = Float[Tensor, "b l k"]

LoraA = Float[Tensor, "r i"]
LoraB = Float[Tensor, "o r"]  # alpha/r is already folded in
UnitsA = Float[Tensor, "R i"]
UnitsB = Float[Tensor, "o R"]
Owner = Int[Tensor, "R"]  # which of the k experts a rank unit belongs to
RouterA = Float[Tensor, "s i"]
RouterB = Float[Tensor, "o s"]  # the router's own scale is already folded in
Gram = Float[Tensor, "s R"]  # B_r^T B, so that no vector of size o is made in the gate
