"""The page on a port: sizes, passwords, `/health`, MCP, and the model loading behind it."""

import json
import logging
import os
import signal
import threading
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
from gradio import processing_utils, themes
from gradio.utils import get_upload_folder

from ramole_core import Ramole, RamoleError, announce_page, give_back

from .api.mcp import describe_tools
from .health import health_routes
from .metrics import metrics_routes
from .middleware.cache import everything_below
from .middleware.connections import watch_connections
from .middleware.doors import doors
from .middleware.logins import OldTokens, let_mcp_call
from .model.loading import loading_of
from .openai.door import openai_routes
from .session.accounts import Accounts
from .session.leaving import sweep, sweep_sessions
from .session.owner import OPERATOR_KEY
from .session.quota import quota_of
from .session.states import remember_little, track_sessions
from .session.uploads import keep_uploads_apart
from .shutdown import end
from .watch.events import listen
from .watch.quiet import quiet_server
from .watch.request_record import writing

log = logging.getLogger(__name__)
PRINTED = Path(__file__).with_name("print.css")
"""The page on paper."""
HOUR = 3600
TIDY_SECONDS = 300
"""Interval of the sweep of unneeded files and uploads."""
SWEEP_SECONDS = 5
"""Interval of the sweep of closed pages."""
EMPTY_SECONDS = 60
"""Age of an empty folder from which it is deleted."""
SPARE_THREADS = 32
"""Threads beside running answers: clicks, uploads, files."""
QUEUE_SLEEP = 0.01
"""Interval at which Gradio polls its queue; its default of 0.001 costs 4 % of a core."""
NEVER = str(10**9)
"""Events between two of Gradio's summaries of all events by pandas; its default is 1."""


def serve(page: gr.Blocks, ramole: Ramole, *, as_json: bool = False) -> None:
    """Listen, load the model in the background, and stay until the process gets a signal to end.
    The command line finds it by a file in the data folder."""
    url = launch(page, ramole)
    print(json.dumps({"url": url}) if as_json else f"RAMoLE listens on {url}", flush=True)
    announce_page(ramole.settings.data_dir, url, OPERATOR_KEY)
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, _end)
    try:
        tidy_on(page, ramole)
    except KeyboardInterrupt:
        for sign in (signal.SIGINT, signal.SIGTERM):
            signal.signal(sign, signal.SIG_DFL)  # who asks twice wants it now
        end(page, ramole)


def launch(page: gr.Blocks, ramole: Ramole) -> str:
    """Listen and return at once; the address is returned. Raises RamoleError for a taken port, or
    hosts, proxies or passwords that are none."""
    settings = ramole.settings
    said = served(page, ramole)
    os.environ.setdefault("FORWARDED_ALLOW_IPS", "")  # or uvicorn trusts any local process
    try:
        _, url, _ = page.launch(
            **said,
            server_name=settings.listening,
            server_port=_port(settings.port, said="port" in settings.model_fields_set),
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            max_threads=page.max_threads,
            _frontend=False,  # or Gradio ends where its own first page takes three seconds
        )
    except OSError:
        taken = f"Port {settings.port} cannot be listened on; it is in use, or not allowed."
        raise RamoleError(f"{taken} Set RAMOLE_PORT to a free one.") from None
    watch_connections(page.server)
    launched(page, ramole)
    return url


def launched(page: gr.Blocks, ramole: Ramole) -> None:
    """Set up what needs the page's application, and load the model in the background."""
    quiet_server()  # the modules that were loaded meanwhile
    describe_tools(page)
    remember_little(page, quota_of(ramole).presence.sessions)
    threading.Thread(target=begin, args=[ramole], name="begin", daemon=True).start()


def served(page: gr.Blocks, ramole: Ramole) -> dict[str, Any]:
    """The application around the page: middleware, routes, passwords, styles. Sets the page up for
    it; raises RamoleError for hosts, proxies or passwords that are none."""
    settings = ramole.settings
    accounts = Accounts(passwords(settings.auth) or (), settings.keys_file)
    middleware = doors(ramole, cache=Path(get_upload_folder()), accounts=accounts)
    metrics = metrics_routes(ramole, accounts, hosted="SPACE_ID" in os.environ)
    if settings.log_requests:
        listen(writing())
    refuse_links()
    keep_uploads_apart()
    os.umask(0o077)  # nobody else on this machine reads uploads
    let_mcp_call()
    track_sessions(quota_of(ramole).presence.sessions)
    page.delete_cache = (HOUR, HOUR)
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", NEVER)
    show_progress_once(page)
    page.queue(max_size=settings.max_queue)
    page.max_threads = settings.max_batch + settings.max_queue + SPARE_THREADS
    page._queue.max_thread_count = page.max_threads
    page._queue.sleep_when_free = QUEUE_SLEEP
    warn_of_open_index(settings.chroma_url)
    quiet_server()
    routes = [
        *health_routes(ramole),
        *metrics,
        *openai_routes(ramole, accounts),
    ]
    return {
        "auth": accounts.log_in if accounts else None,
        "max_file_size": settings.max_upload_mb * 2**20,
        "mcp_server": find_spec("mcp") is not None,
        "app_kwargs": {"routes": routes, "middleware": middleware},
        "css_paths": styles(),
        "head": scripts() + f'<style media="print">{PRINTED.read_text("utf-8")}</style>',
        "theme": look(),
        "footer_links": ["api", "gradio", "settings"],
        "run_history": False,
        "ssr_mode": False,
        "show_error": False,
    }


def tidy_on(page: gr.Blocks, ramole: Ramole) -> None:
    """Clean up without end: closed pages often, files and old logins now and then."""
    tidied, logins = time.monotonic(), OldTokens()
    while True:
        time.sleep(SWEEP_SECONDS)
        sweep_sessions(ramole)
        give_back()  # 10 ms, and up to 150 MB after long prompts
        if time.monotonic() - tidied >= TIDY_SECONDS:
            logins.sweep(page.app.tokens)
            drop_old(Path(get_upload_folder()), HOUR)
            drop_gone(ramole)
            tidied = time.monotonic()


def drop_old(cache: Path, age: float) -> None:
    """Delete the files of Gradio's cache that are older than `age` seconds, uploads that no handler
    took and zips that were fetched, and folders that are empty, but for the newest."""
    now = time.time()
    for path in everything_below(cache):
        with suppress(OSError):
            status = path.lstat()
            if not path.is_dir() and now - status.st_mtime > age:
                path.unlink()
            elif path.is_dir() and now - status.st_mtime > EMPTY_SECONDS:
                path.rmdir()


def drop_gone(ramole: Ramole) -> None:
    """Remove the uploads of sessions that ended without notice."""
    try:
        removed = quota_of(ramole).tidy()
        if removed:
            log.info("%d uploads of sessions that fell silent were removed.", removed)
    except Exception:
        log.exception("Uploads of sessions that fell silent could not be removed.")


def styles() -> list[Path]:
    """Every room's style sheet, in the order of their names."""
    found = (path for path in PRINTED.parent.rglob("*.css") if path != PRINTED)
    return sorted(found, key=lambda path: path.name)


def show_progress_once(page: gr.Blocks) -> None:
    """Let every event report its progress to one component: Gradio's page updates each component
    that any event reports to whenever a message comes, which took half of a browser's core."""
    first = next((one for one in page.blocks.values() if isinstance(one, gr.HTML)), None)
    for event in page.fns.values():
        event.show_progress_on = None if first is None else [first]


def scripts() -> str:
    """The scripts that run before Gradio's: what a browser tab keeps, whose page it is, no event's
    end is missed, no frame drawn for nothing, and what the scripts of several components use."""
    session, parts = "kept tab_secret event_stream frames", "elements copying trying"
    names = [f"session/{name}" for name in session.split()]
    names += [f"parts/{name}" for name in parts.split()]
    files = [Path(__file__).parent / f"{name}.js" for name in names]
    return "".join(f"<script>{file.read_text('utf-8')}</script>" for file in files)


def look() -> gr.Theme:
    """Gradio's plain theme with the system's fonts, so that no font is fetched from anywhere, and
    its sizes of text as shares of the browser's own, which people set larger."""
    pixels = vars(themes.sizes.text_md)
    sizes = {name: f"{int(size[:-2]) / 16}rem" for name, size in pixels.items() if name != "name"}
    return themes.Default(
        primary_hue="indigo",
        text_size=themes.sizes.Size(name="text_rem", **sizes),
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        body_text_color_subdued="*neutral_600",  # Gradio's own is too pale to be read by all
        body_text_color_subdued_dark="*neutral_300",
        input_placeholder_color="*neutral_600",
        input_placeholder_color_dark="*neutral_300",
        button_primary_background_fill="*primary_600",  # white reads on it, on 500 not quite
        button_primary_background_fill_hover="*primary_700",
    )


def passwords(auth: str | None) -> list[tuple[str, str]] | None:
    """`user:password,user2:password2` as pairs; RamoleError, without the words, where it is not."""
    if not auth:
        return None
    pairs = [pair.strip().partition(":") for pair in auth.split(",") if pair.strip()]
    if not pairs or not all(user and password for user, _, password in pairs):
        raise RamoleError(
            "RAMOLE_AUTH is not user:password, or several joined by commas; correct it."
        )
    return [(user, password) for user, _, password in pairs]


def warn_of_open_index(url: str | None) -> None:
    """Warn in the log that a remote Chroma server is open to all who reach it."""
    host = urlsplit(url or "").hostname
    if host is not None and host not in ("localhost", "127.0.0.1", "::1"):
        log.warning(
            "RAMOLE_CHROMA_URL names a server that asks nobody for a password: whoever reaches %s "
            "can read and change the index. Let no machine but the page's reach it.",
            host,
        )


def refuse_links() -> None:
    """Refuse a link in place of an upload, which Gradio would fetch whole, whatever its size."""

    async def refuse(url: str, cache_dir: str) -> str:
        raise gr.Error("A link is not a file here; upload the file itself.", print_exception=False)

    processing_utils.async_ssrf_protected_download = refuse


def begin(ramole: Ramole) -> None:
    """Remove leftovers of earlier sessions, and load the model."""
    try:
        removed = sweep(ramole)
        if removed:
            log.info("%d uploads of ended sessions were removed.", removed)
    except RamoleError as error:
        log.warning("Old uploads could not be removed: %s", type(error).__name__)
    loading_of(ramole).start()


def _port(port: int, *, said: bool) -> int | None:
    """Our port, unless only Gradio's own variable names one."""
    return None if not said and os.environ.get("GRADIO_SERVER_PORT") else port


def _end(sign: int, frame: object) -> None:
    raise KeyboardInterrupt
