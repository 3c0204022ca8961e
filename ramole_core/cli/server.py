"""A client of a running server, in place of a local model.

It has the names of `Ramole` that the commands `generate`, `chat`, `batch`, `retrieve`, `list`,
`add` and `remove` use. A page on this data folder is found by itself (`running_page.py`), and what
is added there stays; at any other server the calls are a session's, and a file here keeps its
secret, so that the next command still has its uploads.
"""

import json
import math
import secrets
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

import numpy as np

from ramole_core.answer import Fitting, Generation, Step
from ramole_core.errors import Busy, RamoleError
from ramole_core.evidence import Evidence
from ramole_core.facts import asked_fields
from ramole_core.pool.files import choose
from ramole_core.pool.sources import files_dropped, files_of_folder, open_plain
from ramole_core.request import Request
from ramole_core.retrieval import Hit
from ramole_core.whole_file import locked, replacing

if TYPE_CHECKING:
    import httpx

SESSIONS = "sessions.json"
"""File in the data folder: this user's secret at each server."""
OPERATOR_HEADER, SESSION_HEADER = "x-ramole-operator", "x-ramole-session"
CONNECT_SECONDS, SILENT_SECONDS = 5.0, 600.0
BUSY = "The server is busy"
"""Start of a busy server's sentence."""


class Unreachable(RamoleError):
    """No server answers there, or it refuses the login: no other call can succeed either."""


class Server:
    """A client of a running page. Raises RamoleError, one sentence, for any failure: Busy where a
    retry may succeed, Unreachable where no call can."""

    def __init__(self, url: str, *, data_dir: Path, key: str = "", auth: str | None = None):
        """`key` makes the caller its operator; `auth`, `user:password`, logs in where the address
        has no login itself."""
        import httpx

        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RamoleError(f"--url {url} is no address; give one such as http://127.0.0.1:7860.")
        said = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        words = said if parts.username else auth
        self.url = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
        self.operator = bool(key)
        header = {OPERATOR_HEADER: key} if key else {SESSION_HEADER: _secret(data_dir, self.url)}
        self._http = httpx.Client(
            base_url=f"{self.url.rstrip('/')}/",
            headers=header,
            timeout=httpx.Timeout(SILENT_SECONDS, connect=CONNECT_SECONDS),
            follow_redirects=True,
            trust_env=parts.hostname not in ("127.0.0.1", "localhost", "::1"),
        )
        self._words, self._logging_in, self._logged_in = words, threading.Lock(), False

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def stream(
        self, request: Request, *, fitting: Callable[[Fitting], None] = lambda how: None
    ) -> Generator[Step, None, Generation]:
        """The answer as it grows; the generator's value is the whole of it, without a trace."""
        said = {**asked_fields(request), "trace": None}
        text, grown, told = "", "", {}
        for answer in self._outputs("ask", {k: v for k, v in said.items() if v is not None}):
            with self._one_sentence():
                grown, told = str(answer[0]), dict(answer[1])
                found = told.get("fitting")
                how = _fitting(request, found) if isinstance(found, dict) else None
            if how is not None:
                fitting(how)
            if len(grown) > len(text):
                yield Step(-1, grown[len(text) :], None)
                text = grown
        if "finish_reason" not in told:
            raise Unreachable(f"The server at {self.url} ended in the middle of an answer.")
        with self._one_sentence():
            return _generation(request, grown, told)  # it may be shorter than a picture before

    def retrieve(
        self, text: str, k: int = 3, exclude: Sequence[str] = (), owner: str | None = None
    ) -> list[Hit]:
        """The nearest adapters."""
        with self._one_sentence():
            found = self._last("retrieve", {"text": text, "k": k, "exclude": list(exclude)})
            return [Hit(one["name"], one["score"]) for one in found]

    def cards(self) -> list[dict]:
        """The result of `/list_adapters`."""
        with self._one_sentence():
            return [dict(card) for card in self._last("list_adapters", {})]

    def add(
        self, source: str | Sequence[str], *, name: str | None, examples: Sequence[str] | None
    ) -> dict:
        """Upload a folder, a zip or the files of an adapter; the result of `/add_adapter`."""
        with tempfile.TemporaryDirectory(prefix="ramole-add-") as folder:
            sources = [source] if isinstance(source, str) else source
            file, notes = _packed(sources, Path(folder))
            with self._one_sentence(), file.open("rb") as opened:
                stored = self._post("gradio_api/upload", files={"files": (file.name, opened)})
                path = stored.json()[0]
        said = {"file": {"path": path, "meta": {"_type": "gradio.FileData"}}, "name": name}
        if examples is not None:
            said["examples"] = list(examples)
        with self._one_sentence():
            card = self._last("add_adapter", {k: v for k, v in said.items() if v is not None})
            return {**card, "notes": [*notes, *card["notes"]]}

    def remove(self, name: str) -> None:
        """Remove an adapter that was added there."""
        with self._one_sentence():
            self._last("remove_adapter", {"name": name})

    def _last(self, endpoint: str, said: Mapping[str, object]):
        """A call's last output; inside `_one_sentence`."""
        return list(self._outputs(endpoint, said))[-1][0]

    def _outputs(self, endpoint: str, said: Mapping[str, object]) -> Iterator[list]:
        """The outputs of a call each time they change."""
        with self._one_sentence():
            event = self._post(f"gradio_api/call/v2/{endpoint}", json=dict(said)).json()["event_id"]
            with self._http.stream("GET", f"gradio_api/call/{endpoint}/{event}") as events:
                kind = ""
                for line in events.iter_lines():
                    word, _, rest = line.partition(": ")
                    if word == "event":
                        kind = rest
                    elif word == "data" and kind == "error":
                        raise _refusal(_sentence(json.loads(rest)))
                    elif word == "data" and kind in ("generating", "complete"):
                        if outputs := json.loads(rest):
                            yield outputs

    def _post(self, path: str, **said) -> "httpx.Response":
        answer = self._http.post(path, **said)
        if answer.status_code == 401 and self._words:
            with self._logging_in:
                if not self._logged_in:
                    user, _, password = self._words.partition(":")
                    self._http.post("login", data={"username": user, "password": password})
                    self._logged_in = True
            answer = self._http.post(path, **said)
        answer.raise_for_status()
        return answer

    @contextmanager
    def _one_sentence(self) -> Iterator[None]:
        """Translate HTTP errors inside, and those of reading what is no answer, to one sentence."""
        import httpx

        try:
            yield
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            if status == 401:
                raise Unreachable(
                    f"The server at {self.url} asks for a password, or another one; give it as "
                    "--url http://user:password@host:port."
                ) from None
            with suppress(ValueError, httpx.HTTPError):
                error.response.read()
                said = _sentence(error.response.json())
                raise (Busy(said) if status in (429, 503) else _refusal(said)) from None
            raise RamoleError(f"The server at {self.url} answers with status {status}.") from None
        except httpx.HTTPError as error:
            raise Unreachable(
                f"No server answers at {self.url} ({type(error).__name__}); start one, or leave "
                "--url out."
            ) from None
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise Unreachable(f"What listens at {self.url} is no RAMoLE server.") from None


def _refusal(sentence: str) -> RamoleError:
    """The error of a server's sentence."""
    return Busy(sentence) if sentence.startswith(BUSY) else RamoleError(sentence)


def _sentence(said: object) -> str:
    """The sentence in a server's error."""
    if isinstance(said, dict):
        said = said.get("error") or said.get("detail") or said.get("message")
    return str(said) if said else "The server refused it, and does not say why."


def _packed(sources: Sequence[str], folder: Path) -> tuple[Path, list[str]]:
    """One zip of the named paths and notes: a zip as it is, or the used files of a folder or of
    those named; raises AdapterRefused."""
    import zipfile

    paths = [Path(one) for one in sources]
    for path in paths:
        if str(path).startswith("hf:"):
            raise RamoleError(
                f"{path} cannot be asked of a server; add a folder or a zip, or stop the server."
            )
        if not path.exists():
            raise RamoleError(f"{path} is not there; give a folder, a zip, or the two files.")
    if len(paths) == 1 and paths[0].is_file() and paths[0].suffix.lower() == ".zip":
        return paths[0], []
    if len(paths) == 1 and paths[0].is_dir():
        name, files = files_of_folder(paths[0])
    else:
        name, files = paths[0].absolute().parent.resolve().name, files_dropped(paths)
    used, notes = choose(files)
    file = folder / f"{name}.zip"
    with zipfile.ZipFile(file, "w", strict_timestamps=False) as made:
        for one in used:
            with open_plain(files[one]):  # a pipe is refused, not waited for
                made.write(files[one], one)
    return file, notes


def _secret(data_dir: Path, url: str) -> str:
    """This user's secret at a server, kept for the next command."""
    file = data_dir / SESSIONS
    known: dict[str, str] = {}
    with ExitStack() as held:
        with suppress(OSError):  # a folder that cannot be written to keeps nothing
            held.enter_context(locked(file))
        with suppress(OSError, ValueError, RecursionError):
            said = json.loads(file.read_text(encoding="utf-8"))
            if isinstance(said, dict):
                known = {place: word for place, word in said.items() if isinstance(word, str)}
        if url not in known:
            known[url] = secrets.token_urlsafe(24)
            with suppress(OSError), replacing(file) as part:
                part.touch(mode=0o600)
                part.write_text(json.dumps(known), encoding="utf-8")
    return known[url]


def _fitting(request: Request, told: Mapping) -> Fitting:
    weights = told["weights"]
    return Fitting(
        request.method,
        tuple(one["name"] for one in weights),
        (),
        told["step"],
        told["steps"],
        tuple(one["weight"] for one in weights),
        told["loss"],
        told["start"],
        0.0,
    )


def _generation(request: Request, text: str, told: Mapping) -> Generation:
    """An answer of `/ask` as a Generation."""
    known = {one.name for one in fields(Evidence)}
    evidence = told.get("evidence")
    used = told["adapters"]
    dropped = told.get("dropped_turns")
    return Generation(
        text=text,
        adapters=[one["name"] for one in used],
        scores=[math.nan if one["score"] is None else one["score"] for one in used],
        trace=None,
        finish_reason=told["finish_reason"],
        prompt_tokens=told["prompt_tokens"],
        new_tokens=told["new_tokens"],
        seconds=told["seconds"] or 0.0,
        first_token_seconds=told["first_token_seconds"] or 0.0,
        extra={"dropped_turns": float(dropped)} if dropped else {},
        evidence=evidence and Evidence(**{k: v for k, v in evidence.items() if k in known}),
        fitted=_fitting(request, told["fitted"]) if told.get("fitted") else None,
        notes=tuple(told.get("notes", ())),
        method=told["method"],
        weights=tuple(told["weights"]) if told.get("weights") else None,
        effects=_numbers(told.get("effects")),
        logprob=_numbers(told.get("logprob")),
        base_logprob=_numbers(told.get("base_logprob")),
    )


def _numbers(said: object) -> np.ndarray | None:
    return None if said is None else np.array(said, np.float32)
