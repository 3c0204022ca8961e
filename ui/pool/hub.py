"""The folded part of the tab Pool for adapters on the Hub, and which fit.

One search at a time is shared by all, and can be stopped; all text of the Hub is untrusted.
"""

import math
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import gradio as gr

from ramole_core import Listed, Ramole, RamoleError

from ..parts.asked import counted
from ..parts.errors import one_sentence, sentence_of
from ..parts.events import AT_ONCE, PLAIN, QUIET
from ..parts.fields import run_and_stop
from ..parts.markup import escaped, notice_html

SEARCH_PAUSE_SECONDS = 600.0
"""Seconds from the end of a search to the next one from the page."""
RETRY_SECONDS = 30.0
"""The same where it was stopped, or the Hub did not answer."""
POLL_SECONDS = 0.3
"""Interval at which its progress is polled."""
NOT_ALLOWED = (
    "This page may not use the Hub; whoever runs it can allow that with RAMOLE_HUB_ADAPTERS=true."
)


class HubRun:
    """The shared search of the Hub, with its progress for every visitor."""

    def __init__(self, ramole: Ramole, clock: Callable[[], float] = time.monotonic):
        self._ramole, self._clock = ramole, clock
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._owner: str | None = None
        self._next = -math.inf
        self._said = ""

    def looks(self, owner: str | None) -> Iterator[tuple[str, str]]:
        """Yield (sentence, `busy`, `ready` or `wrong`) of a new search, or of the running one;
        raises RamoleError where none may begin."""
        thread = self._begin(owner)
        while thread.is_alive():
            stage = self._ramole.hub.stage
            yield (
                (f"{stage.words[:1].upper()}{stage.words[1:]}…" if stage else "Beginning…"),
                "busy",
            )
            thread.join(POLL_SECONDS)
        good = not self._said.startswith("!")
        yield self._said.lstrip("!"), "ready" if good else "wrong"

    def stop(self, owner: str | None) -> bool:
        """End the search, if this visitor began it; whether they did."""
        mine = self._running() and owner == self._owner
        if mine:
            self._ramole.hub.stop()
        return mine

    def _running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _begin(self, owner: str | None) -> threading.Thread:
        with self._lock:
            if not self._ramole.settings.hub_adapters:
                raise RamoleError(NOT_ALLOWED)
            if self._thread is not None and self._running():
                return self._thread
            left = self._next - self._clock()
            if left > 0:
                when = f"{left:.0f} seconds" if left < 90 else f"{left / 60:.0f} minutes"
                raise RamoleError(f"The Hub was asked a moment ago; ask again in {when}.")
            self._owner = owner
            self._thread = threading.Thread(target=self._search, name="hub-search", daemon=True)
            self._thread.start()
            return self._thread

    def _search(self) -> None:
        pause = RETRY_SECONDS
        try:
            found = self._ramole.hub.search()
            self._said, pause = str(found), RETRY_SECONDS if found.stopped else SEARCH_PAUSE_SECONDS
        except Exception as error:
            self._said = f"!{sentence_of(error)}"
        self._next = self._clock() + pause


SHOW = ["all", "fits", "refused", "fetched"]
MAX_ROWS = 100
"""Rows that are shown at once; the search finds the others."""
HEADS = (
    "adapter",
    "verdict",
    "licence",
    "downloads",
    "MiB",
    "rank",
    "what its card says, or why not",
)
VERDICTS = {
    "fits": "fits by its header",
    "checked": "fits, read whole",
    "refused": "cannot be used",
}


def kept(rows: Sequence[Listed], here: Collection[str], *, search: str, show: str):
    """Filter by every word of `search`, and by `show`."""
    words = search.lower().split()
    kinds = {
        "all": lambda one: True,
        "fits": lambda one: one.verdict != "refused",
        "refused": lambda one: one.verdict == "refused",
        "fetched": lambda one: one.repo in here,
    }
    wanted = kinds.get(show, kinds["all"])
    return [one for one in rows if wanted(one) and all(word in _text(one) for word in words)]


def table_html(
    rows: Sequence[Listed], here: Collection[str], *, search: str = "", show: str = "all"
) -> str:
    """The table of those that match, and how many there are."""
    if not rows:
        return '<p class="rm-empty">Nothing is listed yet.</p>'
    found = kept(rows, here, search=search, show=show)
    refused = sum(one.verdict == "refused" for one in rows)
    said = (
        f"Listed: {counted(len(rows), 'adapter')}, of which {refused} cannot be used; the weights "
        f"of {len(here)} are here. "
    )
    if len(found) > MAX_ROWS:
        said += f"The first {MAX_ROWS} of {len(found)} are shown."
    elif len(found) < len(rows):
        said += f"{len(found)} match."
    heads = "".join(f'<th scope="col">{head}</th>' for head in HEADS)
    body = "".join(_row(one, one.repo in here) for one in found[:MAX_ROWS])
    return (
        f"<p>{said.strip()}</p>"
        '<div class="rm-twin"><div class="rm-twin-box" tabindex="0" role="region" '
        'aria-label="Adapters of the Hub"><table class="rm-hub">'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div></div>"
    )


def _row(one: Listed, here: bool) -> str:
    verdict = VERDICTS[one.verdict] + (", weights are here" if here else "")
    cells = (
        verdict,
        one.licence or "–",
        f"{one.downloads:,}",
        f"{one.bytes / 2**20:.1f}" if one.bytes else "–",
        one.rank or "–",
        one.reason or one.description[:300] or "Its card says nothing.",
    )
    row = "".join(f"<td>{escaped(cell)}</td>" for cell in cells)
    return f'<tr class="rm-{one.verdict}"><th scope="row">{escaped(one.repo)}</th>{row}</tr>'


def _text(one: Listed) -> str:
    said = (one.repo, one.name, one.licence or "", one.description, one.reason, *one.examples)
    return " ".join(said).lower()


FOLD = "Find on the Hub: adapters that others made for this base model"
OTHERS = "Another visitor began this search; only they can stop it."


class HubPart:
    """Its components, folded, inside the tab that is open."""

    def __init__(self, ramole: Ramole) -> None:
        s = ramole.settings
        words = (
            f"Lists up to {s.hub_listed:,} adapters that name this base model, those downloaded "
            "most first. Their cards are read, and of their weights the header alone. Prompts find "
            "them from then on; the weights of one come when it is to answer, and are checked like "
            "every upload."
        )
        allowed = s.hub_adapters
        with gr.Accordion(FOLD, open=False, elem_id="pool-hub") as self.fold:
            gr.HTML(f"<p>{words if allowed else escaped(NOT_ALLOWED)}</p>", **PLAIN)
            with gr.Row(visible=allowed):
                self.find = gr.Button(
                    "Find adapters", size="sm", elem_id="pool-hub-find", min_width=140
                )
                self.stop = gr.Button(
                    "Stop", size="sm", interactive=False, elem_id="pool-hub-stop", min_width=90
                )
            self.notice = gr.HTML(elem_id="pool-hub-notice", **PLAIN)
            with gr.Row(visible=allowed):
                self.search = gr.Textbox(
                    label="Search the list",
                    placeholder="a task, an owner, a licence",
                    min_width=200,
                )
                self.show = gr.Dropdown(
                    SHOW, value=SHOW[0], label="Show of the list", min_width=150
                )
            self.table = gr.HTML(elem_id="pool-hub-table", **PLAIN)

    @property
    def filters(self) -> list[Any]:
        """In the order in which handlers take them."""
        return [self.search, self.show]


def connect_hub(ui: HubPart, ramole: Ramole, call: Callable) -> None:
    run = HubRun(ramole)

    def shown(search: str, show: str) -> str:
        if not ramole.settings.hub_adapters:
            return ""
        return table_html(
            ramole.hub.rows(), ramole.hub.fetched(), search=(search or "")[:200], show=show
        )

    def on_show(search: str, show: str):
        with one_sentence():
            return shown(search, show)

    def on_find(search: str, show: str, request: gr.Request):
        with one_sentence(), call(request) as visitor:
            try:
                for sentence, kind in run.looks(visitor.owner):
                    busy = kind == "busy"
                    table = gr.skip() if busy else shown(search, show)
                    yield notice_html(sentence, kind=kind), table, *run_and_stop(running=busy)
            except RamoleError as refusal:
                said = notice_html(sentence_of(refusal), kind="wrong")
                yield said, gr.skip(), *run_and_stop(running=False)

    def on_stop(request: gr.Request):
        with one_sentence(), call(request) as visitor:
            return gr.skip() if run.stop(visitor.owner) else notice_html(OTHERS)

    gr.on(
        [ui.fold.expand, ui.search.change, ui.show.change],
        on_show,
        ui.filters,
        ui.table,
        trigger_mode="always_last",
        concurrency_id="list",
        **QUIET,
    )
    ui.find.click(
        on_find,
        ui.filters,
        [ui.notice, ui.table, ui.find, ui.stop],
        concurrency_limit=None,
        **QUIET,
    )
    ui.stop.click(on_stop, None, ui.notice, **AT_ONCE)
