"""The composition methods: one published method a file, one line here for each."""

from ramole_core.composition import (
    base as base,
    fusion as fusion,
    mixture as mixture,
    ramole as ramole,
    ramole_plus as ramole_plus,
    selection as selection,
    similarity as similarity,
)
from ramole_core.composition.contract import (
    METHODS as METHODS,
    Composition as Composition,
    Evidence as Evidence,
    Gate as Gate,
    Known as Known,
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
