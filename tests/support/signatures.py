"""Signatures are checked under pytest, each by what it needs.

jaxtyping's import hook wraps every function, so that the shapes of one call are held against each
other, which takes some 40 % of what is mostly Python. Here a function whose signature has shapes
is wrapped so, and any other is beartype's alone; of each, the first calls of a test are checked,
and some of those that follow. Imported before the package (`conftest.py` above).
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import jaxtyping
from beartype import BeartypeConf, beartype

WITH_SHAPES = jaxtyping.jaxtyped
PLAIN = beartype(conf=BeartypeConf(violation_type=jaxtyping.TypeCheckError))
"""A wrong argument is a TypeError from both, as it would be without them."""
Decorator = Callable[[Any], Any]
FIRST, EACH = 16, 32
"""So many calls of a function are checked in each test, then every one that EACH divides."""
CALLS: dict[Any, int] = {}
"""Calls of each function since the test began."""


def checked(*, typechecker: Decorator) -> Decorator:
    """In the place of `jaxtyping.jaxtyped`, as the import hook calls it."""

    def decorate(thing: Any) -> Any:
        if inspect.isclass(thing):
            if dataclasses.is_dataclass(thing) and "__init__" in vars(thing):
                thing.__init__ = _checked(thing.__init__, typechecker)
            return thing
        return _checked(thing, typechecker)

    return decorate


def _checked(function: Any, typechecker: Decorator) -> Any:
    if not inspect.isfunction(function) or hasattr(function, "__wrapped__"):
        return function
    hints = {name: _resolved(said, function) for name, said in function.__annotations__.items()}
    if any("jaxtyping" in repr(hint) for hint in hints.values()):
        if inspect.isgeneratorfunction(function):
            return WITH_SHAPES(typechecker=typechecker)(function)
        function.__annotations__ = hints
        return _some(function, WITH_SHAPES(typechecker=None)(PLAIN(function)))  # in one look
    if "<locals>" in function.__qualname__ or not hints:
        return function  # made anew at every call of another, and pyright has read it
    function.__annotations__ = hints
    return _some(function, PLAIN(function))


def _some(function: Any, checking: Any) -> Any:
    """The function, where some of its calls are checked."""
    if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
        return checking

    @functools.wraps(function)
    def called(*args: Any, **options: Any) -> Any:
        CALLS[function] = count = CALLS.get(function, 0) + 1
        return (checking if count <= FIRST or count % EACH == 0 else function)(*args, **options)

    return called


def _resolved(said: Any, function: Any) -> Any:
    """An annotation that is text, or holds some, as what it names; Any where that is not there
    yet, or never under test."""

    def one(value: Any) -> None: ...

    one.__annotations__ = {"value": said}
    try:
        return get_type_hints(one, function.__globals__, include_extras=True)["value"]
    except Exception:  # as jaxtyping does
        return Any


jaxtyping.jaxtyped = checked
