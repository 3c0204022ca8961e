"""Many visitors of a real server, some of them invented: nobody takes what all others need."""

import asyncio
import base64
import json
from pathlib import Path

import httpx
import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError

from tests.page.test_api import speak_mcp
from tests.support.pool_fakes import write_adapter, zipped
from tests.support.serving import Server, client_of, fake
from ui.session.presence import IDLE_SECONDS

EVIL, HOME = "203.0.113.9", "198.51.100.7"


class Caller:
    """Somebody without a browser or gradio_client, who makes up a session for each call."""

    def __init__(self, server: Server, address: str = ""):
        self.url = f"{server.url}/gradio_api"
        self.http = httpx.Client(timeout=60)
        self.headers = {"x-forwarded-for": f"1.2.3.4, {address}"} if address else {}
        config = self.http.get(f"{server.url}/config", headers=self.headers).json()
        self.numbers = {d["api_name"]: d["id"] for d in config["dependencies"]}

    def call(self, name: str, session: str, *data: object) -> dict:
        """The last message of the queue about this call."""
        said = {"data": data, "fn_index": self.numbers[name], "session_hash": session}
        self.http.post(f"{self.url}/queue/join", json=said, headers=self.headers)
        address = f"{self.url}/queue/data?session_hash={session}"
        with self.http.stream("GET", address, headers=self.headers) as stream:
            for line in stream.iter_lines():
                told = json.loads(line.removeprefix("data:")) if line else {}
                if told.get("msg") == "process_completed":
                    return told
        raise AssertionError("The stream ended without an answer.")

    def upload(self, file: Path, session: str) -> str:
        """Empty, or the sentence that refuses it."""
        with file.open("rb") as opened:
            sent = self.http.post(f"{self.url}/upload", files={"files": opened})
        stored = {"path": sent.json()[0], "meta": {"_type": "gradio.FileData"}}
        told = self.call("add_adapter", session, stored, None, None)
        return "" if told["success"] else told["output"]["error"]


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("made")
    made = [write_adapter(folder / f"made{n}", rank=2, seed=50 + n) for n in range(10)]
    return [zipped(one, one.with_suffix(".zip")) for one in made]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # mcp renames its own client function
def test_invented_sessions_of_one_address_share_the_room_of_four_over_the_page_and_mcp(
    server, archives
):
    uploads, before = server.log.parent / "data" / "uploads", server.log.read_text()
    evil, home = Caller(server, EVIL), Caller(server, HOME)
    told = [evil.upload(file, f"invented{n}") for n in range(4) for file in archives]
    assert told == [""] * 40 and len(list(uploads.glob("*/made*"))) == 40
    assert "from your address may come to 40 adapters" in evil.upload(archives[0], "a fifth")
    data = base64.b64encode(archives[0].read_bytes()).decode()
    add = ("add_adapter", {"file": f"data:application/zip;base64,{data}", "name": "a"})

    def over_mcp(address: str):
        said = {"x-ramole-session": f"a secret of {address}", "x-forwarded-for": address}
        return asyncio.run(speak_mcp(server.url, [add], **said))[1][0]

    refused = over_mcp(EVIL)
    assert refused.isError and "from your address" in refused.content[0].text
    assert home.upload(archives[0], "an honest one") == "" and not over_mcp(HOME).isError
    assert home.call("retrieve", "an honest one", "where", 1, None)["success"]
    assert "Traceback" not in server.log.read_text()[len(before) :]


def test_where_all_is_taken_silent_sessions_make_room_and_living_ones_do_not(tmp_path, archives):
    clock, said = tmp_path / "clock", {"max_adapters": 2, "trusted_proxies": "127.0.0.1"}
    clock.touch()

    def later(seconds: int) -> None:
        clock.write_bytes(bytes(clock.stat().st_size + seconds))

    with fake(tmp_path, variables={"clock": clock}, **said) as server:
        evil, home = Caller(server, EVIL), Caller(server, HOME)
        ann = client_of(server.url)
        ann.predict(handle_file(str(archives[0])), name="anns", api_name="/add_adapter")
        assert evil.upload(archives[1], "invented") == ""
        assert "no room left" in home.upload(archives[2], "an honest one")
        later(IDLE_SECONDS - 1)
        ann.predict("hello", api_name="/retrieve")  # any call is a sign of life
        assert "no room left" in home.upload(archives[2], "an honest one")
        later(1)
        assert home.upload(archives[2], "an honest one") == ""
        names = [card["name"] for card in ann.predict(api_name="/list_adapters")]
        assert names == ["anns"]
        assert len(list((tmp_path / "data" / "uploads").glob("*/*"))) == 2
        with pytest.raises(AppError, match="no room left"):
            other = client_of(server.url)
            other.predict(handle_file(str(archives[3])), api_name="/add_adapter")
        ann.close()
        other.close()
