"""Mutated requests over every route: no 500, no traceback, none that hangs, and the server lives.

A request is made from the table of routes, each in its turn, and a grammar of what it takes, and
then spoiled: other methods, headers and queries, values of other kinds, bodies cut, flipped or
nested. `kinds` may be `ray`: the same over the page of several engines.
"""

import asyncio
import json
import random
import time
from itertools import islice
from pathlib import Path
from urllib.parse import unquote

import httpx

from tests.campaigns.figures import Figures
from tests.support.pool_fakes import write_sample
from tests.support.serving import fake
from ui.middleware.routes import RULES, UNUSED, RouteTable, Rule

PROMISED = ("status_500", "tracebacks", "hangs", "connections_lost", "server_gone")
PROMISED += ("routes_never_asked",)
TABLE = RouteTable(RULES)
HANG_SECONDS = 2.0
WAITS = {"upload_progress": 3.0}
"""Seconds that Gradio itself waits, here for an upload that may begin yet."""
AT_ONCE = 4
ADDRESS_REQUESTS = 50
"""Requests from one address, whose refusals wait where there are many."""
ODD = (
    None,
    True,
    -1,
    2**70,
    1e308,
    "",
    "x" * 5000,
    "\ud800",
    "\x00",
    [],
    {},
    [[]],
    {"a": {"b": []}},
)
ENDPOINT = {"prompt": "hello", "k": 3, "method": "mixture", "max_new_tokens": 4}
CHAT = {"model": "base", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
CALL = {"data": ["hello", "mixture", 3], "session_hash": "abcdefgh", "fn_index": 1, "event_id": "x"}
TEXTS = {"model": "base", "prompt": ["hi", "you"], "max_tokens": 4}
EMBEDDED = {"model": "retriever", "input": ["hi", "you"], "encoding_format": "float"}
LISTS = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
TOOLS: dict[str, dict[str, object]] = {
    "ask": ENDPOINT,
    "ask_batch": {"prompts": ["hello", ENDPOINT], "k": 3},
    "retrieve": {"text": "hello", "k": 3, "exclude": ["squad"]},
    "list_adapters": {},
    "add_adapter": {"file": "UEsDBA==", "name": "mine", "examples": ["hello"]},
    "remove_adapter": {"name": "mine"},
}
"""MCP's, each with arguments."""
NAMES = (*TOOLS, "predict")
"""Endpoints that are called by name."""
KINDS = ("application/json", "text/plain", "multipart/form-data; boundary=x", "x/\xff", "")
FORM = (
    b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.zip"\r\n\r\nPK\r\n--x--\r\n'
)


def run(
    root: Path,
    *,
    count: int,
    seed: int,
    end: float,
    real: bool = True,
    kinds: list[str] | None = None,
) -> Figures:
    """Serve, and send so many; `real` makes no difference here: no request needs the base."""
    figures = Figures(PROMISED)
    if kinds == ["ray"]:
        from tests.campaigns.tiny_system import write_system
        from tests.support.served_cluster import SETTINGS, served

        write_system(root)
        said = SETTINGS | {"base_model": root / "base", "adapters_dir": root / "adapters"}
        with served(root, engines=1, data_dir=root / "data", max_upload_mb=1, **said) as page:
            asyncio.run(send_all(page.url, figures, count=count, seed=seed, end=end))
            log = page.page_log()
    else:
        write_sample(root / "adapters", "squad", rank=5, seed=1, examples=["where is the cat"])
        with fake(root, max_upload_mb=1) as server:
            asyncio.run(send_all(server.url, figures, count=count, seed=seed, end=end))
            log = server.log.read_text("utf-8", "replace")
    for line in log.splitlines():
        if line.startswith("Traceback") or "its message may quote" in line:
            figures.failed("tracebacks", line[:200])
    return figures


async def send_all(url: str, figures: Figures, *, count: int, seed: int, end: float) -> None:
    """Send so many, and see that each route was asked with a method that it has."""
    numbers, asked = iter(range(count)), set[Rule]()

    async def some() -> None:
        for first in numbers:
            block = first // ADDRESS_REQUESTS
            address = f"127.3.{block // 250}.{1 + block % 250}"
            transport = httpx.AsyncHTTPTransport(local_address=address)
            async with httpx.AsyncClient(transport=transport, base_url=url, timeout=60) as client:
                for number in (first, *islice(numbers, ADDRESS_REQUESTS // AT_ONCE)):
                    if time.monotonic() > end:
                        return
                    rule = await _send(client, number, f"{seed} {number}", figures)
                    if rule is not None:
                        asked.add(rule)

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        if (await client.get("/livez")).status_code != 200:
            figures.failed("server_gone", "it does not answer at the end")
    for rule in RULES:
        if rule not in asked:
            figures.failed("routes_never_asked", rule.path)


async def _send(client: httpx.AsyncClient, number: int, seed: str, figures: Figures) -> Rule | None:
    """Send one; the rule by which the server answers it, if any."""
    method, path, headers, body = made(random.Random(seed), RULES[number % len(RULES)])
    request = client.build_request(method, httpx.URL(path), headers=headers, content=body)
    figures.counts["mishaps"] += 1
    began, told = time.monotonic(), f"{number}: {method} {path[:80]!r} {body[:80]!r}"
    try:
        answer = await client.send(request, stream=True)
        await asyncio.wait_for(answer.aclose(), 10)
    except (httpx.HTTPError, TimeoutError) as error:
        figures.failed("connections_lost", f"{told}: {type(error).__name__}")
        return None
    figures.counts[f"status_{answer.status_code // 100}xx"] += 1
    if answer.status_code == 500:
        figures.failed("status_500", told)
    own = sum(seconds for name, seconds in WAITS.items() if name in path)
    if time.monotonic() - began > HANG_SECONDS + own:
        figures.failed("hangs", f"{told}: {time.monotonic() - began:.1f} s")
    rule = TABLE.find(unquote(request.url.path))
    return rule if rule and method in rule.methods.split() else None


def made(dice: random.Random, rule: Rule) -> tuple[str, str, dict[bytes, bytes], bytes]:
    """A request of a route: method, path with its query, headers, body."""
    path = dice.choice([rule.path] * 9 + [dice.choice(UNUSED)])
    while "{" in path:
        before, rest = path.split("{", 1)
        path = (
            before
            + dice.choice([*NAMES, "x" * 200, "..", "%00", "ü", "a b"])
            + rest.split("}", 1)[1]
        )
    if dice.random() < 0.2:
        path += dice.choice(
            ["?session_hash=abcdefgh", "?upload_id=x", "?page=x", "?a=%ff&b", "/", "//"]
        )
    methods = rule.methods.split() if dice.random() < 0.8 else ["GET", "POST", "PUT", "HEAD", "X"]
    method = dice.choice(methods)
    headers = {"content-type": dice.choice([KINDS[0]] * 6 + [*KINDS])}
    headers["accept"] = "application/json, text/event-stream"
    if dice.random() < 0.1:
        names = (
            "authorization",
            "cookie",
            "x-ramole-session",
            "accept-encoding",
            "range",
            "origin",
        )
        headers[dice.choice(names)] = dice.choice(
            ["", "x", "Bearer x", "a=b;;=", "bytes=9-1", "null"]
        )
    sent = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    if method in ("GET", "HEAD"):
        return method, path, sent, b""
    return method, path, sent, spoiled(dice, body_of(rule.path, dice))


def body_of(path: str, dice: random.Random) -> object:
    """What a route takes."""
    if "/mcp" in path:
        return LISTS if dice.random() < 0.1 else calls(dice.choice([*TOOLS]))
    if "/v1/" in path:
        return {"/v1/completions": TEXTS, "/v1/embeddings": EMBEDDED}.get(path, CHAT)
    return ENDPOINT if "/v2/" in path else CALL


def calls(tool: str) -> dict[str, object]:
    """MCP's call of a tool."""
    said = {"name": tool, "arguments": TOOLS[tool]}
    return {**LISTS, "method": "tools/call", "params": said}


def spoiled(dice: random.Random, value: object) -> bytes:
    """The body as it may come."""
    way = dice.randrange(8)
    if way == 0:
        return bytes(dice.randrange(256) for _ in range(dice.randrange(60)))
    if way == 1:
        return FORM[: dice.randrange(len(FORM) + 1)]
    if way == 2:
        depth = dice.choice([3, 50, 900, 5000])
        return b'{"data": ' + b"[" * depth + b"]" * depth + b"}"
    value = _changed(dice, value) if way < 7 else value
    body = json.dumps(value).encode()
    return body[: dice.randrange(len(body))] if way == 3 else body


def _changed(dice: random.Random, value: object) -> object:
    """The value with something else in it."""
    if not isinstance(value, dict | list) or not value or dice.random() < 0.2:
        return dice.choice(ODD)
    if isinstance(value, list):
        at = dice.randrange(len(value))
        return [_changed(dice, one) if n == at else one for n, one in enumerate(value)]
    name = dice.choice(list(value))
    if dice.random() < 0.2:
        return {key: one for key, one in value.items() if key != name}
    return {
        **value,
        name: _changed(dice, value[name]),
        **({"odd": 1} if dice.random() < 0.1 else {}),
    }
