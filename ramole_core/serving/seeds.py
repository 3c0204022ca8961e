"""Give a sampled request its seed before it leaves the page.

So two engines, one after the other, draw the same: a seed that an engine made for itself would be
lost with it.
"""

import secrets
from dataclasses import replace

from ramole_core.engine.prompt import Prepared


def seeded(prepared: Prepared) -> Prepared:
    """The request with a seed, where it samples and has none."""
    request = prepared.request
    if request.seed is not None or request.temperature == 0:
        return prepared
    return replace(prepared, request=replace(request, seed=secrets.randbits(63)))
