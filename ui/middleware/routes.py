"""Every route that is served, with its limits.

The middleware works from this table and docs/hosting.md shows it. A path that is not in it is
answered 404, before anything of the request is read: Gradio has routes that this page does not use
(`UNUSED`), some of which write files or call other servers. A test fails where Gradio has a route
that is in neither list.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from starlette._utils import get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from .refusal import HttpMiddleware, Refused

KIB, MIB = 2**10, 2**20
SMALL = 64 * KIB
MAX_CALL_BYTES = 2 * MIB
"""The longest prompt, each character escaped, with room for earlier turns."""
MAX_PAGE_CALL_BYTES = 4 * MIB
"""The text of a batch, 2 MiB, with each quote escaped."""
MAX_MCP_BYTES = 4 * MIB
"""Limit of MCP's server."""
ANYTHING = "GET POST PUT DELETE PATCH"
Kind = Literal["file", "page", "call", "direct", "stream", "login", "upload", "answer"]
EVERYWHERE = (403, 405, 500)
"""Statuses of any route: a foreign origin, a wrong method, a fault."""
CALLED: tuple[Kind, ...] = ("call", "direct", "stream")
"""Kinds of routes that take values."""
RULE = "ramole.rule"
"""Key of the route's rule in an ASGI scope."""


@dataclass(frozen=True)
class Rule:
    """One route."""

    path: str
    """`{}` stands for one part of a path, `{*}` for the rest of it."""
    use: str
    """Its purpose."""
    kind: Kind = "file"
    """Requests of one kind that are in progress are counted together, by address."""
    methods: str = "GET"
    body: int = 0
    """Most bytes of a body."""
    open: bool = False
    """No password is required here; a route that may answer 401 checks by itself."""
    queued: bool = False
    """It puts an event into Gradio's queue, where an address has a share."""
    own: tuple[int, ...] | None = None
    """Statuses of its own, where they are not 200, and 422 of those that take values."""

    @property
    def parsed(self) -> bool:
        """Whether its body is JSON with counted parts."""
        return self.kind not in ("upload", "login")

    @property
    def statuses(self) -> tuple[int, ...]:
        """All its possible statuses, but for EVERYWHERE."""
        found = {429, 503, *(self.own or ((200, 422) if self.kind in CALLED else (200,)))}
        found |= set() if self.open else {401}
        return tuple(sorted(found | ({400, 408, 413} if self.body else set())))


@dataclass(frozen=True)
class Most:
    """The most requests of a kind in progress."""

    address: int
    """From one address."""
    all: int


MAX_OPEN: dict[Kind, Most] = {
    "file": Most(128, 2048),
    "page": Most(32, 256),
    "call": Most(128, 1024),
    "direct": Most(64, 512),
    "stream": Most(256, 4096),
    "login": Most(16, 1024),
    "upload": Most(16, 128),
    "answer": Most(64, 512),
}
"""By kind. Streams have at most three quarters of the connections that the process may have. Logins
wait for their turn (`accounts.py`), from unknown addresses 300 of each user."""

CALL, DIRECT = MAX_CALL_BYTES, MAX_PAGE_CALL_BYTES
FILE = (200, 206, 400, 404, 416)
ASKED = (200, 401, 404, 415)
RULES: tuple[Rule, ...] = (
    Rule("/", "the page", "page", open=True),
    Rule("/config", "the page's components", "page", open=True, own=(200, 401)),
    Rule("/assets/{*}", "the page's scripts and styles", open=True, own=FILE),
    Rule("/static/{*}", "its pictures and fonts", open=True, own=FILE),
    Rule("/svelte/{*}", "its components", open=True, own=FILE),
    Rule("/theme.css", "its theme", open=True),
    Rule("/gradio_api/theme.css", "its theme", open=True),
    Rule("/favicon.ico", "its icon", open=True, own=FILE),
    Rule("/manifest.json", "its name", open=True),
    Rule("/robots.txt", "for search engines", open=True),
    Rule("/login", "log in", "login", "POST", SMALL, open=True, own=(200, 302, 422)),
    Rule("/logout", "log out", open=True, own=(302,)),
    Rule("/gradio_api/login_check", "whether one is logged in", open=True, own=(200, 401)),
    Rule("/gradio_api/user", "who is logged in"),
    Rule("/gradio_api/app_id", "whether the server is another than before"),
    Rule("/gradio_api/startup-events", "the server's own, once"),
    Rule("/gradio_api/info", "parameters of the endpoints", "page"),
    Rule("/gradio_api/openapi.json", "the same as OpenAPI", "page"),
    Rule("/monitoring/summary", "asked for by the page's description of them; empty", "page"),
    Rule("/gradio_api/file={*}", "a file that the page offers, no URL", own=FILE),
    Rule("/gradio_api/upload", "files", "upload", "POST"),
    Rule("/gradio_api/upload_progress", "how far an upload is", "stream", own=(200, 404, 422)),
    Rule("/gradio_api/heartbeat/{}", "a page or client is there", "stream"),
    Rule("/gradio_api/queue/join", "an event of the page", "call", "POST", DIRECT, queued=True),
    Rule("/gradio_api/queue/data", "what comes of a session's events", "stream"),
    Rule("/gradio_api/run/{}", "a quick event of the page", "direct", "POST", DIRECT),
    Rule("/gradio_api/api/{}", "the same", "direct", "POST", DIRECT),
    Rule("/gradio_api/call/{}", "an endpoint", "call", "POST", CALL, queued=True),
    Rule("/gradio_api/call/v2/{}", "an endpoint, by names", "call", "POST", CALL, queued=True),
    Rule("/gradio_api/call/{}/{}", "what comes of it", "stream"),
    Rule("/gradio_api/call/v2/{}/{}", "what comes of it", "stream"),
    Rule("/gradio_api/cancel", "end an event", "call", "POST", SMALL),
    Rule("/gradio_api/reset", "the same", "call", "POST", SMALL),
    Rule("/gradio_api/mcp", "MCP", "answer", "GET POST DELETE", MAX_MCP_BYTES, own=(307,)),
    Rule(
        "/gradio_api/mcp/http",
        "MCP",
        "answer",
        "GET POST DELETE",
        MAX_MCP_BYTES,
        own=(200, 202, 406),
    ),
    Rule("/gradio_api/mcp/sse", "MCP's older transport", "stream", own=(200, 404)),
    Rule(
        "/gradio_api/mcp/messages",
        "MCP's older transport",
        "call",
        "POST",
        MAX_MCP_BYTES,
        own=(202, 404),
    ),
    Rule("/gradio_api/mcp/schema", "MCP's tools", "page", own=(200, 404)),
    Rule("/v1/chat/completions", "OpenAI's chat", "answer", "POST", CALL, open=True, own=ASKED),
    Rule(
        "/v1/completions",
        "OpenAI's older completions",
        "answer",
        "POST",
        CALL,
        open=True,
        own=ASKED,
    ),
    Rule("/v1/embeddings", "OpenAI's embeddings", "answer", "POST", CALL, open=True, own=ASKED),
    Rule("/v1", "OpenAI's other routes", "call", ANYTHING, CALL, open=True, own=(307,)),
    Rule(
        "/v1/{*}", "OpenAI's other routes", "call", ANYTHING, CALL, open=True, own=(200, 401, 404)
    ),
    Rule("/metrics", "numbers", "page", open=True, own=(200, 401)),
    Rule("/health", "how the model is", open=True),
    Rule("/livez", "whether the process answers", open=True),
    Rule("/readyz", "whether the model is ready", open=True),
    Rule("/version", "which version this is", open=True),
)
"""The first that fits is taken. Routes under /v1, /metrics and /login check passwords or keys
themselves. The body of an upload follows from MAX_UPLOAD_MB."""

UNUSED: tuple[str, ...] = (
    "/openapi.json",
    "/monitoring",
    "/monitoring/{*}",
    "/pwa_icon",
    "/pwa_icon/{}",
    "/gradio_api/component_server",
    "/gradio_api/custom_component/{}/{}/{}/{}",
    "/gradio_api/deep_link",
    "/gradio_api/dev/reload",
    "/gradio_api/file/{*}",
    "/gradio_api/process_recording",
    "/gradio_api/profiling/{}",
    "/gradio_api/proxy={*}",
    "/gradio_api/queue/status",
    "/gradio_api/run-history/{*}",
    "/gradio_api/runs",
    "/gradio_api/stream/{*}",
    "/gradio_api/token",
    "/gradio_api/undo-vibe-edit",
    "/gradio_api/vibe-code",
    "/gradio_api/vibe-edit",
    "/gradio_api/vibe-starter-queries",
)
"""Further routes of Gradio: answered 404."""
LINK = re.compile(r"\s*https?:", re.IGNORECASE)
"""A URL in place of a file, which Gradio would fetch."""


def rules(max_upload_mb: int) -> tuple[Rule, ...]:
    """The table of a server that takes uploads of so many MiB."""
    upload = 4 * max_upload_mb * MIB
    return tuple(replace(one, body=upload) if one.kind == "upload" else one for one in RULES)


class RouteTable:
    """Finds a path's rule."""

    def __init__(self, table: Sequence[Rule]):
        self._exact = {rule.path: rule for rule in table if "{" not in rule.path}
        self._patterns = [(_pattern(rule.path), rule) for rule in table if "{" in rule.path]

    def find(self, path: str) -> Rule | None:
        """The rule of a path without the proxy's own part; None where there is none."""
        path = path.rstrip("/") or "/"
        if rule := self._exact.get(path):
            return rule
        return next((rule for pattern, rule in self._patterns if pattern.fullmatch(path)), None)


class Routes(HttpMiddleware):
    """ASGI middleware: refuse paths outside the table, and put each path's rule into the scope, for
    `rule_of`."""

    def __init__(self, app: ASGIApp, *, table: Sequence[Rule]):
        super().__init__(app)
        self._table = RouteTable(table)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = get_route_path(scope)
        rule = self._table.find(path)
        if rule is None or LINK.match(path.partition("file=")[2]):
            raise Refused(404, "There is nothing here.", reason="route")
        await self._app({**scope, RULE: rule}, receive, send)


def rule_of(scope: Scope) -> Rule:
    """The rule that `Routes` found."""
    return scope[RULE]


def unused(path: str) -> bool:
    """Whether this is a route of Gradio that the page does not use."""
    return any(_pattern(one).fullmatch(path.rstrip("/")) for one in UNUSED)


def listed(table: Sequence[Rule]) -> Iterator[list[str]]:
    """The table for docs/hosting.md: route, methods, use, body, in progress from one address,
    whether it is open where passwords are required, and statuses."""
    for rule in table:
        body = "" if not rule.body else size_of(rule.body)
        route = rule.path.replace("{*}", "...").replace("{}", "NAME")
        methods = rule.methods.replace(" ", ", ") if rule.methods != ANYTHING else "any"
        asks = "asks itself" if 401 in rule.statuses else "open"
        most, statuses = str(MAX_OPEN[rule.kind].address), ", ".join(map(str, rule.statuses))
        told = asks if rule.open else ""
        yield [f"`{route}`", methods, rule.use, body, most, told, statuses]


def size_of(bytes: int) -> str:
    """In MiB, or KiB where it is less."""
    return f"{bytes / MIB:.3g} MiB" if bytes >= MIB else f"{bytes // KIB} KiB"


def _pattern(path: str) -> re.Pattern[str]:
    escaped = re.escape(path).replace(r"\{\*\}", ".*").replace(r"\{\}", "[^/]+")
    return re.compile(escaped, re.DOTALL)
