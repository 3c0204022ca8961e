"""Components of the page that nobody serves."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import gradio as gr

Layout = TypeVar("Layout")


def built(make: Callable[[], Layout]) -> Layout:
    """What `make` builds inside a `gr.Blocks`."""

    async def build() -> Layout:  # in a loop: without one, Gradio opens loops that it never closes
        with gr.Blocks():
            return make()

    return asyncio.run(build())
