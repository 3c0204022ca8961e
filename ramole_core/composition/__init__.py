"""The composition methods: one published method a file, one line here for each."""

# isort: off  (this is the order of the registry, and so of every list of methods)
from ramole_core.composition import base as base
from ramole_core.composition import selection as selection
from ramole_core.composition import mixture as mixture
from ramole_core.composition import fusion as fusion
from ramole_core.composition import ramole as ramole
# isort: on

from ramole_core.composition.contract import (
    METHODS as METHODS,
    Composition as Composition,
    Gate as Gate,
    Lora as Lora,
    ModuleRouter as ModuleRouter,
    Plan as Plan,
    find_method as find_method,
)
from ramole_core.composition.router import Router as Router, load_router as load_router
