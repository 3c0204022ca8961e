"""The plain form of mixing: naive, differentiable, one module at a time; for laws and training."""

from ramole_core.layers.plain.mix import PlainMix as PlainMix, place as place
from ramole_core.layers.plain.mixed_linear import (
    MixedInstallation as MixedInstallation,
    Mixer as Mixer,
    install as install,
)
