"""An unforeseen fault as one sentence for the caller."""

import logging

from ramole_core.errors import RamoleError

log = logging.getLogger(__name__)


def fault_of(error: Exception, method: str) -> RamoleError:
    """The error as one sentence for the caller; unforeseen faults are logged."""
    if isinstance(error, RamoleError):
        return error
    log.error("A request failed in method %s.", method, exc_info=error)
    return RamoleError(
        f"Method {method} failed on this request ({type(error).__name__}: {error}); the other "
        "requests go on. Choose another method, or other adapters."
    )
