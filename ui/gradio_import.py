"""Gradio's import without its type stubs, which take a third of it.

Gradio reads the source of each of its components when it is imported, and writes a stub for editors
beside it, in the folder of the installation; a server needs none.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

MODULE, FUNCTION = "gradio.component_meta", "create_or_modify_pyi"
"""Module and function that write a component's stub."""


class WithoutStubs(MetaPathFinder):
    """Find Gradio's module, and replace its writer of stubs once it is executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname == MODULE else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def without(module: ModuleType) -> None:
            execute(module)
            setattr(module, FUNCTION, lambda *_: None)

        spec.loader.exec_module = without
        return spec


if MODULE not in sys.modules:
    sys.meta_path.insert(0, WithoutStubs())
