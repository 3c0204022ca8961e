"""Mixing inside a Hugging Face model: stacked plans, the mixed layer, installation, trace."""

from ramole_core.layers.install import Installation as Installation, install as install
from ramole_core.layers.mixed_linear import MixedLinear as MixedLinear, Mixer as Mixer
from ramole_core.layers.places import Places as Places, find_places as find_places
from ramole_core.layers.stack import ModuleStack as ModuleStack, stack_plans as stack_plans
