"""The Hub's adapters of this base: listed with their cards first, fetched when one is to answer"""

from ramole_core.hub.hub import Hub
from ramole_core.hub.listed import Listed
from ramole_core.hub.search import Search

__all__ = ["Hub", "Listed", "Search"]
