"""Ten thousand sessions that somebody invents fill no memory."""

import asyncio
import pickle
from copy import copy

import gradio as gr
from gradio.state_holder import SessionState, StateHolder

from ui.session.states import SmallState, keep_sessions_small


def page_of(count: int) -> tuple[gr.Blocks, list[gr.Textbox], gr.State]:
    """A page of so many boxes, and a state."""

    async def build():  # in a loop: without one, Gradio opens loops that it never closes
        with gr.Blocks() as page:
            return page, [gr.Textbox("a") for _ in range(count)], gr.State([1])

    return asyncio.run(build())


def weight(state: SessionState) -> int:
    """Bytes of what a session holds of its own."""
    return len(pickle.dumps(state.config_values, protocol=5))


def test_a_session_is_small_however_large_the_page():
    page, *_ = page_of(100)
    assert weight(SessionState(page)) > 10_000, "Gradio's own; once it is small, ours can go"
    assert weight(SmallState(page)) < 100


def test_gradio_makes_them_so_and_what_changes_is_kept(monkeypatch):
    from gradio import state_holder

    monkeypatch.setattr(state_holder, "SessionState", SessionState)
    page, (box,), kept = page_of(1)
    keep_sessions_small()
    holder = StateHolder()
    holder.set_blocks(page)
    state = holder["somebody"]
    assert type(state) is SmallState
    state[box._id] = other = copy(box)
    other.value = "b"
    state[kept._id] = [2]
    assert state[box._id].value == "b" and state[kept._id] == [2]
    assert holder["other"][box._id].value == "a" and holder["other"][kept._id] == [1]
    state._update_value_in_config(box._id, "c")
    assert [one["props"]["value"] for one in state.components if one.get("type") == "textbox"] == [
        "c"
    ]
