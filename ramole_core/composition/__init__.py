"""The composition methods, most in a file of their own, each with its one decision."""

from importlib import import_module

from ramole_core.composition.activation import Response as Response
from ramole_core.composition.decision import (
    Adapter as Adapter,
    Ask as Ask,
    Bypass as Bypass,
    Decision as Decision,
    Gate as Gate,
    Merge as Merge,
    Signal as Signal,
    UnitScore as UnitScore,
    even as even,
)
from ramole_core.composition.fixed_pool import FixedPool as FixedPool
from ramole_core.composition.lora import (
    Lora as Lora,
    LoraSet as LoraSet,
    orthonormal as orthonormal,
)
from ramole_core.composition.method import (
    METHODS as METHODS,
    Candidate as Candidate,
    Composition as Composition,
    Search as Search,
    Tried as Tried,
    VisibleAdapter as VisibleAdapter,
    Watched as Watched,
    decide as decide,
    find_method as find_method,
    forget as forget,
    register as register,
)
from ramole_core.composition.router import (
    ModuleRouter as ModuleRouter,
    Router as Router,
    load_router as load_router,
    random_router as random_router,
)
from ramole_core.composition.sites import (
    Sites as Sites,
    block_of as block_of,
    parent_of as parent_of,
)
from ramole_core.composition.trained import Trained as Trained, load_trained as load_trained
from ramole_core.methods import FILES

for _file in FILES:
    import_module(f"ramole_core.composition.{_file}")
