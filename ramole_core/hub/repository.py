"""Read a repository's card before its weights: words, example prompts, fit.

Of the weights only the header comes: names and shapes of the tensors, judged as an upload's are.
"""

import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO

from ramole_core.errors import AdapterRefused
from ramole_core.hub.client import HubClient, Reply, Unreachable
from ramole_core.hub.register import Listed
from ramole_core.pool.card import VECTOR_EXAMPLES, Limits
from ramole_core.pool.config import CONFIG, MAX_CONFIG
from ramole_core.pool.examples_and_readme import EXAMPLES, README, parse_examples, parse_readme
from ramole_core.pool.files import too_large
from ramole_core.pool.header import MAX_HEADER
from ramole_core.pool.hub import choose_files
from ramole_core.pool.inspection import WEIGHTS, Shapes, check_ranks, match_pairs

HEADER_BYTES = 2**16
"""Bytes of the weights that are requested first; most headers are shorter."""
MAX_CARD_BYTES = 2**18
"""Bytes of a README.md or examples.jsonl; more of it is not read."""
MAX_EXAMPLES = 2**14
"""Characters of all examples of one adapter that are kept."""
_REPO = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
_SHA = re.compile(r"[0-9a-f]{40}")
_LICENCE = re.compile(r"license:([\w.+-]{1,60})", re.ASCII)


def known_by(row: Mapping[str, object]) -> tuple[str, str] | None:
    """Repository and commit of a row of the Hub's list; None where it has neither."""
    repo, sha = row.get("id"), row.get("sha")
    if not isinstance(repo, str) or not isinstance(sha, str):
        return None
    sound = _REPO.fullmatch(repo) and _SHA.fullmatch(sha) and ".." not in repo
    return (repo, sha) if sound else None


def read_repository(
    row: Mapping[str, object], client: HubClient, *, name: str, shapes: Shapes, limits: Limits
) -> Listed:
    """Read all that is known before the weights; what cannot fit is refused with the reason.

    Raises Unreachable where the Hub does not answer.
    """
    known = known_by(row)
    assert known is not None
    repo, sha = known
    tags = [found[1] for tag in _texts(row.get("tags")) if (found := _LICENCE.fullmatch(tag))]
    licence = tags[0] if tags else None
    files = [_text(file.get("rfilename")) for file in _objects(row.get("siblings"))]
    one = Listed(repo, sha, name, licence=licence, downloads=count_in(row))
    size = 0
    try:
        if row.get("gated"):
            raise _gated(repo)
        choose_files(repo, dict.fromkeys(files, 0), limits)
        config = _whole(client.begin(repo, sha, CONFIG, most=MAX_CONFIG + 1), repo, CONFIG)
        head = _whole(client.begin(repo, sha, WEIGHTS, most=HEADER_BYTES), repo, WEIGHTS)
        size = head.size
        if size > limits.bytes:
            raise too_large(limits)
        header = BytesIO(_header(head, client, repo, sha))
        _, pairs = match_pairs(config.data, header, size, shapes=shapes)
        rank = check_ranks(pairs, limits=limits)
    except AdapterRefused as refusal:
        return replace(one, bytes=size, verdict="refused", reason=str(refusal))
    read = {}
    for file in (README, EXAMPLES):
        reply = client.begin(repo, sha, file, most=MAX_CARD_BYTES) if file in files else None
        read[file] = reply.data if reply is not None and reply.found else b""
    said, description, _ = parse_readme(_whole_characters(read[README]))
    return replace(
        one,
        bytes=size,
        rank=rank,
        licence=licence or said,
        description=description,
        examples=_examples(read[EXAMPLES], row.get("cardData")),
    )


def count_in(row: Mapping[str, object]) -> int:
    """Return the Hub's number of downloads."""
    count = row.get("downloads")
    return count if type(count) is int and 0 <= count < 2**53 else 0


def _header(head: Reply, client: HubClient, repo: str, sha: str) -> bytes:
    """Read the whole header, where it is longer than the first bytes."""
    if len(head.data) < 8:
        return head.data
    length = min(8 + struct.unpack("<Q", head.data[:8])[0], 8 + MAX_HEADER, head.size)
    if length <= len(head.data):
        return head.data[:length]
    start = len(head.data)
    rest = _whole(client.begin(repo, sha, WEIGHTS, most=length - start, start=start), repo, WEIGHTS)
    return head.data + rest.data


def _whole(reply: Reply, repo: str, file: str) -> Reply:
    """The reply, where it has the file; else raises why not."""
    if reply.found:
        return reply
    if reply.status in (401, 403):
        raise _gated(repo)
    if reply.status == 404:
        raise AdapterRefused(
            f"The Hub lists {file} of {repo} and does not have it; its owner may mend that."
        )
    raise Unreachable(f"The Hub does not give {file} of {repo} now (status {reply.status}).")


def _gated(repo: str) -> AdapterRefused:
    return AdapterRefused(
        f"{repo} is given to those alone whom its owner let in; log in with huggingface_hub and "
        f"add hf:{repo} by name."
    )


def _examples(lines: bytes, card: object) -> tuple[str, ...]:
    """Its example inputs: examples.jsonl, else the prompts of its card's widget."""
    kept, _ = parse_examples(_whole_characters(lines[: lines.rfind(b"\n") + 1] or lines))
    if not kept and isinstance(card, dict):
        texts = [_prompt(one) for one in _objects(card.get("widget"))]
        kept, _ = parse_examples("\n".join(json.dumps({"text": t}) for t in texts if t).encode())
    held, room = [], MAX_EXAMPLES
    for text in kept[:VECTOR_EXAMPLES]:
        room -= len(text)
        if room >= 0:
            held.append(text)
    return tuple(held)


def _prompt(widget: Mapping[str, object]) -> str:
    """The text of an entry of `widget:` on a card, or its last message of a user."""
    said = [one for one in _objects(widget.get("messages")) if one.get("role") == "user"]
    return _text(widget.get("text")) or (_text(said[-1].get("content")) if said else "")


def _whole_characters(data: bytes) -> bytes:
    """Drop half a character at a cut."""
    return data.decode("utf-8", "ignore").encode() if len(data) == MAX_CARD_BYTES else data


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> Sequence[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _objects(value: object) -> Sequence[Mapping[str, object]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
