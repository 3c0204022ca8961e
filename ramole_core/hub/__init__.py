"""The Hub's adapters: listed with cards, fetched on first use"""

from ramole_core.hub.arrivals import Wait
from ramole_core.hub.hub import Hub
from ramole_core.hub.register import Listed

__all__ = ["Hub", "Listed", "Wait"]
