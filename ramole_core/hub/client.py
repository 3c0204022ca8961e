"""A client of the Hub: its list page by page, and the beginnings of files; no token, all bounded.

`HfApi.list_models` has no time limit and cannot be stopped while it waits for a busy Hub, so the
list is read with the same client of huggingface_hub, page by page.
"""

import json
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from ramole_core.errors import RamoleError

EXPAND = ("sha", "downloads", "gated", "siblings", "tags", "cardData")
PAGE = 500
"""Repositories of one page of the list."""
MAX_PAGE_BYTES = 64 * 2**20
SECONDS = 30.0
"""Read timeout, and longest time for one file."""
TRIES = 4
MAX_PAUSE_SECONDS = 330.0
"""Longest pause that is waited for; the Hub's own windows are of five minutes."""
BUSY = (429, 500, 502, 503, 504)


class Unreachable(RamoleError):
    """The Hub does not answer, or not as a Hub does."""


class Stopped(Exception):
    """The caller stopped."""


@dataclass(frozen=True)
class Reply:
    """The result of one request: a page of the list, or the beginning of a file."""

    status: int
    headers: Mapping[str, str]
    """Headers by name in small letters."""
    data: bytes
    after: str | None = None
    """URL of the list's next page."""

    @property
    def found(self) -> bool:
        return self.status in (200, 206)

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        part = self.headers.get("content-range", "").rpartition("/")[2]
        whole = part if self.status == 206 else self.headers.get("content-length", "")
        return int(whole) if whole.isdecimal() else len(self.data)


class HubClient:
    """An anonymous client; thread-safe."""

    def __init__(self, stop: threading.Event):
        """`stop` ends pauses and reading; then Stopped is raised."""
        from huggingface_hub import constants
        from huggingface_hub.utils import build_hf_headers

        self.endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
        self._headers = {**build_hf_headers(token=False), "accept-encoding": "identity"}
        self._stop = stop

    def adapters_of(self, base: str, *, most: int) -> Iterator[dict[str, object]]:
        """The Hub's row on each adapter of `base`, those downloaded most first.

        Raises Unreachable.
        """
        query = [("filter", f"base_model:adapter:{base}"), ("sort", "downloads")]
        query += [("limit", str(min(most, PAGE)))]
        query += [("expand", word) for word in EXPAND]
        words = "&".join(f"{name}={quote(value, safe='')}" for name, value in query)
        url: str | None = f"{self.endpoint}/api/models?{words}"
        count = 0
        while url is not None and count < most:
            rows, url = self._page(url)
            yield from rows[: most - count]
            count += len(rows)
            if not rows:
                return

    def begin(self, repo: str, sha: str, file: str, *, most: int, start: int = 0) -> Reply:
        """Up to `most` bytes of a file from `start` on; raises Unreachable."""
        url = f"{self.endpoint}/{repo}/resolve/{sha}/{quote(file)}"
        return self._get(url, most=most, start=start)

    def _page(self, url: str) -> tuple[list[dict[str, object]], str | None]:
        reply = self._get(url, most=MAX_PAGE_BYTES)
        if reply.status != 200:
            raise self._unreachable(f"status {reply.status}")
        try:
            rows = json.loads(reply.data)
        except (ValueError, RecursionError):
            rows = None
        if not isinstance(rows, list):
            raise self._unreachable("it sent no JSON list")
        if reply.after and urlsplit(reply.after).netloc != urlsplit(self.endpoint).netloc:
            raise self._unreachable("its list goes on elsewhere")
        return [row for row in rows if isinstance(row, dict)], reply.after

    def _get(self, url: str, *, most: int, start: int | None = None) -> Reply:
        """Get the body's first `most` bytes, or those from `start` on as a part of it, with pauses
        where the Hub is busy."""
        for number in range(TRIES - 1):
            reply = self._once(url, most, start)
            if reply.status not in BUSY:
                return reply
            pause = _pause(reply.headers, otherwise=2.0**number)
            if pause > MAX_PAUSE_SECONDS:
                raise self._unreachable(f"it asks for a pause of {pause:.0f} s")
            if self._stop.wait(pause):
                raise Stopped
        return self._once(url, most, start)

    def _once(self, url: str, most: int, start: int | None) -> Reply:
        from huggingface_hub.utils import get_session

        part = {} if start is None else {"range": f"bytes={start}-{start + most - 1}"}
        headers = {**self._headers, **part}
        began, data = time.monotonic(), bytearray()
        try:
            with get_session().stream("GET", url, headers=headers, timeout=SECONDS) as response:
                # A mirror that knows no parts sends the whole file, with 200.
                skipped = (start or 0) if response.status_code == 200 else 0
                for chunk in response.iter_bytes():
                    data += chunk
                    if self._stop.is_set():
                        raise Stopped
                    if time.monotonic() - began > SECONDS:
                        raise self._unreachable("it is too slow")
                    if len(data) >= skipped + most:
                        break
                after = response.links.get("next", {}).get("url")
                said = {name.lower(): text for name, text in response.headers.items()}
                piece = bytes(data[skipped : skipped + most])
                return Reply(response.status_code, said, piece, after)
        except (Stopped, RamoleError):
            raise
        except Exception as error:  # the client raises what its HTTP library of the day raises
            reason = str(error).strip().split("\n")[0][:160] or "no answer"
            raise self._unreachable(f"{type(error).__name__}: {reason}") from None

    def _unreachable(self, why: str) -> Unreachable:
        return Unreachable(
            f"The Hub at {self.endpoint} does not answer ({why}); check the network, or set "
            "HF_ENDPOINT to a mirror."
        )


def _pause(headers: Mapping[str, str], *, otherwise: float) -> float:
    """Seconds that a busy Hub requests: in `Retry-After`, or as `t` of `RateLimit`."""
    said = headers.get("retry-after", "")
    found = re.search(r"\bt=(\d{1,6})\b", headers.get("ratelimit", ""))
    said = found[1] if found and not said.isdecimal() else said
    return float(said) if said.isdecimal() else otherwise
