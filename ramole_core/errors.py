"""The errors a user can meet; each message says what came, what was expected, and what to do."""


class RamoleError(Exception):
    """Something the caller can put right; the message is one sentence fit to show to a user."""


class AdapterRefused(RamoleError):
    """An adapter, or a change to the pool, that cannot be accepted."""


class Busy(RamoleError):
    """The queue, the data folder or the engine is taken; try again."""


class Unsupported(RamoleError):
    """A base model whose code computes what is not known here; the message is the reason alone."""
