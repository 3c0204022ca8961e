"""What is loaded once and stays is left to no later search for garbage."""

import gc


def settle() -> None:
    """Call it once all is loaded: the objects of libraries and model, 800,000 in a page's process,
    are looked through no more. Each look takes half a second, in which nobody is answered."""
    gc.collect()
    gc.freeze()
