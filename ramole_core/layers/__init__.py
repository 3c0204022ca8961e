"""Mixing in a Hugging Face model: the bank of adapters, the served layers, the plain form."""

from ramole_core.layers.bank import Bank as Bank, Slot as Slot
from ramole_core.layers.batch_invariant_ops import short_length as short_length
from ramole_core.layers.batch_mix import BatchMix as BatchMix, RowMix as RowMix
from ramole_core.layers.fused import Fused as Fused, fused_of as fused_of
from ramole_core.layers.layout import Layout as Layout, find_layout as find_layout
from ramole_core.layers.mixing import Forward as Forward
from ramole_core.layers.served_linear import (
    Serving as Serving,
    install_serving as install_serving,
    is_exact as is_exact,
)
from ramole_core.layers.units import (
    Units as Units,
    UnpackedLoras as UnpackedLoras,
    pack_units as pack_units,
)
