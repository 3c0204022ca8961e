"""The command line beside a page that runs: it asks the page, found by itself or by --url."""

import io
import json
import os
import re
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import httpx
import pytest

from ramole_core import RamoleError, Request
from ramole_core.cli import main
from ramole_core.cli.server import Server
from ramole_core.pool.disk import WriterLock
from ramole_core.running_page import FILE, RunningPage, announce_page, find_page, withdraw_page
from tests.support.pool_fakes import write_adapter, write_sample, zipped
from tests.support.serving import fake


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    write_sample(root / "adapters", "squad", rank=5, seed=1, examples=["where is the cat"])
    write_sample(root / "adapters", "dart", rank=2, seed=2, examples=["list the rows"])
    with fake(root, adapters_dir=root / "adapters", data_dir=root / "data") as running:
        while not (root / "data" / FILE).exists():  # written once it listens
            time.sleep(0.02)
        yield running, root


@pytest.fixture
def ask(server, monkeypatch, capsys, tmp_path):
    """Run a command, with `elsewhere` on a data folder that the page has nothing of."""
    monkeypatch.setattr("ramole_core.ramole.Ramole", None)  # no model, no pool of one's own

    def run(*words: str, elsewhere: bool = False):
        data = tmp_path if elsewhere else server[1] / "data"
        monkeypatch.setenv("RAMOLE_DATA_DIR", str(data))
        if elsewhere:
            monkeypatch.setenv("RAMOLE_URL", server[0].url)
        else:
            monkeypatch.delenv("RAMOLE_URL", raising=False)
        status = main(list(words))
        return status, *capsys.readouterr()

    return run


@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_a_page_can_be_asked(ask, elsewhere):
    status, out, err = ask("generate", "where is the dog", "--k", "1", elsewhere=elsewhere)
    assert (status, out) == (0, "where is the dog\n")
    assert ("Asking the page at http://127.0.0.1" in err) is not elsewhere
    assert re.search(r"^squad [01]\.\d\d; 4 tokens in", err, re.M)
    words = ("generate", "a b", "--adapter", "dart", "--method", "mixture", "--json")
    words += ("--ignore-eos",)  # which changes an answer's end alone
    answer = json.loads(ask(*words, elsewhere=elsewhere)[1])
    assert answer["text"] == "a b" and answer["method"] == "mixture"
    assert answer["adapters"] == ["dart"] and answer["similarities"] == [None]
    assert answer["server"].startswith("http://127.0.0.1:")
    status, out, _ = ask("retrieve", "where is the cat", "--json", elsewhere=elsewhere)
    assert json.loads(out)["adapters"][0] == "squad"
    assert {"squad", "dart"} <= set(ask("list", elsewhere=elsewhere)[1].split())


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_file_of_prompts_is_asked_of_the_page_and_goes_on(ask, elsewhere, tmp_path):
    prompts = [f"row {n} of many" for n in range(20)]
    rows = [{"prompt": prompt} for prompt in prompts] + [{"prompt": "x", "adapters": ["squat"]}]
    file, out = tmp_path / "rows.jsonl", tmp_path / "answers.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    words = ("batch", str(file), "--out", str(out), "--k", "1", "--json")
    status, said, err = ask(*words, elsewhere=elsewhere)
    records = sorted(map(json.loads, out.read_text().splitlines()), key=lambda one: one["index"])
    assert [one["text"] for one in records[:-1]] == prompts and status == 2
    assert "did you mean 'squad'" in records[-1]["error"] and "Line 21: " in err
    summary = json.loads(said)
    assert (summary["answered"], summary["refused"]) == (20, 1) and "127.0.0.1" in summary["server"]
    kept = [line for line in out.read_text().splitlines() if "error" not in json.loads(line)][:7]
    out.write_text("\n".join(kept) + "\n")
    status, said, err = ask(*words, "--resume", elsewhere=elsewhere)
    assert json.loads(said)["answered"] == 13 and "7 of 21 rows have their answer already" in err
    assert len(out.read_text().splitlines()) == 21


@pytest.mark.parametrize("text", ["[1]", "null", "5", '"ab"', "{", "[" * 9999, '{"URL": 5}'])
def test_a_broken_file_of_secrets_is_written_anew(ask, server, tmp_path, text):
    file = tmp_path / "sessions.json"
    file.write_text(text.replace("URL", server[0].url))
    assert ask("list", elsewhere=True)[0] == 0
    (secret,) = json.loads(file.read_text()).values()
    assert isinstance(secret, str) and len(secret) == 32
    file.write_text(json.dumps({"http://other": "kept", "http://bad": None}))
    assert ask("list", elsewhere=True)[0] == 0
    known = json.loads(file.read_text())
    assert known["http://other"] == "kept" and "http://bad" not in known and len(known) == 2


def test_chat_keeps_its_turns(ask, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("a b\n/help\nc d\n"))
    status, out, err = ask("chat", "--json")
    turns = json.loads(out)["turns"]
    assert [turn["text"] for turn in turns] == ["a b", "c d"] and "/help says this" in err
    assert turns[1]["history"][0][:2] == ["a b", "a b"]


def test_what_the_operator_adds_is_everybodys_and_what_a_session_adds_its_own(ask, tmp_path):
    folder = write_adapter(tmp_path / "mine", rank=4, seed=9)
    assert ask("add", str(folder), "--name", "mine")[1].startswith("Added mine: rank 4")
    archive = str(zipped(write_adapter(tmp_path / "other", rank=3, seed=8), tmp_path / "other.zip"))
    status, out, err = ask("add", archive, elsewhere=True)
    assert status == 0 and "Added other" in out and "goes two hours after" in err
    assert {"mine", "other"} <= set(ask("list", elsewhere=True)[1].split())
    names = set(ask("list")[1].split())
    assert "mine" in names and "other" not in names
    assert "session's to change" in ask("remove", "mine", elsewhere=True)[2]
    assert ask("remove", "other", elsewhere=True)[:2] == (0, "Removed other.\n")
    assert ask("remove", "mine")[:2] == (0, "Removed mine.\n")


def put_beside(folder, beside):
    """Write what may lie beside an adapter's files."""
    if beside == "other files":
        for n in range(70):
            (folder / f"note-{n}.txt").write_text("x")
    elif beside == "a file of 1970":
        os.utime(folder / "adapter_config.json", (0, 0))
    elif beside.startswith("logs/"):
        with (folder / beside.removeprefix("logs/")).open("wb") as log:
            log.truncate(70 * 2**20)


@pytest.mark.parametrize(
    ("beside", "note"),
    [
        ("nothing, in an outer folder", ""),
        ("other files", "'note-0.txt', 'note-1.txt'"),
        ("logs/train.tar.gz", "'train.tar.gz'"),
        ("a file of 1970", ""),
    ],
)
def test_a_page_gets_the_used_files_of_a_folder_and_the_others_are_named(
    ask, tmp_path, beside, note
):
    folder = write_adapter(tmp_path / "outer" / "sums", rank=4, seed=7)
    put_beside(folder, beside)
    source = folder.parent if "outer" in beside else folder
    status, out, err = ask("add", str(source))
    assert status == 0, err
    assert out.startswith("Added sums: rank 4")
    assert (f"Note: Not used: {note}" in out) == bool(note)
    assert ask("remove", "sums")[0] == 0


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.safetensors"])
def test_a_folder_that_a_pool_refuses_is_not_sent_to_a_page(ask, tmp_path, name):
    """Pickled weights beside the others; weights that are a link to nowhere."""
    folder = write_adapter(tmp_path / "sums", rank=4, seed=7)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / "nowhere")
    if name.endswith(".bin"):
        (tmp_path / "nowhere").write_bytes(b"x")
    status, out, err = ask("add", str(folder))
    assert status == 2 and not out
    sentence = "can run code" if name.endswith(".bin") else "is a link that leads nowhere"
    assert f"{name} {sentence}" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["generate", "hi", "--trace", "x.npz"], "--trace cannot be asked of the server at"),
        (["list", "--owner", "me"], "--owner cannot be asked"),
        (["list", "--full"], "--full cannot be asked"),
        (["batch", "-", "--owner", "me"], "--owner cannot be asked"),
        (["generate", "hi", "--adapter", "squat"], "did you mean 'squad'"),
        (["generate", "hi", "--option", "warmt=1"], "no option 'warmt'"),
        (["add", "/nonexistent"], "/nonexistent is not there"),
        (["add", "hf:a/b"], "cannot be asked of a server"),
        (["--url", "http://127.0.0.1:9", "list"], "No server answers at http://127.0.0.1:9"),
        (["--url", "ftp://x", "list"], "is no address"),
        (["--url", "http://127.0.0.1:9", "methods"], "methods works on this machine's files"),
    ],
)
def test_what_cannot_be_asked_is_a_sentence(ask, words, sentence):
    status, out, err = ask(*words)
    assert status == 2 and sentence in err.splitlines()[-1] and not out


def test_a_password_stands_in_the_address_as_in_any_url(tmp_path, monkeypatch, capsys):
    write_sample(tmp_path / "adapters", "squad", rank=5, seed=1, examples=["where is the cat"])
    monkeypatch.setenv("RAMOLE_DATA_DIR", str(tmp_path / "elsewhere"))
    with fake(tmp_path, auth="ann:a p@ss:word") as running:
        place = running.url.removeprefix("http://")
        for words in ("", "ann:wrong@"):
            assert main(["--url", f"http://{words}{place}", "list"]) == 2
            assert "asks for a password, or another one" in capsys.readouterr().err
        assert main(["--url", f"http://ann:a%20p%40ss%3Aword@{place}", "list"]) == 0
        assert "squad" in capsys.readouterr().out
        assert main(["--url", f"http://ann:a%20p%40ss%3Aword@{place}", "generate", "a b"]) == 0
        assert capsys.readouterr().out == "a b\n"


def test_a_page_is_believed_while_it_lives(tmp_path):
    assert find_page(tmp_path) is None
    announce_page(tmp_path, "http://127.0.0.1:1/", "key")
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert find_page(tmp_path) is None, "nobody holds the folder"
    lock = WriterLock(tmp_path)
    assert find_page(tmp_path) == RunningPage("http://127.0.0.1:1/", os.getpid(), "key")
    (tmp_path / FILE).write_text('{"url": "x", "pid": 999999999}')
    assert find_page(tmp_path) is None, "it was killed, and another process has the folder"
    (tmp_path / FILE).write_text("{")
    assert find_page(tmp_path) is None
    withdraw_page(tmp_path)
    lock.close()
    announce_page(tmp_path / "nowhere", "x")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (200, b"hello", "is no RAMoLE server"),
        (401, b"{}", "asks for a password, or another one; give it as --url http://user:password@"),
        (500, b"hello", "answers with status 500"),
        (429, b'{"detail": "Too many."}', "Too many."),
    ],
)
def test_a_server_that_refuses_or_is_none_is_a_sentence(ask, status, body, sentence):
    class Other(BaseHTTPRequestHandler):
        def do_POST(self):  # noqa: N802
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as other:
        Thread(target=other.serve_forever, daemon=True).start()
        ended, _, err = ask("--url", f"http://127.0.0.1:{other.server_port}", "list")
        other.shutdown()
    assert ended == 2 and sentence in err


CALLS = {
    "retrieve": lambda server, file: server.retrieve("a"),
    "cards": lambda server, file: server.cards(),
    "add": lambda server, file: server.add(str(file), name=None, examples=None),
    "stream": lambda server, file: list(server.stream(Request("a"))),
}
STREAMS = ("", "[]", "{", '["hello"]', '{"a": 1}', "5", "[5, 5]", '["a", "b"]', "[" * 9999)
STREAMS += ('[["a"], {}]', '["a", {"fitting": {}}]')


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("data", STREAMS)
def test_an_answer_of_another_shape_is_a_sentence(tmp_path, monkeypatch, call, data):
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("upload"):
            return httpx.Response(200, json=[] if data == "[]" else ["path"])
        if request.method == "POST":
            return httpx.Response(200, json={"event_id": "1"})
        return httpx.Response(200, text=f"event: complete\ndata: {data}\n" if data else "")

    made, transport = httpx.Client, httpx.MockTransport(answer)
    monkeypatch.setattr(httpx, "Client", lambda **how: made(**how, transport=transport))
    server = Server("http://nowhere", data_dir=tmp_path)
    file = zipped(write_adapter(tmp_path / "ant", rank=2, seed=1), tmp_path / "ant.zip")
    with pytest.raises(RamoleError, match="is no RAMoLE server|in the middle of an answer"):
        CALLS[call](server, file)
    server.close()
