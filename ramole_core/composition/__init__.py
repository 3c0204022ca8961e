"""The composition methods: one published method a file, one line here for each."""

from ramole_core.composition import (
    base as base,
    fusion as fusion,
    mixture as mixture,
    ramole as ramole,
    selection as selection,
)
from ramole_core.composition.contract import (
    METHODS as METHODS,
    Composition as Composition,
    Gate as Gate,
    Lora as Lora,
    ModuleRouter as ModuleRouter,
    Plan as Plan,
    find_method as find_method,
)
from ramole_core.composition.router import (
    Router as Router,
    load_router as load_router,
    random_router as random_router,
    router_for as router_for,
)
