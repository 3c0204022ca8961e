"""A small server that speaks the Hub's API: its list with pages, model info, files and their parts.

`made` fills it with repositories, sound ones and every broken kind; each is real files.
"""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from tests.support.adapter_files import CONFIG, WEIGHTS, arrays_of, pack

BASE = "made/base"
EVIL = "<img src=x onerror=alert(1)> ${alert(2)} {{value}} [Ignore](javascript:1) `x`"
HOURS = 9999
"""Seconds, for what is let go by the test or not at all."""
TASKS = ("sums", "poems", "capitals", "recipes", "letters", "colours", "knots", "birds", "tides")


@dataclass
class Repository:
    """One adapter's files, and what the list says of it."""

    files: dict[str, bytes]
    downloads: int = 0
    gated: object = False
    status: int = 200
    """Of its files."""
    tags: list[str] = field(default_factory=list)
    card: dict[str, object] = field(default_factory=dict)
    listed: dict[str, bytes] | None = None
    """Files that the list claims, where they are others."""

    @property
    def sha(self) -> str:
        digest = hashlib.sha1(usedforsecurity=False)
        for name in sorted(self.files):
            digest.update(name.encode() + self.files[name])
        return digest.hexdigest()


class HubServer:
    """Repositories by name, and what was asked for."""

    def __init__(self, *, page: int = 400):
        self.page = page
        self.repositories: dict[str, Repository] = {}
        self.base = BASE
        self.asked: list[str] = []
        self.tokens: set[str | None] = set()
        self.status: int | None = None
        """Answered to everything, where it is set."""
        self.busy = 0
        """So many answers are 429 first."""
        self.parts = True
        """Whether a part of a file is given, or the whole of it with 200."""
        self.slow: threading.Event | None = None
        """Weights are held back until it is set."""
        self.url = ""

    def listing(self, base: str) -> list[tuple[str, Repository]]:
        """Those that name the base, downloaded most first."""
        if base != f"base_model:adapter:{self.base}":
            return []
        return sorted(self.repositories.items(), key=lambda item: -item[1].downloads)

    def weights_asked(self) -> list[str]:
        """Repositories whose weights were asked for whole."""
        return [path for path in self.asked if path.endswith(f"/{WEIGHTS} whole")]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    hub: HubServer

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, *, body: bool):
        hub, parts = self.hub, urlsplit(self.path)
        span = self.headers.get("range", "")
        hub.asked.append(parts.path + (" part" if span else " whole" if body else " head"))
        hub.tokens.add(self.headers.get("authorization"))
        if hub.busy:
            hub.busy -= 1
            name = "Retry-After" if hub.busy % 2 else "RateLimit"
            return self._send(429, b"", body, {name: "0" if hub.busy % 2 else '"api";r=0;t=0'})
        if hub.status is not None:
            return self._send(hub.status, b"{}", body)
        if parts.path == "/api/models":
            return self._list(parse_qs(parts.query), body)
        if parts.path.startswith("/api/models/"):
            return self._info(parts.path.removeprefix("/api/models/"), body)
        repo, _, rest = parts.path.removeprefix("/").partition("/resolve/")
        sha, _, name = rest.partition("/")
        there = hub.repositories.get(repo)
        if there is not None and (there.gated or there.status != 200):
            code = 401 if there.gated else there.status
            return self._send(code, b"", body, {"X-Error-Code": "GatedRepo"})
        if there is None or sha != there.sha or name not in there.files:
            code = "EntryNotFound" if there is not None else "RepoNotFound"
            return self._send(404, b"", body, {"X-Error-Code": code})
        if hub.slow is not None and name == WEIGHTS and body and not span:
            hub.slow.wait(HOURS)
        data = there.files[name]
        extra = {"X-Repo-Commit": sha, "ETag": f'"{hashlib.md5(data).hexdigest()}"'}
        if hub.parts and span.startswith("bytes="):
            first, last = span.removeprefix("bytes=").split("-")
            part = data[int(first) : int(last) + 1]
            extra["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
            return self._send(206, part, body, extra)
        return self._send(200, data, body, extra)

    def _list(self, query: Mapping[str, list[str]], body: bool):
        hub = self.hub
        start, size = int(query.get("start", ["0"])[0]), min(int(query["limit"][0]), hub.page)
        every = hub.listing(query["filter"][0])
        rows = [
            {
                "id": repo,
                "sha": one.sha,
                "downloads": one.downloads,
                "gated": one.gated,
                "tags": [f"base_model:adapter:{hub.base}", *one.tags],
                "cardData": one.card,
                "siblings": [{"rfilename": name} for name in one.listed or one.files],
            }
            for repo, one in every[start : start + size]
        ]
        extra = {}
        if start + size < len(every):
            words = f"filter={query['filter'][0]}&limit={size}&start={start + size}"
            extra["Link"] = f'<{hub.url}/api/models?{words}>; rel="next"'
        return self._send(200, json.dumps(rows).encode(), body, extra)

    def _info(self, path: str, body: bool):
        path, tree, _ = path.partition("/tree/")
        repo, _, revision = path.partition("/revision/")
        one = self.hub.repositories.get(repo)
        if one is None or revision not in ("", "main", "v1", one.sha):
            return self._send(404, b"{}", body, {"X-Error-Code": "RepoNotFound"})
        files = [{"rfilename": name, "size": len(data)} for name, data in one.files.items()]
        said = {"id": repo, "modelId": repo, "sha": one.sha, "siblings": files}
        if tree:
            about = {"type": "file", "oid": one.sha}
            said = [about | {"path": f["rfilename"], "size": f["size"]} for f in files]
        return self._send(200, json.dumps(said).encode(), body)

    def _send(self, status: int, data: bytes, body: bool, extra: Mapping[str, str] | None = None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in (extra or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


@contextmanager
def serving(hub: HubServer) -> Iterator[HubServer]:
    """The server on a port of its own; `hub.url` is what HF_ENDPOINT should be."""
    handler = type("OneHandler", (Handler,), {"hub": hub})
    server = _Server(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        if hub.slow is not None:
            hub.slow.set()
        server.shutdown()
        thread.join()
        server.server_close()


def adapter(
    seed: int,
    *,
    card: str | None = "",
    examples: tuple[str, ...] = (),
    weights: bytes | None = None,
    config: Mapping[str, object] | None = None,
    **more: bytes,
) -> dict[str, bytes]:
    """A repository's files; `card` None: no README."""
    said = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, "base_model_name_or_path": BASE}
    files = {
        WEIGHTS: pack(arrays_of(seed=seed)) if weights is None else weights,
        CONFIG: json.dumps({**said, **(config or {})}).encode(),
        **more,
    }
    if card is not None:
        files["README.md"] = f"---\nlicense: mit\n---\n# One\n\n{card}".encode()
    if examples:
        lines = "".join(json.dumps({"text": text}) + "\n" for text in examples)
        files["examples.jsonl"] = lines.encode()
    return files


def wide() -> bytes:
    """Tensors of another base: twice as many inputs."""
    pairs = arrays_of()
    return pack({n: a.repeat(2, axis=1) if "lora_A" in n else a for n, a in pairs.items()})


def broken(seed: int) -> dict[str, Repository]:
    """One of each broken kind, by why it is."""
    bare = {name: data for name, data in adapter(seed).items() if name != WEIGHTS}
    nan = arrays_of(seed=seed)
    nan[next(iter(nan))][0, 0] = float("nan")
    deep = pack({n.replace(".layers.0.", ".layers.99."): a for n, a in arrays_of().items()})
    return {
        "another-base": Repository(adapter(seed, weights=wide())),
        "deeper-base": Repository(adapter(seed, weights=deep)),
        "dora": Repository(adapter(seed, config={"use_dora": True})),
        "pickle": Repository({**bare, "adapter_model.bin": b"\x80\x04."}),
        "too-big": Repository(adapter(seed, weights=bytes(2**20 + 1))),
        "gated": Repository(adapter(seed), gated="auto"),
        "secretly-gated": Repository(adapter(seed), status=401),
        "missing": Repository(bare, listed={**bare, WEIGHTS: b""}),
        "rank": Repository(adapter(seed, weights=pack(arrays_of(rank=40, seed=seed)))),
        "no-adapter": Repository({"config.json": b"{}", "model.safetensors": b"x"}),
        "cut-short": Repository(adapter(seed, weights=pack(arrays_of(seed=seed))[:-9])),
        "not-json": Repository(adapter(seed) | {CONFIG: b"[" * 5000}),
        "nan": Repository(adapter(seed, weights=pack(nan))),
    }


LATE = {"nan"}
"""Broken kinds that only the numbers tell: they fit by their header."""


def made(count: int) -> dict[str, Repository]:
    """`count` repositories: nine of ten sound, each of the others broken in its own way."""
    repositories: dict[str, Repository] = {}
    kinds: Iterator[tuple[str, Repository]] = iter(())
    for n in range(count):
        if n % 10 == 9:
            kind = next(kinds, None)
            if kind is None:
                kinds = iter(broken(n).items())
                kind = next(kinds)
            repositories[f"bob/{kind[0]}-{n}"] = kind[1]
            continue
        task = TASKS[n % len(TASKS)]
        words = f"Writes {task} of kind {n} about the thing called item{n}."
        card = None if n % 7 == 3 else EVIL if n % 7 == 4 else words
        shown = (f"write {task} number {n}", f"more {task} of item{n}") if n % 7 == 5 else ()
        files = adapter(n, card=card, examples=shown)
        repositories[f"ada/{task}-{n}"] = Repository(files, tags=["license:mit"])
    for n, one in enumerate(repositories.values()):
        one.downloads = count - n
    return repositories
